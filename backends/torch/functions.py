"""Single functions that PyTorch has itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssm_core.functions.matrix_exponential import _expm

from .transforms import forward_mode, transformed


def devices() -> str:
    """Where it can compute."""
    if not torch.cuda.is_available():
        return "cpu (no CUDA device)"
    return f"cpu, cuda ({torch.cuda.get_device_name()})"


def is_traced(x: Tensor) -> bool:
    """Whether torch.compile or torch.export is tracing, or x has a shape alone."""
    return torch.compiler.is_compiling() or x.is_meta


def is_symbol(size: Any) -> bool:
    """Whether a size stands for many numbers in a program that is being compiled or exported."""
    if not torch.compiler.is_compiling():
        return False
    from torch.fx.experimental.symbolic_shapes import has_static_value  # which loads a computer algebra system

    return not has_static_value(size)


def not_dense(x: Tensor) -> tuple[str, str] | None:
    """What a tensor is that has no strides, and the call that makes a dense one of it."""
    if x.is_nested:
        return f"nested tensor ({x.layout})", "to_padded_tensor(0.0)"
    return None if x.layout == torch.strided else (f"sparse tensor ({x.layout})", "to_dense()")


def on_host(x: Tensor) -> bool:
    """Whether the host has the numbers at hand."""
    if torch.compiler.is_compiling() or x.__class__ not in (Tensor, torch.nn.Parameter) or x.device.type != "cpu":
        return False
    return not transformed(x) and not torch._C._len_torch_dispatch_stack() and not torch.jit.is_tracing()


def all_finite(x: Tensor) -> bool | None:
    return bool(x.detach().sum().isfinite()) if on_host(x) else None


_WITHOUT_BOUNDS = (torch.uint16, torch.uint32, torch.uint64)  # PyTorch has little more than their names


def bounds(x: Tensor) -> tuple[int, int] | None:
    if not on_host(x):
        return None
    low, high = (x.long() if x.dtype in _WITHOUT_BOUNDS else x).aminmax()
    return int(low), int(high)


def owned(x: Tensor) -> Tensor:
    if torch.compiler.is_compiling() or transformed(x) or x.__class__ is not Tensor or x.is_meta:
        return x.clone()
    return x if x.untyped_storage().nbytes() <= x.numel() * x.element_size() else x.clone()


def to_numpy(x: Tensor) -> Any:
    """x on the host, detached; number by number under torch.func, which gives no memory to read."""
    if transformed(x):
        return np.asarray(x.tolist(), dtype=str(x.dtype).rpartition(".")[2])
    return x.detach().cpu().resolve_conj().resolve_neg().numpy()


def readable(x: Tensor) -> bool:
    """Whether no compiler traces and no transform of torch.func hides the values."""
    return not is_traced(x) and not transformed(x)


LARGEST_NORM = 64.0  # whose four squarings matrix_exp may do


def expm(A: Tensor) -> Tensor:
    """In double precision: every squaring loses a bit of what is near 1.

    Of many squarings these are all the digits: a large norm, where it is known, takes the generic body, which squares
    E - 1.
    """
    wide = {torch.float32: torch.float64, torch.complex64: torch.complex128}.get(A.dtype, A.dtype)
    X = A if A.device.type == "mps" else A.to(wide)
    large = A.numel() and readable(A) and bool(X.detach().abs().sum(-2).max() > LARGEST_NORM)
    return (_expm(X, backend="generic") if large else _matrix_exp(X)).to(A.dtype)


def _matrix_exp(X: Tensor) -> Tensor:
    found: Tensor = torch.linalg.matrix_exp(X) if torch.compiler.is_compiling() else _MatrixExp.apply(X)
    return found


class _MatrixExp(torch.autograd.Function):
    """With derivatives that do not depend on the size of the gradients and tangents that come in.

    exp([[X, W], [0, X]]) has the derivative of exp(X) in the direction W as its upper right block. PyTorch takes it of
    W as it is: a large one asks for squarings in which the digits of X get lost, all of them at 1e16 times X.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(X: Tensor) -> Tensor:
        return torch.linalg.matrix_exp(X)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        if forward_mode():
            ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _derivative(ctx.saved_tensors[0].mH, grads[0])

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return _derivative(ctx.saved_tensors[0], tangents[0])


def _derivative(X: Tensor, W: Tensor) -> Tensor:
    """That of exp(X) in the direction W, which is linear in W: of W of a size near 1."""
    N = X.shape[-1]
    if N == 0:
        return W
    size = W.abs().amax((-2, -1), keepdim=True)
    unit = torch.where((size > 0) & size.isfinite(), size, 1.0).log2().floor().exp2()
    upper = torch.cat([X, W / unit], dim=-1)
    return _matrix_exp(torch.cat([upper, torch.cat([torch.zeros_like(X), X], dim=-1)], dim=-2))[..., :N, N:] * unit


def eigvals(A: Tensor) -> Tensor:
    """NaN of matrices that are not finite, on which LAPACK in PyTorch gives wrong numbers or crashes."""
    finite = A.isfinite().all(-1).all(-1)
    found = torch.linalg.eigvals(torch.where(finite[..., None, None], A, 0))
    return torch.where(finite[..., None], found, torch.nan)


def exp(z: Tensor) -> Any:
    """e^x (cos y + i sin y), of which a CPU computes several at a time, but not of complex numbers."""
    if z.dtype != torch.complex64 or z.device.type != "cpu":
        return NotImplemented
    size, angle = z.real.exp(), z.imag
    return torch.complex(size * angle.cos(), size * angle.sin())


def matmul(x: Tensor, y: Tensor) -> Tensor:
    kind = x.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return x @ y
    with torch.autocast(kind, enabled=False):
        return x @ y


def clip(x: Tensor, low: float, high: float | None = None) -> Tensor:
    return torch.clamp(x, low, high)


def taken_along(x: Tensor, index: Tensor, axis: int) -> Tensor:
    return torch.gather(x, axis, index)


def plus_product(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.addcmul(x, y, z)


def erf(x: Tensor) -> Tensor:
    return torch.special.erf(x)


def sigmoid(x: Tensor) -> Tensor:
    return torch.sigmoid(x)


def silu(x: Tensor) -> Tensor:
    return torch.nn.functional.silu(x)


def relu(x: Tensor) -> Tensor:
    return torch.relu(x)


def softplus(x: Tensor) -> Any:
    if torch.compiler.is_compiling():
        return NotImplemented  # its traced backward claims strides that it does not have
    # Where PyTorch takes x for softplus(x): e^-20 is lost in float32, not in float64.
    return torch.nn.functional.softplus(x, threshold=40.0 if x.dtype == torch.float64 else 20.0)


def gelu(x: Tensor, *, approximate: str) -> Tensor:
    return torch.nn.functional.gelu(x, approximate=approximate)


def affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
    if x.dtype != weight.dtype or (bias is not None and bias.dtype != x.dtype):
        return NotImplemented
    return torch.nn.functional.linear(x, weight, bias)


def rms_norm(x: Tensor, weight: Tensor | None, *, epsilon: float) -> Any:
    if weight is not None and weight.dtype != x.dtype:
        return NotImplemented
    return torch.rms_norm(x, x.shape[-1:], weight, epsilon)


def parted(x: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Whose backward joins the gradients; that of a slice fills the rest with zeros, for every slice."""
    return torch.split_with_sizes(x, sizes, dim=-1)


def seen(S: Tensor, q: Tensor) -> Any:
    if S.dtype != q.dtype:
        return NotImplemented
    return matmul(q.unsqueeze(-2), S).squeeze(-2)


def written(S: Tensor, k: Tensor, v: Tensor) -> Any:
    """In one pass over S, with nothing of its size beside it."""
    if not S.dtype == k.dtype == v.dtype:
        return NotImplemented
    return torch.addcmul(S, k[..., None], v[..., None, :])


def glu(x: Tensor) -> Tensor:
    return torch.nn.functional.glu(x, -1)


def diagonal_stepper(poles: Tensor, B: Tensor, C: Tensor, *, conj_pairs: bool, several_outputs: bool) -> Any:
    """On (Re x, Im x) wherever one factor is real: 2 Re(C x) = (2 Re C, -2 Im C) . (Re x, Im x)."""
    if not conj_pairs or several_outputs or not poles.is_complex():
        return NotImplemented
    B, C = (torch.view_as_real(x.to(poles.dtype).resolve_conj()) for x in (B, 2 * C.conj()))

    def step(state: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.addcmul(torch.view_as_real(poles * state), B, u[..., None, None])
        return torch.view_as_complex(x), (C * x).sum((-2, -1))

    return step
