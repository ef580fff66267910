"""causal_conv1d against NumPy's convolution, and its state: the last inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gated import CONVOLUTION, close
from hypothesis import given, settings
from hypothesis import strategies as st

import ssm_core
from ssm_core import causal_conv1d, convolve
from ssm_core.functions.short_convolution import short_stepper

settings.register_profile("ssm_core", derandomize=True, deadline=None, max_examples=30, database=None)
settings.load_profile("ssm_core")

BATCH, H = 2, 4
seeds = st.integers(0, 2**16)


def drawn(seed: int, length: int, taps: int) -> dict[str, Any]:
    r = np.random.default_rng(seed)
    return {"u": r.normal(size=(BATCH, H, length)), "weight": r.normal(size=(H, taps)), "bias": r.normal(size=H)}


@given(seeds, st.integers(1, 20), st.integers(1, 6))
def test_is_a_convolution_by_taps_in_reverse(seed: int, length: int, taps: int):
    """The last tap meets the input of the same step."""
    v = drawn(seed, length, taps)
    y = causal_conv1d(**v)
    for i, h in np.ndindex(BATCH, H):
        wanted = np.convolve(v["u"][i, h], v["weight"][h, ::-1])[:length] + v["bias"][h]
        close(y[i, h], wanted)
    close(y - v["bias"][:, None], convolve(v["u"], v["weight"][:, ::-1]))


@given(seeds, st.integers(0, 20), st.integers(1, 6))
def test_the_state_is_the_last_inputs(seed: int, length: int, taps: int):
    v = drawn(seed, length, taps)
    before = np.random.default_rng(seed).normal(size=(BATCH, H, taps - 1))
    _, state = causal_conv1d(**v, initial=before, return_state=True)
    every = np.concatenate([before, v["u"]], axis=-1)
    np.testing.assert_array_equal(state, every[..., every.shape[-1] - taps + 1 :])


@given(seeds, st.integers(1, 12), st.integers(1, 5))
def test_step_by_step_is_the_whole(seed: int, length: int, taps: int):
    v = drawn(seed, length, taps)
    state = np.random.default_rng(seed).normal(size=(BATCH, H, taps - 1))
    whole, last = causal_conv1d(**v, initial=state, return_state=True)
    step = short_stepper(v["weight"], v["bias"], np)
    for k in range(length):
        y, state = step(v["u"][..., k], state)
        close(y, whole[..., k])
    np.testing.assert_array_equal(state, last)


def test_one_tap_has_no_state(xp: Any):
    v = {name: xp.asarray(x) for name, x in drawn(0, 5, 1).items()}
    y, state = causal_conv1d(**v, initial=xp.zeros((BATCH, H, 0), dtype=xp.float64), return_state=True)
    close(y, np.asarray(v["u"]) * np.asarray(v["weight"]) + np.asarray(v["bias"])[:, None])
    assert tuple(state.shape) == (BATCH, H, 0)
    close(causal_conv1d(**v), y)


def test_resets_cut_the_window_of_the_state_too(xp: Any):
    """The inputs kept for later are those since the last reset, also at a length within."""
    u = np.arange(1.0, 7.0)[None, None, :]
    reset = np.asarray([[False, False, False, False, True, False]])
    taps = np.ones((1, 4))
    given = {"u": xp.asarray(u), "weight": xp.asarray(taps), "reset": xp.asarray(reset)}
    y, state = causal_conv1d(**given, return_state=True)
    close(y, [[[1, 3, 6, 10, 5, 11]]])
    close(state, [[[0, 5, 6]]])
    _, state = causal_conv1d(**given, lengths=xp.asarray([4]), return_state=True)
    close(state, [[[2, 3, 4]]])
    _, state = causal_conv1d(**given, lengths=xp.asarray([0]), initial=xp.ones((1, 1, 3)), return_state=True)
    close(state, [[[1, 1, 1]]])


@given(seeds, st.floats(-3, 3))
def test_is_linear_in_inputs_and_state(seed: int, c: float):
    v, w = (drawn(seed + i, 9, 4) for i in range(2))
    x, z = CONVOLUTION.state(seed)[0], CONVOLUTION.state(seed + 1)[0]
    (y1, s1), (y2, s2) = (causal_conv1d(a, v["weight"], initial=b, return_state=True) for a, b in
                          ((v["u"], x), (w["u"], z)))  # fmt: skip
    y, s = causal_conv1d(v["u"] + c * w["u"], v["weight"], initial=x + c * z, return_state=True)
    close((y, s), (y1 + c * y2, s1 + c * s2))


def test_gradients_in_torch():
    torch = pytest.importorskip("torch")
    v = {name: torch.from_numpy(x) for name, x in drawn(0, 6, 3).items()}
    v["initial"] = torch.from_numpy(np.random.default_rng(1).normal(size=(BATCH, H, 2)))
    values = [x.clone().requires_grad_() for x in v.values()]

    def run(*values: Any) -> Any:
        return causal_conv1d(**dict(zip(v, values, strict=True)), return_state=True)

    assert torch.autograd.gradcheck(run, values, fast_mode=True)


@pytest.mark.parametrize(("length", "taps"), [(1, 1), (1, 4), (2, 6), (3, 4), (17, 4)])
@pytest.mark.parametrize("biased", [False, True])
def test_pieces_of_pytorch_and_their_adjoint(length: int, taps: int, biased: bool, monkeypatch: pytest.MonkeyPatch):
    """Features side by side, as layers have them: pieces of 2 steps against the generic body, and twice differentiated.

    Sequences may be shorter than the filter, and pieces than what they see.
    """
    torch = pytest.importorskip("torch")
    monkeypatch.setattr("ssm_core.backends.torch.short_convolution.PIECE", 2 * H)
    v = {name: torch.from_numpy(x) for name, x in drawn(0, length, taps).items() if biased or name != "bias"}
    v["u"] = v["u"].mT.contiguous()
    if taps > 1:
        v["initial"] = torch.from_numpy(np.random.default_rng(1).normal(size=(BATCH, H, taps - 1)))
    leaves = [x.requires_grad_() for x in v.values()]

    def run(u: Any, *others: Any) -> Any:
        return causal_conv1d(u.mT, **dict(zip(list(v)[1:], others, strict=True)))

    results = []
    for backend in ("auto", "generic"):
        with ssm_core.use_backend(backend):
            y = run(*leaves)
            first = torch.autograd.grad((y**3).sum(), leaves, create_graph=True)
            second = torch.autograd.grad(sum((x**2).sum() for x in first), leaves)
            results.append([y, *first, *second])
            assert ("_Convolution" in str(y.grad_fn.next_functions)) == (backend == "auto")
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)
    assert torch.autograd.gradgradcheck(run, leaves, fast_mode=True)


@pytest.mark.parametrize(("length", "taps"), [(1, 4), (2, 6), (17, 4)])
def test_steps_side_by_side_in_pytorch(length: int, taps: int):
    """As the public function has them: PyTorch's own convolution, once and twice differentiated."""
    torch = pytest.importorskip("torch")
    v = {name: torch.from_numpy(x).requires_grad_() for name, x in drawn(0, length, taps).items()}
    v["initial"] = torch.from_numpy(np.random.default_rng(1).normal(size=(BATCH, H, taps - 1))).requires_grad_()

    def run(*values: Any) -> Any:
        return causal_conv1d(**dict(zip(v, values, strict=True)), return_state=True)

    with ssm_core.use_backend("generic"):
        wanted = run(*v.values())
    for actual, expected in zip(run(*v.values()), wanted, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(run, [*v.values()], fast_mode=True)
    assert torch.autograd.gradgradcheck(run, [*v.values()], fast_mode=True)


def test_the_sum_of_half_precision_is_taken_in_single():
    """2048 + 1 - 2048 is 0 in float16."""
    u, weight = np.asarray([[[2048.0, 1.0, -2048.0]]], np.float16), np.ones((1, 3), np.float16)
    y = causal_conv1d(u, weight)
    assert y.dtype == np.float16
    assert y[0, 0, -1] == 1


def test_mixed_precisions_are_computed_in_the_wider():
    v = drawn(0, 5, 2)
    y = causal_conv1d(v["u"].astype(np.float32), v["weight"])
    assert y.dtype == np.float64
    with pytest.raises(ssm_core.DTypeError, match="weight has dtype int64"):
        causal_conv1d(v["u"], np.ones((H, 2), int))
