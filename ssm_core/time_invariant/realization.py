"""Rational systems from state spaces: their characteristic polynomial, and the numerator from their first taps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .._arrays.dispatch import is_traced
from .._arrays.errors import OptionError, ShapeError, describe
from .._arrays.library import Array, Namespace, complex_dtype, compute_dtype, device, is_complex, real_dtype, to_numpy
from .._arrays.shapes import broadcast
from ..functions.convolution import convolve
from ..functions.eigenvalues import eigvals
from ..systems import records
from ..systems.conversions import dense_form
from ..systems.discretization import check_system_values
from ..systems.records import DPLR, Diagonal, Rational, check_output
from .conditioning import check_digits, magnification
from .krylov import DensePropagator
from .rational import in_double
from .vandermonde import DiagonalPropagator

LENGTH = 1024  # taps by which coefficients are judged


def to_rational(system: Any, *, check_values: bool = False) -> Rational:
    """The transfer function of a discrete system of one input and output, as a quotient of polynomials.

    b(z)/a(z) + D = C (I - A z^-1)^-1 B + D,   a = prod_n (1 - p_n z^-1),   b = the first N taps of K * a

    system        Diagonal, Dense, DPLR or a tuple (A, B, C[, D]), discrete; a Rational one stays what it is
    check_values  check the coefficients on any device (those on the host are always checked)
    returns       Rational: numerator (..., max(N, 1)), denominator (..., N + 1), N states, twice as many with
                  conj_pairs

    D goes to D. Real for a real system, of its precision; computed in double precision where the library has it, from
    the poles of a Diagonal system or the eigenvalues of A. Differentiable for Diagonal; for the others where the
    library's eigenvalues are. Coefficients are a poor basis for many poles close to each other: with N of them near
    one point of the circle they grow like 2^N, and their rounding moves the poles by its N-th root.
    `to_dense` is the way back, to a state space.
    Raises ShapeError, DTypeError, OptionError, DomainError, MixedArraysError.

    >>> import numpy, ssm_core
    >>> poles = numpy.asarray([0.5, -0.25])
    >>> system = ssm_core.to_rational(ssm_core.Diagonal(poles, numpy.ones(2), numpy.ones(2), discrete=True))
    >>> system.numerator, system.denominator
    (array([ 2.  , -0.25]), array([ 1.   , -0.25 , -0.125]))
    """
    system = records.as_system("to_rational", system, None)
    system, xp = records.validated("to_rational", system)
    if isinstance(system, Rational):
        return system
    check_output("to_rational", system)
    check_system_values("to_rational", xp, system, None, check_values)
    if not system.discrete:
        raise OptionError(
            "to_rational: a continuous system has no powers of z^-1. "
            "Discretize it first: to_rational(discretize(system, dt))."
        )
    rank = records.batch_rank(system)
    ports = records.inputs(system, rank), records.outputs(system, rank)
    if ports != (None, None):
        raise ShapeError(
            f"to_rational: a Rational system has one input and one output without axes "
            f"({describe(B=system.B, C=system.C)}). Take one of each: B[..., i] and C[..., j, :]."
        )
    wide: Any = records.map_arrays(lambda x: in_double(x, xp), replace(system, D=None))
    wide = dense_form(wide, xp) if isinstance(wide, DPLR) else wide
    denominator, taps = _of_diagonal(wide, xp) if isinstance(wide, Diagonal) else _of_dense(wide, xp)
    real = real_dtype(compute_dtype(xp, records.state_field(system), system.B, system.C), xp)
    numerator = convolve(taps, denominator)
    found = Rational(_in_precision_of(real, numerator, xp), _in_precision_of(real, denominator, xp), system.D)
    _check_coefficients(found, check_values)
    return found


def _check_coefficients(found: Rational, always: bool) -> None:
    """Raise where rounding the coefficients moves the response by more than some thousandths."""
    if not (isinstance(found.denominator, np.ndarray) or (always and not is_traced(found.denominator))):
        return
    on_host = Rational(to_numpy(found.numerator), to_numpy(found.denominator))
    eps = float(np.finfo(on_host.denominator.dtype).eps) / 2
    instead = "Keep the state space" + (", or give it in double precision." if eps > 1e-10 else ".")
    with np.errstate(all="ignore"):
        check_digits("to_rational", magnification(on_host, LENGTH), eps, instead)


def _in_precision_of(dtype: Any, x: Array, xp: Namespace) -> Array:
    return xp.astype(x, complex_dtype(dtype, xp) if is_complex(x) else dtype, copy=False)


def _of_diagonal(system: Diagonal, xp: Namespace) -> tuple[Array, Array]:
    """(denominator, as many taps as there are states, at least one)."""
    a = from_roots(system.poles, system.conj_pairs, xp)
    return a, DiagonalPropagator(system, None, xp).kernel(max(a.shape[-1] - 1, 1))


def _of_dense(system: Any, xp: Namespace) -> tuple[Array, Array]:
    N = system.A.shape[-1]
    if N == 0:  # of which not every library takes eigenvalues
        batch = broadcast("to_rational", A=system.A.shape[:-2], B=system.B.shape[:-1], C=system.C.shape[:-1])
        one = xp.ones((*batch, 1), dtype=system.A.dtype, device=device(system.A))
        return one, xp.zeros_like(one)
    a = from_roots(eigvals(system.A), False, xp)
    a = a if is_complex(system.A) or not is_complex(a) else xp.real(a)
    return a, DensePropagator(system, None, xp).kernel(N)


def from_roots(poles: Array, conj_pairs: bool, xp: Namespace) -> Array:
    """The coefficients of prod_n (1 - p_n z^-1), for conj_pairs of both members of every pair.

    poles (..., N) to (..., N + 1), or real (..., 2N + 1). One factor after another, in an order that spreads them over
    the circle: neighbors first would pass through coefficients far larger than those of the product.
    """
    N = poles.shape[-1]
    if is_complex(poles) and N > 2:
        angles = xp.atan2(xp.imag(poles), xp.real(poles))
        poles = xp.take_along_axis(poles, xp.argsort(angles, axis=-1), axis=-1)
    if not conj_pairs:
        factors = [-poles]
    elif is_complex(poles):
        re, im = xp.real(poles), xp.imag(poles)
        factors = [-2 * re, re * re + im * im]
    else:
        factors = [-2 * poles, poles * poles]
    a = xp.ones((*poles.shape[:-1], 1), dtype=factors[0].dtype, device=device(poles))
    for n in _spread(N):
        a = _times_factor(a, [f[..., n : n + 1] for f in factors], xp)
    return a


def _times_factor(a: Array, factor: list[Array], xp: Namespace) -> Array:
    """a (1 + f_1 z^-1 [+ f_2 z^-2]) for f (..., 1): longer by the number of them."""
    zero, count = xp.zeros_like(a[..., :1]), len(factor)
    product = xp.concat([a, *[zero] * count], axis=-1)
    for k, f in enumerate(factor, start=1):
        product = product + f * xp.concat([*[zero] * k, a, *[zero] * (count - k)], axis=-1)
    return product


def _spread(N: int) -> list[int]:
    """0..N-1 with reversed bits: neighbors stand far from each other.

    >>> _spread(6)
    [0, 4, 2, 1, 5, 3]
    """
    bits = max((N - 1).bit_length(), 1)
    return [n for n in (int(f"{k:0{bits}b}"[::-1], 2) for k in range(2**bits)) if n < N]
