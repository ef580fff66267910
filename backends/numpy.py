"""Fused implementations for NumPy: loops over time with vectors as wide as the other axes, in place."""

from __future__ import annotations

import math
from functools import cache
from itertools import repeat
from typing import Any

import numpy as np
from array_api_compat import numpy as compat

from ssm_core.functions import convolution

SHORTEST_CONVOLUTION = 8  # steps from which the FFT beats the recurrence: benchmarks "modes-*"
NARROW = 512  # numbers a step below which a loop over time costs more than its arithmetic
SMALL = 4096  # elements up to which calls cost more than arithmetic
COPIED = 16  # steps copied at once: a cache line of float32
SLAB = 2**19  # numbers that are transformed at once in a long convolution,
ROWS = 8  # and at least so many rows, which NumPy's FFT takes side by side
NAMESPACE = compat
FADING = 32  # steps after which what has faded away is set to zero
FUSED = (
    *("linear_scan", "diagonal_stepper", "erf", "exp", "gelu", "sigmoid", "affine", "glu", "convolve", "fft_pair"),
    "ratio",
)


def devices() -> str:
    """Where it computes."""
    return "cpu"


def shortest_convolution(u: Any) -> int:
    return SHORTEST_CONVOLUTION


def all_finite(x: Any) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(x.sum()))


def bounds(x: Any) -> tuple[int, int]:
    return int(x.min()), int(x.max())


def owned(x: Any) -> Any:
    return x if x.base is None or getattr(x.base, "nbytes", x.nbytes) <= x.nbytes else x.copy()


def erf(x: Any) -> Any:
    """Of the C library, for arrays so small that the passes of the generic body cost more."""
    if x.size > SMALL:
        return NotImplemented
    return np.fromiter(map(math.erf, x.ravel().tolist()), x.dtype, x.size).reshape(x.shape)


def exp(z: Any) -> Any:
    """e^x cos y and e^x sin y, which NumPy computes for several numbers at a time, but not for complex ones."""
    if z.dtype != np.complex64:
        return NotImplemented
    size, angle, result = np.exp(z.real), z.imag.copy(), np.empty_like(z)
    np.multiply(size, np.cos(angle), out=result.real)
    np.multiply(size, np.sin(angle), out=result.imag)
    return result


def gelu(x: Any, *, approximate: str) -> Any:
    """x Phi(x), in float32 by a table of Phi."""
    if approximate != "none" or x.size > SMALL:
        return NotImplemented
    if x.dtype == np.float32:
        return x * np.interp(x, *_normal_distribution()).astype(np.float32)
    return 0.5 * x * (1 + erf(x * math.sqrt(0.5)))


@cache
def _normal_distribution() -> tuple[Any, Any]:
    """Points of Phi, the closer the more it bends: between them a straight line errs by 2e-8, a third of a rounding."""
    x = np.linspace(-6.0, 6.0, 2**14)
    bend = np.sqrt(np.abs(x) * np.exp(-x * x / 2)) + 3e-3
    points = np.interp(np.linspace(0, 1, 6000), np.cumsum(bend) / bend.sum(), x)
    return points, np.asarray([0.0, *(math.erfc(-t * math.sqrt(0.5)) / 2 for t in points[1:-1].tolist()), 1.0])


def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x): an overflow of e^-x gives the right 0."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def fft_pair(u: Any, xp: Any) -> Any:
    """In single precision, which NumPy computes in double, three times as long, unless input is padded and scaled."""
    if u.dtype not in (np.float32, np.complex64):
        return NotImplemented
    forward, inverse = (np.fft.fft, np.fft.ifft) if u.dtype == np.complex64 else (np.fft.rfft, np.fft.irfft)

    def transform(x: Any, n: int) -> Any:
        padded = x
        if x.shape[-1] < n:
            padded = np.zeros((*x.shape[:-1], n), x.dtype)
            padded[..., : x.shape[-1]] = x
        X = forward(padded, n, norm="forward")
        X *= n
        return X

    return transform, inverse


def convolve(u: Any, k: Any, reverse: Any = None) -> Any:
    """Long ones slab by slab: arrays that are larger than the caches cost more to fill than to transform."""
    batch, length = np.broadcast_shapes(*(x.shape[:-1] for x in (u, k, reverse) if x is not None)), u.shape[-1]
    if math.prod(batch) * length <= SLAB:
        return NotImplemented
    spectrum, n = convolution.spectrum_of_taps(u, k, reverse, compat)
    transform, inverse = convolution.fft_pair(u, compat)
    y = np.empty((*batch, length), dtype=u.dtype)
    for slab in convolution.slabs(batch, max(ROWS, SLAB // n)):
        U, K = (convolution.part(x, slab, len(batch)) for x in (u, spectrum))
        y[slab] = inverse(transform(U, n) * K, n)[..., :length]
    return y


def affine(x: Any, weight: Any, bias: Any) -> Any:
    one = x.size == weight.shape[1]  # the product with a single vector has a faster routine
    y = (weight @ x.reshape(-1)).reshape(*x.shape[:-1], -1) if one else x @ weight.T
    if bias is None:
        return y
    if y.dtype != np.result_type(y, bias):
        return y + bias
    y += bias
    return y


def glu(x: Any) -> Any:
    half = x.shape[-1] // 2
    gate = np.exp(np.minimum(-x[..., half:], _LARGEST[x.dtype]))
    gate += 1
    return x[..., :half] / gate


_LARGEST = {np.dtype(t): t(math.floor(math.log(np.finfo(t).max))) for t in (np.float32, np.float64)}  # e^it is finite


def diagonal_stepper(poles: Any, B: Any, C: Any, *, conj_pairs: bool, several_outputs: bool) -> Any:
    """Complex numbers as pairs of reals wherever one factor is real: 2 Re(C x) = [2 Re C, -2 Im C] . [Re x, Im x]."""
    if not conj_pairs or several_outputs or not np.iscomplexobj(poles):
        return NotImplemented
    B = B.astype(poles.dtype)
    real = B.real.dtype
    B = np.ascontiguousarray(np.broadcast_to(B, poles.shape)).view(real)
    C = np.stack([2 * C.real, -2 * C.imag], axis=-1).reshape(*C.shape[:-1], -1).astype(real)

    def step(state: Any, u: Any) -> Any:
        state = np.ascontiguousarray(poles * state)
        pairs = state.view(state.real.dtype)
        pairs += B * u[..., None]
        return state, np.vecdot(C, pairs)

    return step


def linear_scan(a: Any, b: Any, initial: Any, *, axis: int, reverse: bool) -> Any:
    """x_k = a_k x_{k-1} + b_k, one multiply and one add a step into a result that has time first in memory."""
    gates, drives = np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0)
    states = np.empty(drives.shape, dtype=b.dtype)
    out = np.moveaxis(states, 0, axis)
    if b.size == 0:
        return out
    length, width = len(drives), b.size // len(drives)
    x = np.zeros(drives.shape[1:], dtype=b.dtype) if initial is None else initial
    if b.ndim == 1:
        gates, drives, states = gates[:, None], drives[:, None], states[:, None]
    if reverse:
        gates, drives, states = gates[::-1], drives[::-1], states[::-1]
    if width < NARROW and length >= 64:
        _scan_in_blocks(gates, drives, x, states)
    elif abs(drives.strides[0]) < abs(drives.strides[-1]):
        _scan_of_columns(gates, drives, x, states)
    else:
        _scan(gates, drives, x, states)
    return out


def _scan(gates: Any, drives: Any, x: Any, states: Any) -> Any:
    """The loop over time; returns the last state."""
    gates = repeat(gates[0]) if len(gates) == 1 else gates
    product, multiply, add = np.empty_like(states[0]), np.multiply, np.add
    for gate, drive, state in zip(gates, drives, states, strict=False):
        multiply(gate, x, product)
        x = add(product, drive, state)
    return x


def _scan_of_columns(gates: Any, drives: Any, x: Any, states: Any) -> None:
    """Where time is last in memory: some steps at a time are copied to have it first."""
    for start in range(0, len(drives), COPIED):
        part = slice(start, start + COPIED)
        some = gates if len(gates) == 1 else np.ascontiguousarray(gates[part])
        x = _scan(some, np.ascontiguousarray(drives[part]), x, states[part])


def _scan_in_blocks(gates: Any, drives: Any, x: Any, states: Any) -> None:
    """A blocks of T steps at once, from zero; then the states between them; then what these add to every step."""
    length, constant = len(drives), len(gates) == 1
    T = max(1, round(length**0.5)) | 1  # odd: rows a power of two apart would share their sets of the cache
    A = length // T

    def rows(m: Any, t: int) -> Any:
        """Row t of every block."""
        return m[t : A * T : T]

    def gate(t: int) -> Any:
        return gates if constant else rows(gates, t)

    local = rows(states, 0)
    local[...] = rows(drives, 0)
    through = np.array(gate(0))
    with np.errstate(over="ignore", invalid="ignore"):  # of products that meet no state
        for t in range(1, T):
            local = np.multiply(gate(t), local, out=rows(states, t))
            local += rows(drives, t)
            through *= gate(t)
        carries = np.empty_like(local)
        for i in range(A):
            carries[i] = x
            x = local[i] + np.where(x == 0, 0, through[0 if constant else i] * x)
        for t in range(T):
            carries *= gate(t)
            local = rows(states, t)
            local += carries
    if length > A * T:
        _scan(gates if constant else gates[A * T :], drives[A * T :], x, states[A * T :])


def ratio(r: Any, a: Any) -> Any:
    """w_k = r_k - sum_{j>=1} a_j w_{k-j}, all filters side by side: row k of r becomes w_k."""
    (*batch, L), m = r.shape, a.shape[-1]
    n = math.prod(batch)
    if r.dtype != a.dtype:
        return NotImplemented
    rows = np.zeros((m - 1 + L, n), r.dtype)
    rows[m - 1 :] = r.reshape(n, L).T
    weights = np.ascontiguousarray(-a.reshape(n, m).T[::-1])
    weights[-1] = 1
    products, least = np.empty_like(weights), np.finfo(r.dtype).tiny * 2.0**100
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for k in range(L):
            window = rows[k : k + m]
            if k % FADING == 0:  # processors take a hundred times as long for numbers below the normal ones
                window[np.abs(window) < least] = 0
            np.multiply(weights, window, out=products)
            np.add.reduce(products, axis=0, out=rows[m - 1 + k])
    return np.ascontiguousarray(rows[m - 1 :].T).reshape(r.shape)
