"""HGRN: a vector that is forgotten by gates of the input, and takes in what they leave room for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..._arrays.errors import OptionError
from ..._arrays.library import Array, Namespace, namespace
from ...functions.affine import affine
from ...functions.norms import normed
from ...functions.special import activation
from ...gated.hgrn import run_hgrn
from ...recurrences.segments import Segments
from .. import parametrizations as common
from ..options import settle
from ..parameters import Parameter, Parameters, constant
from ..registry import registered
from .base import Advance, InputDependent, State, check_epsilon, projection


@registered
@dataclass(frozen=True)
class HGRN(InputDependent):
    """The hierarchically gated recurrent network: what is not forgotten is not written.

    a = lower_bound + (1 - lower_bound) sigmoid(W_f u);   h_t = a_t h_{t-1} + (1 - a_t) silu(W_i u_t)
    y = W_o (n(h) silu(W_g u))

    n is the weighted root mean square norm. u (B, L, H), y (B, L, H). The state is h (B, I), with H = d_model and
    I = expand H.

    d_model      H, the number of channels
    expand       channels of the recurrence for each of the H
    lower_bound  of the gates, in [0, 1): in the paper it grows with the depth
    epsilon      of the norm

    Parameters, all real float32: i_proj_weight, f_proj_weight, g_proj_weight (I, H), g_norm_weight (I,), o_proj_weight
    (H, I).

    Qin, Yang and Zhong, Hierarchically gated recurrent neural network for sequence modeling, NeurIPS 2023,
    https://arxiv.org/abs/2311.04823.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.HGRN(d_model=4)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    expand: int = 1
    lower_bound: float = 0.0
    epsilon: float = 1e-5

    timed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        settle(self)
        common.whole("HGRN", d_model=self.d_model, expand=self.expand)
        bound = self.lower_bound
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not 0 <= bound < 1:
            raise OptionError(f"HGRN: lower_bound = {bound!r} must lie in [0, 1).")
        check_epsilon("HGRN", epsilon=self.epsilon)

    @property
    def inner(self) -> int:
        """I, the channels of the recurrence."""
        return self.expand * self.d_model

    def parameters(self) -> tuple[Parameter, ...]:
        H, inner = self.d_model, self.inner
        return (
            *projection("i_proj_", H, inner, False),
            *projection("f_proj_", H, inner, False),
            *projection("g_proj_", H, inner, False),
            constant("g_norm_weight", (inner,), lambda: 1.0),
            *projection("o_proj_", inner, H, False),
        )

    def state_shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        return {"h": (batch, self.inner)}

    def _run(
        self, params: Parameters, u: Array, state: State, *, segments: Segments, scale: Any, mode: str
    ) -> tuple[Array, State]:
        x, log_a = self._signals(params, u, namespace(self.name, u=u))
        h, last = run_hgrn(x, log_a, segments=segments, initial=state[0])
        return self._output(params, u, h), (last,)

    def _signals(self, params: Parameters, u: Array, xp: Namespace) -> tuple[Array, Array]:
        """What enters, and log a."""
        f = affine(u, params["f_proj_weight"], None)
        room = (1 - self.lower_bound) * activation("sigmoid")(-f)  # 1 - a, without the cancellation
        log_a = -activation("softplus")(-f) if self.lower_bound == 0 else xp.log1p(-room)
        return room * activation("silu")(affine(u, params["i_proj_weight"], None)), log_a

    def _output(self, params: Parameters, u: Array, h: Array) -> Array:
        gate = affine(u, params["g_proj_weight"], None)
        y = normed(h, params["g_norm_weight"], epsilon=self.epsilon, gate=gate, gate_first=False)
        return affine(y, params["o_proj_weight"], None)

    def _advance(self, params: Parameters, rate: Any, xp: Namespace) -> Advance:
        def advance(u: Array, state: State) -> tuple[Array, State]:
            x, log_a = self._signals(params, u, xp)
            h = xp.exp(log_a) * state[0] + x
            return self._output(params, u, h), (h,)

        return advance
