"""mamba3_scan: the recurrence as written, what it is for special gates and angles, and chunks that leave no trace."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gated import MAMBA3, SEVERAL, Gated, Inputs, State, close, states_close
from hypothesis import given, settings
from hypothesis import strategies as st

import ssm_core
from conformance.truth import gated as truth
from ssm_core import mamba3_scan, selective_scan, ssd

settings.register_profile("ssm_core", derandomize=True, deadline=None, max_examples=30, database=None)
settings.load_profile("ssm_core")

BATCH, L, H, P, N, G, R = 2, 17, 4, 3, 5, 2, 2
KINDS = (MAMBA3, SEVERAL)
kinds = st.sampled_from(KINDS)
both = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
seeds = st.integers(0, 2**16)


def loop(v: Inputs, state: State | None = None) -> tuple[np.ndarray, State]:
    """With one input a step or several."""
    given = dict(v)
    given |= dict(zip(("x_map", "z_map", "out_map"), given.pop("rank_maps", ()), strict=False))
    given |= {} if state is None else dict(zip(truth.MAMBA3_STATE, state, strict=True))
    return truth.mamba3_scan(SimpleNamespace(**given), return_state=True)


@both
@pytest.mark.parametrize("chunk", [1, 4, 17, 64])
@pytest.mark.parametrize("with_state", [False, True])
def test_is_the_recurrence(kind: Gated, chunk: int, with_state: bool, xp: Any):
    v, state = kind.inputs(), kind.state() if with_state else None

    def arrays(x: Any) -> Any:
        return tuple(arrays(part) for part in x) if isinstance(x, tuple) else xp.asarray(x)

    found, last = kind.run({n: arrays(x) for n, x in v.items()}, state and arrays(state), chunk=chunk)
    y, wanted = loop(v, state)
    close(found, y)
    states_close(last, wanted)
    assert 0 <= np.asarray(last[0]).min() <= np.asarray(last[0]).max() < 2 * math.pi


@given(kinds, st.integers(0, 40), st.integers(1, 50), st.integers(1, 50), seeds)
def test_the_chunk_does_not_matter(kind: Gated, length: int, one: int, other: int, seed: int):
    v, state = kind.inputs(seed, BATCH, length), kind.state(seed)
    (y, last), (found, states) = (kind.run(v, state, chunk=chunk) for chunk in (one, other))
    close(found, y)
    states_close(states, last)


# Special cases -------------------------------------------------------------------------------------------------------


@given(seeds)
def test_without_trapezoids_and_turns_it_is_ssd(seed: int):
    """All of an input enters at once where the share is 1."""
    v = {n: x for n, x in MAMBA3.inputs(seed).items() if "bias" not in n}
    plain = {n: x for n, x in v.items() if n not in ("trap", "angles")}
    initial = MAMBA3.state(seed)[1]
    zero = tuple(np.zeros(size) for size in ((BATCH, H, 2), (BATCH, H, N), (BATCH, H, P)))
    v |= {"trap": np.full((BATCH, L, H), 60.0), "angles": 0 * v["angles"]}
    found, state = mamba3_scan(**v, initial=(zero[0], initial, *zero[1:]), return_state=True)
    close((found, state[1]), ssd(**plain, initial=initial, return_state=True))


@pytest.mark.parametrize(("trap", "rule"), [(60.0, "mamba"), (0.0, "trapezoidal")])
def test_of_angles_that_stay_it_is_the_selective_scan_of_complex_poles(trap: float, rule: str):
    """A pair of features that turns by omega dt is one state with the pole A - i omega, read by conj(C)."""
    r = np.random.default_rng(0)
    pairs, angles = 2, np.asarray([0.3, -0.2])
    A, dt = -r.uniform(0.1, 2, 1), r.uniform(0.1, 1, (BATCH, L, 1))
    x, rows = r.normal(size=(BATCH, L, 1, 1)), r.normal(size=(2, BATCH, L, 1, 2 * pairs))
    y = mamba3_scan(
        x, dt, A, *rows, trap=np.full((BATCH, L, 1), trap), angles=np.broadcast_to(angles, (BATCH, L, 1, pairs))
    )
    B, C = (np.moveaxis(m[:, :, 0, 0::2] + 1j * m[:, :, 0, 1::2], 1, -1) for m in rows)
    poles = A[:, None] - 1j * math.pi * np.tanh(angles)
    u, steps = (np.moveaxis(m, 1, -1) for m in (x[..., 0], dt))
    wanted = selective_scan(u, steps, poles, B, C.conj() / 2, discretization=rule)
    close(y[:, :, 0, 0], wanted[:, 0])


def test_of_second_order():
    """The error for a smooth input falls with the square of the step for a share of 1/2, else with the step."""

    def error(n: int, trap: float) -> float:
        dt, ones = 2.0 / n, np.ones((1, n, 1, 1))
        u = np.cos(np.arange(1, n + 1) * dt)
        before = (np.zeros((1, 1, 0)), np.zeros((1, 1, 1, 1)), np.ones((1, 1, 1)), np.ones((1, 1, 1)))  # cos(0)
        y = mamba3_scan(
            u[None, :, None, None], np.full((1, n, 1), dt), -np.ones(1), ones, ones, trap=np.full((1, n, 1), trap),
            angles=np.zeros((1, n, 1, 0)), initial=before,
        )  # fmt: skip
        exact = (np.cos(2) + np.sin(2) - np.exp(-2)) / 2
        return float(abs(y[0, -1, 0, 0] - exact))

    assert 3.9 < error(100, 0.0) / error(200, 0.0) < 4.1
    assert 1.9 < error(100, 60.0) / error(200, 60.0) < 2.1


@given(seeds)
def test_one_rank_of_ones_is_none(seed: int):
    v, state = MAMBA3.inputs(seed), MAMBA3.state(seed)
    ones = np.ones((H, 1, P))
    ranked = v | {n: v[n][:, :, None] for n in "BC"} | {n: v[n][:, None] for n in ("B_bias", "C_bias")}
    first = (*state[:2], state[2][:, :, None], state[3][:, :, None])
    found, last = mamba3_scan(**ranked, rank_maps=(ones, ones, ones), initial=first, return_state=True)
    y, wanted = mamba3_scan(**v, initial=state, return_state=True)
    close(found, y)
    states_close((*last[:2], last[2][:, :, 0], last[3][:, :, 0]), wanted)


@given(st.permutations(range(3)), seeds)
def test_the_order_of_inputs_does_not_matter(order: list[int], seed: int):
    r, v = np.random.default_rng(seed), SEVERAL.inputs(seed)
    v |= {n: r.normal(size=(BATCH, L, 3, G, N)) for n in "BC"} | {
        n: r.normal(size=(H, 3, N)) for n in ("B_bias", "C_bias")
    }
    maps = tuple(r.normal(size=(3, H, 3, P)))
    other = v | {n: v[n][:, :, order] for n in "BC"} | {n: v[n][:, order] for n in ("B_bias", "C_bias")}
    y = mamba3_scan(**v | {"rank_maps": maps})
    close(mamba3_scan(**other | {"rank_maps": tuple(m[:, order] for m in maps)}), y)


def test_angles_of_all_heads_are_those_of_each(xp: Any):
    v = MAMBA3.inputs()
    shared = v["angles"][:, :, :1]
    arrays = {n: xp.asarray(x) for n, x in v.items()}
    found, last = mamba3_scan(**arrays | {"angles": xp.asarray(shared)}, return_state=True)
    y, wanted = mamba3_scan(**v | {"angles": np.repeat(shared, H, axis=2)}, return_state=True)
    close(found, y)
    states_close(last, wanted)
    assert tuple(last[0].shape) == (BATCH, H, 2)


def test_a_whole_turn_of_the_angles_changes_nothing():
    v, state = MAMBA3.inputs(), MAMBA3.state()
    turned = (state[0] + 2 * math.pi * np.asarray([3.0, -2.0]), *state[1:])
    (y, last), (found, states) = (MAMBA3.run(v, s) for s in (state, turned))
    close(found, y)
    states_close(states, last)


# Precision -----------------------------------------------------------------------------------------------------------


def test_angles_of_a_long_sequence_stay_exact():
    """They are taken modulo 2 pi chunk by chunk, so float32 turns as float64 does after many turns."""
    r, length = np.random.default_rng(0), 20_000
    dt, rows = r.uniform(0.5, 1, (1, length, 1)), r.normal(size=(2, 1, length, 1, 2))
    v = {"x": r.normal(size=(1, length, 1, 1)), "dt": dt, "A": -np.full(1, 0.05), "B": rows[0], "C": rows[1],
         "trap": r.normal(size=dt.shape), "angles": np.full((*dt.shape, 1), 0.5)}  # fmt: skip
    single = {n: x.astype(np.float32) for n, x in v.items()}
    exact = mamba3_scan(**{n: x.astype(float) for n, x in single.items()})
    close(mamba3_scan(**single), exact, 2e-5)


@pytest.mark.parametrize("dt", [0.0, 1e-12, 50.0, 1e5])
def test_steps_of_any_size(dt: float):
    """No step keeps the state as it is; a long one forgets it."""
    v = MAMBA3.inputs() | {"dt": np.full((BATCH, L, H), dt)}
    state = MAMBA3.state()
    found, last = MAMBA3.run(
        {n: x.astype(np.float32) for n, x in v.items()}, tuple(s.astype(np.float32) for s in state)
    )
    y, wanted = loop({n: x.astype(np.float32).astype(float) for n, x in v.items()}, state)
    assert np.isfinite(found).all()
    if dt == 0:
        close(last[1], wanted[1], 1e-6)
    if dt <= 1:
        close(found, y, 1e-5)


def test_a_state_that_overflows_is_named():
    v = {n: x.astype(np.float32) for n, x in MAMBA3.inputs(length=60).items()}
    v |= {"A": np.full(H, 3.0, np.float32), "dt": np.ones((BATCH, 60, H), np.float32)}
    with pytest.raises(ssm_core.DomainError, match=r"^mamba3_scan: the state overflows at step (2|3)\d: dt A > 0"):
        mamba3_scan(**v)


# Frameworks ----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # PyTorch's own
@pytest.mark.parametrize("chunk", [2, 64])
def test_gradients_in_torch(chunk: int):
    torch = pytest.importorskip("torch")
    v = {n: torch.from_numpy(x) for n, x in MAMBA3.inputs(0, 1, 3).items()}
    state = tuple(torch.from_numpy(s).requires_grad_() for s in MAMBA3.state(0, 1))
    values = [x.clone().requires_grad_() for x in v.values()]

    def run(*values: Any) -> Any:
        given = dict(zip(v, values[: len(v)], strict=True))
        y, last = mamba3_scan(**given, initial=values[len(v) :], return_state=True, chunk=chunk)
        return y, *last

    assert torch.autograd.gradcheck(run, [*values, *state], check_forward_ad=True, fast_mode=True)


@both
def test_jax_under_jit_equals_numpy(kind: Gated):
    jax = pytest.importorskip("jax")
    v = jax.tree.map(lambda x: x.astype(np.float32), kind.inputs())
    found = jax.jit(lambda v: kind.output(v))(jax.tree.map(jax.numpy.asarray, v))
    close(found, kind.output(v), 1e-5)
