"""An electrocardiogram as HiPPO's measures remember it, over N, beside the best that N functions could.

Theory (Gu, Dao, Ermon, Rudra and Ré, HiPPO, 2020, proposition 6): the error of LegS falls as N^-1/2 at least. The best
of N polynomials is the projection onto them, and Legendre's equation, sum_n n (n + 1) c_n^2 = int (1 - x^2) f'(x)^2 dx,
bounds its error by the square root of that integral over N (N + 1). The state of LegS is the projection but for the
error of its steps, which held samples ("zoh") do not have; those of a window forget by their own guess of what leaves
it. Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import ssm_core

from . import data, report
from .loop import Run

RATE = 360  # samples a second
SECONDS = 3
SIZES = (8, 16, 32, 64, 128, 256)
WINDOWED = {"legt": 2.0, "fout": 2.0, "lagt": 1.0}  # what the measures' matrices call the length of a window


def run(run: Run) -> dict[str, Any]:
    u = data.ecg(run)[: SECONDS * RATE]
    if len(u) < SECONDS * RATE:
        raise SystemExit(f"results: the electrocardiogram has {len(u)} samples, fewer than {SECONDS * RATE}.")
    u = u - u.mean()
    second = u[-RATE:]
    errors: dict[str, dict[str, float]] = {}
    for N in SIZES[:2] if run.small else SIZES:
        found = {
            "legs, zoh": error(u, remembered(u, N, "zoh")),
            "legs, bilinear": error(u, remembered(u, N, "bilinear")),
            "projection": error(u, projected(u, N)),
            "bound of theory": bound(u, N),
            **{
                f"last second, {measure}, {method}": error(second, recent(u, measure, N, method))
                for measure in WINDOWED
                for method in ("zoh", "bilinear")
            },
            "last second, projection": error(second, projected(second, N)),
        }
        for name, value in found.items():
            errors.setdefault(name, {})[str(N)] = value
    draw(run, errors)
    for name, of in errors.items():
        print(f"{name}: {', '.join(f'N = {N} {value:.3f}' for N, value in of.items())}")
    return errors


def draw(run: Run, errors: Mapping[str, Mapping[str, float]]) -> None:
    curves = {name: ([float(N) for N in of], list(of.values())) for name, of in errors.items()}
    title = f"{SECONDS} seconds of an electrocardiogram"
    report.lines(run.folder / "picture.png", curves, title=title, xlabel="N", ylabel="relative error", log="xy")


def error(u: np.ndarray, found: np.ndarray) -> float:
    return float(np.linalg.norm(u - found) / np.linalg.norm(u))


def remembered(u: np.ndarray, N: int, method: str) -> np.ndarray:
    """All samples, from the state behind the last."""
    c = ssm_core.hippo_project(u, "legs", N, method=method)[-1]
    return ssm_core.hippo_reconstruct(c, "legs", (np.arange(len(u))[::-1] + 0.5) / len(u))


def recent(u: np.ndarray, measure: str, N: int, method: str) -> np.ndarray:
    """The last second, from the state behind the last sample."""
    unit = WINDOWED[measure]
    c = ssm_core.hippo_project(u, measure, N, dt=unit / RATE, method=method)[-1]
    return ssm_core.hippo_reconstruct(c, measure, unit * (np.arange(RATE)[::-1] + 0.5) / RATE)


def projected(u: np.ndarray, N: int) -> np.ndarray:
    """The least squares of polynomials of degree N - 1."""
    Q, _ = np.linalg.qr(np.polynomial.legendre.legvander(middles(len(u)), N - 1))
    return Q @ (Q.T @ u)


def bound(u: np.ndarray, N: int) -> float:
    """Of the relative error of the projection."""
    x = middles(len(u))
    slope = np.gradient(u, x)
    return float(np.sqrt(((1 - x**2) * slope**2).sum() / (N * (N + 1))) / np.linalg.norm(u))


def middles(n: int) -> np.ndarray:
    """Of n parts of [-1, 1]."""
    return (np.arange(n) + 0.5) / n * 2 - 1
