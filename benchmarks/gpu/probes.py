"""Every hand-written kernel and every path of XLA against what it stands for, and first uses in odd places.

Where CUDA code goes wrong: switches of the process, a first call while a graph is captured or within a backward,
offsets beyond 32 bits, results that differ between runs. Each is a process of its own, for it is the first call that
matters.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from .record import emit, guarded, left

BACKEND = Path(__file__).parents[2] / "backends" / "torch"


def run(device: str, options: Any) -> None:
    if device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
    guarded("probe triton", lambda: of_triton(device))
    if device == "cuda":
        guarded("probe cupy", of_cupy)
    guarded("probe jax", lambda: of_jax(device))
    for name in FIRST_USES if device == "cuda" else IN_MINIATURE:
        code = FIRST_USES[name]
        guarded(f"first use: {name}", lambda name=name, code=code: first_use(name, code, device))


def of_triton(device: str) -> None:
    import torch

    from ssm_core.backends.torch import gpu_kernels

    where = torch.device(device, 0) if device == "cuda" else torch.device("cpu")
    more = {"scans": (torch.float64, torch.complex64, torch.complex128), "selective": (torch.float64,)}
    operators = sorted(path.parent.name for path in BACKEND.glob("*/triton_kernels.py"))
    for operator in operators if device == "cuda" else operators[-1:]:
        for dtype in (torch.float32, *(more.get(operator, ()) if device == "cuda" else ())):
            start = time.perf_counter()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found = gpu_kernels.kernels(operator, where, dtype)
            said = [str(w.message) for w in caught]
            took = round(time.perf_counter() - start, 1)
            emit(f"probe triton {operator} {dtype}", runs=found is not None, seconds=took, said=said)


def of_cupy() -> None:
    """The kernels of the scan in every dtype, and modes, beside NumPy's."""
    import cupy

    import ssm_core as s

    def scan(dtype: str, shape: tuple[int, ...]) -> None:
        g = cupy.random.default_rng(0)
        a, b = (0.9 + 0.1 * g.random(shape)).astype(dtype), g.standard_normal(shape).astype(dtype)
        found, wanted = s.linear_scan(a, b, axis=0).get(), s.linear_scan(a.get(), b.get(), axis=0)
        emit(f"probe cupy linear_scan {dtype} {shape}", error=float(abs(found - wanted).max() / abs(wanted).max()))

    for dtype in ("float32", "float64", "complex64", "complex128"):
        for shape in ((1000, 7), (4096, 320), (5, 2, 3, 4, 33)):
            guarded(f"probe cupy linear_scan {dtype} {shape}", lambda d=dtype, n=shape: scan(d, n))

    def selective(dtype: str, N: int, shape: tuple[int, ...]) -> None:
        g, (batch, H, L) = cupy.random.default_rng(0), shape
        u, dt, A, B = (g.random(n).astype(dtype) for n in (shape, shape, (H, N), (batch, 2, N, L)))
        found = s.selective_scan(u, dt, -A, B, B).get()
        wanted = s.selective_scan(*(x.get() for x in (u, dt, -A, B, B)))
        error = float(abs(found - wanted).max() / abs(wanted).max())
        emit(f"probe cupy selective_scan {dtype} N = {N} {shape}", error=error)

    for dtype in ("float32", "float64"):
        for N, shape in ((16, (2, 64, 1000)), (5, (1, 6, 3000)), (64, (8, 2048, 64))):
            guarded(f"probe cupy selective_scan {dtype}", lambda d=dtype, N=N, n=shape: selective(d, N, n))

    def mode(name: str) -> None:
        start = s.diagonal_init("lin", 16)
        u = cupy.random.default_rng(0).standard_normal((4, 1000))
        system = s.Diagonal(start.poles, start.B, start.B, conj_pairs=True)
        arrays = (cupy.asarray(x) for x in (system.poles, system.B, system.C))
        found = s.scan(s.Diagonal(*arrays, conj_pairs=True), u, dt=0.01, mode=name)[0].get()
        wanted = s.scan(system, u.get(), dt=0.01, mode=name)[0]
        emit(f"probe cupy scan {name}", error=float(abs(found - wanted).max() / abs(wanted).max()))

    for name in ("conv", "chunk", "scan"):
        guarded(f"probe cupy scan {name}", lambda name=name: mode(name))


def of_jax(device: str) -> None:
    """Layers under jit, with gradients, beside NumPy in double precision."""
    import jax
    import numpy as np

    import ssm_core as s

    emit("jax devices", devices=[str(d) for d in jax.devices()])
    kinds: dict[str, dict[str, Any]] = {
        "S4D": {}, "S4": {}, "S5": {}, "LRU": {}, "Mamba": {}, "Mamba2": {"head_dim": 8}, "GatedDeltaNet": {}, "GLA": {}
    }  # fmt: skip

    def layer(kind: str) -> None:
        definition = getattr(s.layers, kind)(32, **kinds[kind])
        params = definition.initial_parameters(0)
        u = np.random.default_rng(0).normal(size=(2, 500 if device == "cuda" else 40, 32)).astype("f4")
        wanted = definition.apply({name: p.astype("f8") for name, p in params.items()}, u.astype("f8"))

        def loss(params: Any) -> Any:
            y = definition.apply(params, jax.numpy.asarray(u))
            return (y**2).sum(), y

        start = time.perf_counter()
        on_device = {name: jax.numpy.asarray(p) for name, p in params.items()}
        (_, y), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(on_device)
        finite = all(bool(jax.numpy.isfinite(g).all()) for g in grads.values())
        error = float(abs(np.asarray(y) - wanted).max() / abs(wanted).max())
        emit(f"probe jax {kind}", error=error, finite=finite, seconds=round(time.perf_counter() - start, 1))

    for kind in kinds if device == "cuda" else ("S4D",):
        guarded(f"probe jax {kind}", lambda kind=kind: layer(kind))


START = """
import sys, warnings, torch, ssm_core as s
warnings.simplefilter("always")
DEVICE = {device!r}
def drawn(*shapes, grad=False):
    g = torch.Generator().manual_seed(0)
    return [torch.rand(n, generator=g, dtype=torch.float32).to(DEVICE).requires_grad_(grad) for n in shapes]
def done(y, *xs):
    return (y.detach(), *torch.autograd.grad(y.square().sum(), xs)) if xs else y
def selective(grad=False):
    u, dt, A, B, C = xs = drawn((2, 64, 256), (2, 64, 256), (64, 16), (2, 16, 256), (2, 16, 256), grad=grad)
    return done(s.selective_scan(u, dt, -A, B, C), *xs if grad else ())
def ssd(grad=False):
    x, dt, A, B, C = xs = drawn((2, 256, 4, 64), (2, 256, 4), (4,), (2, 256, 1, 64), (2, 256, 1, 64), grad=grad)
    return done(s.ssd(x, dt, -A, B, C), *xs if grad else ())
def chunk(grad=False):
    u, C = xs = drawn((8, 4, 512), (4, 32), grad=grad)
    start = s.diagonal_init("lin", 64)
    poles, B = (torch.as_tensor(x).to(DEVICE, torch.complex64).expand(4, 32) for x in (start.poles, start.B))
    system = s.Diagonal(poles, B, torch.complex(C, C), conj_pairs=True)
    return done(s.scan(system, u, dt=0.01, mode="chunk")[0], *xs if grad else ())
def scan(grad=False):
    a, b = xs = drawn((1024, 64), (1024, 64), grad=grad)
    return done(s.linear_scan(a, b, axis=0), *xs if grad else ())
ALL = (scan, selective, ssd, chunk)
"""
FIRST_USES = {
    "tf32 by the new interface": "torch.backends.cuda.matmul.fp32_precision = 'tf32'\nfor f in ALL: f(True)",
    "precision high": "torch.set_float32_matmul_precision('high')\nfor f in ALL: f(True)",
    "default dtype": "torch.set_default_dtype(torch.float64)\nfor f in ALL: f(True)",
    "deterministic algorithms": "torch.use_deterministic_algorithms(True)\nfor f in ALL: f(True)",
    "autocast": "with torch.autocast(DEVICE, torch.bfloat16): print([f().dtype for f in ALL])",
    "a CUDA graph": (
        "if DEVICE == 'cpu': sys.exit()\nx = torch.rand(64, 4096, device=DEVICE)\ntorch.cuda.synchronize()\n"
        "graph = torch.cuda.CUDAGraph()\nwith torch.cuda.graph(graph): y = s.linear_scan(x, x, axis=0)\n"
        "graph.replay()\ntorch.testing.assert_close(y, s.linear_scan(x, x, axis=0))"
    ),
    "a backward": (
        "class F(torch.autograd.Function):\n    forward = staticmethod(lambda ctx, x: x * 1)\n"
        "    @staticmethod\n    def backward(ctx, g):\n        with torch.enable_grad(): [f(True) for f in ALL]\n"
        "        return g\nF.apply(torch.ones(3, device=DEVICE, requires_grad=True)).sum().backward()"
    ),
    "two runs": "for f in ALL: print(f.__name__, all(torch.equal(x, y) for x, y in zip(f(True), f(True))))",
    "large offsets": (
        "if DEVICE == 'cpu': sys.exit()\nb = torch.randn(8, 1536, 2**18 + 1, device=DEVICE)\n"
        "a = torch.full((), 0.9, device=DEVICE)\ny = s.linear_scan(a, b, axis=-1)[-1, -3:]\n"
        "torch.testing.assert_close(y, s.linear_scan(a, b[-1, -3:].clone(), axis=-1), rtol=1e-4, atol=1e-4)"
    ),
}


IN_MINIATURE = ("a backward",)


def first_use(name: str, code: str, device: str) -> None:
    limit = max(5.0, min(60.0, left()))
    command = [sys.executable, "-c", START.format(device=device) + code]
    environment = {k: v for k, v in os.environ.items() if device == "cuda" or k != "TRITON_INTERPRET"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment, check=False)
        emit(f"first use: {name}", code=done.returncode, said=done.stdout.strip(), error=done.stderr.strip())
    except subprocess.TimeoutExpired:
        emit(f"first use: {name}", failed="out of time: it hangs, or compiles for long")
