"""Folds over chunks: the same in every library, and in PyTorch with gradients that hold one chunk at a time."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core._arrays.dispatch import load
from ssm_core.recurrences.fold import fold

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("quick_compilation")

GIVEN = [False, True]  # whether the body is given what it needs besides, or closes over it


@pytest.mark.parametrize("held", GIVEN)
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("chunk", [3, 10])
@pytest.mark.parametrize("framework", ["numpy", "torch", "jax"])
def test_folds(framework: str, chunk: int, recompute: bool, held: bool):
    pytest.importorskip(framework)
    xp, rng = load(framework).NAMESPACE, np.random.default_rng(0)
    u, v, w = (rng.standard_normal(n).astype(np.float32) for n in ((7, 2), (7,), (2,)))

    def body(state: Any, u: Any, v: Any, w: Any = None) -> Any:
        sums = xp.cumulative_sum(u * v[:, None], axis=0) + state
        return sums[-1, ...], (xp.asarray(given) if w is None else w) * sums

    given, arrays = w, (xp.asarray(u), xp.asarray(v))
    constants = (xp.asarray(w),) if held else None
    y, state = fold(body, xp.zeros(2, dtype=xp.float32), arrays, constants, chunk=chunk, recompute=recompute)
    wanted = np.cumsum(u * v[:, None], axis=0)
    np.testing.assert_allclose(np.asarray(y), w * wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.asarray(state), wanted[-1], rtol=1e-4, atol=1e-6)


def test_recomputing_runs_every_chunk_twice():
    calls = []

    def body(state: Any, u: Any) -> Any:
        calls.append(len(u))
        return state + u.sum(), u * state

    def run(recompute: bool, held: Any) -> Any:
        calls.clear()
        u = torch.arange(6.0, requires_grad=True)
        y, state = fold(body, torch.ones(()), (u,), held, chunk=2, recompute=recompute)
        return torch.autograd.grad(y.sum() + state, u)[0], len(calls)

    kept, once = run(False, None)
    assert once == 3
    for held in (None, ()):
        again, twice = run(True, held)
        torch.testing.assert_close(kept, again)
        assert twice == 6


def turning(state: Any, u: Any, gate: Any, mask: Any, w: Any, nothing: None) -> Any:
    """A body with two states of different dtypes, a signal without gradients, and a constant that is None."""
    x, count = state
    outputs = []
    for k in range(len(u)):
        x = torch.where(mask[k], gate[k] * x + w * u[k], x)
        count = count + mask[k]
        outputs.append((x * x.conj()).real + u[k] * w)
    return (x, count), torch.stack(outputs)


def arguments(length: int = 5) -> tuple[Any, ...]:
    torch.manual_seed(0)
    x = torch.randn(3, dtype=torch.complex128, requires_grad=True)
    u, gate = (torch.randn(length, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    return x, u, gate, torch.randn(3, dtype=torch.float64, requires_grad=True)


def folded(x: Any, u: Any, gate: Any, w: Any, chunk: int = 2) -> Any:
    mask, count = torch.arange(len(u)) != 3, torch.zeros((), dtype=torch.int64)
    y, (x, count) = fold(turning, (x, count), (u, gate, mask), (w, None), chunk=chunk)
    assert count == len(u) - 1
    return y, x


def test_gradients_and_their_gradients():
    torch.autograd.gradcheck(folded, arguments())
    torch.autograd.gradgradcheck(folded, arguments(4))
    torch.autograd.gradcheck(folded, arguments(), check_batched_grad=True)


@pytest.mark.parametrize("of", [(0,), (1,), (3,), (2, 3)])
@pytest.mark.parametrize("result", [0, 1])
def test_some_gradients_of_some_results(result: int, of: tuple[int, ...]):
    """What is not asked for is not there, and what a result does not depend on counts as zero."""
    given = [x if i in of else x.detach() for i, x in enumerate(arguments())]
    found, wanted = (
        torch.autograd.grad(torch.view_as_real(folded(*given, chunk=n)[result] + 0j).sum(), [given[i] for i in of])
        for n in (2, 99)
    )
    torch.testing.assert_close(found, wanted)


def test_without_gradients():
    with torch.no_grad():
        for found, wanted in zip(folded(*arguments()), folded(*arguments(), chunk=99), strict=True):
            torch.testing.assert_close(found, wanted)


def test_one_tensor_twice():
    """As the state and as a constant, and as two signals."""
    x, u, _, _ = arguments()
    w = x.real.detach().requires_grad_()
    found, wanted = (torch.autograd.grad(folded(w + 0j, u, u, w, chunk=n)[0].sum(), (u, w)) for n in (2, 99))
    torch.testing.assert_close(found, wanted)


def test_inside_a_checkpoint():
    given = arguments()
    again = torch.utils.checkpoint.checkpoint(folded, *given, use_reentrant=False)
    found, wanted = (torch.autograd.grad(y.sum(), given) for y, _ in (again, folded(*given)))
    torch.testing.assert_close(found, wanted)


def test_what_a_body_closes_over_is_refused():
    w = torch.ones((), requires_grad=True)

    def body(state: Any, u: Any) -> Any:
        return state, w * u

    y, _ = fold(body, w, (torch.arange(6.0),), chunk=2)
    assert torch.autograd.grad(y.sum(), w)[0] == 15
    with pytest.raises(RuntimeError, match="closes over an array that has a gradient"):
        fold(body, w, (torch.arange(6.0),), (), chunk=2)


def test_gradients_that_are_other_gradients():
    """A body that adds its constants hands the gradient of the state on to each of them, uncopied."""
    given = [torch.full((1,), x, requires_grad=True) for x in (1.0, 2.0)]

    def body(state: Any, u: Any, v: Any, w: Any) -> Any:
        return state + (v + w), u * state

    def run(chunk: int) -> Any:
        y, last = fold(body, torch.zeros(1), (torch.arange(6.0)[:, None],), tuple(given), chunk=chunk)
        return torch.autograd.grad((y, last), given, (torch.ones_like(y), slope))

    slope = torch.ones(1)
    found = run(2)
    assert slope == 1
    assert [float(g) for g in found] == [(2 + 3) + 2 * (4 + 5) + 3] * 2  # the state of chunk i is i (v + w)


def test_states_that_change_places():
    def body(state: Any, u: Any) -> Any:
        (a, b) = state
        return (b, a), u * a

    signal, state = (torch.arange(6.0)[:, None],), (torch.ones(1), torch.full((1,), 2.0))
    with torch.no_grad():
        y, (a, b) = fold(body, state, signal, (), chunk=2)
    assert y[:, 0].tolist() == [0, 1, 4, 6, 4, 5]
    assert (a, b) == (2, 1)


@pytest.mark.parametrize(
    ("after", "rows", "message"),
    [
        (lambda x: x.double(), 2, r"float64 .* had torch.float32"),
        (lambda x: x[:1], 2, r"\(1, 1\) where chunks before had .* \(1, 3\)"),
        (lambda x: x, 1, "1 rows of y for a chunk of 2 steps"),
    ],
)
def test_states_and_outputs_keep_their_kind(after: Any, rows: int, message: str):
    def body(state: Any, u: Any) -> Any:
        return after(state), u[:rows]

    with pytest.raises(RuntimeError, match=message):
        fold(body, torch.ones(3), (torch.arange(6.0),), (), chunk=2)


def test_batched_gradients_keep_no_graph():
    given = arguments()
    y, _ = folded(*given)
    slopes = torch.eye(y.numel(), dtype=y.dtype).reshape(-1, *y.shape)
    found = torch.autograd.grad(y, given, slopes, is_grads_batched=True)
    assert not any(g.requires_grad for g in found)


def test_nothing_but_saved_tensors_is_kept():
    """The closures of the bodies hold none of their arrays."""
    x, dt, rows = torch.rand(1, 5, 1, 2), torch.rand(1, 5, 1), torch.rand(1, 5, 1, 3, requires_grad=True)
    B = rows * 1
    held = weakref.ref(B)
    y = ssm_core.ssd(x, dt, -torch.ones(1), B, rows, chunk=2)
    y.sum().backward()
    del B
    assert held() is None


def test_shapes_without_memory():
    x, dt, rows = (torch.ones(1, 5, 1, *n, device="meta", requires_grad=True) for n in ((2,), (), (3,)))
    y = ssm_core.ssd(x, dt, -torch.ones(1, device="meta"), rows, rows, chunk=2)
    y.sum().backward()
    assert rows.grad.shape == rows.shape


def test_the_backward_computes_in_the_precision_of_the_forward():
    u, w = torch.randn(8, 4, 4), torch.randn(4, 4, requires_grad=True)
    dtypes = []

    def body(state: Any, u: Any, w: Any) -> Any:
        y = u @ w
        dtypes.append(y.dtype)
        return state, y

    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = fold(body, torch.zeros(()), (u,), (w,), chunk=4)
    y.float().sum().backward()
    assert dtypes == [torch.bfloat16] * 4
    assert w.grad.dtype == torch.float32


def test_exported_where_gradients_are_recorded():
    module = ssm_core.adapters.torch.Mamba2(8, d_state=4, head_dim=4, chunk=4)
    u = torch.randn(1, 9, 8)
    torch.testing.assert_close(torch.export.export(module, (u,)).module()(u), module(u))
