"""selective_state_update: steps of the scans, head by head."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gated import close
from hypothesis import given, settings
from hypothesis import strategies as st

import ssm_core
from ssm_core import selective_scan, selective_state_update, ssd

settings.register_profile("ssm_core", derandomize=True, deadline=None, max_examples=30, database=None)
settings.load_profile("ssm_core")

BATCH, L, H, P, N, G = 2, 7, 4, 3, 5, 2
seeds = st.integers(0, 2**16)
SIGNALS = ("x", "dt", "B", "C", "z")


def inputs(seed: int = 0, per_head: bool = False) -> dict[str, np.ndarray]:
    """Signals (L, batch, ...), with time first; per head or for every feature."""
    r = np.random.default_rng(seed)
    vector = (H,) if per_head else (H, P)
    dt = r.uniform(0.1, 1, (L, BATCH, H, 1 if per_head else P))
    return {"x": r.normal(size=(L, BATCH, H, P)), "dt": np.broadcast_to(dt, (L, BATCH, H, P)),
            "A": -r.uniform(0.1, 2, (H,) if per_head else (H, P, N)), "B": r.normal(size=(L, BATCH, G, N)),
            "C": r.normal(size=(L, BATCH, G, N)), "D": r.normal(size=vector), "z": r.normal(size=(L, BATCH, H, P)),
            "dt_bias": r.normal(size=vector)}  # fmt: skip


def run(v: dict[str, Any], state: Any, **options: Any) -> tuple[np.ndarray, Any]:
    outputs = []
    for k in range(L):
        y, state = selective_state_update(state, **{n: x[k] if n in SIGNALS else x for n, x in v.items()}, **options)
        outputs.append(np.asarray(y))
    return np.stack(outputs), state


@given(seeds, st.booleans())
def test_many_of_them_are_ssd(seed: int, softplus: bool):
    """One gate a head: the steps of its features are the same."""
    v, state = inputs(seed, per_head=True), np.random.default_rng(seed).normal(size=(BATCH, H, P, N))
    v["dt_bias"] = v["dt_bias"] if softplus else abs(v["dt_bias"])
    y, last = run(v, state, dt_softplus=softplus)
    given = {n: np.moveaxis(x, 0, 1) if n in SIGNALS else x for n, x in v.items()} | {"initial": state}
    given["dt"] = given["dt"][..., 0]
    wanted, expected = ssd(**given, dt_softplus=softplus, return_state=True)
    close((y, last), (np.moveaxis(wanted, 1, 0), expected))


@given(seeds)
def test_many_of_them_are_the_selective_scan(seed: int):
    """Every feature of every head is a channel."""
    v, state = inputs(seed), np.random.default_rng(seed).normal(size=(BATCH, H, P, N))
    y, last = run(v, state, dt_softplus=True)
    rows = {n: np.moveaxis(v[n], 0, -1) for n in SIGNALS}
    flat = {n: rows[n].reshape(BATCH, H * P, L) for n in ("x", "dt", "z")}
    wanted, expected = selective_scan(
        flat["x"], flat["dt"], v["A"].reshape(-1, N), rows["B"], rows["C"], D=v["D"].reshape(-1), z=flat["z"],
        dt_bias=v["dt_bias"].reshape(-1), dt_softplus=True, initial=state.reshape(BATCH, -1, N), return_state=True,
    )  # fmt: skip
    close((y, last), (np.moveaxis(wanted, -1, 0).reshape(y.shape), expected.reshape(state.shape)))


@pytest.mark.parametrize("per_head", [True, False])
def test_in_every_library(per_head: bool, xp: Any):
    v, state = inputs(per_head=per_head), np.random.default_rng(1).normal(size=(BATCH, H, P, N))
    one = {n: x[0] if n in SIGNALS else x for n, x in v.items()}
    found = selective_state_update(xp.asarray(state), **{n: xp.asarray(x) for n, x in one.items()}, dt_softplus=True)
    close(found, selective_state_update(state, **one, dt_softplus=True))


def test_the_state_given_is_not_written_to():
    v = {n: x[0] if n in SIGNALS else x for n, x in inputs().items()}
    state = np.ones((BATCH, H, P, N))
    _, after = selective_state_update(state, **v, dt_softplus=True)
    np.testing.assert_array_equal(state, 1)
    assert not np.shares_memory(state, after)


@pytest.mark.parametrize("raw", [-1000.0, 0.0, 1000.0])
def test_steps_at_the_ends_of_softplus(raw: float):
    """No step keeps the state, a long one forgets it."""
    v = {n: x[0] if n in SIGNALS else x for n, x in inputs(per_head=True).items()}
    v |= {"dt": np.full((BATCH, H, P), raw), "dt_bias": np.zeros(H)}
    state = np.ones((BATCH, H, P, N))
    y, after = selective_state_update(state, **v, dt_softplus=True)
    assert np.isfinite(y).all()
    if raw < 0:
        np.testing.assert_array_equal(after, state)
    if raw > 0:
        close(after, 1000 * v["x"][..., None] * np.repeat(v["B"], H // G, axis=1)[:, :, None])


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_single(half: str):
    torch = pytest.importorskip("torch")
    v = {n: torch.from_numpy(np.array(x[0] if n in SIGNALS else x)) for n, x in inputs().items()}
    v = {n: x.to(getattr(torch, half)) for n, x in v.items()}
    state = torch.ones(BATCH, H, P, N, dtype=getattr(torch, half))
    y, after = selective_state_update(state, **v, dt_softplus=True)
    wanted, last = selective_state_update(state.float(), **{n: x.float() for n, x in v.items()}, dt_softplus=True)
    assert y.dtype == getattr(torch, half)
    assert torch.equal(y, wanted.to(y.dtype))
    assert torch.equal(after, last)


def test_nothing_gives_nothing(xp: Any):
    v = {n: x[0] if n in SIGNALS else x for n, x in inputs().items()}
    arrays = {n: xp.asarray(x[:0] if n in SIGNALS else x) for n, x in v.items()}
    y, state = selective_state_update(xp.zeros((0, H, P, N), dtype=xp.float64), **arrays, dt_softplus=True)
    assert tuple(y.shape) == (0, H, P)
    assert tuple(state.shape) == (0, H, P, N)


def test_gradients_in_torch():
    torch = pytest.importorskip("torch")
    v = {n: torch.from_numpy(np.array(x[0, :1] if n in SIGNALS else x)) for n, x in inputs().items()}
    values = [torch.randn(1, H, P, N, dtype=torch.float64), *v.values()]

    def step(state: Any, *values: Any) -> Any:
        return selective_state_update(state, **dict(zip(v, values, strict=True)), dt_softplus=True)

    assert torch.autograd.gradcheck(step, [x.requires_grad_() for x in values], fast_mode=True)


def test_a_negative_step_is_refused():
    v = {n: x[0] if n in SIGNALS else x for n, x in inputs().items() if n != "dt_bias"}
    v["dt"] = -v["dt"]
    with pytest.raises(ssm_core.DomainError, match=r"^selective_state_update: dt is negative at 24 steps .*softplus"):
        selective_state_update(np.ones((BATCH, H, P, N)), **v)
