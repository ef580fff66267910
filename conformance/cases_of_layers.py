"""Layers with inputs, a call and the truth of it, as in `cases`: parameters, signal and state are the inputs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from ssm_core.layers import DSS, LMU, LRU, RTF, S4, S4D, S5, SSM, LinOSS, SequenceModel

from . import truth_family, truth_layers
from .cases import Case
from .examples import Draw

STEPS = {"dt_min": 0.05, "dt_max": 0.5}  # so that short sequences see the whole memory


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
        "layers.SequenceModel",
        str(model.pool),
        lambda d: parameters(model) | {"u": d.real(2, length, model.d_input)},
        lambda v: model.apply(params_of(v, model), v.u),
        expected,
        terms=64 * length,
    )


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
ALL = (*LAYER, REAL_LAYER, *FAMILY, MODEL)
