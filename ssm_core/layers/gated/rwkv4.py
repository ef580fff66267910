"""RWKV-4: means of values with decaying weights, of the input and the one before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..._arrays.errors import OptionError
from ..._arrays.idioms import plus_product
from ..._arrays.library import Array, Namespace, namespace
from ...functions.affine import affine
from ...functions.special import activation
from ...functions.token_shift import token_shift
from ...gated.rwkv4 import CHUNK, run_rwkv4, step_rwkv4
from ...recurrences.segments import Segments
from .. import parametrizations as common
from ..options import settle
from ..parameters import Parameter, Parameters, constant
from ..registry import registered
from .base import Advance, InputDependent, State, projection


@registered
@dataclass(frozen=True)
class RWKV4(InputDependent):
    """The time mix of RWKV-4: a mean of all values so far, whose weights decay, behind a gate.

    x_n = m_n u_t + (1 - m_n) u_{t-1} for n = k, v, r;   k, v, r = W_k x_k, W_v x_v, sigmoid(W_r x_r)
    o_t = sum_s e^{c_ts} v_s / sum_s e^{c_ts},   c_ts = k_s + (t - 1 - s) w for s < t, and k_t + time_first for s = t
    y = W_o (r o),   w = -exp(time_decay)

    u (B, L, H), y (B, L, H). The state is the last input (B, H), and num, den and max (B, A), sums over e^max, with
    H = d_model and A = width.

    d_model     H, the number of channels
    width       A, channels of the recurrence; H if None
    layer_idx   the place among the layers, from 0: the first draws depend on it
    num_layers  of the whole model
    chunk       steps of a chunk; the result does not depend on it

    Parameters, all real float32: time_decay, time_first (A,), time_mix_key, time_mix_value, time_mix_receptance (H,),
    key_weight, value_weight, receptance_weight (A, H), output_weight (H, A). The channel mix is a layer of its own.

    Peng et al., RWKV: Reinventing RNNs for the Transformer era, 2023, https://arxiv.org/abs/2305.13048.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.RWKV4(d_model=4)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    width: int | None = None
    layer_idx: int = 0
    num_layers: int = 1
    chunk: int = CHUNK

    modes: ClassVar[tuple[str, ...]] = ("auto", "chunk", "scan")
    timed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        settle(self)
        common.whole("RWKV4", d_model=self.d_model, num_layers=self.num_layers, chunk=self.chunk)
        if self.width is not None:
            common.whole("RWKV4", width=self.width)
        place = self.layer_idx
        if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < self.num_layers:
            raise OptionError(f"RWKV4: layer_idx = {place!r} must lie in [0, num_layers = {self.num_layers}).")

    @property
    def inner(self) -> int:
        """A, the channels of the recurrence."""
        return self.width or self.d_model

    def parameters(self) -> tuple[Parameter, ...]:
        H, A = self.d_model, self.inner
        depth = self.layer_idx / max(1, self.num_layers - 1)

        def decays() -> np.ndarray:
            return -5 + 8 * (np.arange(A) / max(1, A - 1)) ** (0.7 + 1.3 * depth)

        def share() -> np.ndarray:
            return (np.arange(H) / H) ** (1 - self.layer_idx / self.num_layers)

        return (
            constant("time_decay", (A,), decays, no_weight_decay=True),
            constant("time_first", (A,), lambda: np.log(0.3) + ((np.arange(A) + 1) % 3 - 1) / 2, no_weight_decay=True),
            constant("time_mix_key", (H,), share),
            constant("time_mix_value", (H,), lambda: share() + 0.3 * depth),
            constant("time_mix_receptance", (H,), lambda: share() ** 0.5),
            *(p for name in ("key", "value", "receptance") for p in projection(f"{name}_", H, A, False)),
            *projection("output_", A, H, False),
        )

    def state_shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        sums = (batch, self.inner)
        return {"before": (batch, self.d_model), "num": sums, "den": sums, "max": sums}

    def _run(
        self, params: Parameters, u: Array, state: State, *, segments: Segments, scale: Any, mode: str
    ) -> tuple[Array, State]:
        xp = namespace(self.name, u=u)
        previous, last = token_shift(u, state[0], segments, xp)
        a, r = self._signals(params, u, previous, xp)
        chunk = 1 if mode == "scan" else self.chunk
        y, mean = run_rwkv4(a, segments=segments, initial=state[1:], chunk=chunk)
        return affine(r * y, params["output_weight"], None), (last, *mean)

    def _signals(self, params: Parameters, u: Array, previous: Array, xp: Namespace) -> tuple[dict[str, Array], Array]:
        """Those of the recurrence by name, and the gate."""
        d = u - previous

        def mixed(name: str) -> Array:
            return affine(plus_product(previous, d, params[f"time_mix_{name}"]), params[f"{name}_weight"], None)

        constants = {"log_decay": -xp.exp(params["time_decay"]), "bonus": params["time_first"]}
        return {"k": mixed("key"), "v": mixed("value"), **constants}, activation("sigmoid")(mixed("receptance"))

    def _advance(self, params: Parameters, rate: Any, xp: Namespace) -> Advance:
        def advance(u: Array, state: State) -> tuple[Array, State]:
            a, r = self._signals(params, u, state[0], xp)
            y, mean = step_rwkv4(a, state[1:])
            return affine(r * y, params["output_weight"], None), (u, *mean)

        return advance
