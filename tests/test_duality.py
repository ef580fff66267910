"""ssd: the recurrence, its form as attention, and chunks that leave no trace."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gated import SSD, close
from hypothesis import given, settings
from hypothesis import strategies as st

import ssm_core
from conformance.truth import gated as truth
from ssm_core import selective_scan, ssd

settings.register_profile("ssm_core", derandomize=True, deadline=None, max_examples=30, database=None)
settings.load_profile("ssm_core")

BATCH, L, H, P, N, G = 2, 17, 4, 3, 5, 2
seeds = st.integers(0, 2**16)


def loop(v: dict[str, Any], S: Any = None, reset: Any = None) -> Any:
    """Without D and z."""
    more = {name: x for name, x in (("initial", S), ("reset", reset)) if x is not None}
    return truth.ssd(SimpleNamespace(**v, **more), return_state=True)


def bare(seed: int = 0, length: int = L) -> dict[str, Any]:
    return {n: x for n, x in SSD.inputs(seed, BATCH, length).items() if n not in ("D", "z")}


@pytest.mark.parametrize("chunk", [1, 4, 17, 64])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("each_step", [False, True])
def test_is_the_recurrence(chunk: int, groups: int, each_step: bool, xp: Any):
    r, v = np.random.default_rng(1), bare()
    v |= {name: r.normal(size=(BATCH, L, groups, N)) for name in "BC"}
    v |= {"A": -r.uniform(0.1, 2, (BATCH, L, H))} if each_step else {}
    initial, reset = r.normal(size=(BATCH, H, P, N)), r.uniform(size=(BATCH, L)) < 0.2
    arrays = {name: xp.asarray(x) for name, x in (v | {"initial": initial, "reset": reset}).items()}
    found = ssd(**arrays, return_state=True, chunk=chunk)
    close(found, loop(v, initial, reset))


def test_is_a_masked_product_of_matrices():
    """The dual form: y = (L * (C B^T)) (dt x) with L_ij the product of the gates after j up to i."""
    v = bare()
    B, C = (np.repeat(v[name], H // G, axis=2) for name in "BC")
    s = np.cumsum(v["dt"] * v["A"], axis=1)
    decay = np.exp(s[:, :, None] - s[:, None]) * np.tri(L)[None, :, :, None]
    weights = decay * np.einsum("bihn,bjhn->bijh", C, B)
    close(ssd(**v), np.einsum("bijh,bjhp->bihp", weights, v["dt"][..., None] * v["x"]))


@given(st.integers(0, 40), st.integers(1, 50), st.integers(1, 50), seeds)
def test_the_chunk_does_not_matter(length: int, one: int, other: int, seed: int):
    v, initial = SSD.inputs(seed, BATCH, length), SSD.state(seed)[0]
    close(*(ssd(**v, initial=initial, return_state=True, chunk=chunk) for chunk in (one, other)))


@given(seeds)
def test_heads_of_one_feature_are_channels_of_the_selective_scan(seed: int):
    v = bare(seed)
    v |= {"x": v["x"][..., :1]}
    y, state = ssd(**v, return_state=True)
    rows = {name: np.moveaxis(v[name], 1, -1) for name in "BC"}
    u, dt = (np.moveaxis(v["x"][..., 0], 1, -1), np.moveaxis(v["dt"], 1, -1))
    A = np.repeat(v["A"][:, None], N, axis=1)
    wanted, last = selective_scan(u, dt, A, **rows, return_state=True)
    close((y[..., 0], state[:, :, 0]), (np.moveaxis(wanted, -1, 1), last))


@given(st.permutations(range(H)), seeds)
def test_heads_are_independent(order: list[int], seed: int):
    """In any order, and one by one with a group of their own."""
    v = SSD.inputs(seed) | {name: SSD.inputs(seed + 1)[name].repeat(H // G, axis=2) for name in "BC"}
    axes = {"x": 2, "dt": 2, "A": 0, "B": 2, "C": 2, "D": 0, "z": 2}
    other = {name: np.take(x, order, axis=axes[name]) for name, x in v.items()}
    y = ssd(**v)
    close(ssd(**other), np.take(y, order, axis=2))
    for h in range(H):
        close(ssd(**{name: np.take(x, [h], axis=axes[name]) for name, x in v.items()}), y[:, :, h : h + 1])


def test_what_is_around_the_recurrence(xp: Any):
    r, v = np.random.default_rng(2), bare()
    z, bias, initial = r.normal(size=v["x"].shape), r.normal(size=H), r.normal(size=(BATCH, H, P, N))
    steps = np.clip(np.log1p(np.exp(v["dt"] + bias)), 0.4, 1.0)
    y, last = loop(v | {"dt": steps}, initial)
    for D in (r.normal(size=H), r.normal(size=(H, P))):
        more = {"D": D, "z": z, "dt_bias": bias, "initial": initial}
        arrays = {name: xp.asarray(x) for name, x in (v | more).items()}
        found = ssd(**arrays, dt_softplus=True, dt_limit=(0.4, 1.0), return_state=True)
        direct = D if D.ndim == 2 else D[:, None]
        close(found, ((y + direct * v["x"]) * z / (1 + np.exp(-z)), last))


@pytest.mark.parametrize("sizes", [{"P": 0}, {"N": 0}, {"H": 0}])
def test_sizes_of_zero(sizes: dict[str, int], xp: Any):
    s = {"H": H, "P": P, "N": N, "G": 1} | sizes
    x = xp.asarray(np.ones((BATCH, L, s["H"], s["P"])))
    dt, A = xp.asarray(np.ones((BATCH, L, s["H"]))), xp.asarray(-np.ones(s["H"]))
    rows = xp.asarray(np.ones((BATCH, L, s["G"], s["N"])))
    y, state = ssd(x, dt, A, rows, rows, return_state=True)
    close(y, np.zeros(x.shape))
    close(state, np.zeros((BATCH, s["H"], s["P"], s["N"])))


# Precision -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("large", [50.0, 1e3, 1e5, 1e30])
def test_small_gates_keep_their_digits_beside_large_ones(large: float):
    """Decays within a chunk are differences of sums; float32 must not lose the short steps between long ones."""
    r, v = np.random.default_rng(3), bare(length=200)
    v |= {"dt": np.where(r.uniform(size=v["dt"].shape) < 0.3, large, 0.01), "A": -16.0 * np.ones(H)}
    v["x"] = v["x"] / v["dt"][..., None]  # so that all inputs count
    v = {name: x.astype(np.float32) for name, x in v.items()}
    exact = loop({name: x.astype(float) for name, x in v.items()})
    close(ssd(**v, return_state=True), exact, 2e-6)


@pytest.mark.parametrize("raw", [-1000.0, -50.0, 0.0, 50.0, 1000.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_steps_at_the_ends_of_softplus(raw: float, dtype: type):
    """No step at all, or one that forgets everything."""
    v = bare() | {"dt": np.full((BATCH, L, H), raw)}
    v = {name: x.astype(dtype) for name, x in v.items()}
    y, state = ssd(**v, dt_softplus=True, return_state=True)
    exact = loop({name: x.astype(float) for name, x in v.items()} | {"dt": np.logaddexp(0, v["dt"].astype(float))})
    assert y.dtype == dtype
    for found, wanted in ((y, exact[0]), (state, exact[1])):
        assert np.isfinite(found).all()
        tolerance = 2e-6 if dtype == np.float32 else 1e-14
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


def test_a_million_steps_stay_finite_and_right():
    r, length = np.random.default_rng(0), 10**6
    x, dt = r.normal(size=(1, length, 1, 1)), r.uniform(1e-3, 1e-1, (1, length, 1))
    rows = r.normal(size=(2, 1, length, 1, 2))
    single = [a.astype(np.float32) for a in (x, dt, -np.ones(1), *rows)]
    y, state = ssd(*single, return_state=True)
    exact, last = ssd(*(a.astype(float) for a in single), return_state=True)
    close(y, exact, 1e-6)
    close(state, last, 1e-6)
    assert np.abs(exact).max() > 1


def test_states_that_grow_are_right_until_they_overflow():
    v = bare() | {"A": np.full(H, 3.0), "dt": np.ones((BATCH, L, H))}
    close(ssd(**v, return_state=True, chunk=5), loop(v))
    longer = {name: x.astype(np.float32) for name, x in bare(length=60).items()}
    longer |= {"A": np.full(H, 3.0, np.float32), "dt": np.ones((BATCH, 60, H), np.float32)}
    with pytest.raises(ssm_core.DomainError, match=r"^ssd: the state overflows at step (2|3)\d: dt A > 0 .*x: "):
        ssd(**longer)


# Frameworks ----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # PyTorch's own
@pytest.mark.parametrize("chunk", [2, 64])
def test_gradients_in_torch(chunk: int):
    torch = pytest.importorskip("torch")
    v = {name: torch.from_numpy(x) for name, x in SSD.inputs(0, 1, 3).items()}
    v["initial"] = torch.from_numpy(SSD.state(0, 1)[0])
    values = [x.clone().requires_grad_() for x in v.values()]

    def run(*values: Any) -> Any:
        return ssd(**dict(zip(v, values, strict=True)), chunk=chunk, return_state=True)

    assert torch.autograd.gradcheck(run, values, check_forward_ad=True)


def test_jax_under_jit_equals_numpy():
    jax = pytest.importorskip("jax")
    v = {name: x.astype(np.float32) for name, x in SSD.inputs().items()}
    found = jax.jit(lambda v: ssd(**v, chunk=4))({name: jax.numpy.asarray(x) for name, x in v.items()})
    close(found, ssd(**v), 1e-5)


def test_memory_of_the_backward_is_that_of_a_chunk():
    """Not that of the states of all steps, which are 64 times the inputs here."""
    torch = pytest.importorskip("torch")
    length, kept = 512, []
    x, dt = torch.randn(1, length, 2, 16, requires_grad=True), torch.rand(1, length, 2)
    rows = torch.randn(2, 1, length, 1, 64)

    def pack(t: Any) -> Any:
        kept.append(t.numel())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        ssd(x, dt, -torch.ones(2), *rows, chunk=32)
    assert max(kept) < length * 2 * 16 * 64 / 8
