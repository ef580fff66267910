"""Linear recurrences against elementwise passes over the same arrays, loops, tree scans and filters.

A pass reads two arrays of 64 MiB and writes a third, which is what the forward scan has to move at least. Backward, the
gradient, gates and states come in and two gradients go out: two passes. Others are a case of their own: what they
allocate and free would fall on the run after theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import ssm_core

from .. import peers
from ..harness import Case, Job
from .common import close, in_jax, passes

SHAPES = {0: (4096, 4096), 1: (8, 2048, 1024)}  # by the axis of time: first, and in the middle (B, L, H)
WIDE = (1024, 16384)
NARROW = (4096, 256)  # of the constant gate that lfilter takes one column at a time


def arrays(
    axis: int, complex: bool = False, constant: bool = False, wide: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Gates and inputs; complex ones have half as many numbers, so as many bytes."""
    rng, shape = np.random.default_rng(0), WIDE if wide else SHAPES[axis]
    shape = (*shape[:-1], shape[-1] // 2) if complex else shape
    gates = tuple(1 if i == axis else n for i, n in enumerate(shape)) if constant else shape
    a, b = rng.uniform(0.9, 0.99, gates), rng.standard_normal(shape)
    if complex:
        turned = a * np.exp(1j * rng.uniform(0, np.pi, gates))
        return turned.astype(np.complex64), (b + 1j * rng.standard_normal(shape)).astype(np.complex64)
    return a.astype(np.float32), b.astype(np.float32)


def kind(axis: int, complex: bool, constant: bool, wide: bool) -> str:
    """How a job's name says what was scanned."""
    words = ["complex"] * complex + ["constant gate"] * constant + ["wide"] * wide + [("time first", "(B, L, H)")[axis]]
    return ", ".join(words)


def with_numpy(axis: int, complex: bool = False, constant: bool = False, wide: bool = False) -> Case:
    """One addition of the same arrays is one pass."""
    a, b = arrays(axis, complex, constant, wide)
    others = {"one pass": lambda: np.add(a, b)}
    ours = lambda: ssm_core.linear_scan(a, b, axis=axis)  # noqa: E731
    return Case(f"scan numpy, {kind(axis, complex, constant, wide)}", ours, others, wanted="wanted: at least 0.67x")


def filters() -> Case:
    """A constant gate over columns against scipy.signal.lfilter, which takes one filter a call."""
    rng = np.random.default_rng(0)
    a = rng.uniform(0.9, 0.99, NARROW[1]).astype(np.float32)
    b = rng.standard_normal(NARROW).astype(np.float32)

    def lfilter() -> Any:
        filtered = peers.package("scipy.signal").lfilter
        one = np.ones(1, np.float32)
        columns = [np.ascontiguousarray(b[:, n]) for n in range(NARROW[1])]
        return lambda: [filtered(one, np.asarray([1, -a[n]], np.float32), columns[n]) for n in range(NARROW[1])]

    others, missing = peers.those_here({"scipy.signal.lfilter": lfilter})

    def ours() -> Any:
        return ssm_core.linear_scan(a, b, axis=0)

    def check() -> None:
        for other in others.values():
            close(ours(), np.stack(other(), axis=1), 1e-4)

    return Case("scan numpy, 256 filters", ours, others, check, "", missing=missing)


def with_torch(
    axis: int, backward: bool, complex: bool = False, constant: bool = False, wide: bool = False
) -> list[Case]:
    """Against passes, and (time first) a Python loop, torch's own associative scan and accelerated-scan's reference."""
    import torch

    place = torch.get_default_device()
    a, b = (torch.as_tensor(x, device=place).requires_grad_() for x in arrays(axis, complex, constant, wide))
    g = torch.ones_like(b)

    def ours() -> Any:
        return ssm_core.linear_scan(a, b, axis=axis)

    def one_pass() -> Any:
        return torch.add(a, b)

    def two_passes() -> Any:
        """Both results live, as those of the scan do."""
        return one_pass(), one_pass()

    def timed(work: Callable[[], Any]) -> Callable[[], Any]:
        """With gradients that are not added to those of the run before, which would be two passes more."""
        if backward:
            return lambda: torch.autograd.grad(work(), (a, b), g)
        return torch.no_grad()(work)

    def loop() -> Any:
        x, states = torch.zeros_like(b[0]), []
        for gate, drive in zip(a.unbind(0), b.unbind(0), strict=True):
            x = gate * x + drive
            states.append(x)
        return torch.stack(states)

    name = f"scan torch {passes(backward)}, {kind(axis, complex, constant, wide)}"
    others = {"two passes": two_passes} if backward else {"one pass": one_pass}
    others = {name: torch.no_grad()(work) for name, work in others.items()}
    wanted = "wanted: at least 0.33x" if backward else "wanted: at least 0.67x"
    cases = [Case(name, timed(ours), others, None, wanted)]
    if axis == 0 and not (complex or constant or wide):
        makers = {"loop over unbind": lambda: timed(loop)}
        if backward:
            makers["accelerated-scan, ref"] = lambda: accelerated(a, b)
        else:
            makers["torch associative_scan"] = lambda: associative(a, b)
        found, missing = peers.those_here(makers)
        check = lambda: close(ours(), loop(), 1e-5)  # noqa: E731
        cases.append(Case(f"scan torch {passes(backward)}", timed(ours), found, check, repeats=5, missing=missing))
    return cases


def associative(a: Any, b: Any) -> Callable[[], Any]:
    """The scan of torch's higher-order operators, which torch.compile turns into a tree."""
    import torch

    (module,) = peers.package("torch", "torch._higher_order_ops.associative_scan")

    def combine(first: Any, second: Any) -> Any:
        return first[0] * second[0], second[0] * first[1] + second[1]

    scan = module.associative_scan
    return torch.no_grad()(lambda: scan(combine, (a.detach(), b.detach()), dim=0, combine_mode="generic")[1])


def accelerated(a: Any, b: Any) -> Callable[[], Any]:
    """The reference of accelerated-scan, which runs without a GPU: (B, C, L), L a power of two."""
    import torch

    (module,) = peers.package("accelerated-scan", "accelerated_scan.ref")
    gates, tokens = (x.detach().T[None].contiguous().requires_grad_() for x in (a, b))
    return lambda: torch.autograd.grad(module.scan(gates, tokens).sum(), (gates, tokens))


def with_jax(
    axis: int, backward: bool, complex: bool = False, constant: bool = False, wide: bool = False
) -> list[Case]:
    """Compiled, against passes and (time first) jax.lax.associative_scan."""
    import jax
    import jax.numpy as jnp

    a, b = (jnp.asarray(x) for x in arrays(axis, complex, constant, wide))

    def ours(a: Any, b: Any) -> Any:
        return ssm_core.linear_scan(a, b, axis=axis)

    def tree(a: Any, b: Any) -> Any:
        return jax.lax.associative_scan(lambda p, q: (p[0] * q[0], q[0] * p[1] + q[1]), (a, b), axis=axis)[1]

    def timed(scan: Callable[..., Any]) -> Callable[[], Any]:
        def gradients(a: Any, b: Any, g: Any) -> Any:
            return jax.vjp(scan, a, b)[1](g)

        return in_jax(gradients, (a, b, jnp.ones_like(b)), False) if backward else in_jax(scan, (a, b), False)

    add = jax.jit(jnp.add)

    def two_passes() -> Any:
        return jax.block_until_ready((add(a, b), add(a, b)))

    others = {"two passes": two_passes} if backward else {"one pass": timed(jnp.add)}
    wanted = "wanted: at least 0.33x" if backward else "wanted: at least 0.67x"
    name = f"scan jax {passes(backward)}, {kind(axis, complex, constant, wide)}"
    cases = [Case(name, timed(ours), others, None, wanted)]
    if axis == 0 and not (complex or constant or wide):
        check = lambda: close(ours(a, b), tree(a, b), 1e-5)  # noqa: E731
        others = {"associative_scan": timed(tree)}
        cases.append(Case(f"scan jax {passes(backward)}", timed(ours), others, check, repeats=5))
    return cases


def with_cupy(axis: int, complex: bool = False, constant: bool = False, wide: bool = False) -> Case:
    """On a GPU."""
    import cupy

    a, b = (cupy.asarray(x) for x in arrays(axis, complex, constant, wide))

    def finished(work: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> None:
            work()
            cupy.cuda.get_current_stream().synchronize()

        return run

    others = {"one pass": finished(lambda: cupy.add(a, b))}
    ours = finished(lambda: ssm_core.linear_scan(a, b, axis=axis))
    return Case(f"scan cupy, {kind(axis, complex, constant, wide)}", ours, others, wanted="wanted: at least 0.75x")


# Name after the framework: the options of its job.
VARIANTS: dict[str, dict[str, Any]] = {
    "": {"axis": 0},
    "-wide": {"axis": 0, "wide": True},
    "-middle": {"axis": 1},
    "-complex": {"axis": 0, "complex": True},
    "-constant": {"axis": 0, "constant": True},
    "-complex-constant": {"axis": 0, "complex": True, "constant": True},
}


def every(framework: str, make: Callable[..., Case | list[Case]], **fixed: Any) -> dict[str, Job]:
    """A job for every variant."""
    suffix = "-backward" if fixed.get("backward") else ""
    return {
        f"scan-{framework}{name}{suffix}": Job(lambda o=options: make(**o, **fixed), framework)
        for name, options in VARIANTS.items()
    }


JOBS = {
    **every("numpy", with_numpy),
    "scan-numpy-filters": Job(filters, "numpy"),
    **every("torch", with_torch, backward=False),
    **every("torch", with_torch, backward=True),
    **every("jax", with_jax, backward=False),
    **every("jax", with_jax, backward=True),
    **every("cupy", with_cupy),
}
