"""Layers with inputs, a call and the truth of it, as in `cases`: parameters, signal and state are the inputs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from ssm_core.layers import DSS, LMU, LRU, RTF, S4, S4D, S5, SSM, InputDependent, LinOSS, Mamba, Mamba2, Mamba3
from ssm_core.models import LanguageModel, Mamba2LM, Mamba3LM, MambaLM, SequenceModel

from . import truth_family, truth_layers, truth_mamba
from .cases import Case
from .examples import Draw

STEPS = {"dt_min": 0.05, "dt_max": 0.5}  # so that short sequences see the whole memory
ONCE = ("float64",)  # the dtype of layers that take long to compile


def parameters(layer: Any, seed: int = 0) -> dict[str, np.ndarray]:
    """Less regular than the first ones, as trained ones are."""
    generator = np.random.default_rng(seed + 1)
    first = layer.initial_parameters(seed, dtype=np.float64)
    return {name: p + 0.1 * generator.normal(size=p.shape) for name, p in first.items()}


def params_of(v: SimpleNamespace, layer: Any) -> dict[str, Any]:
    return {p.name: getattr(v, p.name) for p in layer.parameters()}


def state_of(layer: Any, batch: int, d: Draw) -> np.ndarray:
    shape = layer.state_shape(batch)
    return d.real(*shape) if layer.real_states else d.complex(*shape)


def truth_of(layer: Any, params: dict[str, Any], u: Any, state: Any, **more: Any) -> Any:
    """(y, last state) by a plain loop over time."""
    if isinstance(layer, S4D):
        return truth_layers.s4d(layer.options(), params, u, state, **more)
    return truth_family.run(layer.name, layer.options(), params, u, state, **more)


def layer_case(name: str, layer: Any, length: int = 9, mode: str = "auto") -> Case:
    def draw(d: Draw) -> dict[str, Any]:
        return parameters(layer) | {"u": d.real(2, length, layer.d_model), "state": state_of(layer, 2, d)}

    def call(v: SimpleNamespace) -> Any:
        return layer.apply(params_of(v, layer), v.u, state=v.state, return_state=True, mode=mode)

    def expected(v: SimpleNamespace) -> Any:
        return truth_of(layer, params_of(v, layer), v.u, v.state)

    return Case(f"layers.{layer.name}", name, draw, call, expected, terms=32 * length, half=(True, False))


def model_case(model: SequenceModel, length: int = 9) -> Case:
    block: Any = model.block()

    def expected(v: SimpleNamespace) -> Any:
        return truth_layers.sequence_model(model.options(), block.options(), params_of(v, model), v.u)

    return Case(
        "models.SequenceModel",
        str(model.pool),
        lambda d: parameters(model) | {"u": d.real(2, length, model.d_input)},
        lambda v: model.apply(params_of(v, model), v.u),
        expected,
        terms=64 * length,
    )


def gated_case(name: str, layer: InputDependent, length: int = 9, mode: str = "auto") -> Case:
    """A layer whose state is several arrays: each is an input by its name."""

    def draw(d: Draw) -> dict[str, Any]:
        return parameters(layer) | {"u": d.real(2, length, layer.d_model)} | states_of(layer, 2, d)

    def call(v: SimpleNamespace) -> Any:
        options = {"state": state_in(v, layer), "return_state": True, "mode": mode}
        y, state = layer.apply(params_of(v, layer), v.u, **options)
        return (y, *state)

    def expected(v: SimpleNamespace) -> Any:
        y, state = truth_mamba.run(layer.name, layer.options(), params_of(v, layer), v.u, state_in(v, layer))
        return (y, *state)

    half = (True, *(False for _ in layer.state_shapes(2)))
    return Case(f"layers.{layer.name}", name, draw, call, expected, ONCE, terms=64 * length, half=half)


def states_of(layer: InputDependent, batch: int, d: Draw) -> dict[str, np.ndarray]:
    """The arrays of a state, angles as they come out."""
    shapes = layer.state_shapes(batch).items()
    return {f"state_{n}": d.uniform(0, 6, *size) if n == "angles" else d.real(*size) for n, size in shapes}


def state_in(v: SimpleNamespace, layer: InputDependent) -> tuple[Any, ...]:
    return tuple(getattr(v, f"state_{name}") for name in layer.state_shapes(1))


def language_case(model: LanguageModel, length: int = 9) -> Case:
    block = model.block().options()

    def draw(d: Draw) -> dict[str, Any]:
        ids = d.generator.integers(0, model.vocab_size, (2, length))
        return language_parameters(model) | {"ids": ids}

    def expected(v: SimpleNamespace) -> Any:
        params = params_of(v, model)
        return truth_mamba.language_model(model.layer, model.options(), block, params, v.ids)[0]

    return Case(
        f"models.{model.name}", "untied" if not model.tied else "tied", draw,
        lambda v: model.apply(params_of(v, model), v.ids), expected, ONCE, terms=64 * length,
    )  # fmt: skip


def language_parameters(model: LanguageModel) -> dict[str, np.ndarray]:
    """Embeddings are not small once they are trained; the norms make much of what is."""
    found = parameters(model)
    return {name: (10 if "embeddings" in name else 1) * p for name, p in found.items()}


def small(**options: Any) -> S4D:
    return S4D(d_model=2, d_state=4, **STEPS, **options)


LAYER = tuple(layer_case(mode, small(), mode=mode) for mode in ("conv", "chunk", "scan"))
REAL_LAYER = layer_case("real_channels", small(real=True, init="real", channels=2, n_ssm=1))
FAMILY = (
    layer_case("chunk", S4(2, 4, init="legt", channels=2, n_ssm=1, **STEPS), mode="chunk"),
    layer_case("conv", SSM(2, 3, **STEPS), mode="conv"),
    layer_case("chunk", LMU(2, 4, theta=8), mode="chunk"),
    layer_case("conv", DSS(2, length=9, d_state=4, **STEPS), mode="conv"),
    layer_case("scan", S5(2, 4, output="half_glu", **STEPS), mode="scan"),
    layer_case("scan", LRU(2, 4), mode="scan"),
    layer_case("conv", RTF(2, 3, constraint="montel", n_ssm=1), mode="conv"),
    layer_case("im", LinOSS(2, 3, scheme="im"), mode="chunk"),
    layer_case("imex", LinOSS(2, 3), mode="scan"),
)
MODEL = model_case(SequenceModel(2, 3, d_model=2, n_layers=2, layer_options={"d_state": 4, **STEPS}))
HEADS = {"d_state": 4, "head_dim": 2, **STEPS}
GATED = (
    gated_case("scan", Mamba(2, 3, d_conv=3, **STEPS)),
    gated_case("chunk", Mamba2(2, d_conv=2, n_groups=2, chunk=4, **HEADS)),
    gated_case("chunk", Mamba3(2, chunk=4, **HEADS)),
    gated_case("rank", Mamba3(2, rank=2, out_norm=True, **HEADS), mode="scan"),
)
LANGUAGE = (
    language_case(LanguageModel(5, 2, 1, "Mamba", {"d_state": 3, **STEPS}, tied=False)),
    language_case(MambaLM(5, 2, 1, {"d_state": 3, **STEPS})),
    language_case(Mamba2LM(5, 2, 1, HEADS, tied=False)),
    language_case(Mamba3LM(5, 2, 1, HEADS)),
)
ALL = (*LAYER, REAL_LAYER, *FAMILY, MODEL, *GATED, *LANGUAGE)
