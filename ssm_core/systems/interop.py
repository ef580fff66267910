"""Systems from and to SciPy and python-control, whose discrete output sees the state before the input arrives.

    ours     x_k     = A x_{k-1} + B u_k,    y_k = C x_k  + D u_k
    theirs   s_{k+1} = A s_k     + B u_k,    y_k = C' s_k + D' u_k

With s_k = x_{k-1}: C' = C A and D' = D + C B. Back, C = C' A^-1 and D = D' - C B; where A is singular and no C gives
C A = C', the output of the delayed state joins the states: x_k = (s_{k+1}, C' s_k) and y_k = (0, I) x_k + D' u_k.
Continuous systems have one form. Both packages hold one system, without batch axes, in float64 on the host.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays.errors import DomainError, DTypeError, MissingPackageError, OptionError, ShapeError, describe
from .._arrays.library import Array, complex_dtype, convert, is_array, resolve, to_numpy
from .._arrays.values import check_finite, check_positive
from . import records
from .companion import companion
from .conversions import dense_form
from .discretization import check_system_values
from .records import Dense, Rational, check_output

Matrices = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
SMALLEST = 1e-6  # relative to the largest, the singular values of A below which it counts as singular


def to_scipy(system: Any, *, dt: float | None = None) -> Any:
    """A system as a `scipy.signal.StateSpace`, with the outputs that SciPy computes.

    discrete: C' = C A, D' = D + C B, sampling time dt;   continuous: as it is

    system   Dense, Diagonal, DPLR, Rational or a discrete tuple (A, B, C[, D]), of any library, without batch axes
    dt       the sampling time of a discrete system; unspecified (dt=True) if None. None for a continuous one
    returns  scipy.signal.StateSpace: A (N, N), B (N, P), C (M, N), D (M, P), detached from gradients

    Conjugate pairs become a real system of twice as many states, as in `to_dense`; other complex systems stay complex.
    A Rational one takes its companion form.
    Raises ShapeError, DTypeError, OptionError, DomainError, MissingPackageError.

    >>> import numpy, ssm_core
    >>> found = ssm_core.to_scipy((numpy.asarray([[0.5]]), numpy.ones(1), numpy.ones(1)))
    >>> found.A, found.C, found.D
    (array([[0.5]]), array([[0.5]]), array([[1.]]))
    """
    signal = _imported("scipy.signal", "to_scipy", "scipy")
    matrices, discrete = _delayed("to_scipy", system)
    time = _sampling_time("to_scipy", discrete, dt)
    return signal.StateSpace(*matrices, dt=time) if discrete else signal.StateSpace(*matrices)


def from_scipy(statespace: Any, *, xp: Any = None, dtype: Any = None, device: Any = None) -> Dense | Rational:
    """The Dense system of a `scipy.signal.StateSpace`, with the same output at every step.

    discrete: C = C' A^-1, D = D' - C B, or with the delayed output as further states;   continuous: as it is

    statespace  StateSpace, or another system of scipy.signal that its `to_ss` turns into one
    xp          namespace of the result or its name; numpy if None
    dtype       floating dtype of the result; float64 if None
    device      device of the result
    returns     Dense, discrete if statespace is: A (N, N), B (N[, P]), C ([M, ]N), D ([M][, P]); one input or output
                loses its axis

    A discrete transfer function, or zeros and poles, of one input and output becomes Rational, in powers of z^-1: a
    state space of its coefficients would lose the digits of a narrow filter. A that is singular to 6 digits keeps its
    states where a C with C A = C' exists, as it does for what `to_scipy` made, and else has M more.
    The sampling time is not kept: `statespace.dt` tells it.
    Raises DTypeError, DomainError, OptionError, MissingPackageError (xp).

    >>> import numpy, scipy.signal, ssm_core
    >>> system = ssm_core.from_scipy(scipy.signal.StateSpace([[0.5]], [[1.0]], [[1.0]], [[0.0]], dt=1))
    >>> system.C, system.D
    (array([2.]), array(-2.))
    """
    if not hasattr(statespace, "to_ss"):
        raise DTypeError(
            f"from_scipy: a {type(statespace).__name__} is no system of scipy.signal. "
            "Pass a scipy.signal.StateSpace, TransferFunction or ZerosPolesGain."
        )
    discrete = statespace.dt is not None
    if discrete and not hasattr(statespace, "A"):
        fraction = statespace.to_tf()
        if np.ndim(fraction.num) == 1:
            return _fraction("from_scipy", fraction.num, fraction.den, xp, dtype, device)
    try:
        found = statespace.to_ss()
    except ValueError as error:
        raise _improper("from_scipy", statespace, error) from error
    return _same_step("from_scipy", found, discrete, xp, dtype, device)


def to_control(system: Any, *, dt: float | None = None) -> Any:
    """A system as a `control.StateSpace` of python-control, as `to_scipy` makes one of SciPy.

    discrete: C' = C A, D' = D + C B, sampling time dt;   continuous: as it is

    system   Dense, Diagonal, DPLR, Rational or a discrete tuple (A, B, C[, D]), of any library, without batch axes
    dt       the sampling time of a discrete system, which python-control plots frequencies by; unspecified
             (dt=True) if None. None for a continuous one
    returns  control.StateSpace: A (N, N), B (N, P), C (M, N), D (M, P), detached from gradients

    python-control holds real systems only: complex ones are an error, unless they are conjugate pairs.
    Raises ShapeError, DTypeError, OptionError, DomainError, MissingPackageError.
    """
    control = _imported("control", "to_control", "control")
    matrices, discrete = _delayed("to_control", system)
    if any(np.iscomplexobj(x) for x in matrices):
        raise DTypeError(
            "to_control: the system is complex, but python-control holds real systems only. "
            "Store conjugate poles as pairs: Diagonal(poles, B, C, D, conj_pairs=True)."
        )
    return control.ss(*matrices, dt=_sampling_time("to_control", discrete, dt))


def from_control(statespace: Any, *, xp: Any = None, dtype: Any = None, device: Any = None) -> Dense | Rational:
    """The Dense system of a `control.StateSpace` or `TransferFunction` of python-control, as `from_scipy` makes one.

    discrete: C = C' A^-1, D = D' - C B, or with the delayed output as further states;   continuous: as it is

    statespace  control.StateSpace, or what `control.ss` turns into one; without a time base (dt=None) continuous
    xp          namespace of the result or its name; numpy if None
    dtype       floating dtype of the result; float64 if None
    device      device of the result
    returns     Dense, discrete if statespace is: A (N, N), B (N[, P]), C ([M, ]N), D ([M][, P]); one input or output
                loses its axis

    A discrete TransferFunction of one input and output becomes Rational, in powers of z^-1.
    Raises DTypeError, DomainError, OptionError, MissingPackageError.
    """
    if not hasattr(statespace, "dt"):
        raise DTypeError(
            f"from_control: a {type(statespace).__name__} is no system of python-control. "
            "Pass a control.StateSpace or control.TransferFunction."
        )
    if statespace.dt and all(hasattr(statespace, name) for name in ("num_list", "den_list")):
        (num, *more), *rows = statespace.num_list
        if not more and not rows:
            return _fraction("from_control", num, statespace.den_list[0][0], xp, dtype, device)
    found = statespace if hasattr(statespace, "A") else _as_state_space(statespace)
    return _same_step("from_control", found, bool(found.dt), xp, dtype, device)


def _as_state_space(system: Any) -> Any:
    """What `control.ss` makes of a system."""
    control = _imported("control", "from_control", "control")
    try:
        return control.ss(system)
    except TypeError as error:
        raise DTypeError(f"from_control: a {type(system).__name__} has no state space. {error}") from error
    except NotImplementedError as error:
        raise MissingPackageError(
            "from_control: python-control makes a state space of a transfer function of several inputs or outputs with "
            "slycot. Install it: pip install slycot. Or give every entry of it, or a control.StateSpace."
        ) from error
    except ValueError as error:
        raise _improper("from_control", system, error) from error


def _improper(operation: str, system: Any, error: ValueError) -> DomainError:
    """What both packages say of a numerator of a higher degree than the denominator's, which differentiates."""
    return DomainError(
        f"{operation}: this {type(system).__name__} has no state space. {error} Divide by a denominator of at least "
        f"the numerator's degree: a pole far beyond the frequencies that matter makes a derivative proper."
    )


def _sampling_time(operation: str, discrete: bool, dt: Any) -> Any:
    """What both packages call dt: a time, True for an unknown one, 0 for a continuous system."""
    if not discrete:
        if dt is not None:
            raise OptionError(f"{operation}: the system is continuous, so it has no sampling time (dt: {dt!r}).")
        return 0
    if dt is None:
        return True
    if isinstance(dt, bool) or not isinstance(dt, int | float | np.integer | np.floating):
        raise DTypeError(f"{operation}: dt is a {type(dt).__name__} ({dt!r}), but must be a number.")
    check_positive(operation, np, dt=float(dt))
    return float(dt)


def _imported(module: str, operation: str, package: str) -> Any:
    try:
        if module == "scipy.signal":
            import scipy.signal

            return scipy.signal
        import control

        return control
    except ImportError as error:
        raise MissingPackageError(
            f"{operation}: {package} is not installed. Install it: pip install {package}."
        ) from error


def _delayed(operation: str, system: Any) -> tuple[Matrices, bool]:
    """The matrices in the delayed form, and whether they are discrete."""
    system = records.as_system(operation, system, None, np)
    system = records.map_arrays(lambda x: _given(operation, x), system)
    system, xp = records.validated(operation, system)
    if not isinstance(system, Rational):
        check_output(operation, system)
    check_system_values(operation, xp, system, None, False)
    first, batch = {n: getattr(system, n) for n in records.array_fields(type(system))[:2]}, records.batch_rank(system)
    if isinstance(system, Rational):
        first, batch = first | {"D": system.D}, max(batch, system.denominator.ndim - 1, getattr(system.D, "ndim", 0))
    if batch:
        raise ShapeError(
            f"{operation}: one system is needed, without batch axes ({describe(**first)}). "
            "Take every field at one index of the batch."
        )
    if not isinstance(system, Dense):
        system = companion(system) if isinstance(system, Rational) else dense_form(system, xp)
    A, B, C = (_double(x) for x in (system.A, system.B, system.C))
    B, C = (B if B.ndim == 2 else B[:, None]), (C if C.ndim == 2 else C[None, :])
    D = _direct(operation, system, (C.shape[0], B.shape[1]))
    return ((A, B, C @ A, D + C @ B) if system.discrete else (A, B, C, D)), system.discrete


def _given(operation: str, x: Any) -> Any:
    """Lists, numbers and NumPy's integers as floating arrays, as both packages take them."""
    whole = isinstance(x, np.ndarray) and x.dtype.kind in "iu"
    if whole or isinstance(x, list | tuple):
        return convert(np.asarray(x, float) if whole else x, resolve(None, operation), operation=operation)
    return x


def _direct(operation: str, system: Any, ports: tuple[int, int]) -> np.ndarray:
    """D as (M, P)."""
    if system.D is None:
        return np.zeros(ports)
    D = _double(system.D) if is_array(system.D) else np.asarray(system.D)
    if D.ndim == 0:
        records.check_ports(operation, system.D, ports[1], ports[0])
        return D * np.eye(ports[0])
    D = D[..., None] if records.inputs(system, 0) is None else D
    D = D[..., None, :] if records.outputs(system, 0) is None else D
    return np.broadcast_to(D, ports)


def _double(x: Array) -> np.ndarray:
    """x on the host, in double precision."""
    x = to_numpy(x)
    return x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)


def _same_step(operation: str, found: Any, discrete: bool, xp: Any, dtype: Any, device: Any) -> Dense:
    """Our form of an object with the matrices A, B, C, D of the delayed form, or of a continuous one."""
    library = resolve(xp, operation)
    A, B, C, D = (_double(np.asarray(getattr(found, name))) for name in "ABCD")
    check_finite(operation, np, A=A, B=B, C=C, D=D)
    if discrete:
        A, B, C, D = _undelayed(A, B, C, D)
    single_input, single_output = B.shape[1] == 1, C.shape[0] == 1
    B, D = (B[:, 0], D[:, 0]) if single_input else (B, D)
    C, D = (C[0], D[0, ...]) if single_output else (C, D)

    def placed(x: np.ndarray) -> Array:
        kind = complex_dtype(dtype, library) if dtype is not None and np.iscomplexobj(x) else dtype
        return convert(np.asarray(x), library, kind, device)

    return Dense(placed(A), placed(B), placed(C), placed(D), discrete=discrete)


def _fraction(operation: str, numerator: Any, denominator: Any, xp: Any, dtype: Any, device: Any) -> Rational:
    """b(z)/a(z) in powers of z, the highest first: shifted to powers of z^-1, with no power of z left over."""
    library = resolve(xp, operation)
    b, a = (np.trim_zeros(_double(np.atleast_1d(np.asarray(x))), "f") for x in (numerator, denominator))
    b = b if b.size else np.zeros(1)
    check_finite(operation, np, numerator=b, denominator=a)
    if b.size > a.size:
        raise DomainError(
            f"{operation}: the numerator has degree {b.size - 1}, more than the denominator's {a.size - 1}."
        )
    b = np.concatenate([np.zeros(a.size - b.size), b])

    def placed(x: np.ndarray) -> Array:
        kind = complex_dtype(dtype, library) if dtype is not None and np.iscomplexobj(x) else dtype
        return convert(x, library, kind, device)

    return Rational(placed(b / a[0]), placed(a / a[0]))


def _undelayed(A: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray) -> Matrices:
    """The matrices of the same-step form, with as many states more as there are outputs where A has no inverse."""
    if A.size == 0:
        return A, B, C, D
    if np.linalg.cond(A) < 1 / SMALLEST:
        found = np.linalg.solve(A.T, C.T).T
        return A, B, found, D - found @ B
    found = C @ np.linalg.pinv(A, rcond=SMALLEST)
    if np.max(np.abs(found @ A - C)) <= 1e-12 * np.max(np.abs(C)):
        return A, B, found, D - found @ B
    N, M = A.shape[0], C.shape[0]
    A = np.block([[A, np.zeros((N, M))], [C, np.zeros((M, M))]])
    return A, np.concatenate([B, np.zeros((M, B.shape[1]))]), np.eye(M, N + M, N), D
