"""HiPPO matrices as a normal matrix minus one of low rank, which makes them diagonal plus low rank (DPLR).

S = A + sum_r p_r p_r^T is normal: -g I plus a skew-symmetric matrix. Its unitary eigenvectors V give

    V^H A V = diag(poles) - sum_r P_r P_r^H,    P_r = V^H p_r,    B = V^H b

| measure         | p (n = 0..N-1)                                                      | rank |
|-----------------|---------------------------------------------------------------------|------|
| legs            | sqrt(n + 1/2)                                                       | 1    |
| legt            | sqrt(n + 1/2) at odd n, and at even n                               | 2    |
| lagt, tlagt     | sqrt(1/2)                                                           | 1    |
| glagt (alpha 0) | sqrt(1/2)                                                           | 1    |
| fout            | b                                                                   | 1    |
| fourier_decay   | b / sqrt(2)                                                         | 1    |
| fourier2        | b sqrt(2)                                                           | 1    |
| legsd, foud     | none: they are normal                                               | 0    |

with b = (1, 0, sqrt(2), 0, sqrt(2), 0, ...). For any rank above that of the measure, rows of zeros are added.

Source: Gu, Goel and Re, Efficiently modeling long sequences with structured state spaces, ICLR 2022, appendix C.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._arrays.errors import DomainError, OptionError, ShapeError, unknown
from .._arrays.library import Array, convert, resolve
from .._arrays.numbers import plain
from ..systems.records import DPLR
from .matrices import MEASURES, hippo, state_size


def nplr(
    measure: str,
    N: int,
    *,
    rank: int | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    B_clip: float | None = None,
    xp: Any = None,
    dtype: Any = None,
    device: Any = None,
) -> tuple[DPLR, Array]:
    """A HiPPO system in the basis of the eigenvectors of its normal part, computed in float64 on the host.

    A = 2 Re[V diag(poles) V^H] - sum_r p_r p_r^T,   P_r = V^H p_r,   B = V^H b;   half of the conjugate pairs

    measure  "legs", "legsd", "legt", "lagt", "tlagt", "glagt" (alpha = 0), "fout", "fourier_decay", "fourier2", "foud"
    N        number of real states, even
    rank     R, at least that of the measure (legt 2, legsd and foud 0, others 1), which is the default
    options  alpha, beta as in `hippo`
    B_clip   bound on |Im B|; None leaves B exact (the code of S4 has 2.0)
    xp       namespace of the result or its name; numpy if None
    dtype    complex floating dtype of the result; complex128 if None
    returns  DPLR with conj_pairs: poles (N/2,) with Im <= 0 in ascending order, P = Q (R, N/2), B (N/2,), no C;
             and V (N, N/2): an output vector c of the original states becomes C = c V, since x = 2 Re(V x')

    The phase of an eigenvector is free: here the first entry that is not zero is positive.
    Raises OptionError (unknown measure, no such form), ShapeError (N, rank), DomainError and DTypeError.
    Source: Gu, Goel and Re, Efficiently modeling long sequences with structured state spaces, ICLR 2022.

    >>> import ssm_core
    >>> system, V = ssm_core.nplr("legs", 4)
    >>> system.poles.round(3)
    array([-0.5-4.603j, -0.5-0.557j])
    >>> V.shape, system.P.shape
    ((4, 2), (1, 2))
    """
    if not isinstance(measure, str) or measure not in MEASURES:
        raise unknown("nplr", "measure", measure, tuple(m for m in MEASURES if m in _FACTORS))
    if measure not in _FACTORS or (measure == "glagt" and alpha not in (None, 0)):
        raise OptionError(
            f"nplr: measure {measure!r}{f' with alpha = {alpha!r}' if alpha else ''} is not normal plus low rank in "
            f"its own basis. Measures that are: {', '.join(_FACTORS)}."
        )
    N = state_size("nplr", N, even=True, owner="a system of conjugate pairs")
    A, b = hippo(measure, N, alpha=alpha, beta=beta)
    p = _widened(_FACTORS[measure](np.arange(N), b), rank, measure)
    poles, V = normal_modes(A + p.T @ p)
    to = V.conj().T
    if B_clip is not None and (
        isinstance(B_clip, bool) or not isinstance(B_clip, int | float | np.number) or not B_clip > 0
    ):
        raise DomainError(f"nplr: B_clip = {B_clip!r} must be positive, or None.")
    B = clipped(to @ b, B_clip)
    xp = resolve(xp, "nplr")
    dtype = xp.complex128 if dtype is None else dtype
    if not xp.isdtype(dtype, "complex floating"):
        raise OptionError(f"nplr: dtype = {dtype!r} is not complex. Use its complex64 or complex128.")
    P, B = convert(p @ V.conj(), xp, dtype, device), convert(B, xp, dtype, device)
    system = DPLR(convert(poles, xp, dtype, device), P, P, B, conj_pairs=True)
    return system, convert(V, xp, dtype, device)


def clipped(B: np.ndarray, bound: float | None) -> np.ndarray:
    """B with its imaginary parts within the bound."""
    return B if bound is None else B.real + 1j * np.clip(B.imag, -bound, bound)


def normal_modes(S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half the eigenpairs of a normal matrix -g I + (skew-symmetric): those with Im <= 0, ascending.

    The skew part K has the eigenvalues i w where the Hermitian -i K has w. Eigenvalues of 0 come twice, with the real
    vectors e and f: they are one pair, whose vector is (e + i f) / sqrt(2).

    returns  poles (N/2,), V (N, N/2)
    """
    N, g = len(S), np.trace(S) / len(S)
    K = (S - S.T) / 2
    w, V = np.linalg.eigh(-1j * K)
    half = N // 2
    w, V = w[:half], V[:, :half]
    silent = np.abs(w) <= 1e-12 * max(1.0, np.abs(w).max())
    if silent.any():
        V[:, silent] = _null_pairs(K, int(silent.sum()))
        w[silent] = 0.0
    first = np.argmax(np.abs(V) > 1e-9, axis=0)
    lead = V[first, np.arange(half)]
    return g + 1j * w, V * (np.abs(lead) / lead)


def _null_pairs(K: np.ndarray, count: int) -> np.ndarray:
    """(e + i f) / sqrt(2) for pairs of real orthonormal vectors that K maps to 0: (N, count)."""
    _, s, Vt = np.linalg.svd(K)
    basis = Vt[len(s) - 2 * count :]
    projector = basis.T @ basis
    found: list[np.ndarray] = []
    for column in projector.T:  # Gram-Schmidt: the same basis whatever the SVD has chosen
        rest = column - sum((v * (v @ column) for v in found), np.zeros(len(K)))
        norm = np.linalg.norm(rest)
        if norm > 1e-6 and len(found) < 2 * count:
            found.append(rest / norm)
    return np.stack([(e + 1j * f) / np.sqrt(2) for e, f in zip(found[0::2], found[1::2], strict=True)], axis=1)


def _widened(p: np.ndarray, rank: int | None, measure: str) -> np.ndarray:
    """p (R, N) with rows of zeros up to the rank asked for."""
    if rank is None:
        return p
    rank = plain(rank)
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < len(p):
        raise ShapeError(f"nplr: rank = {rank!r}, but measure {measure!r} needs rank {len(p)}. Use rank={len(p)}.")
    return np.concatenate([p, np.zeros((rank - len(p), p.shape[1]))])


def _legs(n: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sqrt(n + 0.5)[None, :]


def _legt(n: np.ndarray, b: np.ndarray) -> np.ndarray:
    p = np.sqrt(n + 0.5)
    return np.stack([np.where(n % 2 == 1, p, 0.0), np.where(n % 2 == 0, p, 0.0)])


def _halves(n: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.full((1, len(n)), np.sqrt(0.5))


def _none(n: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.zeros((0, len(n)))


# The rows p of each measure, from n and from its own B.
_FACTORS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "legs": _legs,
    "legsd": _none,
    "legt": _legt,
    "lagt": _halves,
    "tlagt": _halves,
    "glagt": _halves,
    "fout": lambda n, b: b[None, :],  # B = b
    "fourier_decay": lambda n, b: b[None, :] * np.sqrt(2),  # B = b / 2
    "fourier2": lambda n, b: b[None, :] / np.sqrt(2),  # B = 2 b
    "foud": _none,
}
# The measures that have the form, and their ranks.
FORMS = {measure: len(rows(np.arange(2), np.ones(2))) for measure, rows in _FACTORS.items()}
