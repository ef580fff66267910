"""Diagonal plus low-rank systems against numbers of the original implementations: HiPPO in that form, and kernels."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ssm_core

from . import autodiff
from .backends import Backend
from .examples import as_arrays
from .golden_files import Numbers, files, read
from .tolerances import EPS, GOLDEN, assert_close, compare, tolerance

pytestmark = pytest.mark.dtypes("float32", "float64")

S4, GRADIENT, ANNOTATED = "s4_kernel_*", "s4_kernel_grad_*", "annotated_s4_kernel_*"
MODES = ("conv", "chunk", "scan")
FOUT = 1e-9  # its numbers hold 6e-11: poles close to the imaginary axis, through the FFT of the original


# HiPPO ---------------------------------------------------------------------------------------------------------------


@files("hippo_nplr_*")
def test_hippo(path: Path, backend: Backend, dtype: str):
    """Phases of eigenvectors are free, so only what does not depend on them is compared."""
    numbers = read(path)
    xp, kind = backend.xp, {"float32": "complex64", "float64": "complex128"}[dtype]
    for measure in (n.removesuffix("_Lambda") for n in numbers if n.endswith("_Lambda")):
        wanted = {n.removeprefix(f"{measure}_"): x for n, x in numbers.items() if n.startswith(f"{measure}_")}
        rank, N = wanted["P_real"].shape
        options = {"rank": rank, "xp": xp, "dtype": backend.dtype(kind), "device": backend.device}
        system, V = ssm_core.nplr(measure, N, **options)
        assert system.conj_pairs
        assert system.P is system.Q
        assert_close(V @ xp.conj(xp.matrix_transpose(V)), half_projector(wanted, backend.to_numpy(V)), backend, dtype,
                     function="nplr", allowed=GOLDEN[dtype])  # fmt: skip
        P, B, V_H = system.P, system.B, xp.conj(xp.matrix_transpose(V))
        low_rank = 2 * xp.real(P @ V_H)  # P_r = V^H p_r, so p_r = 2 Re(V P_r), up to conjugates
        del low_rank
        p = 2 * xp.real(P @ xp.matrix_transpose(V))
        A = 2 * xp.real((V * system.poles) @ V_H) - xp.matrix_transpose(p) @ p
        found = {
            "Lambda": system.poles,
            "P_real": p,
            "A_reconstructed": A,
            "B_reconstructed": 2 * xp.real(V @ B[:, None])[:, 0],
            "inv_absB2": xp.abs(B) ** 2,
            "inv_conjP_B": xp.conj(P) * B,
            "inv_PPstar_n": P[:, None, :] * xp.conj(P)[None, :, :],
        }
        for name, actual in found.items():
            check(actual, wanted[name], backend, dtype, "nplr", GOLDEN[dtype])
