"""The convolution kernel of a system: K_l = C Ab^l Bb."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._arrays.dispatch import is_traced
from .._arrays.errors import DomainError, OptionError
from .._arrays.library import Array, Namespace, convert, resolve, to_numpy
from .._arrays.values import overflow_ignored
from ..systems import records
from ..systems.companion import companion
from ..systems.conversions import dense_form
from ..systems.discretization import check_method, check_system_values, discretized, log_poles, validated_dt
from ..systems.records import DPLR, Dense, Diagonal, Rational, check_output
from .krylov import DensePropagator
from .rational import impulse_response
from .vandermonde import DiagonalPropagator


def kernel(
    system: Any,
    length: int,
    *,
    dt: Any = None,
    method: str = "zoh",
    alpha: float | None = None,
    xp: Any = None,
    check_values: bool = False,
) -> Array:
    """The convolution kernel of a system, its response to a unit impulse at step 0, without the direct term D.

    K_l = C Ab^l Bb,   l = 0..length-1, and y = K * u + D u;   2 Re of it with conj_pairs

    system   Dense, Diagonal, DPLR, Rational or a tuple (A, B, C[, D]); continuous with dt, discrete without
    length   the number of taps, at least 1
    dt       a number, (...) as the batch axes of the system, or (..., N) per state (Diagonal); in units of time
    method   "zoh", "bilinear", "euler", "backward_euler", "gbt" (with alpha), "dirac", "foh"
    xp       an array library or its name: converts the system to it, which detaches gradients
    returns  (..., L), with several outputs and inputs (...[, M][, P], L); real for a real system

    Diagonal systems by the two-level Vandermonde product, dense and DPLR ones by Krylov doubling: memory of the
    result, no (..., N, L) tensor. Raises ShapeError, DTypeError, OptionError, DomainError, MixedArraysError.
    S4D: Gu, Gupta, Goel and Re 2022, https://arxiv.org/abs/2206.11893.

    >>> import numpy, ssm_core
    >>> ssm_core.kernel((numpy.asarray([[0.5]]), numpy.ones(1), numpy.ones(1)), 4)
    array([1.   , 0.5  , 0.25 , 0.125])
    """
    system = records.as_system("kernel", system, dt, xp)
    if xp is not None:
        xp = resolve(xp, "kernel")
        system = records.converted(system, xp, "kernel")
        dt = dt if dt is None or isinstance(dt, int | float) else convert(dt, xp)
    check_length("kernel", length)
    check_method("kernel", system, dt, method, alpha)
    system, xp = records.validated("kernel", system)
    dt = validated_dt("kernel", system, dt, xp)
    system = records.as_precise_as(system, dt, xp)
    system = state_space(system)
    check_output("kernel", system)
    check_system_values("kernel", xp, system, dt, check_values)
    with overflow_ignored(system.B):
        discrete, logarithms = discrete_form(system, dt, method, alpha, xp)
        K = propagator(discrete, logarithms, xp).kernel(int(length))
    check_growth("kernel", xp, K, lambda: discrete, int(length), check_values)
    return K


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


class _CompanionPropagator(DensePropagator):
    """Of a rational system, whose kernel is its impulse response."""

    def __init__(self, system: CompanionForm, logarithms: None, xp: Namespace) -> None:
        super().__init__(system, logarithms, xp)
        self.rational: Any = system.rational

    def kernel(self, length: int) -> Array:
        return impulse_response(self.rational.numerator, self.rational.denominator, length, self.xp)


def discrete_form(system: Any, dt: Any, method: str, alpha: float | None, xp: Namespace) -> tuple[Any, Any]:
    """The discrete system, Dense for a DPLR one, and the logarithms of its poles where it has them (`log_poles`)."""
    logarithms = None
    if not system.discrete:
        system, logarithms = discretized(system, dt, method, alpha, xp), log_poles(system, dt, method, xp)
    return (dense_form(system, xp) if isinstance(system, DPLR) else system), logarithms


def propagator(system: Any, logarithms: Any, xp: Namespace) -> Any:
    """What computes many steps of a discrete system at once."""
    return _PROPAGATORS[type(system)](system, logarithms, xp)


_PROPAGATORS: dict[type, Any] = {
    Diagonal: DiagonalPropagator,
    Dense: DensePropagator,
    CompanionForm: _CompanionPropagator,
}


def check_growth(operation: str, xp: Namespace, result: Array, make: Any, length: int, always: bool) -> None:
    """Raise where a result that may be read overflowed, and name the pole that made it grow."""
    if not (isinstance(result, np.ndarray) or (always and not is_traced(result))) or bool(xp.all(xp.isfinite(result))):
        return
    discrete = make()
    A = to_numpy(discrete.poles if isinstance(discrete, Diagonal) else discrete.A)
    poles = np.ravel(A if isinstance(discrete, Diagonal) else np.linalg.eigvals(A))
    largest = poles[np.argmax(np.abs(poles))]
    raise DomainError(
        f"{operation}: the result overflows within {length} steps: the system is unstable. Its largest discrete pole "
        f"is {largest:.6g}, of modulus {abs(largest):.6g}; the modulus to the power of {length} must stay finite."
    )


def check_length(operation: str, length: Any) -> None:
    if isinstance(length, bool) or not isinstance(length, int | np.integer):
        raise OptionError(f"{operation}: length is {length!r}, but must be a whole number of steps.")
    if length < 1:
        raise OptionError(f"{operation}: length = {length} must be at least 1.")
