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
from ssm_core.backends.torch import gpu_kernels, scans, triton_scans  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def close(a: torch.Tensor, b: torch.Tensor, first: torch.Tensor, reverse: bool, delayed: bool) -> None:
    wanted = torch.empty_like(b)
    gates = a.expand(a.shape[0], *b.shape[1:])
    scans._scan(gates.unbind(0), b.unbind(0), first, reverse, delayed, wanted.unbind(0))
    found = triton_scans.scan(*(x.to(DEVICE) for x in (a, b, first)), reverse, delayed)
    torch.testing.assert_close(found.cpu(), wanted, rtol=1e-5, atol=1e-5)


def draw(*shape: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("reverse", "delayed"), [(False, False), (True, True)])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64], ids=str)
def test_scan(dtype: torch.dtype, constant: bool, reverse: bool, delayed: bool):
    """Lengths around that of a tile, columns that fill no tile."""
    for length in (1, 71):
        a = 0.3 * draw(1 if constant else length, 5, 7, dtype=dtype, seed=0)
        close(a, draw(length, 5, 7, dtype=dtype, seed=1), draw(5, 7, dtype=dtype, seed=2), reverse, delayed)


def test_any_strides():
    a, b = (draw(3, 70, 4, dtype=torch.float32, seed=seed).movedim(1, 0) for seed in (0, 1))
    close(a.sigmoid(), b, draw(3, 4, dtype=torch.float32, seed=2), False, False)


def test_gates_that_broadcast():
    a = draw(70, 1, 4, dtype=torch.float32, seed=0).sigmoid()
    close(a, draw(70, 3, 4, dtype=torch.float32, seed=1), draw(3, 4, dtype=torch.float32, seed=2), True, False)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the interpreter
def test_products_that_overflow_meet_no_state():
    a, b = torch.full((70, 2), 1e30), torch.zeros(70, 2)
    assert torch.equal(triton_scans.scan(a.to(DEVICE), b.to(DEVICE), b[0].to(DEVICE), False, False).cpu(), b)


def test_no_steps_and_no_columns():
    assert triton_scans.scan(torch.ones(1, 3), torch.ones(0, 3), torch.ones(3), False, False).shape == (0, 3)
    assert triton_scans.scan(torch.ones(1, 0), torch.ones(4, 0), torch.ones(0), False, False).shape == (4, 0)


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
            assert gpu_kernels.kernels("triton_scans", DEVICE) is None
    finally:
        gpu_kernels._checked.cache_clear()


def test_the_public_function_takes_the_kernel(monkeypatch: pytest.MonkeyPatch):
    called = []
    scan = triton_scans.scan
    monkeypatch.setattr(triton_scans, "scan", lambda *arguments: called.append(1) or scan(*arguments))
    b = draw(70, 4, dtype=torch.float32, seed=0).to(DEVICE).requires_grad_()
    ssm_core.linear_scan(0.5, b, axis=0).sum().backward()
    assert called
