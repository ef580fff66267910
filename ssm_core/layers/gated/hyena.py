"""Hyena: long convolutions with filters that a small network draws, and products between them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..._arrays.dispatch import is_open
from ..._arrays.errors import OptionError, ShapeError, describe
from ..._arrays.library import Array, Namespace, device, in_dtype_of, namespace, widest
from ..._arrays.numbers import is_number, number
from ...functions.affine import affine, parted
from ...functions.convolution import convolved
from ...functions.short_convolution import short_convolution
from ...recurrences.broken import kept_apart
from ...recurrences.segments import Segments, Signals
from ...time_invariant.kernels import check_length
from .. import parametrizations as common
from ..calls import applies
from ..layer import Mixer
from ..options import settle
from ..parameters import Parameter, Parameters, constant, linear, normal, uniform
from ..registry import registered
from ..whole import Whole


@registered
@dataclass(frozen=True)
class Hyena(Whole, Mixer):
    """Hyena: products of the input with itself, and between them convolutions as long as the sequence.

    x_0, .., x_{n-1}, v = shortconv(W_i u + b_i);   v <- h_o * (x_i v) + bias_o (x_i v),   o = 0 .. n-2, i = n-1 .. 1
    y = W_o (x_0 v) + b_o,   h(t) = W_h s (exp(-a t) + shift),   s = sin(f (W .. sin(f (W_0 z(t) + b_0)) .. + b))

    t = k / (l_max - 1), z = (t, cos(f_b w), -sin(f_b w)) with w = 2 pi k / l_max and bands f_b up to
    (emb_dim - 3) / 2; every channel's a lies between -log(target) / slow and -log(target) / fast. u (B, L, H),
    y (B, L, H) with H = d_model and L <= l_max. A filter has no state of constant size: there are no steps. It counts
    samples: there is no rate.

    d_model             H, the number of channels
    l_max               steps of the longest sequence, which the filters are drawn for
    order               n, products; n - 1 long convolutions
    filter_order        width of the network
    emb_dim             features of z, odd
    short_filter_order  taps of the short convolution
    num_inner_mlps      hidden layers of the network
    w                   f at first, one a feature of the network
    fast_decay_pct, slow_decay_pct, target  fast and slow as above, where the filters have fallen to the target
    shift               what the decay leaves
    trained_embedding   z is a parameter, as in the original code; else it is fixed, as in HyenaDNA

    Filter o of channel h is feature (n - 1) h + o of the network. Parameters, all real float32: in_proj_weight
    ((n + 1) H, H), short_filter_weight ((n + 1) H, taps), filter_0_weight (filter_order, emb_dim) and on, all with a
    bias, filter_out_weight ((n - 1) H, filter_order), filter_freq (filter_order,), filter_bias ((n - 1) H,),
    out_proj_weight (H, H) and out_proj_bias; filter_z (l_max, emb_dim) if it is trained.

    Poli et al., Hyena Hierarchy: Towards Larger Convolutional Language Models, ICML 2023,
    https://arxiv.org/abs/2302.10866.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.Hyena(d_model=4, l_max=16)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    l_max: int = 1024
    order: int = 2
    filter_order: int = 64
    emb_dim: int = 3
    short_filter_order: int = 3
    num_inner_mlps: int = 2
    w: float = 1.0
    fast_decay_pct: float = 0.3
    slow_decay_pct: float = 1.5
    target: float = 1e-2
    shift: float = 0.0
    trained_embedding: bool = False

    cause: ClassVar[str] = "its filters are as long as the sequence"
    timed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        settle(self)
        sizes = ("d_model", "l_max", "filter_order", "emb_dim", "short_filter_order")
        common.whole("Hyena", **{name: getattr(self, name) for name in sizes})
        common.whole("Hyena", 2, order=self.order)
        common.whole("Hyena", 0, num_inner_mlps=self.num_inner_mlps)
        if self.emb_dim < 3 or self.emb_dim % 2 == 0:
            raise OptionError(f"Hyena: emb_dim = {self.emb_dim} must be odd and at least 3: time, cosines and sines.")
        positive = {name: getattr(self, name) for name in ("w", "fast_decay_pct", "slow_decay_pct")}
        number("Hyena", "must be positive", 0, math.inf, **positive)
        number("Hyena", "must lie in (0, 1)", 0, 1, target=self.target)
        if not is_number(self.shift) or math.isinf(self.shift):
            raise OptionError(f"Hyena: shift = {self.shift!r} must be a finite number.")

    def parameters(self) -> tuple[Parameter, ...]:
        H, W, taps, inner = self.d_model, self.filter_order, self.short_filter_order, (self.order + 1) * self.d_model
        widths = [self.emb_dim, *(W,) * (self.num_inner_mlps + 1)]
        z = constant("filter_z", (self.l_max, self.emb_dim), self._first_embedding, no_weight_decay=True)
        return (
            *linear("in_proj_", H, inner),
            *(uniform(f"short_filter_{name}", shape, -(taps**-0.5), taps**-0.5)
              for name, shape in (("weight", (inner, taps)), ("bias", (inner,)))),
            *((z,) if self.trained_embedding else ()),
            *(p for i, n in enumerate(widths[:-1]) for p in _hidden(f"filter_{i}_", n, W)),
            _hidden("filter_out_", W, (self.order - 1) * H)[0],
            constant("filter_freq", (W,), lambda: self.w, no_weight_decay=True),
            normal("filter_bias", ((self.order - 1) * H,)),
            *linear("out_proj_", H, H),
        )  # fmt: skip

    @applies
    def apply(
        self,
        params: Parameters,
        u: Array,
        *,
        state: Any = None,
        return_state: bool = False,
        lengths: Array | None = None,
        reset: Array | None = None,
        cu_seqlens: Array | None = None,
        rate: Any = 1.0,
        step_scale: Array | None = None,
        mode: str = "auto",
    ) -> Array:
        """y (B, L, H) from u (B, L, H).

        lengths     integer (B,): what lies beyond is as if it were not there; y beyond is unspecified
        cu_seqlens  integer (n + 1,) with B = 1: n sequences packed one after another, known numbers
        mode        "auto" or "conv", the same

        state, return_state, reset, step_scale and a rate other than 1 are refused. Raises ShapeError where a sequence
        is longer than l_max.
        """
        self.refuse_states(mode=mode, state=state, return_state=return_state, reset=reset, step_scale=step_scale)
        options = {"return_state": return_state, "rate": rate, "step_scale": None}
        entry = self.entry(params, u, None, reset=None, lengths=lengths, cu_seqlens=cu_seqlens, **options)
        xp = entry.xp
        signals, _, broken = kept_apart(entry.segments, {"x": entry.x}, None, xp, axis=1)

        def run(signals: Signals, state: Any, segments: Segments) -> tuple[Array, Any]:
            return self._run(entry.params, segments.masked(signals["x"], 1, xp), xp), None

        y, _ = entry.segments.run(self.name, run, signals, None, axis=1, apart=True)
        return in_dtype_of(u, broken.marked(y, 1, xp), xp)

    def _run(self, params: Parameters, u: Array, xp: Namespace) -> Array:
        length, H = u.shape[1], self.d_model
        if not is_open(u, length) and length > self.l_max:
            raise ShapeError(
                f"Hyena: a sequence has {length} steps, but its filters l_max = {self.l_max} ({describe(u=u)}). "
                f"Build it with l_max={length} or more."
            )
        x = affine(u, params["in_proj_weight"], params["in_proj_bias"])
        taps, bias = params["short_filter_weight"], params["short_filter_bias"]
        x, _ = short_convolution(x, taps, bias, None, Segments(length), xp)
        *gates, v = (xp.permute_dims(part, (0, 2, 1)) for part in parted(x, *(H,) * (self.order + 1)))
        h = self._filters(params, length, xp)
        D = xp.reshape(params["filter_bias"], (H, self.order - 1))
        for o, gate in enumerate(gates[:0:-1]):
            v = v * gate
            v = convolved(v, h[o, ...]) + D[:, o, None] * v
        y = xp.permute_dims(v * gates[0], (0, 2, 1))
        return affine(y, params["out_proj_weight"], params["out_proj_bias"])

    def kernel(self, params: Parameters, length: int) -> Array:
        """The filters (order - 1, H, L), without the direct terms `filter_bias`."""
        if check_length("Hyena", length) > self.l_max:
            raise OptionError(f"Hyena: length = {length} must be at most l_max = {self.l_max}.")
        params = self.prepared(params)
        return self._filters(params, length, namespace("Hyena", **params))

    def _filters(self, params: Parameters, length: Any, xp: Namespace) -> Array:
        freq, H = params["filter_freq"], self.d_model
        k = xp.arange(length, dtype=freq.dtype, device=device(freq))
        if self.trained_embedding:
            x = params["filter_z"][:length, :]
        else:
            x = xp.astype(self._embedding(widest(k, xp), xp), freq.dtype, copy=False)
        for i in range(self.num_inner_mlps + 1):
            x = xp.sin(freq * affine(x, params[f"filter_{i}_weight"], params[f"filter_{i}_bias"]))
        slow, fast = (math.log(self.target) / pct for pct in (self.slow_decay_pct, self.fast_decay_pct))
        decay = np.linspace(slow, fast, (self.order - 1) * H) / max(self.l_max - 1, 1)
        fallen = xp.exp(k[:, None] * xp.asarray(decay, dtype=k.dtype, device=device(k)))
        h = affine(x, params["filter_out_weight"], None) * (fallen + self.shift)
        return xp.permute_dims(xp.reshape(h, (-1, H, self.order - 1)), (2, 1, 0))

    def _embedding(self, k: Array, xp: Namespace) -> Array:
        """z (L, emb_dim) at samples k (L,)."""
        bands = (self.emb_dim - 1) // 2
        f = xp.asarray(np.linspace(1e-4, bands - 1, bands), dtype=k.dtype, device=device(k))
        angles = (2 * math.pi / self.l_max) * k[:, None] * f
        return xp.concat([k[:, None] / max(self.l_max - 1, 1), xp.cos(angles), -xp.sin(angles)], axis=-1)

    def _first_embedding(self) -> Array:
        k = np.arange(self.l_max, dtype=np.float64)
        return self._embedding(k, namespace("Hyena", k=k))


def _hidden(name: str, n_in: int, n_out: int) -> tuple[Parameter, Parameter]:
    """Weight and bias of a layer of the network, which learn at a rate of their own."""
    bound = n_in**-0.5
    return (
        uniform(f"{name}weight", (n_out, n_in), -bound, bound, no_weight_decay=True),
        uniform(f"{name}bias", (n_out,), -bound, bound, no_weight_decay=True),
    )
