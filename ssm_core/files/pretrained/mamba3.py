"""Mamba-3, as mamba_ssm has it: in the layout of state-spaces, both ways.

Between the blocks of Mamba-3 there may be gated MLPs (d_intermediate), whose maps to the values and the gates are one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..._arrays.errors import OptionError
from ...models import LanguageModel, Mamba3LM
from ..stored import Stored
from . import mamba
from .architecture import Architecture, Config, is_size, registered
from .state_spaces import original

EPSILON = 1e-5  # of all norms of mamba_ssm
MULTIPLE = 128  # of the hidden features of its MLPs
_MIXER = {"x_map": "mimo_x", "z_map": "mimo_z", "out_map": "mimo_o"}
_PARTS = {"channel_norm": "norm2", "channel_mix": "mlp"}
_FUSED, _FIRST, _SECOND = ".mlp.fc1.weight", ".mlp.up.weight", ".mlp.gate.weight"


def their_name(name: str) -> str:
    """The name of one of our parameters in a checkpoint.

    >>> from ssm_core.files.pretrained.mamba3 import their_name
    >>> their_name("backbone.layers.0.mixer.B_norm_weight"), their_name("backbone.layers.0.mixer.x_map")
    ('backbone.layers.0.mixer.B_norm.weight', 'backbone.layers.0.mixer.mimo_x')
    """
    if not name.startswith("backbone.layers."):
        return name.replace("embeddings", "embedding")
    model, layers, i, part, own = name.split(".", 4)
    if part == "mixer":
        own = _MIXER.get(own, own.removesuffix("_weight") + ".weight" if own.endswith("_weight") else own)
    if part == "channel_mix":
        own = own.replace("down", "fc2")
    return ".".join((model, layers, i, _PARTS.get(part, part), own))


def prepared(c: Config, tensors: dict[str, Stored]) -> tuple[Config, dict[str, Stored]]:
    """The first map of the MLPs as the two that it is made of: the values, then the gates."""
    found: dict[str, Stored] = {}
    for name, x in tensors.items():
        if name.endswith(_FUSED):
            half, place = x.shape[0] // 2, name.removesuffix(_FUSED)
            found |= {f"{place}{_FIRST}": x.rows(0, half), f"{place}{_SECOND}": x.rows(half, x.shape[0] - half)}
        else:
            found[name] = x
    return c, found


def written(c: Config, tensors: dict[str, np.ndarray]) -> tuple[Config, dict[str, np.ndarray]]:
    """The inverse of `prepared`, with the config.json of mamba_ssm."""
    found = {}
    for name, x in tensors.items():
        if name.endswith(_FIRST):
            place = name.removesuffix(_FIRST)
            found[f"{place}{_FUSED}"] = np.concatenate([x, tensors[f"{place}{_SECOND}"]])
        elif not name.endswith(_SECOND):
            found[name] = x
    return original(c), found


def definition(c: Config, tied: bool) -> Mamba3LM:
    """The model of config.json."""
    several, width = c.get("is_mimo", False), c.get("d_intermediate", 0)
    rank = c.get("mimo_rank", 4) if several else 1
    if several and rank == 1:
        raise OptionError("is_mimo with mimo_rank = 1 has maps that the layer here has of several inputs a step alone.")
    if width != 0 and not is_size(width):
        raise OptionError(f"d_intermediate = {width!r} must be a whole number.")
    options = {
        "d_state": c.get("state_size", 128),
        "expand": c.get("expand", 2),
        "head_dim": c.get("head_dim", 64),
        "n_groups": c.get("n_groups", 1),
        "rank": rank,
        "rope_fraction": c.get("rope_fraction", 0.5),
        "A_floor": c.get("A_floor", 1e-4),
        "dt_min": c.get("time_step_min", 1e-3),
        "dt_max": c.get("time_step_max", 1e-1),
        "dt_floor": c.get("time_step_floor", 1e-4),
        "out_norm": c.get("is_outproj_norm", False),
        "epsilon": EPSILON,
        "chunk": c.get("chunk_size", 64),
    }
    mix = {"channel_mix": "gated_mlp", "mix_width": -(-width // MULTIPLE) * MULTIPLE} if width else {}
    return Mamba3LM(c["vocab_size"], c["hidden_size"], c["num_hidden_layers"], options, tied, EPSILON, **mix)


def config(model: LanguageModel) -> Config:
    """The inverse of `definition`."""
    block: Any = model.block()
    if not block.epsilon == model.epsilon == EPSILON:
        raise OptionError(
            f"mamba_ssm has epsilon = {EPSILON} in all norms, but the model has {model.epsilon} and its blocks have "
            f"{block.epsilon}."
        )
    if block.rope_fraction not in (0.5, 1.0):
        raise OptionError(f"mamba_ssm has rope_fraction = 0.5 or 1.0, not {block.rope_fraction}.")
    return {
        "d_intermediate": _width(model),
        "state_size": block.d_state,
        "expand": block.expand,
        "head_dim": block.head_dim,
        "n_groups": block.n_groups,
        "is_mimo": block.rank > 1,
        "mimo_rank": block.rank,
        "rope_fraction": block.rope_fraction,
        "A_floor": block.A_floor,
        "time_step_min": block.dt_min,
        "time_step_max": block.dt_max,
        "time_step_floor": block.dt_floor,
        "is_outproj_norm": block.out_norm,
        "chunk_size": block.chunk,
    }


def _width(model: LanguageModel) -> int:
    """The hidden features of the MLPs, 0 where there are none."""
    if model.channel_mix is None:
        return 0
    if model.channel_mix != "gated_mlp":
        raise OptionError(f"the format knows no channel_mix {model.channel_mix!r}: it has 'gated_mlp'.")
    mix: Any = model.repeated().mix()
    width: int = mix.maps()["up"][1]
    if width % MULTIPLE:
        raise OptionError(f"mix_width = {width} must be a multiple of {MULTIPLE}, as mamba_ssm makes it.")
    return width


MAMBA3 = registered(
    Architecture(
        model_type="mamba3",
        model="`Mamba3LM`",
        definition=definition,
        describes=lambda model: model.layer == "Mamba3",
        config=config,
        their_name=their_name,
        prepared=prepared,
        written=written,
        sizes=("state_size", "expand", "head_dim", "n_groups", "mimo_rank", "chunk_size"),
        numbers=("A_floor", "rope_fraction", *(name for name in mamba.NUMBERS if name.startswith("time_step"))),
        flags=("is_mimo", "is_outproj_norm"),
        other_names={"backbone.embeddings.weight": "backbone.embedding.weight"},
        entries=("d_intermediate",),
    )
)
