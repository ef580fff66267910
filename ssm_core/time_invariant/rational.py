"""Rational systems: b(z)/a(z) in powers of z^-1, their impulse response, companion form and transfer function.

The impulse response h solves a * h = b, by the recurrence in blocks (`recursive`). Where sum_{j>=1} |a_j| <= 1 no power
of the companion matrix grows: then it is the kernel of the companion form by doubling of Krylov sequences, or with more
than 32 coefficients a quotient of power series, in longer blocks. There S taps fix the next T by

    h_{S..S+T-1} = g * r,   r = (b - a * h_{0..S-1})_{S..S+T-1},   g = 1/a

where r needs only the last m - 1 taps. The taps of g itself come by doubling, S = T. With more than 512 coefficients
the quotient serves all systems, but then h <- h + g * (r - a * h) takes back what a large 1/a makes of roundings; where
a * h is not r then, 1/a is too large for any product with it, and h comes by the recurrence.

Source: Parnichkun, Massaroli, Moro, Smith, Hasani, Lechner, An, Re, Asama, Ermon, Suzuki, Yamashita and Poli,
State-free inference of state-space models: the transfer function approach, 2024, https://arxiv.org/abs/2405.06147.
Division of series: Kung, On computing reciprocals of power series, 1974.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._arrays.dispatch import dispatched
from .._arrays.errors import OptionError, unknown
from .._arrays.idioms import padded
from .._arrays.library import Array, Namespace, compute_dtype, device, is_array, is_complex, readable, to_complex
from .._arrays.shapes import broadcast
from ..functions.convolution import fast_length, fft_pair
from ..functions.eigenvalues import eigvals
from ..systems.companion import companion, companion_matrix
from ..systems.records import Rational
from .krylov import DensePropagator
from .recursive import _ratio

SHORT = 32  # coefficients up to which matrix products are faster than FFTs, and more exact
LONG = 512  # coefficients up to which the recurrence itself is affordable
ROUNDINGS = 256  # of a division that is as good as the recurrence
BLOCKS = 8  # of a long division: more of them save little
BOUNDS = {"zeros": 0.0, "xavier": -0.5, "montel": -1.0}  # initializations: powers of the number of coefficients


def impulse_response(numerator: Array, denominator: Array, length: int, xp: Namespace) -> Array:
    """The impulse response h of b/a, without the direct term D, in O(L log L) operations and O(L) memory.

    h_l = (b_l - sum_{j>=1} a_j h_{l-j}) / a_0,   l = 0..length-1

    numerator    (..., n): b_0, b_1, ...
    denominator  (..., m): a_0 (1 in a Rational system), a_1, ...
    returns      (..., length), leading axes broadcast; complex if one of the two is

    Computed in double precision where the library has it. Roundings are magnified as the recurrence magnifies them, by
    up to sum_j |a_j| sum_l |(1/a)_l|: 1e6 for `butter(4, 0.01)`, 1e11 for `butter(6, 0.01)`. Growing responses come out
    right until they overflow. In single precision alone (JAX without x64) that leaves narrow filters no digits.
    """
    dtype = compute_dtype(xp, numerator, denominator)
    b, a = (in_double(xp.astype(_first(x, length), dtype, copy=False), xp) for x in (numerator, denominator))
    b, a = b / a[..., :1], a / a[..., :1]
    batch = broadcast("impulse_response", numerator=b.shape[:-1], denominator=a.shape[:-1])
    if 0 in batch:
        return xp.zeros((*batch, length), dtype=dtype, device=device(b))
    return xp.astype(xp.broadcast_to(_quotient(b, a, length, xp), (*batch, length)), dtype, copy=False)


def in_double(x: Array, xp: Namespace) -> Array:
    """x in double precision, where the library has it."""
    wide = "complex128" if is_complex(x) else "float64"
    known = xp.__array_namespace_info__().dtypes(device=device(x))
    return xp.astype(x, known[wide], copy=False) if wide in known else x


def _quotient(b: Array, a: Array, length: int, xp: Namespace) -> Array:
    """b/a for a_0 = 1: (..., length)."""
    if a.shape[-1] == 1:
        return padded(b, length, xp)
    a = _first(a, length)
    batch = broadcast("impulse_response", numerator=b.shape[:-1], denominator=a.shape[:-1])
    r = xp.broadcast_to(padded(b, length, xp), (*batch, length))
    one = xp.ones_like(a[..., :1])

    def at_once() -> Array:
        if a.shape[-1] > SHORT + 1:
            return xp.broadcast_to(_divide(b, a, length, False, xp), r.shape)
        if b.shape[-1] > SHORT + 1:
            return xp.broadcast_to(_product(_quotient(one, a, length, xp), b, length, xp), r.shape)
        return xp.broadcast_to(DensePropagator(companion(Rational(b, a)), None, xp).kernel(length), r.shape)

    def by_recurrence() -> Array:
        if a.shape[-1] > LONG + 1:
            h = xp.broadcast_to(_divide(b, a, length, True, xp), r.shape)
            if not readable(h) or bool(_solves(h, a, r, xp)):
                return h
        exact: Array = _ratio(r, xp.broadcast_to(a, (*batch, a.shape[-1])))
        return exact

    # Then no power of the companion matrix has an inf-norm above 1, and its products leave only roundings.
    contracts = xp.all(xp.sum(xp.abs(a[..., 1:]), axis=-1) <= 1)
    found: Array = _either(contracts, at_once, by_recurrence)
    return found


@dispatched
def _either(condition: Array, one: Callable[[], Array], other: Callable[[], Array]) -> Array:
    """one() if the condition holds, else other(), which is taken too where a trace does not know."""
    return one() if readable(condition) and bool(condition) else other()


def _divide(b: Array, a: Array, length: int, refine: bool, xp: Namespace) -> Array:
    """b/a by blocks, from the taps of 1/a of one block: (..., length)."""
    # Blocks of at least four times as many taps as a has: of fewer, what they leave to the next would cost the most.
    T = -(-length // max(1, min(BLOCKS, length // (4 * a.shape[-1]))))
    g = _reciprocal(a, T, refine, xp)
    numerator = _first(b, T)
    blocks: list[Array] = []
    for start in range(0, length, T):
        if start:
            numerator = -_carried(a, blocks[-1], T, xp)
        if 0 < start < b.shape[-1]:
            numerator = _sum(numerator, _first(b[..., start:], T), xp)
        blocks.append(_solved(g, a, numerator, T, refine, xp))
    return xp.concat(blocks, axis=-1)[..., :length]


def _solves(h: Array, a: Array, r: Array, xp: Namespace) -> Array:
    """Whether a * h = r but for roundings, as of the recurrence: of |a| |h|. Of what overflows nothing is asked."""
    rest = xp.max(xp.abs(r - _product(h, a, h.shape[-1], xp)), axis=-1)
    scale = xp.linalg.vector_norm(a, axis=-1) * xp.max(xp.abs(h), axis=-1)
    return xp.all((rest <= ROUNDINGS * xp.finfo(h.dtype).eps * scale) | ~xp.isfinite(rest))


def _reciprocal(a: Array, length: int, refine: bool, xp: Namespace) -> Array:
    """1/a for a_0 = 1: (..., length)."""
    if length == 1:
        return xp.ones_like(a[..., :1])
    T = -(-length // 2)
    g = _reciprocal(a, T, refine, xp)
    return xp.concat([g, _solved(g, a, -_carried(a, g, length - T, xp), length - T, refine, xp)], axis=-1)


def _solved(g: Array, a: Array, r: Array, count: int, refine: bool, xp: Namespace) -> Array:
    """The first entries of r/a from so many taps g of 1/a."""
    h = _product(g, r, count, xp)
    if not refine:
        return h
    return h + _product(g, padded(_first(r, count), count, xp) - _product(h, a, count, xp), count, xp)


def _carried(a: Array, h: Array, count: int, xp: Namespace) -> Array:
    """(a * h)_{T..T+count-1} for T taps h: what they leave to the next ones, (..., at most count)."""
    T = h.shape[-1]
    a = _first(a, T + count)
    order = a.shape[-1] - 1
    if order == 0:
        return xp.zeros_like(h[..., :1])
    count, used = min(count, order), min(order, T)
    n = fast_length(max(used + count, order + 1))  # what wraps around falls on the first `used` entries
    transform, inverse = fft_pair(h, xp)
    return inverse(transform(a, n) * transform(h[..., T - used :], n), n)[..., used : used + count]


def _product(g: Array, x: Array, count: int, xp: Namespace) -> Array:
    """The first entries of g * x: (..., count)."""
    g, x = _first(g, count), _first(x, count)
    transform, inverse = fft_pair(g, xp)
    n = fast_length(max(count, g.shape[-1] + x.shape[-1] - 1))
    return inverse(transform(g, n) * transform(x, n), n)[..., :count]


def _sum(x: Array, y: Array, xp: Namespace) -> Array:
    """x + y, the shorter one continued by zeros."""
    n = max(x.shape[-1], y.shape[-1])
    return padded(x, n, xp) + padded(y, n, xp)


def _first(x: Array, count: int) -> Array:
    """The first coefficients, at most count of them."""
    return x[..., : min(count, x.shape[-1])]


def aliased_response(numerator: Array, denominator: Array, period: int, xp: Namespace) -> Array:
    """The time-aliased impulse response of b/a: what the inverse DFT of its samples on the circle gives.

    k_l = 1/P sum_q b(w^q)/a(w^q) w^(-ql),   w = exp(-2 pi i/P);   for a stable system k_l = sum_p h_{l + pP}

    numerator    (..., n): b_0, b_1, ...
    denominator  (..., m): a_0, a_1, ..., without a root at a P-th root of unity
    returns      (..., period), leading axes broadcast; complex if one of the two is

    That is the kernel of the RTF paper, with the direct term left out and P the length, made even. It tends to the
    impulse response as h_P does to 0; for an unstable system it is another one.
    """
    dtype = compute_dtype(xp, numerator, denominator)
    b, a = (xp.astype(x, dtype, copy=False) for x in (numerator, denominator))
    transform, inverse = fft_pair(b, xp)
    return inverse(transform(_folded(b, period, xp), period) / transform(_folded(a, period, xp), period), period)


def _folded(x: Array, period: int, xp: Namespace) -> Array:
    """Coefficients with z^-period = 1: (..., at most period)."""
    if x.shape[-1] <= period:
        return x
    turns = -(-x.shape[-1] // period)
    return xp.sum(xp.reshape(padded(x, turns * period, xp), (*x.shape[:-1], turns, period)), axis=-2)


def rational_response(system: Rational, z: Array, xp: Namespace) -> Array:
    """b(z)/a(z) + D where z (W,), complex, takes the place of z^-1: (..., W), by Horner's rule."""
    a = _polynomial(system.denominator, z, xp)
    H = _polynomial(system.numerator, z, xp) / xp.where(a == 0, xp.ones_like(a), a)
    H = xp.where(a == 0, xp.full_like(H, xp.inf), H)
    D: Any = system.D
    if D is None:
        return H
    return H + (D[..., None] if is_array(D) and D.ndim else D)


def _polynomial(c: Array, z: Array, xp: Namespace) -> Array:
    """c_0 + c_1 z + c_2 z^2 + ...: (..., n) and (W,) to (..., W)."""
    c = to_complex(c, xp)
    value = c[..., -1:] + 0 * z
    for i in range(c.shape[-1] - 2, -1, -1):
        value = value * z + c[..., i : i + 1]
    return value


def rational_poles(system: Rational, xp: Namespace) -> Array:
    """The poles: the roots of z^(m-1) a(z), eigenvalues of its companion matrix, complex (..., m - 1).

    Not those at 0 that a numerator longer than the denominator adds. On the host, where the library has no
    eigenvalues.
    """
    a = system.denominator
    order = a.shape[-1] - 1
    if order == 0:
        return to_complex(a[..., :0], xp)
    return eigvals(companion_matrix(a / a[..., :1], order, xp))


# The parametrization of the RTF layer -------------------------------------------------------------------------------


def montel(tail: Array, slack: Array | float, xp: Namespace) -> Array:
    """Coefficients a_1, a_2, ... scaled so that their absolute values add up to less than 1: every pole is stable.

    a = a' / (sum |a'_j| + |slack| + 1e-6)

    tail     (..., m - 1): a', of any size
    slack    a number or (...): how far from the circle the poles stay
    returns  (..., m - 1)

    For |z| >= 1 the sum of a_j z^-j is then less than 1 in modulus, so that 1 plus it has no root there (Montel).
    """
    slack = xp.abs(slack)[..., None] if is_array(slack) else abs(slack)
    return tail / (xp.sum(xp.abs(tail), axis=-1, keepdims=True) + slack + 1e-6)


def initial_bound(name: str, order: int) -> float:
    """The half width of the uniform distribution that coefficients start with, by the name of the initialization.

    "zeros": 0, all poles at 0 and the response is b; "montel": 1/order, so that sum |a_j| <= 1 and all poles are
    stable; "xavier": 1/sqrt(order), which may start unstable.
    """
    if not isinstance(name, str) or name not in BOUNDS:
        raise unknown("initial_bound", "initialization", name, BOUNDS)
    if order < 1:
        raise OptionError(f"initial_bound: order = {order} must be at least 1.")
    return float(order) ** BOUNDS[name] if BOUNDS[name] else 0.0
