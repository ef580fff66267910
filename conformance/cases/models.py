"""Models of layers with inputs, a call and the truth of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from ssm_core.models import LanguageModel, Mamba2LM, Mamba3LM, MambaLM, SequenceModel

from ..examples import Draw
from ..truth import models as truth
from .functions import Case
from .instance import STEPS, parameters, params_of
from .layers import LAYERS

HEADS = {"d_state": 4, "head_dim": 2, **STEPS}
# Options of the blocks of models in tests, by their mixer.
BLOCKS: dict[str, dict[str, Any]] = {
    "S4D": {"d_state": 6, **STEPS},
    "Mamba": {"d_state": 3, **STEPS},
    "Mamba2": {"d_state": 3, "head_dim": 4, **STEPS},
    "Mamba3": {"d_state": 4, "head_dim": 4, **STEPS},
}
LANGUAGE_MODELS: tuple[type[LanguageModel], ...] = (MambaLM, Mamba2LM, Mamba3LM)


def sequence_truth(model: SequenceModel, v: SimpleNamespace, lengths: Any = None) -> np.ndarray:
    block: Any = model.block()
    arguments = (LAYERS[model.layer].run, model.options(), block.options(), params_of(v, model), v.u)
    return truth.sequence_model(*arguments, lengths)


def language_truth(model: LanguageModel, params: dict[str, Any], ids: Any, **cut: Any) -> Any:
    """Logits and the states of all blocks."""
    block = model.block().options()
    return truth.language_model(LAYERS[model.layer].run, model.options(), block, params, ids, **cut)


def language_parameters(model: LanguageModel) -> dict[str, np.ndarray]:
    """Embeddings are not small once they are trained; the norms make much of what is."""
    found = parameters(model)
    return {name: (10 if "embeddings" in name else 1) * p for name, p in found.items()}


def model_case(model: SequenceModel, length: int = 9) -> Case:
    return Case(
        "models.SequenceModel",
        str(model.pool),
        lambda d: parameters(model) | {"u": d.real(2, length, model.d_input)},
        lambda v: model.apply(params_of(v, model), v.u),
        lambda v: sequence_truth(model, v),
        terms=64 * length,
    )


def language_case(model: LanguageModel, length: int = 9) -> Case:
    def draw(d: Draw) -> dict[str, Any]:
        return language_parameters(model) | {"ids": d.generator.integers(0, model.vocab_size, (2, length))}

    return Case(
        f"models.{model.name}",
        "tied" if model.tied else "untied",
        draw,
        lambda v: model.apply(params_of(v, model), v.ids),
        lambda v: language_truth(model, params_of(v, model), v.ids)[0],
        ("float64",),  # they take long to compile
        terms=64 * length,
    )


MODEL = model_case(SequenceModel(2, 3, d_model=2, n_layers=2, layer_options={"d_state": 4, **STEPS}))
LANGUAGE = (
    language_case(LanguageModel(5, 2, 1, "Mamba", {"d_state": 3, **STEPS}, tied=False)),
    language_case(MambaLM(5, 2, 1, {"d_state": 3, **STEPS})),
    language_case(Mamba2LM(5, 2, 1, HEADS, tied=False)),
    language_case(Mamba3LM(5, 2, 1, HEADS)),
)
ALL = (MODEL, *LANGUAGE)

SMALL = {"vocab_size": 7, "d_model": 4}
RANKS = {"decay_rank": 2, "a_rank": 2, "v_rank": 2, "gate_rank": 2}
GRIFFIN = {"attention_options": {"heads": 1, "window": 3}, "block_types": ("recurrent", "attention")}
# Modules that are built in every framework, by name.
MODULES: dict[str, tuple[str, dict[str, Any]]] = {
    "LanguageModel": (
        "LanguageModel",
        {"vocab_size": 11, "d_model": 4, "n_layers": 1, "layer_options": BLOCKS["S4D"], "channel_mix": "gated_mlp"},
    ),
    "SequenceModel": (
        "SequenceModel",
        {"d_input": 4, "d_output": 3, "d_model": 4, "n_layers": 2, "layer_options": BLOCKS["S4D"]},
    ),
    "SequenceModel_Mamba3": (
        "SequenceModel",
        {
            "d_input": 4,
            "d_output": 3,
            "d_model": 4,
            "n_layers": 1,
            "layer": "Mamba3",
            "pool": "last",
            "layer_options": BLOCKS["Mamba3"],
        },
    ),
    "MambaLM": ("MambaLM", {"vocab_size": 7, "d_model": 4, "n_layers": 2, "layer_options": BLOCKS["Mamba"]}),
    "Mamba2LM_untied": (
        "Mamba2LM",
        {"vocab_size": 7, "d_model": 4, "n_layers": 1, "tied": False, "layer_options": BLOCKS["Mamba2"]},
    ),
    "HGRN2LM": ("HGRN2LM", {**SMALL, "n_layers": 2, "layer_options": {"heads": 2}, "mix_width": 5}),
    "RWKV4LM": ("RWKV4LM", {**SMALL, "n_layers": 1, "mix_width": 5}),
    "RWKV7LM": ("RWKV7LM", {**SMALL, "n_layers": 2, "layer_options": {"head_dim": 4, **RANKS}, "mix_width": 5}),
    "RecurrentGemmaLM": (
        "RecurrentGemmaLM",
        {
            **SMALL,
            "n_layers": 2,
            "mix_width": 5,
            **GRIFFIN,
        },
    ),
    "SaShiMi": (
        "SaShiMi",
        {**SMALL, "n_layers": 1, "layer": "S4D", "layer_options": BLOCKS["S4D"], "pool": (2,), "unet": True},
    ),
    "XLSTMLM": ("XLSTMLM", {**SMALL, "n_layers": 1, "layer_options": {"heads": 2}, "mix_width": 5}),
    "Mamba3LM": ("Mamba3LM", {"vocab_size": 7, "d_model": 4, "n_layers": 1, "layer_options": BLOCKS["Mamba3"]}),
}
