"""Layers from the weights of other implementations: S4 and S4D, S5, LRU, RTF.

Each takes a dict of tensors by their names over there, of any framework, and gives (layer, params) with NumPy
parameters of this package; `save` writes them for every framework. Prefixes before the names are ignored. What the
names cannot tell (activation, discretization, ...) are options.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import layers
from .._arrays.errors import DTypeError, OptionError, ShapeError
from .._arrays.library import is_array, to_numpy
from ..recurrences.pairs import real_rows
from ..systems.conversions import dense_form
from ..systems.discretization import discretized
from ..systems.records import DPLR
from .weights import check_parameters

Imported = tuple[layers.Layer, dict[str, np.ndarray]]
Tensors = dict[str, Any]


def from_s4(
    tensors: Tensors,
    *,
    discretization: str | None = None,
    activation: str | None = "gelu",
    bidirectional: bool = False,
    length: int | None = None,
    softplus_dt: bool = False,
) -> Imported:
    """S4 or S4D from the state dict of an S4Block, an FFTConv or the minimal S4D of state-spaces/s4.

    poles = -exp(A_real) - i A_imag,   dt = exp(inv_dt),   C = C~ (I - Ab^length)^-1 where C~ is what was saved

    tensors         kernel.C, kernel.inv_dt, kernel.A_real, kernel.A_imag, kernel.B (kernel.P of "nplr" and "dplr"), D,
                    output_linear.0.weight and .bias (none for an FFTConv); or those of the minimal S4D, kernel.log_dt,
                    kernel.log_A_real and so on
    discretization  of the original; "zoh" for S4D and "bilinear" for S4 if None
    activation      of the original
    bidirectional   of the original: C has rows for both directions
    length          S4 only: the l_kernel for which C~ was set up. Read from kernel.l_kernel where that was saved (the
                    buffer is 0 before the first call, when C is still the true C); 0 says that C is the true C
    softplus_dt     the original has dt_transform="softplus"
    returns         an S4 or S4D layer whose output map is the original's ("glu", or "linear" if its width is d_model),
                    and its parameters in the precision of the tensors

    Raises OptionError (missing or surplus entries, length not known), ShapeError and DTypeError.

    >>> import numpy, ssm_core
    >>> tensors = {"kernel.log_dt": numpy.zeros(2), "kernel.log_A_real": numpy.zeros((2, 3)),
    ...            "kernel.A_imag": numpy.ones((2, 3)), "kernel.C": numpy.ones((2, 3, 2)), "D": numpy.ones(2)}
    >>> layer, params = ssm_core.importers.from_s4(tensors, activation=None)
    >>> layer.d_state, layer.output
    (6, None)
    """
    t = _plain("from_s4", tensors, ("kernel.", "D", "output_linear."))
    minimal, low_rank = "kernel.log_dt" in t, "kernel.P" in t
    names = ("log_dt", "log_A_real", "A_imag") if minimal else ("inv_dt", "A_real", "A_imag", "B")
    required = [f"kernel.{n}" for n in (*names, "C")] + ["kernel.P"] * low_rank
    mixed = ["output_linear.0.weight", "output_linear.0.bias"]
    _check_names("from_s4", t, required, ["D", "kernel.l_kernel", *mixed])
    C = t["kernel.C"] if not minimal else t["kernel.C"][None, ...]
    rows, H, n = C.shape[:3]
    dt = t["kernel.log_dt" if minimal else "kernel.inv_dt"].reshape(H, -1)
    if dt.shape[1] != 1:
        raise OptionError("from_s4: inv_dt has a step for every state (dt_tie=False), which the layers here have not.")
    log_dt = np.log(np.log1p(np.exp(dt[:, 0]))) if softplus_dt else dt[:, 0]
    A_im = t["kernel.A_imag"] * (1 if minimal else -1)
    params = {"log_dt": log_dt, "log_A_re": t["kernel.log_A_real" if minimal else "kernel.A_real"], "A_im": A_im}
    copies = len(A_im)
    if not minimal:
        copies = max(copies, t["kernel.B"].shape[1])
        params |= _two("B", _copied(t["kernel.B"][0], copies))
    params |= {name: _copied(params[name], copies) for name in ("log_A_re", "A_im")} | _two("C", C)
    if low_rank:
        params |= _two("P", _copied(np.moveaxis(t["kernel.P"], 0, 1), copies))
    channels = rows // 2 if bidirectional else rows
    options: dict[str, Any] = {
        "d_state": 2 * n,
        "n_ssm": copies,
        "channels": channels,
        "activation": activation,
        "bidirectional": bidirectional,
        "skip": "D" in t,
        "output": None,
        "discretization": discretization or ("bilinear" if low_rank else "zoh"),
    }
    if "D" in t:
        params["D"] = t["D"].reshape(channels, H)
    if mixed[0] in t:
        weight, bias = (t[name] for name in mixed)
        params |= {"output_weight": weight.reshape(weight.shape[:2]), "output_bias": bias}
        options["output"] = "glu" if len(weight) == 2 * H else "linear"
    if not low_rank:
        return _checked("from_s4", layers.S4D(H, trainable_B=not minimal, **options), params)
    layer = layers.S4(H, rank=t["kernel.P"].shape[0], init="legs" if t["kernel.P"].shape[0] == 1 else "legt", **options)
    length = int(t["kernel.l_kernel"]) if "kernel.l_kernel" in t else length
    if length is None:
        raise OptionError(
            "from_s4: without kernel.l_kernel it is not known whether kernel.C is the true C or C~ for some length. "
            "Pass length=, the l_kernel of the original, or length=0 for the true C."
        )
    if length:
        params |= _two("C", _true_C(layer, params, length))
    return _checked("from_s4", layer, params)


def _true_C(layer: layers.S4, params: dict[str, np.ndarray], length: int) -> np.ndarray:
    """C (rows, H, N, 2) from C~ = C (I - Ab^length), in double precision."""
    wide = {name: np.asarray(p, np.float64) for name, p in params.items()}
    system, dt = layer.system(wide, np)
    assert isinstance(system, DPLR)
    discrete = dense_form(discretized(system, np.asarray(dt)[:, None], layer.discretization, None, np), np)
    left = np.eye(discrete.A.shape[-1]) - np.linalg.matrix_power(discrete.A, length)
    # 2 Re(C x) = (2 Re C, -2 Im C) (Re x, Im x) of the real form.
    real = real_rows(np.asarray(system.C), np)
    C = np.linalg.solve(np.swapaxes(left, -1, -2), real[..., None])[..., 0] / 2
    n = C.shape[-1] // 2
    return np.stack([C[..., :n], -C[..., n:]], axis=-1)


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
    t = _plain("from_s5", tensors, ("Lambda", "B", "C", "D", "log_step"), last=True)
    if "Lambda" in t:
        t |= {"Lambda_re": t["Lambda"].real, "Lambda_im": t["Lambda"].imag}
        del t["Lambda"]
    if "C1" in t and "C2" in t:
        t["C"] = np.concatenate([_pairs(t.pop("C1")), _pairs(t.pop("C2"))], axis=1)
    _check_names("from_s5", t, ["Lambda_re", "Lambda_im", "B", "C", "D", "log_step"], [])
    B, C = _pairs(t["B"]), _pairs(t["C"])
    P, H = B.shape[:2]
    C = np.stack(np.split(C, 2 if bidirectional else 1, axis=1))
    params = {"log_dt": t["log_step"].reshape(P), "A_re": t["Lambda_re"], "A_im": t["Lambda_im"], "D": t["D"][None, :]}
    params |= _two("B", B) | _two("C", C)
    layer = layers.S5(
        H,
        d_state=2 * P if conj_sym else P,
        conj_sym=conj_sym,
        bidirectional=bidirectional,
        clip_eigs=clip_eigs,
        discretization=discretization,
        activation=None,
        output=None,
    )
    return _checked("from_s5", layer, params)


def from_lru(tensors: Tensors) -> Imported:
    """LRU from the parameters of minimal-LRU: nu_log, theta_log, gamma_log, B_re, B_im, C_re, C_im, D.

    Returns an LRU layer that is the recurrence alone: no activation, no output map. Raises as `from_s4`.
    """
    names = ["nu_log", "theta_log", "gamma_log", "B_re", "B_im", "C_re", "C_im", "D"]
    t = _plain("from_lru", tensors, tuple(names), last=True)
    _check_names("from_lru", t, names, [])
    N, H = t["B_re"].shape
    params = t | {name: t[name][None, ...] for name in ("C_re", "C_im", "D")}
    return _checked("from_lru", layers.LRU(H, d_state=2 * N, activation=None, output=None), params)


def from_rtf(tensors: Tensors, *, bidirectional: bool = False, rtf2: bool = False) -> Imported:
    """RTF from the state dict of the RTF (or RTF2) of its paper: ab, h_0, and scalar with constraint="l1_montel".

    tensors        ab (rows of a, then rows of b; N), h_0 (H,), maybe scalar (num_a,)
    bidirectional  of the original
    rtf2           the original is RTF2, whose b_i goes with the power z^-(i-1), not z^-i
    returns        an RTF layer that is the convolution alone: no activation, no output map

    The original computes a kernel that is aliased in time
    (`ssm_core.time_invariant.rational.aliased_response`); this layer has the true impulse response, from which it
    differs by what is left of the response after trunc_len. Raises as `from_s4`.
    """
    t = _plain("from_rtf", tensors, ("ab", "h_0", "scalar"), last=True)
    _check_names("from_rtf", t, ["ab", "h_0"], ["scalar"])
    rows = 2 if bidirectional else 1
    H, N = len(t["h_0"]) // rows, t["ab"].shape[1]
    S = len(t["ab"]) // rows - H
    if S < 1 or H % S:
        raise ShapeError(f"from_rtf: ab has {len(t['ab'])} rows, which are not those of a and b of {H} channels.")
    params = {
        "a": t["ab"][: rows * S].reshape(rows, S, N),
        "b": t["ab"][rows * S :].reshape(rows, H, N),
        "h_0": t["h_0"].reshape(rows, H),
    }
    if "scalar" in t:
        params["slack"] = t["scalar"].reshape(rows, S)
    layer = layers.RTF(
        H,
        N,
        constraint="montel" if "scalar" in t else None,
        n_ssm=S,
        bidirectional=bidirectional,
        activation=None,
        output=None,
    )
    if rtf2:
        params = _of_advanced(layer, params)
    return _checked("from_rtf", layer, params)


def _of_advanced(layer: layers.RTF, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """b_1 + b_2 z^-1 + ... over a as h_0 + (b'_1 z^-1 + ...)/a: b_1 joins h_0, and b'_i = b_{i+1} - b_1 a_i.

    RTF2 puts b (I - A^trunc_len) over a only to undo its aliasing, so the response is that of b.
    """
    _, denominator = layer.coefficients(params, np)
    b, a = params["b"], denominator[..., 1:]
    following = np.concatenate([b[..., 1:], np.zeros_like(b[..., :1])], axis=-1)
    return params | {"h_0": params["h_0"] + b[..., 0], "b": following - b[..., :1] * a}


def _plain(operation: str, tensors: Any, starts: tuple[str, ...], *, last: bool = False) -> dict[str, np.ndarray]:
    """NumPy arrays by the names from the first known part on (or by their last part)."""
    if not isinstance(tensors, dict):
        raise DTypeError(f"{operation}: tensors is a {type(tensors).__name__}, not a dict of arrays by name.")
    found = {}
    for name, x in tensors.items():
        if not is_array(x):
            raise DTypeError(f"{operation}: {name} is a {type(x).__name__}, not an array.")
        parts = str(name).split(".")
        if last:
            plain = parts[-1]
        else:
            tails = (".".join(parts[i:]) for i in range(len(parts)))
            plain = next((tail for tail in tails if tail.startswith(starts)), str(name))
        found[plain] = np.asarray(to_numpy(x))
    return found


def _check_names(operation: str, t: dict[str, np.ndarray], required: list[str], optional: list[str]) -> None:
    missing = sorted(set(required) - set(t))
    surplus = sorted(set(t) - set(required) - set(optional))
    if missing or surplus:
        raise OptionError(f"{operation}: tensors of another layer: missing {missing}, surplus {surplus}.")


def _checked(operation: str, layer: layers.Layer, params: dict[str, np.ndarray]) -> Imported:
    """The parameters in the order of the layer, contiguous; raises where one has another shape."""
    check_parameters(operation, layer, params)
    return layer, {p.name: np.ascontiguousarray(params[p.name]) for p in layer.parameters()}


def _copied(x: np.ndarray, copies: int) -> np.ndarray:
    return np.tile(x, (copies // len(x), *(1,) * (x.ndim - 1)))


def _two(name: str, x: np.ndarray) -> dict[str, np.ndarray]:
    """<name>_re and <name>_im of an array with a last axis of 2."""
    return {f"{name}_re": x[..., 0], f"{name}_im": x[..., 1]}


def _pairs(x: np.ndarray) -> np.ndarray:
    """Complex numbers with a last axis of 2."""
    return np.stack([x.real, x.imag], axis=-1) if np.iscomplexobj(x) else x
