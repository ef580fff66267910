"""What the tests of transformations transform: a scan and the layer in every mode, with inputs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

import ssm_core
from ssm_core.layers import S4D

from . import examples
from .backends import Backend
from .cases import decay, delta, duality, selective, vectors
from .cases.functions import Case
from .cases.instance import STEPS, parameters
from .examples import PAIRS, Draw, Example
from .test_gradients import floating
from .tolerances import assert_close

L = 40
# Recurrences with a state, of every kind.
WITH_STATES = tuple(
    case
    for case in (*decay.ALL, *delta.ALL, *vectors.ALL, *selective.ALL, *duality.ALL)
    if case.label
    in (
        "gated_linear_attention[constant-groups-reset]",
        "gated_linear_attention[channel]",
        "gated_delta[one_decay-reset]",
        "rg_lru[everything]",
        "rwkv4[everything]",
        "selective_scan[grouped-everything-chunks_of_4]",
        "ssd[everything-chunks_of_4]",
    )
)
LAYER = S4D(d_model=3, d_state=4, **STEPS)


def scan_inputs(backend: Backend, dtype: str, example: Example = PAIRS, batch: tuple[int, ...] = ()) -> SimpleNamespace:
    d = Draw(7)
    fields = example.fields(d) | {"u": example.signal(d, L, batch), "state": example.state(d, batch)}
    return examples.as_arrays(backend, dtype, fields)


def layer_inputs(backend: Backend, dtype: str, batch: int = 2) -> SimpleNamespace:
    d = Draw(8)
    state = d.complex(batch, LAYER.d_model, LAYER.n_states)
    reset = np.zeros((batch, L), bool)
    reset[:, 11] = True
    inputs = parameters(LAYER) | {"u": d.real(batch, L, LAYER.d_model), "state": state, "reset": reset}
    return examples.as_arrays(backend, dtype, inputs)


def two_samples(case: Case, backend: Backend, dtype: str) -> tuple[list[SimpleNamespace], dict[str, Any], Any]:
    """The inputs of a case and others like them; those of both stacked that are mapped over; and a call of these."""
    first, _ = case.inputs(backend, dtype)
    names = [name for name in floating(first) if name not in case.known]
    second = SimpleNamespace(**vars(first) | {name: 0.75 * getattr(first, name) for name in names})
    stacked = {name: backend.xp.stack([getattr(v, name) for v in (first, second)]) for name in names}

    def call(given: dict[str, Any]) -> Any:
        return case.call(SimpleNamespace(**vars(first) | given))

    return [first, second], stacked, call


def agree(actual: Any, expected: Any, backend: Backend, dtype: str, function: str) -> None:
    """The transformed function against the function itself, entry by entry of whatever they return."""
    actual, expected = ((x if isinstance(x, tuple | list) else (x,)) for x in (actual, expected))
    for a, e in zip(actual, expected, strict=True):
        assert_close(a, backend.to_numpy(e), backend, dtype, function=function, terms=64 * L)


def modes_of(v: SimpleNamespace, example: Example = PAIRS) -> list[Any]:
    """y and state in every mode."""
    system, found = example.system(v), []
    for mode in ("conv", "chunk", "scan"):
        found += ssm_core.scan(system, v.u, dt=0.1, initial=v.state, mode=mode)
    return found


def layer_modes(params: dict[str, Any], u: Any, state: Any, reset: Any) -> list[Any]:
    """y and state in every mode, with resets where they are taken, and of one step."""
    found = []
    for mode, more in (("conv", {}), ("chunk", {"reset": reset}), ("scan", {"reset": reset})):
        found += LAYER.apply(params, u, state=state, return_state=True, mode=mode, **more)
    return [*found, *LAYER.step(params, u[:, 0, :], state)]
