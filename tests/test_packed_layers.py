"""Sequences packed into one row: systems and layers give what they give one by one, states in and out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import DPLR, Dense, Diagonal
from ssm_core.layers import DSS, HGRN, LMU, LRU, RGLRU, RTF, RWKV4, S4, S4D, S5, SSM, LinOSS, Mamba, Mamba2, Mamba3

H = 4
LENGTHS = [5, 0, 1, 17, 9]
ENDS = np.asarray([0, *np.cumsum(LENGTHS)])
STEPS = {"dt_min": 0.05, "dt_max": 0.5}
LAYERS = (
    S4D(H, 6, **STEPS),
    S4D(H, 6, real=True, init="real", channels=2, **STEPS),
    S4(H, 4, **STEPS),
    DSS(H, length=9, d_state=4, **STEPS),
    SSM(H, 3, **STEPS),
    LMU(H, 3, theta=8),
    S5(H, 4, **STEPS),
    S5(H, 4, liquid=True, **STEPS),
    LRU(H, 4),
    RTF(H, 3, constraint="montel"),
    LinOSS(H, 3),
    Mamba(H, 3, **STEPS),
    Mamba2(H, d_state=4, head_dim=2, **STEPS),
    Mamba3(H, d_state=4, head_dim=2, **STEPS),
    RGLRU(H, heads=2),
    HGRN(H),
    RWKV4(H, chunk=4),
)
BOTH_WAYS = (S4D(H, 4, bidirectional=True), S5(H, 4, bidirectional=True), RTF(H, 3, bidirectional=True))
each_layer = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)


def drawn(layer: Any) -> tuple[dict[str, np.ndarray], np.ndarray, Any]:
    """Parameters, packed sequences, and a state of each of them."""
    r = np.random.default_rng(0)
    params = layer.initial_parameters(0, dtype=np.float64)
    first = layer.initial_state(params, len(LENGTHS)) if not getattr(layer, "bidirectional", False) else None

    def like(x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple(map(like, x))
        noise = r.normal(size=x.shape)
        return noise + 1j * r.normal(size=x.shape) if np.iscomplexobj(x) else np.abs(noise)

    return params, r.normal(size=(1, sum(LENGTHS), H)), like(first) if first is not None else None


def part(state: Any, i: int) -> Any:
    if state is None or isinstance(state, tuple):
        return None if state is None else tuple(part(x, i) for x in state)
    return state[i : i + 1]


def close(found: Any, wanted: Any) -> None:
    if isinstance(wanted, tuple):
        for a, b in zip(found, wanted, strict=True):
            close(a, b)
        return
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


def modes(layer: Any) -> tuple[str, ...]:
    if hasattr(layer, "modes"):
        return layer.modes
    return ("auto", "scan") if getattr(layer, "liquid", False) else ("auto", "conv", "chunk", "scan")


@pytest.mark.parametrize("with_state", [True, False])
@each_layer
def test_packed_is_one_by_one(layer: Any, with_state: bool):
    params, u, state = drawn(layer)
    state = state if with_state else None
    for mode in modes(layer):
        options = {"mode": mode, "return_state": True}
        y, last = layer.apply(params, u, state=state, cu_seqlens=ENDS, **options)
        for i, (start, stop) in enumerate(pairwise(ENDS)):
            wanted, after = layer.apply(params, u[:, start:stop], state=part(state, i), **options)
            close(y[:, start:stop], wanted)
            close(part(last, i), after)
        if not with_state:
            close(layer.apply(params, u, cu_seqlens=ENDS, mode=mode), y)


@pytest.mark.parametrize("layer", BOTH_WAYS, ids=lambda layer: layer.name)
def test_both_directions_stay_within_a_sequence(layer: Any):
    params, u, _ = drawn(layer)
    y = layer.apply(params, u, cu_seqlens=ENDS)
    for start, stop in pairwise(ENDS):
        if start < stop:
            close(y[:, start:stop], layer.apply(params, u[:, start:stop]))


def test_steps_of_packed_sequences():
    layer = S4D(H, 6, **STEPS)
    params, u, state = drawn(layer)
    scale = np.random.default_rng(1).uniform(0.5, 2, (1, u.shape[1]))
    y, last = layer.apply(params, u, state=state, return_state=True, cu_seqlens=ENDS, step_scale=scale)
    for i, (start, stop) in enumerate(pairwise(ENDS)):
        options = {"state": part(state, i), "step_scale": scale[:, start:stop], "return_state": True}
        wanted, after = layer.apply(params, u[:, start:stop], **options)
        close(y[:, start:stop], wanted)
        close(part(last, i), after)


def test_what_a_neighbor_holds_does_not_matter():
    """NaN in one sequence stays in it."""
    layer = S4D(H, 6, **STEPS)
    params, u, _ = drawn(layer)
    dirty = u.copy()
    dirty[:, ENDS[3] : ENDS[4]] = np.nan
    y, last = layer.apply(params, u, return_state=True, cu_seqlens=ENDS)
    found, after = layer.apply(params, dirty, return_state=True, cu_seqlens=ENDS)
    others = [i for i in range(len(LENGTHS)) if i != 3]
    close(after[others], last[others])
    for i in others:
        close(found[:, ENDS[i] : ENDS[i + 1]], y[:, ENDS[i] : ENDS[i + 1]])


SYSTEMS = {
    "diagonal": (Diagonal(np.asarray([-0.5 + 1j, -0.2]), np.ones(2), np.ones(2), conj_pairs=True), ()),
    "several inputs": (Diagonal(np.asarray([-0.5, -0.2]), np.ones((2, 3)), np.ones((2, 2))), (3,)),
    "dense": (Dense(np.asarray([[-1.0, 0.5], [0.0, -0.3]]), np.ones(2), np.ones(2)), ()),
    "batch": (Diagonal(-np.asarray([[0.5, 1.0], [0.2, 2.0]]), np.ones((2, 2)), np.ones((2, 2))), (2,)),
    "low rank": (
        DPLR(np.asarray([-1 + 1j]), np.ones((1, 1)), np.ones((1, 1)), np.ones(1), np.ones(1), conj_pairs=True),
        (),
    ),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_scan_of_packed_signals(name: str):
    system, axes = SYSTEMS[name]
    r = np.random.default_rng(0)
    u = r.normal(size=(1, *axes, sum(LENGTHS)))
    _, like = ssm_core.scan(system, u[..., :1], dt=0.3)
    initial = r.normal(size=(len(LENGTHS), *like.shape[1:])).astype(like.dtype)
    y, last = ssm_core.scan(system, u, dt=0.3, initial=initial, cu_seqlens=ENDS)
    for i, (start, stop) in enumerate(pairwise(ENDS)):
        wanted, after = ssm_core.scan(system, u[..., start:stop], dt=0.3, initial=initial[i : i + 1])
        close(y[..., start:stop], wanted)
        close(last[i : i + 1], after)


def test_what_is_refused():
    system = SYSTEMS["diagonal"][0]
    with pytest.raises(ssm_core.ShapeError, match=r"^scan: cu_seqlens must be \(n \+ 1,\) for n .* batch of 1"):
        ssm_core.scan(system, np.ones(5), dt=0.1, cu_seqlens=np.asarray([0, 5]))
    with pytest.raises(ssm_core.OptionError, match=r"^scan: cu_seqlens already says .* leave out lengths"):
        ssm_core.scan(system, np.ones((1, 5)), dt=0.1, cu_seqlens=np.asarray([0, 5]), lengths=np.asarray([3]))
    layer = S4D(H, 4)
    params, u, state = drawn(layer)
    with pytest.raises(ssm_core.ShapeError, match=r"^S4D: state must be \(5, 4, 2\)"):
        layer.apply(params, u, cu_seqlens=ENDS, state=state[:1])
    with pytest.raises(ssm_core.DomainError, match=r"^S4D: cu_seqlens must begin with 0, never decrease, and end with"):
        layer.apply(params, u, cu_seqlens=ENDS[:-1])


def test_traced_ends_are_resets():
    """Under jit, where the lengths are not known: the outputs are the same, states are refused."""
    jax = pytest.importorskip("jax")
    layer = S4D(H, 6, **STEPS)
    params, u, _ = drawn(layer)
    params = {name: jax.numpy.asarray(p, jax.numpy.float32) for name, p in params.items()}
    u = jax.numpy.asarray(u, jax.numpy.float32)
    y = jax.jit(lambda ends: layer.apply(params, u, cu_seqlens=ends))(jax.numpy.asarray(ENDS))
    wanted = layer.apply(params, u, cu_seqlens=jax.numpy.asarray(ENDS))
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(ssm_core.OptionError, match="known numbers, not under a trace"):
        jax.jit(lambda ends: layer.apply(params, u, cu_seqlens=ends, return_state=True))(jax.numpy.asarray(ENDS))
    state = layer.initial_state(params, len(ENDS) - 1)
    with pytest.raises(ssm_core.OptionError, match="known numbers, not under a trace"):
        jax.jit(lambda ends, state: layer.apply(params, u, cu_seqlens=ends, state=state))(
            jax.numpy.asarray(ENDS), state
        )
