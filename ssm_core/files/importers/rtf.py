"""RTF and RTF2 of the paper on rational transfer functions."""

from __future__ import annotations

import numpy as np

from ... import layers
from ..._arrays.errors import ShapeError
from ..._arrays.numbers import flag
from .tensors import Imported, Original, Tensors


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
    bidirectional, rtf2 = flag("from_rtf", bidirectional=bidirectional), flag("from_rtf", rtf2=rtf2)
    t = Original("from_rtf", tensors, {"ab": (2,), "h_0": (1,), "scalar": (1,)})
    t.check_names(["ab", "h_0"], ["scalar"])
    rows = 2 if bidirectional else 1
    H, N = len(t["h_0"]) // rows, t["ab"].shape[1]
    S = len(t["ab"]) // rows - H
    if len(t["h_0"]) % rows or len(t["ab"]) % rows or S < 1 or H % S:
        raise ShapeError(f"from_rtf: ab has {len(t['ab'])} rows, which are not those of a and b of {H} channels.")
    params = {
        "a": t["ab"][: rows * S].reshape(rows, S, N),
        "b": t["ab"][rows * S :].reshape(rows, H, N),
        "h_0": t["h_0"].reshape(rows, H),
    }
    if "scalar" in t:
        if t["scalar"].size != rows * S:
            raise t.wrong("scalar", f"({rows * S},)")
        params["slack"] = t["scalar"].reshape(rows, S)
    layer = t.layer(
        layers.RTF,
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
    return t.imported(layer, params)


def _of_advanced(layer: layers.RTF, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """b_1 + b_2 z^-1 + ... over a as h_0 + (b'_1 z^-1 + ...)/a: b_1 joins h_0, and b'_i = b_{i+1} - b_1 a_i.

    RTF2 puts b (I - A^trunc_len) over a only to undo its aliasing, so the response is that of b.
    """
    _, denominator = layer.coefficients(params, np)
    b, a = params["b"], denominator[..., 1:]
    following = np.concatenate([b[..., 1:], np.zeros_like(b[..., :1])], axis=-1)
    return params | {"h_0": params["h_0"] + b[..., 0], "b": following - b[..., :1] * a}
