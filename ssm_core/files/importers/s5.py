"""S5 of lindermanlab/S5 and s5-pytorch, and LRU of minimal-LRU."""

from __future__ import annotations

import numpy as np

from ... import layers
from ..._arrays.numbers import flag
from .tensors import Imported, Original, Tensors


def from_s5(
    tensors: Tensors,
    *,
    conj_sym: bool,
    bidirectional: bool = False,
    discretization: str = "zoh",
    clip_eigs: bool = False,
) -> Imported:
    """S5 from the parameters of an S5SSM, of lindermanlab/S5 (JAX) or of s5-pytorch.

    tensors         Lambda_re and Lambda_im, or Lambda (complex); B (P, H, 2); C (H, P, 2), or complex, or C1 and C2 of
                    two directions; D (H,); log_step (P, 1) or (P,)
    conj_sym        whether poles stand for their conjugates too (an option of S5; never in s5-pytorch)
    bidirectional, discretization, clip_eigs  of the original
    returns         an S5 layer that is the SSM alone: no activation, no output map

    Raises OptionError, ShapeError and DTypeError.
    """
    conj_sym, bidirectional = flag("from_s5", conj_sym=conj_sym), flag("from_s5", bidirectional=bidirectional)
    clip_eigs = flag("from_s5", clip_eigs=clip_eigs)
    t = Original("from_s5", tensors, _S5_AXES)
    poles = ("Lambda",) if "Lambda" in t else ("Lambda_re", "Lambda_im")
    outputs = ("C1", "C2") if "C1" in t or "C2" in t else ("C",)
    t.check_names([*poles, "B", *outputs, "D", "log_step"])
    A_re, A_im = (t["Lambda"].real, t["Lambda"].imag) if "Lambda" in t else (t["Lambda_re"], t["Lambda_im"])
    P, H = t["B"].shape[:2]
    directions = 2 if bidirectional else 1
    rows = [_pairs(t, name) for name in outputs]
    if sum(C.shape[1] for C in rows) != directions * P or any(len(C) != H for C in rows):
        raise t.wrong(outputs[0], f"({H}, {directions * P}, 2) of B {t['B'].shape} with bidirectional={bidirectional}")
    C = np.stack(np.split(np.concatenate(rows, axis=1), directions, axis=1))
    params = {"log_dt": t["log_step"].reshape(-1), "A_re": A_re, "A_im": A_im, "D": t["D"][None, :]}
    params |= t.in_two("B", _pairs(t, "B"), "B") | t.in_two(outputs[0], C, "C")
    layer = t.layer(
        layers.S5,
        H,
        d_state=2 * P if conj_sym else P,
        conj_sym=conj_sym,
        bidirectional=bidirectional,
        clip_eigs=clip_eigs,
        discretization=discretization,
        activation=None,
        output=None,
    )
    return t.imported(layer, params)


_S5_AXES = {
    "Lambda": (1,),
    "Lambda_re": (1,),
    "Lambda_im": (1,),
    "log_step": (1, 2),
    "D": (1,),
    **dict.fromkeys(("B", "C", "C1", "C2"), (2, 3)),
}


def _pairs(t: Original, name: str) -> np.ndarray:
    """Complex numbers with a last axis of 2."""
    x = t[name]
    if np.iscomplexobj(x) is (x.ndim == 3):
        raise t.wrong(name, "complex (..., ...), or real with a last axis of 2")
    return np.stack([x.real, x.imag], axis=-1) if x.ndim == 2 else x


def from_lru(tensors: Tensors) -> Imported:
    """LRU from the parameters of minimal-LRU: nu_log, theta_log, gamma_log, B_re, B_im, C_re, C_im, D.

    Returns an LRU layer that is the recurrence alone: no activation, no output map. Raises as `from_s4`.
    """
    names = ["nu_log", "theta_log", "gamma_log", "B_re", "B_im", "C_re", "C_im", "D"]
    t = Original("from_lru", tensors, {name: (2,) if name[0] in "BC" else (1,) for name in names})
    t.check_names(names)
    N, H = t["B_re"].shape
    params = t.found | {name: t[name][None, ...] for name in ("C_re", "C_im", "D")}
    return t.imported(t.layer(layers.LRU, H, d_state=2 * N, activation=None, output=None), params)
