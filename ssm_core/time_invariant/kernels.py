"""The convolution kernel of a system: K_l = C Ab^l Bb."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._arrays.dispatch import is_traced
from .._arrays.errors import DomainError, OptionError, unknown
from .._arrays.library import Array, Namespace, convert, resolve, to_numpy
from .._arrays.numbers import flag, whole
from .._arrays.values import overflow_ignored
from ..systems import records
from ..systems.companion import companion
from ..systems.conversions import dense_form
from ..systems.discretization import check_method, check_system_values, discretized, log_poles, validated_dt
from ..systems.methods import METHODS
from ..systems.records import DPLR, Dense, Diagonal, Rational, check_output
from .cauchy import cauchy_kernel
from .conditioning import check_magnification
from .krylov import DensePropagator
from .rational import impulse_response
from .transient import check_steps, kernel_by_steps, powers_grow
from .vandermonde import DiagonalPropagator


def kernel(
    system: Any,
    length: int,
    *,
    dt: Any = None,
    method: str = "zoh",
    alpha: float | None = None,
    algorithm: str | None = None,
    xp: Any = None,
    check_values: bool = False,
) -> Array:
    """The convolution kernel of a system, its response to a unit impulse at step 0, without the direct term D.

    K_l = C Ab^l Bb,   l = 0..length-1, and y = K * u + D u;   2 Re of it with conj_pairs

    system     Dense, Diagonal, DPLR, Rational or a tuple (A, B, C[, D]); continuous with dt, discrete without
    length     the number of taps, at least 1
    dt         a number, (...) as the batch axes of the system, or (..., N) per state (Diagonal); in units of time
    method     as in `discretize`, and so are alpha and check_values
    algorithm  "vandermonde": the two-level product of a Diagonal system; "krylov": by doubling, of a Dense or DPLR
               one; "cauchy": sums over the poles of a DPLR system that is discrete or becomes so by bilinear, euler,
               backward_euler or gbt, none outside the unit circle; "division": of the polynomials of a Rational one.
               None: the cheapest that fits. All give the same numbers. Where powers of a dense matrix grow far before
               they decay, as those of companion forms do, all are the recurrence in double (not under a trace)
    xp         an array library or its name: converts the system to it, which detaches gradients
    returns    (..., L), with several outputs and inputs (...[, M][, P], L); real for a real system

    Memory is that of the result, no (..., N, L) tensor. Raises ShapeError, DTypeError, OptionError, DomainError,
    MixedArraysError.
    S4D: Gu, Gupta, Goel and Re 2022, https://arxiv.org/abs/2206.11893. Cauchy sums: Gu, Goel and Re, Efficiently
    modeling long sequences with structured state spaces, 2022.

    >>> import numpy, ssm_core
    >>> ssm_core.kernel((numpy.asarray([[0.5]]), numpy.ones(1), numpy.ones(1)), 4)
    array([1.   , 0.5  , 0.25 , 0.125])
    """
    system = records.as_system("kernel", system, dt, xp)
    if xp is not None:
        xp = resolve(xp, "kernel")
        system = records.converted(system, xp, "kernel")
        dt = dt if dt is None or isinstance(dt, int | float | np.generic) else convert(dt, xp)
    length = check_length("kernel", length)
    check_values = flag("kernel", check_values=check_values)
    check_method("kernel", system, dt, method, alpha)
    system, xp = records.validated("kernel", system)
    dt = validated_dt("kernel", system, dt, xp)
    system = records.as_precise_as(system, dt, xp)
    system = state_space(system)
    check_output("kernel", system)
    algorithm = chosen_algorithm("kernel", system, method, algorithm)
    check_system_values("kernel", xp, system, dt, flag("kernel", check_values=check_values))
    if isinstance(system, CompanionForm):
        check_magnification("kernel", system.rational, length, check_values)
    with overflow_ignored(system.B):
        discrete, logarithms = _sampled(system, dt, method, alpha, xp)
        wide = _dense_for(discrete, xp)
        if isinstance(wide, Dense) and not isinstance(wide, CompanionForm) and powers_grow(wide.A, length):
            check_steps("kernel", wide, length, check_values)
            K = kernel_by_steps(wide, length, xp)
        else:
            K = _ALGORITHMS[algorithm](discrete, logarithms, length, xp)
    check_growth("kernel", xp, K, lambda: _dense_for(discrete, xp), length, check_values)
    return K


def chosen_algorithm(operation: str, system: Any, method: str, algorithm: str | None) -> str:
    """The algorithm to take; raises where the one asked for does not fit what the system is once it is discrete."""
    if algorithm is not None and (not isinstance(algorithm, str) or algorithm not in _ALGORITHMS):
        raise unknown(operation, "algorithm", algorithm, _ALGORITHMS)
    kind, becomes = type(system), type(system)
    if not system.discrete:
        lost = METHODS[method].carries_input or (kind is DPLR and not METHODS[method].keeps_low_rank)
        becomes = Dense if lost else kind
    fitting = _FITTING[becomes]
    if algorithm is None or algorithm in fitting:
        return algorithm or fitting[0]
    name = "Rational" if kind is CompanionForm else kind.__name__
    cause = f"does not fit a {name} system"
    instead = f"algorithm={fitting[0]!r}" + "".join(f" or {other!r}" for other in fitting[1:])
    if becomes is not kind:
        cause += f" that method {method!r} makes Dense"
        if algorithm in _FITTING[kind]:
            instead += ", or method='bilinear'"
    elif algorithm == "cauchy":
        instead += ", or give a DPLR system, as nplr makes of a HiPPO measure"
    raise OptionError(f"{operation}: algorithm {algorithm!r} {cause}. Write {instead}.")


@dataclass(frozen=True, eq=False)
class CompanionForm(Dense):
    """The companion form of a rational system, which it remembers for its kernel."""

    rational: Rational | None = None


def state_space(system: Any) -> Any:
    """The system itself, or the state space of a Rational one."""
    if not isinstance(system, Rational):
        return system
    form = companion(system)
    return CompanionForm(form.A, form.B, form.C, form.D, discrete=True, rational=system)


class _FilterPropagator:
    """Of a rational system, whose kernel is its impulse response."""

    several_inputs = several_outputs = False

    def __init__(self, system: CompanionForm, logarithms: None, xp: Namespace) -> None:
        self.rational: Any = system.rational
        self.xp = xp

    def kernel(self, length: int) -> Array:
        return impulse_response(self.rational.numerator, self.rational.denominator, length, self.xp)


def discrete_form(system: Any, dt: Any, method: str, alpha: float | None, xp: Namespace) -> tuple[Any, Any]:
    """The discrete system, Dense for a DPLR one, and the logarithms of its poles where it has them (`log_poles`)."""
    system, logarithms = _sampled(system, dt, method, alpha, xp)
    return _dense_for(system, xp), logarithms


def _sampled(system: Any, dt: Any, method: str, alpha: float | None, xp: Namespace) -> tuple[Any, Any]:
    """The discrete system of whatever kind, and the logarithms of its poles where it has them."""
    if system.discrete:
        return system, None
    return discretized(system, dt, method, alpha, xp), log_poles(system, dt, method, xp)


def _dense_for(system: Any, xp: Namespace) -> Any:
    """The system, Dense for a DPLR one."""
    return dense_form(system, xp) if isinstance(system, DPLR) else system


def propagator(system: Any, logarithms: Any, xp: Namespace) -> Any:
    """What computes many steps of a discrete system at once."""
    return _PROPAGATORS[type(system)](system, logarithms, xp)


_PROPAGATORS: dict[type, Any] = {
    Diagonal: DiagonalPropagator,
    Dense: DensePropagator,
    CompanionForm: _FilterPropagator,
}


def _propagated(system: Any, logarithms: Any, length: int, xp: Namespace) -> Array:
    return propagator(_dense_for(system, xp), logarithms, xp).kernel(length)


def _cauchy(system: DPLR, logarithms: None, length: int, xp: Namespace) -> Array:
    return cauchy_kernel(system, length, xp)


_ALGORITHMS: dict[str, Any] = {
    "vandermonde": _propagated,
    "krylov": _propagated,
    "cauchy": _cauchy,
    "division": _propagated,
}

# By what the discrete system is, the cheapest first. Krylov before Cauchy at every size: both square the matrix
# log2 L times, Cauchy to find A^L, and its sums, transforms and solutions with R x R matrices come on top.
_FITTING: dict[type, tuple[str, ...]] = {
    Diagonal: ("vandermonde",),
    Dense: ("krylov",),
    DPLR: ("krylov", "cauchy"),
    CompanionForm: ("division",),
}


def check_growth(operation: str, xp: Namespace, result: Array, make: Any, length: int, always: bool) -> None:
    """Raise where a result that may be read overflowed, and name the pole that made it grow."""
    if not (isinstance(result, np.ndarray) or (always and not is_traced(result))) or bool(xp.all(xp.isfinite(result))):
        return
    discrete = make()
    A = to_numpy(discrete.poles if isinstance(discrete, Diagonal) else discrete.A)
    poles = np.ravel(A if isinstance(discrete, Diagonal) else np.linalg.eigvals(A))
    largest = poles[np.argmax(np.abs(poles))]
    size = f"Its largest discrete pole is {largest:.6g}, of modulus {abs(largest):.6g}"
    if abs(largest) <= 1:
        raise DomainError(
            f"{operation}: the result overflows within {length} steps, though the poles lie within the circle. {size}: "
            f"inputs or coefficients are too large, or powers of a matrix of norm {_norm(A):.1e} are."
        )
    raise DomainError(
        f"{operation}: the result overflows within {length} steps: the system is unstable. {size}; "
        f"the modulus to the power of {length} must stay finite."
    )


def _norm(A: np.ndarray) -> float:
    return float(np.max(np.abs(A), initial=0.0))


def check_length(operation: str, length: Any) -> int:
    """The length as Python's number; raises unless it is a whole number of steps."""
    return whole(operation, length=length)
