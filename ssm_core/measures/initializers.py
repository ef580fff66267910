"""Diagonal systems to start learning from: the initializations of S4D.

poles_n = -a_n - i s w_n, n = 0..N/2-1, with s = imag_scale and a_n = real_scale / 2 except for "real"

| name | w_n                          | what it is                                              |
|------|------------------------------|---------------------------------------------------------|
| legs | -Im of the poles of legsd    | the normal part of HiPPO-LegS, with its own B           |
| lin  | pi n                         | the frequencies of HiPPO's fout                         |
| inv  | (N/pi) (N / (2n + 1) - 1)    | approximates the frequencies of legs                    |
| inv2 | (N/pi) (N / (n + 1) - 1)     | as inv, with higher frequencies                         |
| quad | (2n + 1)^2 / pi              | frequencies that grow with n^2                          |
| real | 0, with a_n = n + 1          | the eigenvalues of HiPPO-LegS: decay without rotation   |

Source: Gu, Gupta, Goel and Re, On the parameterization and initialization of diagonal state space models,
2022."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._arrays.errors import DomainError, DTypeError, OptionError, unknown
from .._arrays.library import convert, resolve
from .._arrays.numbers import flag, plain
from ..systems.records import Diagonal
from .matrices import Pair, state_size
from .nplr import nplr


def diagonal_init(
    name: str,
    N: int,
    *,
    real_scale: float = 1.0,
    imag_scale: float = 1.0,
    B_init: str = "constant",
    B_scale: float = 1.0,
    B_clip: float | None = None,
    normalize: bool = False,
    conj_pairs: bool = True,
    xp: Any = None,
    dtype: Any = None,
    device: Any = None,
) -> Diagonal:
    """A continuous diagonal system with N real states, computed in float64 on the host.

    poles_n = -a_n - i imag_scale w_n, with a_n and w_n of the table in this module

    name        "legs", "lin", "inv", "inv2", "quad", "real"
    N           number of real states, even (odd only for "real" without conj_pairs)
    real_scale  factor of the real parts, > 0 ("real" has none)
    imag_scale  factor of the frequencies, >= 0 ("real" has none)
    B_init      "constant" 1; "alternating" 1, -1, ...; "unit-cw" exp(-2 pi i n/N); "unit-ccw" its conjugate.
                "legs" has its own: V^H b with b_n = sqrt(2n + 1), V as in `nplr`
    B_scale     factor of B
    B_clip      "legs" only: bound on |Im B|, before B_scale; None leaves B exact (the code of S4 has 2.0)
    normalize   divide B by sqrt(zeta), zeta = sum over all N states of |B_n / poles_n|^2: for the constant
                input 1 the output then settles at variance 1, over random C of variance 1
    conj_pairs  True: N/2 poles with Im <= 0, each standing for its conjugate too. False: N poles, first
                those, then their conjugates; for "real" the N real poles -1, ..., -N
    xp          namespace of the result or its name; numpy if None
    dtype       a real or complex dtype that gives the precision, double if None. Poles and B are complex,
                except for "real" without conj_pairs
    device      device of the result
    returns     Diagonal with poles (N/2,) or (N,), B alike, no C

    Raises OptionError (unknown name or B_init, option that the name has no use for), ShapeError (N),
    DomainError (scales) and DTypeError.
    Source: Gu, Gupta, Goel and Re, On the parameterization and initialization of diagonal state space models,
    2022.

    >>> import ssm_core
    >>> ssm_core.diagonal_init("lin", 4).poles.round(3)
    array([-0.5+0.j   , -0.5-3.142j])
    """
    _check_names(name, B_init)
    normalize = flag("diagonal_init", normalize=normalize)
    conj_pairs = flag("diagonal_init", conj_pairs=conj_pairs)
    pairs = conj_pairs or name != "real"
    N = state_size("diagonal_init", N, even=pairs, owner="a system of conjugate pairs")
    _check_scales(real_scale=real_scale, imag_scale=imag_scale, B_scale=B_scale, B_clip=B_clip)
    _check_use(name, (real_scale, imag_scale), B_init, B_clip, pairs)
    xp = resolve(xp, "diagonal_init")
    real, complex_ = _dtypes(xp, dtype)

    n = np.arange(N // 2 if pairs else N)
    if name == "legs":
        poles, B = _legs(N, real_scale, imag_scale, B_clip)
    else:
        poles, B = _poles(name, n, N, real_scale, imag_scale), _INPUTS[B_init](n, N)
    if pairs and not conj_pairs:
        poles, B = np.concatenate([poles, poles.conj()]), np.concatenate([B, B.conj()])
    B = B_scale * B
    if normalize:
        B = B / np.sqrt((2 if conj_pairs else 1) * np.sum(np.abs(B / poles) ** 2))
    if not pairs:
        poles, B = poles.real, B.real
    dtype = complex_ if pairs else real
    return Diagonal(convert(poles, xp, dtype, device), convert(B, xp, dtype, device), conj_pairs=conj_pairs)


def _legs(N: int, real_scale: float, imag_scale: float, clip: float | None) -> Pair:
    system, _ = nplr("legs", N, B_clip=clip)
    poles, B = system.poles, system.B
    return real_scale * poles.real + 1j * imag_scale * poles.imag, B


def _poles(name: str, n: np.ndarray, N: int, real_scale: float, imag_scale: float) -> np.ndarray:
    if name == "real":
        return -(n + 1) + 0j
    return -real_scale / 2 - 1j * imag_scale * _FREQUENCIES[name](n, N)


_FREQUENCIES = {
    "lin": lambda n, N: math.pi * n,
    "inv": lambda n, N: N / math.pi * (N / (2 * n + 1) - 1),
    "inv2": lambda n, N: N / math.pi * (N / (n + 1) - 1),
    "quad": lambda n, N: (2 * n + 1) ** 2 / math.pi,
}
NAMES = ("legs", *_FREQUENCIES, "real")

_INPUTS = {
    "constant": lambda n, N: np.ones(len(n), dtype=complex),
    "alternating": lambda n, N: 1 - 2 * (n % 2) + 0j,
    "unit-cw": lambda n, N: np.exp(-2j * math.pi * n / N),
    "unit-ccw": lambda n, N: np.exp(2j * math.pi * n / N),
}


def _check_names(name: Any, B_init: Any) -> None:
    if not isinstance(name, str) or name not in NAMES:
        raise unknown("diagonal_init", "name", name, NAMES)
    if not isinstance(B_init, str) or B_init not in _INPUTS:
        raise unknown("diagonal_init", "B_init", B_init, _INPUTS)


def _check_scales(**scales: Any) -> None:
    for name, value in scales.items():
        value = plain(value)
        if value is None and name == "B_clip":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DTypeError(f"diagonal_init: {name} = {value!r} is a {type(value).__name__}, not a number.")
        if not math.isfinite(value) or (name in _SIGNS and not _SIGNS[name][1](value)):
            wanted = f"{_SIGNS[name][0]} and finite" if name in _SIGNS else "finite"
            raise DomainError(f"diagonal_init: {name} = {value!r} must be {wanted}.")


_SIGNS = {
    "real_scale": ("positive", lambda v: v > 0),
    "imag_scale": ("at least 0", lambda v: v >= 0),
    "B_clip": ("positive", lambda v: v > 0),
}


def _check_use(name: str, scales: tuple[float, float], B_init: str, B_clip: Any, pairs: bool) -> None:
    cause = None
    if name == "real" and scales != (1, 1):
        cause = f"has the poles -1, -2, ..., unscaled (scales: {scales}). Leave real_scale and imag_scale out"
    elif name == "legs" and B_init != "constant":
        cause = f"has its own B (B_init={B_init!r}). Leave B_init out, or replace the field B of the result"
    elif name != "legs" and B_clip is not None:
        cause = f"has no B to clip (B_clip={B_clip!r}). Only 'legs' has"
    elif not pairs and B_init.startswith("unit"):
        cause = f"without conj_pairs is a real system (B_init={B_init!r} is complex). Use conj_pairs=True"
    if cause:
        raise OptionError(f"diagonal_init: {name!r} {cause}.")


def _dtypes(xp: Any, dtype: Any) -> tuple[Any, Any]:
    """The real and the complex dtype of the precision that either of them names."""
    double = (xp.float64, xp.complex128)
    for pair in ((xp.float32, xp.complex64), double):
        if dtype is not None and any(dtype == known for known in pair):
            return pair
    if dtype is None:
        return double
    raise DTypeError(
        f"diagonal_init: dtype = {dtype!r} names no precision of {xp.__name__}. "
        "Use its float32, complex64, float64 or complex128."
    )
