"""Single blocks of Mamba, Mamba-2 and Mamba-3: of state-spaces/mamba, transformers, mamba.py and Jamba.

Whole language models are read by `ssm_core.from_pretrained`.
"""

from __future__ import annotations

import math
from typing import Any

from ... import layers
from .tensors import Imported, Original, Tensors

_TAPS, _OUT = "conv1d.weight", "out_proj.weight"
_RENAMED = {"conv1d.": "conv_", "mimo_x": "x_map", "mimo_z": "z_map", "mimo_o": "out_map", "layernorm": "norm"}
_BIASES = {"in_proj.bias": (1,), "out_proj.bias": (1,)}
_COMMON = {"in_proj.weight": (2,), _OUT: (2,), "D": (1,)}
_CONVOLVED = {_TAPS: (2, 3), "conv1d.bias": (1,)}
_SELECTED = {"x_proj.weight": (2,), "dt_proj.weight": (2,), "dt_proj.bias": (1,), "A_log": (2,)}
_NORMS = {f"{part}_layernorm.weight": (1,) for part in ("dt", "B", "C", "b", "c")}
_HEADS = {"A_log": (1,), "dt_bias": (1,), "norm.weight": (1,)}
_TURNED = {"B_bias": (3,), "C_bias": (3,), "B_norm.weight": (1,), "C_norm.weight": (1,), "dt_bias": (1,)}
_SEVERAL = {"mimo_x": (3,), "mimo_z": (3,), "mimo_o": (3,)}


def from_mamba(tensors: Tensors, *, norm_epsilon: float | None = None) -> Imported:
    """A block of Mamba from the state dict of a mixer: of mamba_ssm, transformers, mamba.py, Falcon-Mamba or Jamba.

    tensors       in_proj.weight, conv1d.weight, x_proj.weight, dt_proj.weight, dt_proj.bias, A_log, D, out_proj.weight,
                  the biases of in_proj, conv1d and out_proj where there are any, and the inner norms of mamba.py and
                  Jamba: dt_layernorm.weight, B_layernorm.weight, C_layernorm.weight
    norm_epsilon  of the norms of the step, B and C: Falcon-Mamba's mixer_rms_eps, or that of inner norms (1e-5 if None)
    returns       a Mamba layer and its parameters in the precision of the tensors, at least float32

    Raises OptionError (missing or surplus entries, entries of two layers, sizes that no block has), ShapeError and
    DTypeError.

    >>> import ssm_core
    >>> layer = ssm_core.layers.Mamba(4, d_state=2)
    >>> theirs = {name.replace("proj_", "proj.").replace("conv_", "conv1d."): x
    ...           for name, x in layer.initial_parameters().items()}
    >>> ssm_core.importers.from_mamba(theirs)[0].d_state
    2
    """
    t = Original("from_mamba", tensors, _COMMON | _CONVOLVED | _SELECTED | _BIASES | _NORMS)
    norms = [name for name in _NORMS if name in t]
    lower = any(name in t for name in ("b_layernorm.weight", "c_layernorm.weight"))
    wanted = [f"{part}_layernorm.weight" for part in (("dt", "b", "c") if lower else ("dt", "B", "C"))] if norms else []
    biases = [name for name in _BIASES if name in t] and list(_BIASES)  # both or none
    t.check_names(
        [*_COMMON, _TAPS, *_SELECTED, *wanted, *biases],
        ["conv1d.bias"],
    )
    if norms and norm_epsilon is None:
        norm_epsilon = 1e-5
    options = {"d_state": t["A_log"].shape[1], "dt_rank": t["dt_proj.weight"].shape[1]}
    options |= {"norm_epsilon": norm_epsilon, "norm_weights": bool(norms)}
    return _imported(t, layers.Mamba, **options, **_convolution(t), bias=bool(biases))


def from_mamba2(
    tensors: Tensors,
    *,
    n_groups: int = 1,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    epsilon: float = 1e-5,
) -> Imported:
    """A block of Mamba-2 from the state dict of a mixer, of mamba_ssm or transformers.

    tensors   in_proj.weight, conv1d.weight, dt_bias, A_log, D, norm.weight, out_proj.weight, and the biases of in_proj,
              conv1d and out_proj where there are any
    n_groups  of the original, ngroups there: the tensors cannot tell it
    dt_limit  of the original, time_step_limit in transformers
    epsilon   of the norm
    returns   a Mamba2 layer and its parameters

    Raises as `from_mamba`.
    """
    t = Original("from_mamba2", tensors, _COMMON | _CONVOLVED | _HEADS | _BIASES)
    biases = [name for name in _BIASES if name in t] and list(_BIASES)
    t.check_names([*_COMMON, _TAPS, *_HEADS, *biases], ["conv1d.bias"])
    inner, heads = t[_OUT].shape[1], len(t["A_log"])
    groups = max(n_groups, 1) if isinstance(n_groups, int) else 1
    states, rest = divmod(len(t[_TAPS]) - inner, 2 * groups)
    if rest or heads == 0 or inner % heads:
        raise t.wrong(_TAPS, f"(I + 2 n_groups N, ...) with I = {inner} and n_groups = {n_groups}, of {heads} heads")
    options = {"d_state": states, "head_dim": inner // heads, "n_groups": n_groups, "epsilon": epsilon}
    return _imported(t, layers.Mamba2, **options, dt_limit=dt_limit, **_convolution(t), bias=bool(biases))


def from_mamba3(
    tensors: Tensors,
    *,
    n_groups: int = 1,
    rope_fraction: float = 0.5,
    A_floor: float = 1e-4,
    epsilon: float = 1e-5,
) -> Imported:
    """A block of Mamba-3 from the state dict of a mixer of mamba_ssm.

    tensors   in_proj.weight, B_norm.weight, C_norm.weight, B_bias, C_bias, dt_bias, D, out_proj.weight; norm.weight
              with is_outproj_norm; mimo_x, mimo_z and mimo_o with is_mimo
    n_groups, rope_fraction, A_floor  of the original: the tensors cannot tell them
    epsilon   of the norms
    returns   a Mamba3 layer and its parameters

    Raises as `from_mamba`.
    """
    t = Original("from_mamba3", tensors, _COMMON | _TURNED | _SEVERAL | {"norm.weight": (1,)})
    several = [name for name in _SEVERAL if name in t] and list(_SEVERAL)
    t.check_names([*_COMMON, *_TURNED, *several], ["norm.weight"])
    heads, rank, states = t["B_bias"].shape
    inner = t[_OUT].shape[1]
    if heads == 0 or inner % heads:
        raise t.wrong("B_bias", f"of a number of heads that divides the {inner} inner channels")
    options = {"d_state": states, "head_dim": inner // heads, "rank": rank, "n_groups": n_groups, "A_floor": A_floor}
    options |= {"rope_fraction": rope_fraction, "epsilon": epsilon, "out_norm": "norm.weight" in t}
    return _imported(t, layers.Mamba3, **options)


def _convolution(t: Original) -> dict[str, Any]:
    return {"d_conv": t[_TAPS].shape[-1], "conv_bias": "conv1d.bias" in t}


def _imported(t: Original, kind: type[Any], **options: Any) -> Imported:
    """The layer with these options, and the tensors by our names."""
    d_model, inner = t[_OUT].shape
    if d_model == 0 or inner % d_model:
        raise t.wrong(_OUT, "(H, I) with I a multiple of H")
    layer = t.layer(kind, d_model, expand=inner // d_model, **options)
    params = {}
    for name, x in t.found.items():
        if name == _TAPS and x.ndim == 3:
            if x.shape[1] != 1:
                raise t.wrong(name, "(I, 1, K): every channel has taps of its own")
            x = x[:, 0, :]
        params[_our_name(name)] = x
    return t.imported(layer, params)


def _our_name(theirs: str) -> str:
    for old, new in _RENAMED.items():
        theirs = theirs.replace(old, new)
    name = theirs.replace(".", "_")
    return name[0].upper() + name[1:] if name.startswith(("b_norm", "c_norm")) else name
