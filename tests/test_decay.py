"""Gated linear attention where it is hard: decays of every strength, extreme gates, long sequences, NaN beside it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ssm_core
from conformance.cases.decay import arguments, flat, inputs
from conformance.examples import Draw
from conformance.truth.decay import gated_linear_attention as plain
from ssm_core import OptionError, ShapeError, gated_linear_attention, gated_linear_attention_summary

torch = pytest.importorskip("torch", reason="torch is not installed")

DECAYS = (-1e-4, -1.0, -5.0, -20.0)
L = 150
KINDS: dict[str, dict[str, Any]] = {
    "head": {},
    "channel": {"decay": "channel"},
    "late": {"decay": "channel", "exclusive": True},
    "max": {"normalize": "max"},
}


def drawn(kind: str, g: float | None = None, **more: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Inputs in double precision with all decays g, or of all strengths, and options."""
    options = dict(KINDS[kind])
    decay, exclusive = options.pop("decay", "head"), options.get("exclusive", False)
    names = (("bonus",) if exclusive else ()) + (("log_input",) if kind == "max" else ())
    found = inputs(*names, decay=decay, parts=3 if kind == "max" else 1, length=L, **more)(Draw(3))
    shape = found["log_decay"].shape
    found["log_decay"] = np.full(shape, g) if g else np.random.default_rng(0).choice(DECAYS, shape)
    return found, options


def loss(found: tuple[Any, ...]) -> Any:
    return sum((x * x).sum() for x in found)


def gradients(kind: str, found: dict[str, np.ndarray], options: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    leaves = {n: torch.as_tensor(x, dtype=dtype).requires_grad_() for n, x in found.items()}
    loss(flat(gated_linear_attention(**arguments(SimpleNamespace(**leaves)), return_state=True, **options))).backward()
    return {n: x.grad.numpy().astype(float) for n, x in leaves.items()}


@pytest.mark.parametrize("g", [*DECAYS, None])
@pytest.mark.parametrize("kind", KINDS)
def test_decays_of_every_strength_in_single_precision(kind: str, g: float | None):
    found, options = drawn(kind, g)
    found = {n: x.astype(np.float32).astype(float) for n, x in found.items()}
    single = arguments(SimpleNamespace(**{n: x.astype(np.float32) for n, x in found.items()}))
    y = gated_linear_attention(**single, return_state=True, **options)
    for actual, expected in zip(flat(y), plain(SimpleNamespace(**found), return_state=True, **options), strict=True):
        assert actual.dtype == np.float32
        allowed = 1e-3 if kind == "max" else 2e-5  # a normalizer may nearly vanish
        np.testing.assert_allclose(actual, expected, rtol=0, atol=allowed * np.abs(expected).max())
    rough, exact = (gradients(kind, found, options, dtype) for dtype in (torch.float32, torch.float64))
    for name, expected in exact.items():
        np.testing.assert_allclose(
            rough[name], expected, rtol=0, atol=10 * allowed * np.abs(expected).max(), err_msg=name
        )


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_of_any_size(kind: str):
    found, options = drawn(kind)
    given = arguments(SimpleNamespace(**found))
    wanted = flat(gated_linear_attention(**given, return_state=True, **options))
    for chunk in (1, 7, 200):
        again = flat(gated_linear_attention(**given, return_state=True, chunk=chunk, **options))
        for actual, expected in zip(again, wanted, strict=True):
            np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_beyond_lengths_and_before_resets(kind: str, bad: float):
    """Neither values nor gradients of what lies elsewhere; its own sequence is marked."""
    found, options = drawn(kind)
    lengths, reset = torch.tensor([L, 90]), torch.zeros(2, L, dtype=torch.bool)
    reset[0, 40], reset[0, 70], reset[1, 20] = True, True, True
    results = []
    for filled in (0.0, bad):
        leaves = {n: torch.as_tensor(x) for n, x in found.items()}
        for name in ("q", "k", "v"):
            leaves[name] = leaves[name].clone()
            leaves[name][0, 50:55], leaves[name][1, :20], leaves[name][1, 90:] = filled, filled, filled
        leaves["S"] = leaves["S"].clone()
        leaves["S"][1] = filled
        leaves = {n: x.requires_grad_() for n, x in leaves.items()}
        given = arguments(SimpleNamespace(**leaves))
        y, *state = flat(gated_linear_attention(**given, reset=reset, lengths=lengths, return_state=True, **options))
        outputs = (y[0, :50], y[0, 70:], y[1, 20:90], *state)
        loss(outputs).backward()
        slopes = [leaves[n].grad for n in leaves if n not in ("S", "n")]
        results.append([*outputs, *slopes])
        if filled:
            assert y[0, 55:70].isnan().all()
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)


def test_extreme_input_gates():
    """The running maximum holds what overflows without it."""
    found, options = drawn("max")
    found["log_input"] = np.random.default_rng(0).choice([-500.0, 0.0, 80.0, 300.0], found["log_input"].shape)
    single = arguments(SimpleNamespace(**{n: x.astype(np.float32) for n, x in found.items()}))
    y = flat(gated_linear_attention(**single, return_state=True, **options))
    for actual, expected in zip(y, plain(SimpleNamespace(**found), return_state=True, **options), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-3 * np.abs(expected).max())
    found["log_input"][:] = -500.0  # nothing has entered: neither inf nor NaN, in gradients too
    assert all(np.isfinite(x).all() for x in gradients("max", found, options, torch.float32).values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_thousand_steps(kind: str):
    """Stay finite, and the last state is that of the last steps."""
    found, options = drawn(kind, -1e-2)
    found = {n: torch.as_tensor(x[:1] if n in ("S", "n", "m") else x, dtype=torch.float32) for n, x in found.items()}
    long = {n: x[:1].repeat(1, 700, *(1,) * (x.ndim - 2)) if x.shape[1:2] == (L,) else x for n, x in found.items()}
    last = {n: x[:, -4096:] if x.shape[1:2] == (700 * L,) else x for n, x in long.items()}
    states = []
    for signals in (long, last):
        with torch.no_grad():
            y, *state = flat(
                gated_linear_attention(**arguments(SimpleNamespace(**signals)), return_state=True, **options)
            )
        assert y.isfinite().all()
        states.append(state)
    for actual, expected in zip(*states, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_rwkv6_is_gla_one_step_late():
    found, _ = drawn("late")
    del found["S"]
    y = gated_linear_attention(**found, exclusive=True)
    before = {n: np.concatenate([0 * found[n][:, :1], found[n][:, :-1]], axis=1) for n in ("k", "v")}
    late = np.concatenate([0 * found["log_decay"][:, :1], found["log_decay"][:, :-1]], axis=1)
    late = gated_linear_attention(found["q"], before["k"], before["v"], late)
    own = np.sum(found["q"] * found["bonus"] * found["k"], axis=-1, keepdims=True) * found["k"].shape[-1] ** -0.5
    np.testing.assert_allclose(y, late + own * found["v"], atol=1e-11)


def test_refusals():
    found, _ = drawn("channel")
    q, k, v, g = (found[n] for n in ("q", "k", "v", "log_decay"))
    with pytest.raises(
        ShapeError, match=r"^gated_linear_attention: q and k must be \(2, 150, G, K\) \(q: \(2, 150, 4, 2\)"
    ):
        gated_linear_attention(q[..., :2], k, v, g)
    with pytest.raises(ShapeError, match="3 heads of k do not divide 4 heads of v"):
        gated_linear_attention(q[:, :, :3], k[:, :, :3], v, g)
    with pytest.raises(ShapeError, match=r"log_decay must be \(4,\) or \(2, 150, 4\)"):
        gated_linear_attention(q, k, v, g[:, :9])
    with pytest.raises(ShapeError, match="normalize = 'max' needs one decay a head"):
        gated_linear_attention(q, k, v, g, normalize="max")
    with pytest.raises(OptionError, match=r"unknown normalize 'mean'. Known: 'sum', 'max', None\."):
        gated_linear_attention(q, k, v, g, normalize="mean")
    for name in (["sum"], np.asarray([0.5, 1.0])):
        with pytest.raises(OptionError, match="unknown normalize"):
            gated_linear_attention(q, k, v, g, normalize=name)
        with pytest.raises(OptionError, match="unknown normalize"):
            gated_linear_attention_summary(k, v, g, normalize=name)
    with pytest.raises(OptionError, match="normalize = 'sum' goes with a read of the same step"):
        gated_linear_attention(q, k, v, g, normalize="sum", exclusive=True)
    with pytest.raises(OptionError, match="exclusive = 1 must be True or False"):
        gated_linear_attention(q, k, v, g, exclusive=1)
    with pytest.raises(ShapeError, match="initial must be a tuple of 3 arrays, not a ndarray"):
        gated_linear_attention(q, k, v, normalize="max", initial=found["S"])
    with pytest.raises(ssm_core.DomainError, match=r"the state overflows: .* Keep log_decay at most 0"):
        gated_linear_attention(q, k, v, -100 * g)
