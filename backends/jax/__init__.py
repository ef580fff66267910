"""Fused implementations for JAX."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ssm_core._arrays.errors import OptionError
from ssm_core.functions import matrix_exponential
from ssm_core.systems import records

from .decay import channel_decay, ssd
from .delta import gated_delta
from .folds import fold, fold_of_chunks
from .means import weighted_means
from .products import affine
from .ratios import ratio
from .scans import linear_scan
from .selective import selective_scan
from .shards import shards
from .short_convolution import causal_conv1d

__all__ = [
    "affine",
    "causal_conv1d",
    "channel_decay",
    "fold",
    "fold_of_chunks",
    "gated_delta",
    "linear_scan",
    "ratio",
    "selective_scan",
    "shards",
    "ssd",
    "weighted_means",
]

FUSED = (
    "affine",
    "attention",
    "causal_conv1d",
    "channel_decay",
    "linear_scan",
    "diagonal_stepper",
    "fold",
    "fold_of_chunks",
    "gated_delta",
    "either",
    "expm",
    "selective_scan",
    "ssd",
    "erf",
    "sigmoid",
    "softplus",
    "gelu",
    "repeated",
    "fft_pair",
    "ratio",
    "weighted_means",
)
SHORTEST_CONVOLUTION = 4  # steps from which the FFT beats the recurrence: benchmarks "modes-*"
SQUARINGS = 20  # of the matrix exponential that are always run
NAMESPACE = jnp


def devices() -> str:
    """Where it can compute."""
    return ", ".join(sorted({d.platform for d in jax.devices()}))


def is_traced(x: Any) -> bool:
    """Whether a transformation of JAX is tracing."""
    return isinstance(x, jax.core.Tracer)


def is_symbol(size: Any) -> bool:
    """Whether a size is a symbol of jax.export."""
    return not isinstance(size, int)


def on_host(x: Any) -> bool:
    """Whether the host has the numbers at hand."""
    if not isinstance(x, jax.Array) or is_traced(x):
        return False
    return x.is_fully_addressable and all(d.platform == "cpu" for d in x.devices())


def bounds(x: Any) -> tuple[int, int] | None:
    if not on_host(x):
        return None
    x = np.asarray(x)
    return int(x.min()), int(x.max())


def all_finite(x: Any) -> bool | None:
    if not on_host(x):
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.asarray(x).sum()))  # where a function around is traced, a sum of JAX would be too


def owned(x: Any) -> Any:
    """JAX has no views."""
    return x


def to_numpy(x: Any) -> Any:
    return np.asarray(x)


def either(condition: Any, one: Callable[[], Any], other: Callable[[], Any]) -> Any:
    """lax.cond, which runs one of the two, but both under vmap."""
    return lax.cond(condition, one, other) if is_traced(condition) else NotImplemented


def from_numpy(x: np.ndarray) -> Any:
    """A batch of the host as JAX's own functions take it; of a dtype that JAX has not, as it is."""
    try:
        return jnp.asarray(x)
    except TypeError:
        return x


def fft_pair(u: Any, xp: Any) -> Any:
    """The FFTs of a known length."""
    kinds = (jnp.fft.fft, jnp.fft.ifft) if jnp.iscomplexobj(u) else (jnp.fft.rfft, jnp.fft.irfft)
    return tuple(partial(_transformed, kind) for kind in kinds)


def _transformed(kind: Any, x: Any, n: Any) -> Any:
    """On a CPU with all leading axes as one: XLA's FFT there fails on what it has laid out otherwise for devices that
    share the channels, as it does a product of two spectra."""
    if is_symbol(n):
        raise OptionError(
            f"convolve: JAX has no FFT of a length that an exported program does not know ({n}). Export it for known "
            "lengths, or take a layer with a state, such as S4D or H3, which runs in chunks then."
        )
    if jax.default_backend() != "cpu":
        return kind(x, n=n)
    y = kind(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), n=n)
    return y.reshape(*x.shape[:-1], y.shape[-1])


def expm(A: Any) -> Any:
    """The generic approximant and squarings; those of very large norms are taken only where there are any."""
    if A.size == 0:
        return jnp.exp(A)
    s = matrix_exponential.squarings(lax.stop_gradient(A), jnp)
    E = matrix_exponential.start(A * 2.0**-s, s, jnp)

    def squarings(E: Any, first: int, last: int) -> Any:
        def one(E: Any, k: Any) -> Any:
            return matrix_exponential.squared(E, s, k, jnp), None

        return lax.scan(one, E, jnp.arange(first, last, dtype=s.dtype))[0]

    E = squarings(E, 0, SQUARINGS)
    more = jax.checkpoint(lambda E: squarings(E, SQUARINGS, jnp.finfo(A.dtype).maxexp))
    return lax.cond(jnp.any(s > SQUARINGS), more, lambda E: E, E)


def shortest_convolution(u: Any) -> int:
    return SHORTEST_CONVOLUTION


def matmul(x: Any, y: Any) -> Any:
    """GPUs and TPUs would round the factors to ten bits or eight, which squared powers of a matrix do not bear."""
    return jnp.matmul(x, y, precision="highest")


def repeated(x: Any, n: int) -> Any:
    """A product with ones, whose adjoint is one too: what JAX derives of a broadcast is a sum over an axis between
    others, of products, which XLA computes at a twentieth of its speed."""
    return matmul(jnp.ones((n, 1), x.dtype), x)


def erf(x: Any) -> Any:
    return jax.scipy.special.erf(x)


def sigmoid(x: Any) -> Any:
    return jax.nn.sigmoid(x)


def softplus(x: Any) -> Any:
    return jax.nn.softplus(x)


def gelu(x: Any, *, approximate: str) -> Any:
    return jax.nn.gelu(x, approximate=False) if approximate == "none" else NotImplemented


def attention(q: jax.Array, k: jax.Array, v: jax.Array, seen: jax.Array) -> Any:
    """JAX's own attention, which adds up in single precision."""
    if q.dtype == jnp.float64:
        return NotImplemented
    return jax.nn.dot_product_attention(q, k, v, mask=seen[:, None])


def diagonal_stepper(poles: Any, B: Any, C: Any, *, conj_pairs: bool, several_outputs: bool) -> Any:
    """The sum over the states is a product with ones: XLA fuses a plain one into what follows, again and again."""
    if not conj_pairs or several_outputs or not jnp.iscomplexobj(poles):
        return NotImplemented

    def step(state: Any, u: Any) -> tuple[Any, Any]:
        state = poles * state + B * u[..., None]
        y = 2 * jnp.real(C * state)
        return state, matmul(y, jnp.ones(y.shape[-1:], y.dtype))

    return step


for _cls in records.CLASSES:
    jax.tree_util.register_dataclass(
        _cls,
        data_fields=list(records.array_fields(_cls)),
        meta_fields=[name for name in records.FLAGS if name in _cls.__dataclass_fields__],
    )
