"""The walk over chunks of time-invariant systems: on a GPU, or through Triton's interpreter (`nox -s triton`)."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("no GPU: run `nox -s triton`, which uses Triton's interpreter", allow_module_level=True)

from torch.utils.checkpoint import checkpoint  # noqa: E402

import ssm_core  # noqa: E402
from ssm_core import Diagonal, scan  # noqa: E402
from ssm_core.adapters.torch import S4D  # noqa: E402
from ssm_core.backends.torch import gpu_kernels  # noqa: E402
from ssm_core.backends.torch.state_passing import triton_kernels as triton_convolution  # noqa: E402
from ssm_core.time_invariant.modes.state_passing import Maps, state_passing  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
T = triton_convolution.STEPS


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that ran, in their order."""
    assert gpu_kernels.kernels("state_passing", DEVICE) is triton_convolution
    names: list[str] = []
    for name in ("forward", "adjoint", "slopes"):
        kernel = getattr(triton_convolution, name)
        monkeypatch.setattr(
            triton_convolution, name, lambda *arrays, name=name, kernel=kernel: names.append(name) or kernel(*arrays)
        )
    return names


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def diagonal(H: tuple[int, ...], N: int, kind: str = "pairs") -> Diagonal:
    """A discrete system of slow and fast poles: "pairs", "real" (a real system), or "real pairs" (poles real)."""
    radius, angle = draw(*H, N, seed=1).sigmoid(), draw(*H, N, seed=2)
    if kind != "pairs":
        return Diagonal(radius, *(draw(*H, N, seed=i) for i in (3, 4)), conj_pairs=kind == "real pairs", discrete=True)
    B, C = (draw(*H, N, seed=i, dtype=torch.complex64) for i in (3, 4))
    return Diagonal(torch.polar(radius, angle), B, C, conj_pairs=True, discrete=True)


def precise(x: Any) -> Any:
    if isinstance(x, torch.Tensor):
        return x.detach().to(torch.complex128 if x.is_complex() else torch.float64)
    return x


def slopes(system: Diagonal, u: Any, initial: Any, **options: Any) -> tuple[Any, ...]:
    """Output, last state, and the gradients of a weighted sum of both for all that goes in."""
    leaves = [x.detach().requires_grad_() for x in (system.poles, system.B, system.C, u, initial) if x is not None]
    poles, B, C, u = leaves[:4]
    system = replace(system, poles=poles, B=B, C=C)
    y, state = scan(system, u, initial=None if initial is None else leaves[4], **options)
    cost = (y * draw(*y.shape, seed=8)).sum() + (state * draw(*state.shape, seed=9)).abs().sum()
    return y, state, *torch.autograd.grad(cost, leaves)


def close(found: tuple[Any, ...], wanted: tuple[Any, ...], tolerance: float = 1e-4) -> None:
    for x, y in zip(found, wanted, strict=True):
        assert x.shape == y.shape
        scale = max(1.0, y.abs().max().item())
        torch.testing.assert_close(x / scale, (y / scale).to(x.dtype), rtol=tolerance, atol=tolerance)


def compare(system: Diagonal, u: Any, initial: Any = None, **options: Any) -> None:
    """mode="chunk" of a system against mode="scan" of it in double precision, step by step."""
    exact = replace(system, **{name: precise(getattr(system, name)) for name in ("poles", "B", "C")})
    with ssm_core.use_backend("generic"):
        wanted = slopes(exact, precise(u), precise(initial), mode="scan", **options)
    close(slopes(system, u, initial, mode="chunk", **options), wanted)


@pytest.mark.parametrize(
    ("B", "H", "halves", "N", "L"),
    [(1, 1, 1, 1, 1), (17, 2, 2, 3, 2 * T + 1), (3, 1, 2, 32, 2 * T), (2, 1, 1, 64, T - 1), (2, 2, 1, 16, 3 * T + 5)],
)
def test_kernels_against_chunked_state_passing(B: int, H: int, halves: int, N: int, L: int):
    shapes = (B, H, L), (H, T), (H, halves, N, T), (H, halves, N, T), (H, halves, N), (H, halves, N), (B, H, halves, N)
    inputs = [draw(*shape, seed=i) for i, shape in enumerate(shapes)]
    inputs[4:6] = [x.tanh() / 2 for x in inputs[4:6]]
    dy, dlast = draw(B, H, L, seed=8), draw(B, H, halves, N, seed=9)
    u, taps, respond, drive, decay, head, first = inputs
    du, ddrive, dhead, dfirst = triton_convolution.adjoint(u, dy, taps, respond, drive, decay, head, first, dlast)
    dtaps, drespond, ddecay = triton_convolution.slopes(u, dy, respond, drive, decay, head, first, dlast)
    leaves = [precise(x).requires_grad_() for x in inputs]
    results = state_passing(leaves[0], Maps(*leaves[1:-1]), leaves[-1])
    close(triton_convolution.forward(*inputs), results, 1e-5)
    wanted = torch.autograd.grad(results, leaves, (precise(dy), precise(dlast)), materialize_grads=True)
    close((du, dtaps, drespond, ddrive, ddecay, dhead, dfirst), wanted, 1e-5)


def test_probe():
    assert gpu_kernels.disagreement(triton_convolution.probe, DEVICE) is None


@pytest.mark.parametrize(
    ("kind", "N"), [("pairs", 1), ("pairs", 3), ("pairs", 32), ("real", 1), ("real", 64), ("real pairs", 3)]
)
def test_systems(kind: str, N: int, called: list[str]):
    system = diagonal((2,), N, kind)
    compare(system, draw(2, 2, 2 * T + 9), draw(2, 2, N, seed=7, dtype=system.poles.dtype))
    assert called == ["forward", "adjoint", "slopes"]


@pytest.mark.parametrize("L", [1, T - 1, T, T + 1, 3 * T])
def test_lengths_around_chunks(L: int, called: list[str]):
    compare(diagonal((2,), 3), draw(2, 2, L))
    assert called


@pytest.mark.parametrize("B", [1, 16, 17])
def test_rows_of_the_batch(B: int, called: list[str]):
    compare(diagonal((1,), 2), draw(B, 1, T + 3), draw(B, 1, 2, seed=7, dtype=torch.complex64))
    assert called


@pytest.mark.parametrize(
    ("system", "u", "initial"),
    [
        ((), (4,), ()),
        ((), (), (2,)),
        ((3,), (), ()),
        ((1,), (3,), (2, 3)),
        ((2, 1), (3,), (2, 1)),
        ((2, 3), (2, 1), ()),
    ],
)
def test_broadcasting(system: Any, u: Any, initial: Any, called: list[str]):
    compare(diagonal(system, 2), draw(*u, T + 3), draw(*initial, 2, seed=7, dtype=torch.complex64))
    assert called


def test_real_input_and_output_maps_of_pairs(called: list[str]):
    system = diagonal((2,), 3)
    compare(replace(system, B=system.B.real, C=system.C.real), draw(2, T + 5), draw(2, 3, seed=7))
    compare(replace(diagonal((2,), 3, "real pairs"), C=system.C), draw(2, T + 5))
    assert called.count("slopes") == 2


def test_poles_at_zero(called: list[str]):
    """Powers without logarithms, and the power of none."""
    system = diagonal((1,), 2, "real")
    compare(replace(system, poles=torch.tensor([[0.0, -0.7]], device=DEVICE)), draw(1, T + 1), draw(1, 2, seed=7))
    assert called


def test_signals_of_any_memory_layout(called: list[str]):
    system = diagonal((3,), 2)
    negative = torch.complex(draw(2, 3, T + 4), draw(2, 3, T + 4, seed=5)).conj().imag
    for u in (draw(2, T + 4, 3).mT, draw(2, 3, 2 * T)[..., ::2], negative):
        close(scan(system, u, mode="chunk"), scan(system, u, mode="scan"))
    assert len(called) == 3


def test_lengths_of_sequences(called: list[str]):
    lengths = torch.tensor([0, 1, T, 2 * T + 9], device=DEVICE)
    system, u, initial = diagonal((2,), 3), draw(4, 2, 2 * T + 9), draw(4, 2, 3, seed=7, dtype=torch.complex64)
    options = {"initial": initial, "lengths": lengths[:, None]}
    (y, state), (wanted, last) = (scan(system, u, mode=mode, **options) for mode in ("chunk", "scan"))
    torch.testing.assert_close(state, last, rtol=1e-4, atol=1e-4)
    for b, n in enumerate(lengths.tolist()):
        torch.testing.assert_close(y[b, :, :n], wanted[b, :, :n], rtol=1e-4, atol=1e-4)
    assert called


def test_layer(called: list[str]):
    layer = S4D(2, d_state=6).to(DEVICE)
    u, state = draw(3, 2 * T + 5, 2).requires_grad_(), draw(3, 2, 3, seed=7, dtype=torch.complex64).requires_grad_()
    found = []
    for mode in ("chunk", "scan"):
        y, last = layer(u, state=state, return_state=True, mode=mode)
        leaves = [u, state, *layer.parameters()]
        found.append((y, last, *torch.autograd.grad(y.square().sum() + last.abs().sum(), leaves)))
    close(found[0], found[1])
    assert called == ["forward", "adjoint", "slopes"]


def test_parameters_that_are_kept_cost_no_second_walk(called: list[str]):
    layer, u = S4D(2, d_state=4).to(DEVICE).requires_grad_(False), draw(2, T + 5, 2).requires_grad_()
    found, wanted = (torch.autograd.grad(layer(u, mode=mode).square().sum(), u) for mode in ("chunk", "scan"))
    close(found, wanted)
    assert called == ["forward", "adjoint"]


# What the kernel does not take -------------------------------------------------------------------------------------


def test_resets(called: list[str]):
    reset = draw(2, 1, T + 9, seed=5) > 1.5
    compare(diagonal((2,), 3), draw(2, 2, T + 9), draw(2, 2, 3, seed=7, dtype=torch.complex64), reset=reset)
    assert not called


def test_several_outputs(called: list[str]):
    system = diagonal((2,), 3)
    compare(replace(system, C=draw(2, 4, 3, seed=4, dtype=torch.complex64)), draw(2, T + 9))
    assert not called


def test_outputs_that_are_complex(called: list[str]):
    system = replace(diagonal((2,), 3), conj_pairs=False)
    found, wanted = (scan(system, draw(2, T + 9), mode=mode) for mode in ("chunk", "scan"))
    close(found, wanted)
    assert not called


def test_double_precision_and_many_states(called: list[str]):
    system = diagonal((1,), triton_convolution.STATES // 2 + 1)
    compare(system, draw(1, T + 9))
    scan(replace(diagonal((1,), 2, "real"), B=draw(1, 2).double()), draw(1, T + 9), mode="chunk")
    assert not called


def test_empty_batches(called: list[str]):
    for H in (0, 2):
        y, state = scan(diagonal((H,), 3), draw(0, H, 5), mode="chunk")
        assert (y.shape, state.shape) == ((0, H, 5), (0, H, 3))
    assert not called


# Transformations ---------------------------------------------------------------------------------------------------


def small(length: int = T + 2) -> tuple[Any, Any, Any]:
    """A function of a signal and of real numbers that make poles, and both."""
    system = diagonal((1,), 2)

    def f(u: Any, w: Any) -> Any:
        poles = torch.polar(w.sigmoid(), w.flip(-1))
        y, state = scan(replace(system, poles=poles), u, mode="chunk")
        return y.square().mean() + state.abs().square().sum()

    return f, draw(2, 1, length), draw(1, 2, seed=1)


@pytest.mark.parametrize("length", [3, T + 2])
def test_derivatives_of_derivatives(length: int, called: list[str]):
    """Those of the first derivatives pass the output again, by the kernels."""
    f, u, w = small(length)
    found = []
    for backend in ("auto", "generic"):
        leaves = [x.clone().requires_grad_() for x in (u, w)]
        with ssm_core.use_backend(backend):
            first = torch.autograd.grad(f(*leaves), leaves, create_graph=True)
            second = torch.autograd.grad(sum((x.square() * x.exp()).sum() for x in first), leaves)
        found.append((*first, *second))
    close(found[0], found[1])
    assert called == ["forward", "adjoint", "slopes"]


def test_batches_of_gradients():
    system, u = diagonal((1,), 2), draw(1, T + 2).requires_grad_()
    for x in scan(system, u, mode="chunk"):
        directions = draw(3, *x.shape, seed=5, dtype=x.dtype)
        found = torch.autograd.grad(x, u, directions, is_grads_batched=True, retain_graph=True)
        wanted = [torch.autograd.grad(x, u, v, retain_graph=True)[0] for v in directions]
        close(found, (torch.stack(wanted),))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_transforms_take_the_generic_body(called: list[str]):
    f, u, w = small()
    gradient = torch.func.grad(f, argnums=(0, 1))(u, w)
    batch = torch.func.vmap(f, (0, None))(u, w)
    _, slope = torch.func.jvp(lambda u: f(u, w), (u,), (u,))
    assert not called
    leaves = [x.clone().requires_grad_() for x in (u, w)]
    close(gradient, torch.autograd.grad(f(*leaves), leaves))
    close((batch,), (torch.stack([f(x, w) for x in u]),))
    close((slope,), ((gradient[0] * u).sum(),))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # which PyTorch does itself
def test_compiled(called: list[str]):
    f, u, w = small()
    found = []
    for function in (torch.compile(f, fullgraph=True, backend="aot_eager"), f):
        leaves = [x.clone().requires_grad_() for x in (u, w)]
        y = function(*leaves)
        found.append((y, *torch.autograd.grad(y, leaves)))
    close(found[0], found[1])
    assert called == 2 * ["forward", "adjoint", "slopes"]


def test_operators():
    u, taps, gate, matrix, state = (draw(*s) for s in ((2, 1, 5), (1, T), (1, 2, 3), (1, 2, 3, T), (2, 1, 2, 3)))
    maps = (matrix, matrix, gate, gate)
    for operator, inputs in (
        (torch.ops.ssm_core.state_passing, (u, taps, *maps, state)),
        (torch.ops.ssm_core.state_passing_adjoint, (u, u, taps, *maps, state, state)),
        (torch.ops.ssm_core.state_passing_slopes, (u, u, *maps, state, state)),
    ):
        torch.library.opcheck(operator.default, inputs, test_utils=("test_schema", "test_faketensor"))


def test_results_are_the_same_on_every_run():
    system, u = diagonal((2,), 3), draw(17, 2, T + 9)
    once, again = (slopes(system, u, None, mode="chunk") for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(once, again, strict=True))


@pytest.mark.parametrize("place", ["inference mode", "checkpoint"])
def test_first_use(place: str):
    """The kernels are probed out of what the caller is in."""
    f, u, w = small()
    gpu_kernels._checked.cache_clear()
    if place == "inference mode":
        with torch.inference_mode():
            f(u, w)
    else:
        checkpoint(f, u.requires_grad_(), w, use_reentrant=False).backward()
    assert gpu_kernels.kernels("state_passing", DEVICE) is triton_convolution


def test_precision(monkeypatch: pytest.MonkeyPatch):
    """TF32 only where PyTorch may use it."""
    given: list[str] = []
    kernel = triton_convolution._forward_kernel

    class Recorder:
        def __getitem__(self, grid: Any) -> Any:
            return lambda *arrays, **options: given.append(options["precision"]) or kernel[grid](*arrays, **options)

    monkeypatch.setattr(triton_convolution, "_forward_kernel", Recorder())
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        for allowed in (False, True):
            torch.backends.cuda.matmul.allow_tf32 = allowed
            scan(diagonal((1,), 1), draw(1, 2), mode="chunk")
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    assert given == ["tf32x3", "tf32"]
