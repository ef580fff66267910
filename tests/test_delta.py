"""The gated delta rule where it is hard: decays of every strength, reflections, long sequences, NaN beside it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ssm_core
from conformance.cases.delta import inputs
from conformance.examples import Draw
from conformance.truth.delta import gated_delta as plain
from ssm_core import OptionError, ShapeError, gated_delta

torch = pytest.importorskip("torch", reason="torch is not installed")

DECAYS = (-1e-4, -1.0, -5.0, -20.0)
L = 150
KINDS: dict[str, dict[str, Any]] = {
    "head": {"names": ("beta",)},
    "channel": {"names": ("beta",), "decay": "channel"},
    "erase": {"names": ("erase", "write"), "decay": "channel"},
    "general": {"names": ("a", "b"), "decay": "channel"},
    "substeps": {"names": ("beta",), "substeps": 2},
}


def drawn(kind: str, g: float | None = None, length: int = L) -> dict[str, np.ndarray]:
    """Inputs in double precision with all decays g, or of all strengths; no step lets a state grow."""
    options = dict(KINDS[kind])
    found = inputs(*options.pop("names"), "initial", length=length, **options)(Draw(3))
    if kind == "general":
        unit = found["a"] / np.linalg.norm(found["a"], axis=-1, keepdims=True)
        found |= {"a": -unit, "b": unit * np.random.default_rng(1).uniform(0, 1, unit.shape)}
    shape = found["log_decay"].shape
    found["log_decay"] = np.full(shape, g) if g else np.random.default_rng(0).choice(DECAYS, shape)
    return found


def gradients(found: dict[str, np.ndarray], dtype: torch.dtype) -> dict[str, np.ndarray]:
    leaves = {n: torch.as_tensor(x, dtype=dtype).requires_grad_() for n, x in found.items()}
    sum((x * x).sum() for x in gated_delta(**leaves, return_state=True)).backward()
    return {n: x.grad.numpy().astype(float) for n, x in leaves.items()}


@pytest.mark.parametrize("g", [*DECAYS, None])
@pytest.mark.parametrize("kind", KINDS)
def test_decays_of_every_strength_in_single_precision(kind: str, g: float | None):
    found = {n: x.astype(np.float32).astype(float) for n, x in drawn(kind, g).items()}
    wanted = plain(SimpleNamespace(**found), return_state=True)
    for asarray in (np.asarray, torch.as_tensor):
        y = gated_delta(**{n: asarray(x.astype(np.float32)) for n, x in found.items()}, return_state=True)
        for actual, expected in zip(y, wanted, strict=True):
            assert "float32" in str(actual.dtype)
            np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    rough, exact = (gradients(found, dtype) for dtype in (torch.float32, torch.float64))
    for name, expected in exact.items():
        np.testing.assert_allclose(rough[name], expected, rtol=0, atol=2e-4 * np.abs(expected).max(), err_msg=name)


FORMS: dict[str, dict[str, Any]] = {
    "no decay-group": {"names": (), "decay": None, "groups": 1},
    "erase-write-beta": {"names": ("erase", "write", "beta"), "groups": 2},
    "other key": {"names": ("a", "beta"), "decay": "channel"},
    "general-groups": {"names": ("a", "b", "beta", "write"), "groups": 2},
    "substeps": {"names": ("beta",), "decay": "channel", "groups": 1, "substeps": 3},
    "general-substeps": {"names": ("a", "b"), "substeps": 2},
}


@pytest.mark.parametrize("form", FORMS)
def test_chunks_of_pytorch_and_their_adjoint(form: str, monkeypatch: pytest.MonkeyPatch):
    """Several pieces of several chunks against the generic body."""
    monkeypatch.setattr("ssm_core.backends.torch.delta.chunks.SIZE", 2**9)
    options = dict(FORMS[form])
    names = (*options.pop("names"), "initial", "reset")
    found = {n: torch.as_tensor(x) for n, x in inputs(*names, length=61, **options)(Draw(3)).items()}
    reset = found.pop("reset")
    torch.manual_seed(0)
    slopes = [torch.randn(2, 61, 4, 5, dtype=torch.double), torch.randn(2, 4, 3, 5, dtype=torch.double)]
    results = []
    for backend in ("auto", "generic"):
        leaves = [x.clone().requires_grad_() for x in found.values()]
        with ssm_core.use_backend(backend):
            outputs = gated_delta(**dict(zip(found, leaves, strict=True)), reset=reset, return_state=True, chunk=8)
            results.append([*outputs, *torch.autograd.grad(outputs, leaves, slopes)])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)


def test_gradients_of_gradients():
    """Which the generic body gives."""
    found = {n: torch.as_tensor(x).requires_grad_() for n, x in drawn("head", -0.5, length=4).items()}
    found = {n: x[:1].detach().requires_grad_() for n, x in found.items()}

    def run(*arrays: torch.Tensor) -> Any:
        return gated_delta(**dict(zip(found, arrays, strict=True)), chunk=2)

    assert torch.autograd.gradcheck(run, tuple(found.values()), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, tuple(found.values()), fast_mode=True)


def test_reflections_of_one_key():
    """Powers of the triangular matrix reach 1e18 here, its inverse 2; 64 rows of that size add up their roundings."""
    found = drawn("head", -1e-4)
    found["k"], found["beta"] = np.broadcast_to(found["k"][:, :1], found["k"].shape), np.full_like(found["beta"], 2.0)
    found = {n: x.astype(np.float32).astype(float) for n, x in found.items()}
    expected = plain(SimpleNamespace(**found))
    for chunk, allowed in ((8, 2e-5), (64, 64**2 * 1.2e-7)):
        for asarray in (np.asarray, torch.as_tensor):
            y = gated_delta(**{n: asarray(x.astype(np.float32)) for n, x in found.items()}, chunk=chunk)
            np.testing.assert_allclose(y, expected, rtol=0, atol=allowed * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_of_any_size(kind: str):
    found = drawn(kind)
    wanted = gated_delta(**found, return_state=True)
    for chunk in (1, 7, 200):
        for actual, expected in zip(gated_delta(**found, return_state=True, chunk=chunk), wanted, strict=True):
            np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_beyond_lengths_and_before_resets(kind: str, bad: float):
    """Neither values nor gradients of what lies elsewhere; its own sequence is marked."""
    found = drawn(kind)
    lengths, reset = torch.tensor([L, 90]), torch.zeros(2, L, dtype=torch.bool)
    reset[0, 40], reset[0, 70], reset[1, 20] = True, True, True
    results = []
    for filled in (0.0, bad):
        leaves = {n: torch.as_tensor(x).clone() for n, x in found.items()}
        for name in ("q", "k", "v"):
            leaves[name][0, 50:55], leaves[name][1, :20], leaves[name][1, 90:] = filled, filled, filled
        leaves["initial"][1] = filled
        leaves = {n: x.requires_grad_() for n, x in leaves.items()}
        y, state = gated_delta(**leaves, reset=reset, lengths=lengths, return_state=True)
        outputs = (y[0, :50], y[0, 70:], y[1, 20:90], state)
        sum((x * x).sum() for x in outputs).backward()
        results.append([*outputs, *(x.grad for n, x in leaves.items() if n != "initial")])
        if filled:
            assert y[0, 55:70].isnan().all()
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("kind", ["head", "general"])
def test_a_hundred_thousand_steps(kind: str):
    """Stay finite, and the last state is that of the last steps."""
    found = {n: torch.as_tensor(x[:1], dtype=torch.float32) for n, x in drawn(kind, -1e-2).items()}
    initial = found.pop("initial")
    long = {n: x.repeat(1, 700, *(1,) * (x.ndim - 2)) for n, x in found.items()}
    states = []
    for signals in (long, {n: x[:, -4096:] for n, x in long.items()}):
        y, state = gated_delta(**signals, initial=initial, return_state=True)
        assert y.isfinite().all()
        states.append(state)
    torch.testing.assert_close(*states, rtol=1e-4, atol=1e-4)


def test_special_cases_of_one_another():
    found = drawn("channel")
    q, k, v, g, beta = (found[n] for n in ("q", "k", "v", "log_decay", "beta"))
    y = gated_delta(q, k, v, g, beta)
    gates = {"erase": np.broadcast_to(beta[..., None], k.shape), "write": np.broadcast_to(beta[..., None], v.shape)}
    np.testing.assert_allclose(gated_delta(q, k, v, g, **gates), y, atol=1e-12)
    read, written = np.exp(g) * k, beta[..., None] * k
    np.testing.assert_allclose(gated_delta(q, k, v, g, beta, a=read), y, atol=1e-12)
    np.testing.assert_allclose(gated_delta(q, k, v, g, beta, a=read, b=-written), y, atol=1e-12)
    nothing = gated_delta(q, k, v, g, beta, a=0 * k)
    np.testing.assert_allclose(nothing, ssm_core.gated_linear_attention(q, written, v, g), atol=1e-12)


def test_summaries_of_neighbors():
    found = drawn("channel")
    state = found.pop("initial")
    del found["q"]
    parts = [
        ssm_core.gated_delta_summary(**{n: x[:, at] for n, x in found.items()}) for at in (slice(70), slice(70, L))
    ]
    whole = ssm_core.gated_delta_summary(**found)
    np.testing.assert_allclose(parts[0].then(parts[1]).after(state), whole.after(state), atol=1e-12)


def test_gradients_of_one_chunk_in_jax():
    """Sizes with which XLA fails in sums along short axes between many."""
    jax = pytest.importorskip("jax", reason="jax is not installed")
    shape, random = (2, 64, 8, 128), np.random.default_rng(0)
    q, k, v, g = (random.standard_normal(shape).astype(np.float32) for _ in range(4))
    given = (q, k / np.linalg.norm(k, axis=-1, keepdims=True), v, -abs(g), abs(g[..., 0]).clip(0, 1))
    found = jax.jit(jax.grad(lambda *x: gated_delta(*x).sum(), (0, 1, 2, 3, 4)))(*given)
    leaves = [torch.tensor(x, requires_grad=True) for x in given]
    gated_delta(*leaves).sum().backward()
    for actual, leaf in zip(found, leaves, strict=True):
        np.testing.assert_allclose(actual, leaf.grad, atol=1e-4 * float(leaf.grad.abs().max()))


def test_refusals():
    found = drawn("channel")
    q, k, v, g, beta = (found[n] for n in ("q", "k", "v", "log_decay", "beta"))
    with pytest.raises(ShapeError, match=r"^gated_delta: q must be \(2, 150, 4, 3\) \(q: \(2, 150, 4, 2\)"):
        gated_delta(q[..., :2], k, v, g)
    with pytest.raises(ShapeError, match="3 heads of k do not divide 4 heads of v"):
        gated_delta(q[:, :, :3], k[:, :, :3], v, g)
    with pytest.raises(ShapeError, match=r"log_decay must be \(2, 150, 4\)"):
        gated_delta(q, k, v, g[:, :9])
    with pytest.raises(ShapeError, match=r"beta must be \(2, 150, 4\)"):
        gated_delta(q, k, v, g, beta[..., None])
    with pytest.raises(OptionError, match="a is the key that reads, so erase has none to act on"):
        gated_delta(q, k, v, g, a=k, erase=k)
    with pytest.raises(OptionError, match="b is written with what a reads: give a too"):
        gated_delta(q, k, v, g, b=k)
    with pytest.raises(OptionError, match="scale = nan must be a finite number"):
        gated_delta(q, k, v, g, scale=np.nan)
    with pytest.raises(ssm_core.DomainError, match=r"the state overflows: .* Divide k by its L2 norm"):
        gated_delta(q, 1e3 * k, v, g, beta)
