"""When kernels are tried and what that may depend on: not on switches of the process, nor on what passes by."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("no GPU: run `nox -s triton`, which uses Triton's interpreter", allow_module_level=True)

import ssm_core  # noqa: E402
from ssm_core.backends.torch import gpu, gpu_kernels  # noqa: E402
from ssm_core.backends.torch.scans import triton_kernels as triton_scans  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OPERATORS = ("duality", "scans", "selective", "state_passing")


@pytest.fixture
def untried() -> None:
    """Before the first use of any kernel."""
    gpu_kernels._checked.cache_clear()


@pytest.fixture
def switched() -> Iterator[None]:
    """Everything that a user may have switched for the whole process."""
    switches, old = torch.backends.cuda.matmul, "fp32_precision"
    before = getattr(switches, old)
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    setattr(switches, old, "tf32")
    try:
        with torch.autocast(DEVICE.type, torch.bfloat16), torch.device("meta"):
            yield
    finally:
        setattr(switches, old, before)
        torch.use_deterministic_algorithms(False)
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.usefixtures("untried", "switched")
def test_switches_of_the_process(operator: str):
    assert isinstance(gpu_kernels.kernels(operator, DEVICE), ModuleType)


def scan() -> Any:
    x = torch.linspace(0.1, 0.9, 12, device=DEVICE).reshape(6, 2)
    return ssm_core.linear_scan(x, x, axis=0)


class Backward(torch.autograd.Function):
    """Calls kernels for the first time in a backward, whose thread then waits for them."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        assert gpu_kernels.kernels("duality", DEVICE) is not None
        return grads[0]


@pytest.mark.usefixtures("untried")
def test_first_use_in_a_backward():
    x = torch.ones(2, device=DEVICE, requires_grad=True)
    Backward.apply(x).sum().backward()
    assert x.grad is not None


def test_nothing_is_tried_while_a_graph_is_captured(monkeypatch: pytest.MonkeyPatch):
    wanted = scan()
    gpu_kernels._checked.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(gpu_kernels, "_capturing", lambda: True)
        patch.setattr(triton_scans, "probe", lambda device: pytest.fail("was tried"))
        with pytest.warns(UserWarning, match=r"cannot be tried .* graph is being captured: call once before"):
            torch.testing.assert_close(scan(), wanted)
    assert gpu_kernels.kernels("scans", DEVICE) is triton_scans


def raising(error: Exception) -> Callable[..., Any]:
    def probe(device: Any) -> Any:
        raise error

    return probe


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("Triton Error [CUDA]: out of memory")]
)
def test_missing_memory_is_not_remembered(error: Exception, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(triton_scans, "probe", raising(error))
        with pytest.warns(UserWarning, match="cannot be tried .*out of memory"):
            assert gpu_kernels.kernels("scans", DEVICE) is None
    assert gpu_kernels.kernels("scans", DEVICE) is triton_scans


def test_nothing_replaces_kernels_on_a_device_that_has_failed(monkeypatch: pytest.MonkeyPatch):
    def fails(device: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", fails)
    with pytest.raises(RuntimeError, match=r"cuda:0 failed .*no such address.*Start the process again"):
        gpu_kernels._require_working(torch.device("cuda", 0), "no such address")


@pytest.mark.parametrize(
    ("switch", "allowed"),
    [
        ("torch.backends.cuda.matmul.fp32_precision = 'tf32'", True),
        ("torch.backends.cuda.matmul.fp32_precision = 'ieee'", False),
        ("torch.backends.fp32_precision = 'tf32'", True),
        ("torch.set_float32_matmul_precision('high')", True),
        ("torch.backends.cuda.matmul.allow_tf32 = True", True),
        ("pass", False),
    ],
)
def test_either_interface_of_precision(switch: str, allowed: bool):
    """Whatever was switched, products are as PyTorch's, and no getter of the other interface raises."""
    matmul, every = torch.backends.cuda.matmul, torch.backends
    try:
        exec(switch, {"torch": torch})
        assert gpu.tf32_allowed() is allowed
        x, g = torch.ones(1, 3, 1, 2, device=DEVICE), torch.ones(1, 3, 1, device=DEVICE)
        assert ssm_core.ssd(x, g, -g[0, 0], x, x).isfinite().all()
        system = ssm_core.Diagonal(*(torch.full((1,), 0.5, device=DEVICE) for _ in range(3)), discrete=True)
        assert ssm_core.scan(system, x[0, :, 0].mT, mode="chunk")[0].isfinite().all()
    finally:  # "none": as the switch above it says, which what was read of it would no longer follow
        torch.set_float32_matmul_precision("highest")
        every.fp32_precision = matmul.fp32_precision = "none"
