"""Linear time-invariant systems as frozen records of arrays.

Continuous:  x'(t) = A x(t) + B u(t),      y(t) = C x(t) + D u(t)
Discrete:    x_k = A x_{k-1} + B u_k,      y_k = C x_k + D u_k       (the output sees the input of its own step)

The poles (or A) fix the batch rank; every other field has that rank, sizes of 1 broadcast, and B and C have one axis
more with several inputs (..., N, P) or outputs (..., M, N). No conjugate is taken of C. Validation lives in
`validated`, called by the functions: constructors must stay free to hold whatever a transformation puts in the leaves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

import numpy as np

from .._arrays import dispatch as _dispatch
from .._arrays.errors import DomainError, DTypeError, OptionError, ShapeError, describe
from .._arrays.library import (
    Array,
    Namespace,
    complex_dtype,
    computable,
    convert,
    floating,
    is_array,
    is_complex,
    namespace,
    refuse_foreign,
    require_arrays,
)
from .._arrays.numbers import flag
from .._arrays.shapes import broadcast

T = TypeVar("T")  # arrays of one library


class _System(Generic[T]):
    STATE_AXES: ClassVar[int] = 1  # of the first field: those that are no batch axes

    def __post_init__(self) -> None:
        _dispatch.ensure_loaded(self.__dict__.values())


@dataclass(frozen=True, eq=False)
class Dense(_System[T]):
    """A system with a full state matrix.

    A (..., N, N); B (..., N) or (..., N, P); C (..., N) or (..., M, N); D (...[, M][, P]) or a number.

    >>> import numpy, ssm_core
    >>> ssm_core.Dense(-numpy.eye(2), numpy.ones(2), numpy.ones(2)).discrete
    False
    """

    ARRAYS: ClassVar[tuple[str, ...]] = ("A", "B", "C", "D")
    STATE_AXES: ClassVar[int] = 2

    A: T
    B: T
    C: T | None = None
    D: T | float | None = None
    discrete: bool = False


@dataclass(frozen=True, eq=False)
class Diagonal(_System[T]):
    """A system whose state matrix is diag(poles).

    poles (..., N); B (..., N) or (..., N, P); C (..., N) or (..., M, N); D (...[, M][, P]) or a number.
    With `conj_pairs` each stored pole stands for itself and its conjugate, and the output is 2 Re(C x).

    >>> import numpy, ssm_core
    >>> ssm_core.Diagonal(numpy.asarray([-0.5 + 1j]), numpy.ones(1), conj_pairs=True).conj_pairs
    True
    """

    ARRAYS: ClassVar[tuple[str, ...]] = ("poles", "B", "C", "D")

    poles: T
    B: T
    C: T | None = None
    D: T | float | None = None
    conj_pairs: bool = False
    discrete: bool = False


@dataclass(frozen=True, eq=False)
class DPLR(_System[T]):
    """Diagonal plus low rank: A = diag(poles) - sum_r P_r Q_r^H.

    poles (..., N); P and Q (..., R, N); B, C, D as in Diagonal. With `conj_pairs` it means the full system
    diag([poles, conj poles]) - sum_r [P_r, conj P_r] [Q_r, conj Q_r]^H, whose halves are coupled.
    """

    ARRAYS: ClassVar[tuple[str, ...]] = ("poles", "P", "Q", "B", "C", "D")

    poles: T
    P: T
    Q: T
    B: T
    C: T | None = None
    D: T | float | None = None
    conj_pairs: bool = False
    discrete: bool = False


@dataclass(frozen=True, eq=False)
class Rational(_System[T]):
    """A transfer function, discrete from birth: (b_0 + b_1 z^-1 + ...) / (1 + a_1 z^-1 + ...) + D.

    numerator (..., n): b_0, b_1, ...; denominator (..., m): a_0 = 1, a_1, ...
    """

    ARRAYS: ClassVar[tuple[str, ...]] = ("numerator", "denominator", "D")

    numerator: T
    denominator: T
    D: T | float | None = None

    @property
    def discrete(self) -> bool:
        return True


System: TypeAlias = Dense | Diagonal | DPLR | Rational

CLASSES = (Dense, Diagonal, DPLR, Rational)
FLAGS = ("conj_pairs", "discrete")


def array_fields(cls: Any) -> tuple[str, ...]:
    """Names of the fields that hold arrays; the others are flags."""
    return cls.ARRAYS


def present_arrays(system: Any) -> dict[str, Array]:
    """The arrays that a system has, by their names."""
    return {name: x for name in system.ARRAYS if (x := getattr(system, name)) is not None}


def state_axes(system: System) -> int:
    """How many trailing axes of the first field are no batch axes."""
    return system.STATE_AXES


def map_arrays(f: Any, system: Any) -> Any:
    """The system with f applied to every array that is there."""
    present = {name: getattr(system, name) for name in array_fields(type(system))}
    return replace(system, **{name: f(x) for name, x in present.items() if x is not None})


def as_system(operation: str, system: Any, dt: Any, xp: Any = None) -> System:
    """A system from a system or a tuple (A, B[, C[, D]]), which is continuous if dt is given and else discrete."""
    if isinstance(system, tuple | list):
        if not 2 <= len(system) <= 4:
            raise ShapeError(f"{operation}: a system tuple has 2 to 4 members (A, B[, C[, D]]), not {len(system)}.")
        if xp is None:
            for name, x in zip("ABCD", system, strict=False):
                refuse_foreign(operation, name, type(x))
                if x is not None and not is_array(x) and not (name == "D" and isinstance(x, int | float)):
                    raise DTypeError(
                        f"{operation}: {name} is a {type(x).__name__}, not an array. "
                        f"Pass arrays, or xp= to convert: {operation}(..., xp=numpy)."
                    )
        return replace(Dense(*system), discrete=dt is None)
    if not isinstance(system, CLASSES):
        raise DTypeError(
            f"{operation}: a {type(system).__name__} is no system. "
            "Pass Dense, Diagonal, DPLR, Rational or a tuple (A, B[, C[, D]])."
        )
    flag(operation, **{name: getattr(system, name) for name in FLAGS if hasattr(system, name)})
    return system


def converted(system: System, xp: Namespace, operation: str = "converted") -> System:
    """The system with every field an array of xp, detached from gradients."""
    fields = {name: getattr(system, name) for name in array_fields(type(system))}
    present = {name: convert(x, xp, operation=operation, name=name) for name, x in fields.items() if x is not None}
    return replace(system, **present)


def validated(operation: str, system: System) -> tuple[System, Namespace]:
    """The system with fields to compute with (at least float32), and its namespace; raises when it is no system."""
    system = replace(system, D=_plain_number(operation, system.D))
    arrays = {name: getattr(system, name) for name in array_fields(type(system))}
    required = {n: x for n, x in arrays.items() if n not in ("C", "D") or (x is not None and n == "C")}
    require_arrays(operation, **required)
    xp = namespace(operation, **arrays)
    floating(operation, **arrays)
    _check_shapes(operation, system, arrays)
    return map_arrays(lambda x: computable(x, xp), system), xp


def _plain_number(operation: str, D: Any) -> Any:
    """D, a number of NumPy's as Python's; raises for True and False."""
    if isinstance(D, bool | np.bool_):
        raise DTypeError(f"{operation}: D = {D!r} is a flag, not a number.")
    return D.item() if isinstance(D, np.generic) else D


def as_precise_as(system: System, dt: Any, xp: Namespace) -> System:
    """The system in double precision if dt is an array of it."""
    if not is_array(dt) or isinstance(dt, float) or dt.dtype != xp.float64:
        return system
    wide = complex_dtype(dt.dtype, xp)

    def cast(x: Any) -> Any:  # D may be a number
        return xp.astype(x, wide if is_complex(x) else dt.dtype) if is_array(x) else x

    return map_arrays(cast, system)


def _check_shapes(operation: str, system: System, arrays: dict[str, Array]) -> None:
    kind = type(system).__name__
    if isinstance(system, Rational):
        for name in ("numerator", "denominator"):
            if arrays[name].ndim < 1 or arrays[name].shape[-1] < 1:
                raise ShapeError(
                    f"{operation}: {name} of a Rational system needs coefficients along its last axis "
                    f"({describe(**{name: arrays[name]})})."
                )
        if isinstance(system.denominator, np.ndarray) and bool((system.denominator[..., 0] == 0).any()):
            raise DomainError(
                f"{operation}: denominator begins with 0, so the system has no impulse response. Shift it."
            )
        broadcast(operation, numerator=system.numerator.shape[:-1], denominator=system.denominator.shape[:-1])
        return
    first = next(iter(arrays))
    matrix = arrays[first]
    given = describe(**{n: x for n, x in arrays.items() if is_array(x)})
    axes = state_axes(system)
    if matrix.ndim < axes or (axes == 2 and matrix.shape[-1] != matrix.shape[-2]):
        wanted = "(..., N, N)" if axes == 2 else "(..., N)"
        raise ShapeError(f"{operation}: {first} of a {kind} system must be {wanted} ({given}).")
    rank, n = matrix.ndim - axes, matrix.shape[-1]
    batch = {first: matrix.shape[:rank]}
    for name, extra in (("P", 2), ("Q", 2), ("B", 1), ("C", 1)):
        x = arrays.get(name)
        if x is None:
            continue
        allowed = (extra,) if extra == 2 else (1, 2)
        if x.ndim - rank not in allowed:
            raise ShapeError(
                f"{operation}: {name} has {x.ndim} axes, but {first} has {rank} batch axes, so {name} needs "
                f"{' or '.join(str(rank + e) for e in allowed)} ({given}). "
                f"Add axes of size 1 where they are missing, such as {first}[None]."
            )
        states = x.shape[rank] if name == "B" else x.shape[-1]
        if states != n:
            raise ShapeError(
                f"{operation}: {name} has {states} states but {first} has {n} {'poles' if axes == 1 else 'states'} "
                f"({given}). A {kind} system needs one {name} entry per stored {'pole' if axes == 1 else 'state'}."
            )
        batch[name] = x.shape[:rank]
    if isinstance(system, DPLR) and system.P.shape[-2] != system.Q.shape[-2]:
        raise ShapeError(
            f"{operation}: P has rank {system.P.shape[-2]} but Q has {system.Q.shape[-2]} ({given}). "
            "A = diag(poles) - sum_r P_r Q_r^H needs one row of Q for every row of P."
        )
    broadcast(operation, **batch)
    _check_direct(operation, system, rank, given)


def _check_direct(operation: str, system: Any, rank: int, given: object) -> None:
    if system.D is None:
        return
    if system.C is not None and (not is_array(system.D) or system.D.ndim == 0):
        check_ports(operation, system.D, inputs(system, rank), outputs(system, rank))
    if not is_array(system.D):
        return
    wanted = rank + (inputs(system, rank) is not None) + (outputs(system, rank) is not None)
    if system.D.ndim not in (0, wanted):
        raise ShapeError(f"{operation}: D has {system.D.ndim} axes but needs {wanted} ({given}).")
    if system.D.ndim:
        broadcast(operation, D=system.D.shape[:rank], system=state_field(system).shape[:rank], B=system.B.shape[:rank])
    sizes = [n for n in (outputs(system, rank), inputs(system, rank)) if n is not None]
    if system.D.ndim and any(d != n for d, n in zip(system.D.shape[rank:], sizes, strict=True)):
        raise ShapeError(f"{operation}: D must end with {tuple(sizes)}, outputs and inputs ({given}).")


def check_ports(operation: str, D: Any, P: int | None, M: int | None) -> None:
    """Raise where one number stands for D of a system whose inputs are more or fewer than its outputs."""
    if (P or 1) != (M or 1):
        raise ShapeError(
            f"{operation}: D = {D!r} is one number, which means D times the identity, but the system has {P or 1} "
            f"inputs and {M or 1} outputs. Give D with {M or 1} x {P or 1} entries."
        )


def state_field(system: Any) -> Array:
    """The field that fixes the states and the batch rank: poles or A."""
    return getattr(system, system.ARRAYS[0])


def batch_rank(system: Any) -> int:
    """How many batch axes the system has."""
    return getattr(system, system.ARRAYS[0]).ndim - system.STATE_AXES


def inputs(system: Any, rank: int) -> int | None:
    """P, or None for a single input without an axis."""
    return system.B.shape[-1] if system.B.ndim == rank + 2 else None


def outputs(system: Any, rank: int) -> int | None:
    """M, or None for a single output without an axis."""
    return system.C.shape[-2] if system.C is not None and system.C.ndim == rank + 2 else None


def is_real(system: Any) -> bool:
    """Whether the output to a real input is real."""
    arrays = [getattr(system, n) for n in ("A", "poles", "B", "C") if getattr(system, n, None) is not None]
    return getattr(system, "conj_pairs", False) or not any(is_complex(x) for x in arrays)


def check_output(operation: str, system: Any) -> None:
    if system.C is None:
        raise OptionError(
            f"{operation}: the system has no output vector C. Give it one: dataclasses.replace(system, C=C)."
        )
