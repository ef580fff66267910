"""The Triton kernels against the steps one by one: on a GPU, or through Triton's interpreter (`nox -s triton`)."""

from __future__ import annotations

import os
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("no GPU: run `nox -s triton`, which uses Triton's interpreter", allow_module_level=True)

import ssm_core  # noqa: E402
from ssm_core.backends.torch import gpu_kernels  # noqa: E402
from ssm_core.backends.torch.scans import body as scans  # noqa: E402
from ssm_core.backends.torch.scans import triton_kernels as triton_scans  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


LENGTH = 300 if torch.cuda.is_available() else 21  # more than a tile
DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]
WAYS = [(False, False), (True, True)]


def agree(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found.cpu(), wanted, rtol=1e-5, atol=1e-5)


def close(a: torch.Tensor, b: torch.Tensor, first: torch.Tensor, reverse: bool, delayed: bool) -> None:
    """To the recurrence as it is written."""
    order, late = list(range(len(b))), (1 if reverse else -1) if delayed else 0
    gates, wanted, x = a.expand(len(b), *b.shape[1:]), torch.empty_like(b), first
    for k in reversed(order) if reverse else order:
        start = delayed and k == (order[-1] if reverse else 0)
        x = wanted[k] = b[k] if start else gates[k + late] * x + b[k]
    agree(triton_scans.scan(*(x.to(DEVICE) for x in (a, b, first)), reverse, delayed), wanted)


def close_adjoint(a: torch.Tensor, x: torch.Tensor, g: torch.Tensor, first: torch.Tensor, reverse: bool) -> None:
    found = triton_scans.adjoint(*(y.to(DEVICE) for y in (a, first, x, g)), reverse)
    for actual, wanted in zip(found, scans.adjoint_steps(a, first, x, g, reverse), strict=True):
        assert actual.shape == wanted.shape
        agree(actual, wanted)


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("reverse", "delayed"), WAYS)
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scan(dtype: torch.dtype, constant: bool, reverse: bool, delayed: bool):
    """Lengths around that of a tile, columns that fill no tile."""
    for length in (1, LENGTH):
        a = 0.3 * draw(1 if constant else length, 3, 3, dtype=dtype)
        close(a, draw(length, 3, 3, dtype=dtype, seed=1), draw(3, 3, dtype=dtype, seed=2), reverse, delayed)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_adjoint(dtype: torch.dtype, constant: bool, reverse: bool):
    for length in (1, LENGTH):
        a = 0.3 * draw(1 if constant else length, 3, 3, dtype=dtype)
        x, g = (draw(length, 3, 3, dtype=dtype, seed=seed) for seed in (1, 2))
        close_adjoint(a, x, g, draw(3, 3, dtype=dtype, seed=3), reverse)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
def test_few_columns_split_time(dtype: torch.dtype, constant: bool, reverse: bool, monkeypatch: pytest.MonkeyPatch):
    """Into as many segments as there are programs for, of which the last may have fewer tiles, or part of one."""
    monkeypatch.setattr(triton_scans, "PROGRAMS", 12)
    monkeypatch.setattr(triton_scans, "FEWEST", 3)
    rows = triton_scans.TILE // dtype.itemsize // 8
    length, found, segments = 4 * rows + 3, [], triton_scans._segments
    monkeypatch.setattr(triton_scans, "_segments", lambda *n: found.append(segments(*n)) or found[-1])
    a, b, g = (draw(length, 3, 3, dtype=dtype, seed=seed) for seed in range(3))
    a, first = 0.3 * a[: 1 if constant else length], draw(3, 3, dtype=dtype, seed=3)
    close(a, b, first, reverse, False)
    close_adjoint(a, b, g, first, reverse)
    assert [n for _, n in found] == ([5, 5] if rows > 4 else [3, 3])


def test_segments():
    """None where the columns are enough for the GPU, or the tiles too few for two passes."""
    fewest = triton_scans.FEWEST
    assert triton_scans._segments(1000, fewest - 1) == (1000, 1)
    assert triton_scans._segments(fewest - 1, 512) == (fewest - 1, 1)
    assert triton_scans._segments(16 * fewest + 1, fewest) == (17, fewest)


LAYOUTS = {  # of (time, 2, 3, 2), of which four axes in two orders are more than a kernel takes
    "batch first": (1, 0, 2, 3),
    "time last": (3, 0, 1, 2),
    "turned": (0, 3, 1, 2),
    "time between": (2, 1, 3, 0),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_any_strides(layout: tuple[int, ...], monkeypatch: pytest.MonkeyPatch):
    """Read in place, written in the order of b, and of x."""
    monkeypatch.setattr(triton_scans, "like", torch.empty_like)
    b = draw(LENGTH, 2, 3, 2)
    strided = torch.empty([b.shape[i] for i in layout]).permute([layout.index(i) for i in range(4)]).copy_(b)
    gate, first = draw(LENGTH, 2, 3, 2, seed=1).sigmoid(), draw(2, 3, 2, seed=2)
    assert strided.stride() != b.stride()
    close(gate, strided, first, False, False)
    close_adjoint(gate, strided, draw(1).expand(b.shape), first, False)
    on_device = (x.to(DEVICE) for x in (gate, strided, first))
    assert triton_scans.scan(*on_device, False, False).stride() == strided.stride()


def test_axes_of_which_no_two_are_in_line():
    shape = (5, 3, 2, 3, 2)
    b = draw(5, 2, 3, 2, 3).permute(0, 2, 1, 4, 3)
    for gate in (draw(*shape, seed=1).sigmoid(), draw(1, *shape[1:], seed=1).sigmoid()):
        close(gate, b, draw(*shape[1:], seed=2), False, False)
        close_adjoint(gate, b, draw(*shape, seed=3), draw(*shape[1:], seed=2), True)


@pytest.mark.parametrize("gate", [(LENGTH, 1, 4), (LENGTH, 3, 1), (1, 1, 4), (1, 1, 1)], ids=str)
def test_gates_that_broadcast(gate: tuple[int, ...]):
    a, first = draw(*gate).sigmoid(), draw(3, 4, seed=2)
    b, g = (draw(LENGTH, 3, 4, seed=seed) for seed in (1, 3))
    close(a, b, first, True, False)
    close_adjoint(a, b, g, first, True)


def test_lazy_conjugates_and_negatives():
    a, b, first = (draw(9, 3, dtype=torch.complex64, seed=seed) for seed in range(3))
    close(0.3 * a.conj(), b.conj(), first[0].conj(), False, False)
    close(0.3 * a.real, b.conj().imag, first[0].conj().imag, False, False)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the interpreter
def test_products_that_overflow_meet_no_state():
    a, b = torch.full((70, 2), 1e30), torch.zeros(70, 2)
    assert torch.equal(triton_scans.scan(a.to(DEVICE), b.to(DEVICE), b[0].to(DEVICE), False, False).cpu(), b)


def test_no_steps_and_no_columns():
    assert triton_scans.scan(torch.ones(1, 3), torch.ones(0, 3), torch.ones(3), False, False).shape == (0, 3)
    assert triton_scans.scan(torch.ones(1, 0), torch.ones(4, 0), torch.ones(0), False, False).shape == (4, 0)
    found = triton_scans.adjoint(torch.ones(1, 0), torch.ones(0), torch.ones(4, 0), torch.ones(4, 0), False)
    assert [x.shape for x in found] == [(1, 0), (4, 0)]


def test_probe():
    """The kernel agrees with the steps; one that does not, or does not run, is turned off with a warning."""
    assert gpu_kernels.disagreement(triton_scans.probe, DEVICE) is None

    def wrong(device: torch.device) -> Any:
        return ((found + 1, wanted) for found, wanted in triton_scans.probe(device))

    def broken(device: torch.device) -> Any:
        raise RuntimeError("no such instruction")

    assert gpu_kernels.disagreement(wrong, DEVICE) == "the kernel disagrees with the generic body"
    assert gpu_kernels.disagreement(broken, DEVICE) == "the kernel fails (RuntimeError: no such instruction)"


def test_a_kernel_that_disagrees_is_turned_off_with_a_warning(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(triton_scans, "probe", lambda device: [(torch.ones(1), torch.zeros(1))])
    gpu_kernels._checked.cache_clear()
    try:
        with pytest.warns(UserWarning, match="disagrees with the generic body"):
            assert gpu_kernels.kernels("scans", DEVICE) is None
    finally:
        gpu_kernels._checked.cache_clear()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that have been launched."""
    assert gpu_kernels.kernels("scans", DEVICE) is triton_scans
    names: list[str] = []

    def counted(name: str, function: Any) -> Any:
        return lambda *arguments: names.append(name) or function(*arguments)

    for name in ("scan", "adjoint"):
        monkeypatch.setattr(triton_scans, name, counted(name, getattr(triton_scans, name)))
    return names


def inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = 0.3 * draw(5, 4, dtype=dtype), draw(2, 5, 4, dtype=dtype, seed=1)
    return a.to(DEVICE).requires_grad_(), b.to(DEVICE).requires_grad_()


def test_gradients_take_one_pass(calls: list[str]):
    """Beside time-first arrays, (B, L, H) along axis 1 and a gate that broadcasts over the batch."""
    a, b = inputs()
    w = draw(2, 5, 4, seed=2)
    found = torch.autograd.grad(ssm_core.linear_scan(a, b, axis=1), (a, b), w.to(DEVICE))
    assert calls == ["scan", "adjoint"]
    plain = [x.detach().cpu().requires_grad_() for x in (a, b)]
    wanted = ssm_core.linear_scan(plain[0], plain[1], axis=1, backend="generic")
    for actual, expected in zip(found, torch.autograd.grad(wanted, plain, w), strict=True):
        agree(actual, expected)


def test_a_gate_without_a_gradient_costs_a_scan_alone(calls: list[str]):
    a, b = inputs()
    ssm_core.linear_scan(a.detach(), b, axis=1).sum().backward()
    assert calls == ["scan", "scan"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_derivatives_of_derivatives(dtype: torch.dtype, calls: list[str]):
    """Where they are wanted the first derivative is taken of scans, and theirs is right too."""
    w, slopes = draw(2, 5, 4, dtype=dtype, seed=2).to(DEVICE), []
    for backend in (None, "generic"):
        a, b = inputs(dtype)
        x = ssm_core.linear_scan(a, b, axis=1, backend=backend)
        first = torch.autograd.grad((x * w).abs().sum(), (a, b), create_graph=True)
        slopes.append(torch.autograd.grad(sum((y * y.conj()).real.sum() for y in first), (a, b)))
    assert "adjoint" in calls  # of the last derivative
    for found, wanted in zip(*slopes, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # PyTorch's own
def test_under_compile(calls: list[str]):
    a, b = inputs()
    run = torch.compile(lambda a, b: ssm_core.linear_scan(a, b, axis=1).square(), fullgraph=True, backend="aot_eager")
    wanted = torch.autograd.grad(ssm_core.linear_scan(a, b, axis=1).square().sum(), (a, b))
    calls.clear()
    found = torch.autograd.grad(run(a, b).sum(), (a, b))
    assert calls == ["scan", "adjoint"]
    for actual, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(actual, expected)
