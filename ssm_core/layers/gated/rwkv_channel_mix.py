"""The channel mix of RWKV: squared ReLU of a token shift, with a gate up to RWKV-6."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..._arrays.idioms import plus_product
from ..._arrays.library import Array, Namespace, namespace
from ...functions.affine import affine
from ...functions.special import activation
from ...functions.token_shift import token_shift
from ...recurrences.segments import Segments
from .. import parametrizations as common
from ..options import settle
from ..parameters import Parameter, Parameters, constant
from ..registry import registered
from .base import Advance, InputDependent, State, projection
from .rwkv_time_mix import check_place, shares

SHARES = {"k": "key", "r": "receptance"}


@registered
@dataclass(frozen=True)
class RWKVChannelMix(InputDependent):
    """The channel mix of RWKV: what a block does to the features of a step and of the one before.

    x_n = u_t + (u_{t-1} - u_t) x_n for n = k, r;   y = sigmoid(W_r x_r) (W_v relu(W_k x_k)^2)

    u (B, L, H), y (B, L, H), with H = d_model. The state is the last input (B, H).

    d_model     H, the number of channels
    width       hidden features; 4 H if None, 3.5 H in RWKV-5 and RWKV-6
    gated       whether there is the gate: RWKV-7 has none
    layer_idx   the place among the layers, from 0: the first draws depend on it
    num_layers  of the whole model
    time_mix    whether the parameters are 1 - x_k and 1 - x_r, as RWKV-4 and RWKV-5 store them

    RWKV-6 calls x_k and x_r time_maa_k and time_maa_r. Parameters, all real float32: x_k and x_r (H,), or with time_mix
    time_mix_key and time_mix_receptance, key_weight (width, H), receptance_weight (H, H), value_weight (H, width).

    Peng et al., RWKV: Reinventing RNNs for the Transformer era, 2023, https://arxiv.org/abs/2305.13048.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.RWKVChannelMix(d_model=4)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    width: int | None = None
    gated: bool = True
    layer_idx: int = 0
    num_layers: int = 1
    time_mix: bool = False

    timed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        settle(self)
        common.whole("RWKVChannelMix", d_model=self.d_model, num_layers=self.num_layers)
        if self.width is not None:
            common.whole("RWKVChannelMix", width=self.width)
        check_place(self)

    def parameters(self) -> tuple[Parameter, ...]:
        H = self.d_model
        width, names = self.width or 4 * H, ("k", "r") if self.gated else ("k",)
        return (
            *(self._share(n) for n in names),
            *projection("key_", H, width, False),
            *(projection("receptance_", H, H, False) if self.gated else ()),
            *projection("value_", width, H, False),
        )

    def _share(self, n: str) -> Parameter:
        H = self.d_model
        if self.time_mix:
            return constant(f"time_mix_{SHARES[n]}", (H,), lambda: shares(self))
        return constant(f"x_{n}", (H,), lambda: 1 - shares(self))

    def state_shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        return {"before": (batch, self.d_model)}

    def _run(
        self, params: Parameters, u: Array, state: State, *, segments: Segments, scale: Any, mode: str
    ) -> tuple[Array, State]:
        previous, last = token_shift(u, state[0], segments, namespace(self.name, u=u))
        return self._mixed(params, u, previous), (last,)

    def _mixed(self, params: Parameters, u: Array, previous: Array) -> Array:
        one, other = (previous, u) if self.time_mix else (u, previous)
        d = other - one

        def mixed(n: str) -> Array:
            """The input and the one before it, in shares."""
            share = f"time_mix_{SHARES[n]}" if self.time_mix else f"x_{n}"
            return plus_product(one, d, params[share])

        hidden = activation("relu")(affine(mixed("k"), params["key_weight"], None))
        y = affine(hidden * hidden, params["value_weight"], None)
        if not self.gated:
            return y
        return activation("sigmoid")(affine(mixed("r"), params["receptance_weight"], None)) * y

    def _advance(self, params: Parameters, rate: Any, xp: Namespace) -> Advance:
        def advance(u: Array, state: State) -> tuple[Array, State]:
            return self._mixed(params, u, state[0]), (u,)

        return advance
