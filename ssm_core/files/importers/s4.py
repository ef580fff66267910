"""S4 and S4D of state-spaces/s4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import layers
from ..._arrays.errors import OptionError
from ..._arrays.numbers import flag, whole
from ...recurrences.pairs import real_rows
from ...systems.conversions import dense_form
from ...systems.discretization import discretized
from ...systems.records import DPLR
from .tensors import Imported, Original, Tensors


def from_s4(
    tensors: Tensors,
    *,
    discretization: str | None = None,
    activation: str | None = "gelu",
    bidirectional: bool = False,
    length: int | None = None,
    softplus_dt: bool = False,
    bandlimit: float | None = None,
) -> Imported:
    """S4 or S4D from the state dict of an S4Block, an FFTConv or the minimal S4D of state-spaces/s4.

    poles = -exp(A_real) - i A_imag,   dt = exp(inv_dt),   C = C~ (I - Ab^length)^-1 where C~ is what was saved

    tensors         kernel.C, kernel.inv_dt, kernel.A_real, kernel.A_imag (not with is_real=True), kernel.B (kernel.P of
                    "nplr" and "dplr"), D, output_linear.0.weight and .bias (none for an FFTConv); or those of the
                    minimal S4D, kernel.log_dt, kernel.log_A_real and so on
    discretization  of the original; "zoh" for S4D and "bilinear" for S4 if None
    activation      of the original
    bidirectional   of the original: C has rows for both directions
    length          S4 only: the l_kernel for which C~ was set up. Read from kernel.l_kernel where that was saved (the
                    buffer is 0 before the first call, when C is still the true C); 0 says that C is the true C
    softplus_dt     the original has dt_transform="softplus"
    bandlimit       of the original, S4D only
    returns         an S4 or S4D layer whose output map is the original's ("glu", or "linear" if its width is d_model),
                    and its parameters in the precision of the tensors

    Raises OptionError (missing or surplus entries, entries of two layers, length not known), ShapeError and DTypeError.

    >>> import numpy, ssm_core
    >>> tensors = {"kernel.log_dt": numpy.zeros(2), "kernel.log_A_real": numpy.zeros((2, 3)),
    ...            "kernel.A_imag": numpy.ones((2, 3)), "kernel.C": numpy.ones((2, 3, 2)), "D": numpy.ones(2)}
    >>> layer, params = ssm_core.importers.from_s4(tensors, activation=None)
    >>> layer.d_state, layer.output
    (6, None)
    """
    bidirectional = flag("from_s4", bidirectional=bidirectional)
    softplus_dt = flag("from_s4", softplus_dt=softplus_dt)
    length = None if length is None else whole("from_s4", 0, length=length)
    t = Original("from_s4", tensors, _AXES, inner="layer.", outer=_MIXED, added=("kernel.l_kernel",))
    kind = next((found for found in (_MINIMAL, _LOW_RANK, _REAL) if found.marks(t)), _DIAGONAL)
    t.check_names(kind.required, ["D", *_MIXED, *kind.optional])
    if any(name in t for name in _MIXED):
        t.check_names([*kind.required, *_MIXED], ["D", *kind.optional])
    C = t["kernel.C"][None, ...] if kind is _MINIMAL else t["kernel.C"]
    rows, H, n = C.shape[:3]
    if bidirectional and rows % 2:
        raise t.wrong("kernel.C", "of two rows for every channel: the original is bidirectional")
    channels = rows // 2 if bidirectional else rows
    log_dt = t[kind.step].reshape(len(t[kind.step]), -1)
    log_dt = np.log(np.logaddexp(0, log_dt)) if softplus_dt else log_dt
    tied = log_dt.shape[1] == 1
    params, copies = _system(t, kind)
    params["log_dt"] = log_dt[:, 0] if tied else log_dt
    params |= {"C_re": 2 * C} if kind is _REAL else t.in_two("kernel.C", C, "C")  # their 2 Re(C x) of real states too
    options: dict[str, Any] = {
        "d_state": n if kind is _REAL else 2 * n,
        "n_ssm": copies,
        "channels": channels,
        "activation": activation,
        "bidirectional": bidirectional,
        "skip": "D" in t,
        "output": None,
        "discretization": _DEFAULT[kind is _LOW_RANK] if discretization is None else discretization,
    }
    if "D" in t:
        params["D"] = t["D"].reshape(channels, H) if t["D"].size == channels * H else t["D"]
    if _MIXED[0] in t:
        weight, bias = (t[name] for name in _MIXED)
        if weight.shape[2:] not in ((), (1,)):
            raise t.wrong(_MIXED[0], "(features out, features in) or (features out, features in, 1)")
        params |= {"output_weight": weight.reshape(weight.shape[:2]), "output_bias": bias}
        options["output"] = "glu" if len(weight) == 2 * H else "linear"
    if kind is not _LOW_RANK:
        options |= {"dt_tie": tied, "bandlimit": bandlimit, "trainable_B": kind is not _MINIMAL}
        options |= {"real": True, "init": "real"} if kind is _REAL else {}
        return t.imported(t.layer(layers.S4D, H, **options), params)
    if not tied or bandlimit is not None:
        raise OptionError("from_s4: a step for every state (dt_tie=False) and bandlimit are options of S4D, not of S4.")
    rank = len(t["kernel.P"])
    layer = t.layer(layers.S4, H, rank=rank, init="legs" if rank == 1 else "legt", **options)
    length = int(t["kernel.l_kernel"]) if "kernel.l_kernel" in t else length
    if length is None:
        raise OptionError(
            "from_s4: without kernel.l_kernel it is not known whether kernel.C is the true C or C~ for some length. "
            "Pass length=, the l_kernel of the original, or length=0 for the true C."
        )
    layer, params = t.imported(layer, params)
    return layer, params | (_true_C(layer, params, length) if length else {})


@dataclass(frozen=True)
class _Kind:
    """One of the original kernels, by the names of its tensors."""

    mark: str  # a tensor that only this kind has, or lacks
    has_it: bool
    names: tuple[str, ...]
    step: str = "kernel.inv_dt"
    optional: tuple[str, ...] = ()

    def marks(self, t: Original) -> bool:
        """Whether the tensors are of this kind."""
        return (f"kernel.{self.mark}" in t) is self.has_it

    @property
    def required(self) -> list[str]:
        """The tensors that it needs."""
        return [f"kernel.{name}" for name in self.names]


_NAMES = ("inv_dt", "A_real", "A_imag", "B", "C")
_MINIMAL = _Kind("log_dt", True, ("log_dt", "log_A_real", "A_imag", "C"), "kernel.log_dt")
_LOW_RANK = _Kind("P", True, (*_NAMES, "P"), optional=("kernel.l_kernel",))
_REAL = _Kind("A_imag", False, ("inv_dt", "A_real", "B", "C"))
_DIAGONAL = _Kind("A_imag", True, _NAMES, optional=("kernel.l_kernel",))
_DEFAULT = {False: "zoh", True: "bilinear"}  # by whether the system has a low-rank part
_MIXED = ("output_linear.0.weight", "output_linear.0.bias")
_AXES = {
    "kernel.log_dt": (1,),
    "kernel.inv_dt": (2,),
    "kernel.log_A_real": (2,),
    "kernel.A_real": (2,),
    "kernel.A_imag": (2,),
    "kernel.B": (3, 4),
    "kernel.C": (3, 4),
    "kernel.P": (4,),
    "kernel.l_kernel": (0,),
    "D": (1, 2),
    _MIXED[0]: (2, 3),
    _MIXED[1]: (1,),
}


def _system(t: Original, kind: _Kind) -> tuple[dict[str, np.ndarray], int]:
    """The parameters of poles, B and P, and how many copies of them there are."""
    if kind is _MINIMAL:
        return {"log_A_re": t["kernel.log_A_real"], "A_im": t["kernel.A_imag"]}, len(t["kernel.log_A_real"])
    parts = {"log_A_re": ("kernel.A_real", t["kernel.A_real"])}
    if kind is not _REAL:
        parts["A_im"] = ("kernel.A_imag", -t["kernel.A_imag"])
    parts["B"] = ("kernel.B", t["kernel.B"][0, ...] if len(t["kernel.B"]) == 1 else t["kernel.B"])
    if kind is _LOW_RANK:
        parts["P"] = ("kernel.P", np.moveaxis(t["kernel.P"], 0, 1))
    copies = max(len(x) for _, x in parts.values())
    params: dict[str, np.ndarray] = {}
    for ours, (theirs, x) in parts.items():
        x = t.copied(theirs, x, copies)
        if ours not in ("B", "P"):
            params[ours] = x
        else:
            params |= {"B_re": x} if kind is _REAL else t.in_two(theirs, x, ours)
    return params, copies


def _true_C(layer: Any, params: dict[str, np.ndarray], length: int) -> dict[str, np.ndarray]:
    """C (rows, H, N) from C~ = C (I - Ab^length), computed in double precision."""
    wide = {name: np.asarray(p, np.float64) for name, p in params.items()}
    system, dt = layer.system(wide, np)
    assert isinstance(system, DPLR)
    discrete = dense_form(discretized(system, np.asarray(dt)[:, None], layer.discretization, None, np), np)
    left = np.eye(discrete.A.shape[-1]) - np.linalg.matrix_power(discrete.A, length)
    # 2 Re(C x) = (2 Re C, -2 Im C) (Re x, Im x) of the real form.
    real = real_rows(np.asarray(system.C), np)
    C = np.linalg.solve(np.swapaxes(left, -1, -2), real[..., None])[..., 0] / 2
    n, dtype = C.shape[-1] // 2, params["C_re"].dtype
    return {"C_re": C[..., :n].astype(dtype), "C_im": -C[..., n:].astype(dtype)}
