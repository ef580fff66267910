"""S4ND: a state space model along every axis of images and videos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from ..._arrays.errors import OptionError, ShapeError, describe
from ..._arrays.idioms import moved
from ..._arrays.library import (
    Array,
    Namespace,
    bringing,
    computable,
    in_dtype_of,
    is_array,
    namespace,
    real_floating,
    require_arrays,
)
from ...functions.convolution import convolved
from ...recurrences.segments import checked_segments
from ...time_invariant.kernels import check_length
from .. import parametrizations as common
from ..calls import applies
from ..layer import check_rate
from ..options import settle, thawed
from ..output_map import OutputMap
from ..parameters import Parameter, Parameters
from ..registry import make, registered
from ..whole import Whole
from .base import TimeInvariant

OF_AXES = ("d_model", "d_state", "channels", "bidirectional", "activation", "output", "skip")


@registered
@dataclass(frozen=True)
class S4ND(Whole):
    """State space models along every axis: a convolution whose kernel is an outer product of one an axis.

    v = 1 / rank sum_r (K_r^1 x K_r^2 x .. x K_r^dims) * u + D u,   y = glu(W gelu(v) + b)

    K_r^a (H, L_a) are kernels of one-dimensional layers, such as `S4D`. The spectrum of an outer product is that of the
    spectra, so the convolution is one an axis, in any order. u (B, L_1, .., L_dims, H), y alike, with H = d_model and
    axes of any length: an image (B, height, width, H), a video (B, frames, height, width, H).

    d_model         H, the number of channels
    dims            axes: 2 for images, 3 for videos
    d_state         real states a channel and axis
    layer           name of the one-dimensional layer, with a system a channel: "S4D" or "S4"
    layer_options   its other options, such as init, n_ssm, dt_min and dt_max; a tuple of dicts has one for every axis
    rank            outer products that are added up
    channels        outputs a system; the output map joins them
    bidirectional   every kernel has a part on what follows along its axis, from the next sample on
    bandlimit       of S4D: leaves out states that turn faster than this share of the Nyquist frequency at rate 1, so
                    that there is no aliasing when the rate is 1 / bandlimit
    activation, output, skip  as in `S4D`

    With `rate` the same kernels are sampled at another step: an image of half the resolution has rate=2.0, one of half
    the frames rate=(2.0, 1.0, 1.0). Parameters, all real float32: axis_0_log_dt and on, those of the layer of every
    axis with rank * channels channels (rank slow), then D (channels, H), output_weight, output_bias as in `S4D`.

    Nguyen, Goel, Gu et al., S4ND: Modeling Images and Videos as Multidimensional Signals Using State Spaces,
    NeurIPS 2022, https://arxiv.org/abs/2210.06583.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.S4ND(d_model=4, d_state=8)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 6, 5, 4), numpy.float32)).shape
    (2, 6, 5, 4)
    """

    d_model: int
    dims: int = 2
    d_state: int = 64
    layer: str = "S4D"
    layer_options: Mapping[str, Any] | tuple[Mapping[str, Any], ...] = field(default_factory=dict)
    rank: int = 1
    channels: int = 1
    bidirectional: bool = True
    bandlimit: float | None = None
    activation: str | None = "gelu"
    output: str | None = "glu"
    skip: bool = True

    cause: ClassVar[str] = "it sees all of its axes at once"

    def __post_init__(self) -> None:
        settle(self)
        sizes = ("d_model", "dims", "d_state", "rank", "channels")
        common.whole("S4ND", **{name: getattr(self, name) for name in sizes})
        self.output_map.check("S4ND")
        given = self._options_of_axes()
        if not isinstance(given, tuple) or [isinstance(o, Mapping) for o in given] != [True] * self.dims:
            raise OptionError(
                f"S4ND: layer_options must be a dict, or a tuple of one for each of the {self.dims} axes."
            )
        for name in OF_AXES:
            if any(name in options for options in given):
                raise OptionError(f"S4ND: {name} is an option of S4ND itself, not one of its layer_options.")
        if self.bandlimit is not None and any("bandlimit" in options for options in given):
            raise OptionError("S4ND: bandlimit is given twice. Leave it out of layer_options, or out of S4ND.")
        try:
            axes = self.axes()
        except OptionError as error:
            raise OptionError(f"S4ND: of the layers of every axis: {error}") from error
        if not all(
            isinstance(axis, TimeInvariant) and axis.per_channel and axis.width == self.d_model for axis in axes
        ):
            raise OptionError(f"S4ND: layer = {self.layer!r} must have one system a channel, as 'S4D' or 'S4' has.")

    @property
    def output_map(self) -> OutputMap:
        """What follows the systems."""
        return OutputMap(self.d_model, self.channels, self.activation, self.output, self.skip)

    def _options_of_axes(self) -> tuple[Any, ...]:
        given = self.layer_options
        return (given,) * self.dims if isinstance(given, Mapping) else given

    def axes(self) -> tuple[Any, ...]:
        """The one-dimensional layer of every axis."""
        common_options = {
            "d_model": self.d_model, "d_state": self.d_state, "channels": self.rank * self.channels,
            "bidirectional": self.bidirectional, "activation": None, "output": None, "skip": False,
        }  # fmt: skip
        limit = {} if self.bandlimit is None else {"bandlimit": self.bandlimit}
        return tuple(make(self.layer, {**common_options, **limit, **thawed(o)}) for o in self._options_of_axes())

    def parameters(self) -> tuple[Parameter, ...]:
        axes = (replace(p, name=f"axis_{a}_{p.name}") for a, axis in enumerate(self.axes()) for p in axis.parameters())
        return (*axes, *self.output_map.parameters())

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
        """y (B, L_1, .., L_dims, H) from u (B, L_1, .., L_dims, H).

        lengths  integer (B, dims): what lies beyond along an axis is as if it were not there; y beyond is unspecified
        rate     multiplies dt: a number, an array () or (H,), or a tuple with one for every axis
        mode     "auto" or "conv", the same

        state, return_state, reset, cu_seqlens and step_scale are refused.
        """
        self.refuse_states(mode=mode, state=state, return_state=return_state, reset=reset, step_scale=step_scale)
        if cu_seqlens is not None:
            raise OptionError(
                "S4ND: inputs of several axes are not packed. Pad them into a batch, with lengths (B, dims)."
            )
        u, lengths, rate = bringing(params)((u, lengths, rate))
        xp, rates = self._check_signal(u), self._rates(rate)
        given = {f"rate_{a}": r for a, r in enumerate(rates) if is_array(r)}
        params = self.prepared(params, u=u, lengths=lengths, **given)
        x = self._masked(computable(u, xp), lengths, xp)
        kernels = self._kernels(params, u.shape[1:-1], rates)
        rows, v = self.rank * self.channels, moved(x, -1, 1, xp)[:, None, ...]  # (B, 1, H, L_1, .., L_dims)
        for K in reversed(kernels):
            K = K[:, :, *(None,) * (self.dims - 1), :]
            K, back = (K[:rows, ...], K[rows:, ...]) if self.bidirectional else (K, None)
            v = moved(convolved(v, K, kernel_reverse=back), -1, 3, xp)
        v = xp.sum(xp.reshape(v, (v.shape[0], self.rank, self.channels, *v.shape[2:])), axis=1) / self.rank
        v = moved(moved(v, 1, -1, xp), 1, -1, xp) if self.channels > 1 else moved(v[:, 0, ...], 1, -1, xp)
        return in_dtype_of(u, self.output_map.bound(params, xp)(v, x), xp)

    def kernels(self, params: Parameters, shape: tuple[int, ...], *, rate: Any = 1.0) -> tuple[Array, ...]:
        """The kernels (rank * channels, H, L_a) of every axis; those on what follows stand behind, if there are any."""
        if len(shape) != self.dims:
            raise ShapeError(f"S4ND: shape must have {self.dims} lengths (shape: {tuple(shape)}).")
        lengths = [check_length("S4ND", length) for length in shape]
        return self._kernels(self.prepared(params), lengths, self._rates(bringing(params)(rate)))

    def _kernels(self, params: Parameters, shape: Any, rates: tuple[Any, ...]) -> tuple[Array, ...]:
        found = []
        for a, (axis, length, rate) in enumerate(zip(self.axes(), shape, rates, strict=True)):
            own = axis.prepared({p.name: params[f"axis_{a}_{p.name}"] for p in axis.parameters()})
            found.append(axis._kernel(own, max(length, 1), rate, namespace("S4ND", **own)))
        return tuple(found)

    def _check_signal(self, u: Array) -> Namespace:
        require_arrays("S4ND", u=u)
        xp = namespace("S4ND", u=u)
        real_floating("S4ND", u=u)
        if u.ndim != self.dims + 2 or u.shape[-1] != self.d_model:
            axes = ", ".join(f"L_{a + 1}" for a in range(self.dims))
            raise ShapeError(f"S4ND: u must be (B, {axes}, {self.d_model}) ({describe(u=u)}).")
        return xp

    def _rates(self, rate: Any) -> tuple[Any, ...]:
        """One for every axis."""
        several = tuple(rate) if isinstance(rate, tuple | list) else (rate,) * self.dims
        if len(several) != self.dims:
            raise OptionError(f"S4ND: rate = {rate!r} must be one, or a tuple of one for each of the {self.dims} axes.")
        return tuple(check_rate("S4ND", r, self.d_model) for r in several)

    def _masked(self, x: Array, lengths: Array | None, xp: Namespace) -> Array:
        """x with zeros beyond the lengths."""
        if lengths is None:
            return x
        require_arrays("S4ND", lengths=lengths)
        given = describe(u=x, lengths=lengths)
        if tuple(lengths.shape) != (x.shape[0], self.dims):
            raise ShapeError(f"S4ND: lengths must be {(x.shape[0], self.dims)}, one for every axis ({given}).")
        for a in range(self.dims):
            segments = checked_segments("S4ND", given, x.shape[:1], x.shape[a + 1], lengths=lengths[:, a])
            x = segments.masked(x, a + 1, xp)
        return x
