"""Where the jobs run: the CPU, or a GPU with `--device cuda`."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable

name = "cpu"


def choose(device: str) -> None:
    """Make tensors of PyTorch on the device by default, and keep JAX on the CPU where that is asked for."""
    global name
    name = device
    if device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"  # read when JAX is imported
    else:
        import torch

        torch.set_default_device(device)


def absence(framework: str) -> str | None:
    """Why jobs of a framework cannot run here, or None."""
    if framework == "numpy" and name != "cpu":
        return "NumPy computes on the CPU"
    if framework == "cupy" and name == "cpu":
        return "CuPy computes on a GPU: --device cuda"
    return None if importlib.util.find_spec(framework) else f"{framework} is not installed"


def wait() -> None:
    """Until the device has finished what was launched."""
    if name != "cpu":
        import torch

        torch.cuda.synchronize()


def added_to_peak(work: Callable[[], object]) -> int:
    """Bytes by which running the work raises the peak of PyTorch's allocator on the GPU."""
    import torch

    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
