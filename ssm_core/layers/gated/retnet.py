"""RetNet: retention, linear attention with constant decays and rotating keys."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..._arrays.errors import OptionError, unknown
from ..._arrays.library import Array, Namespace, device
from ...functions.affine import affine
from ...functions.norms import normed
from ...functions.rotation import positions, rotation, turned_halves
from ...functions.special import activation
from ...gated.decay_run import CHUNK
from ...recurrences.segments import Segments
from ..parameters import Parameter, Parameters, constant
from ..registry import registered
from .base import State, check_epsilon, joined_heads
from .matrix_memory import SharedHeads, affine_map, check_sizes, head_width, xavier

ROTATIONS = ("half", "interleaved")
GAIN = 2**-2.5  # of the first weights


@registered
@dataclass(frozen=True)
class RetNet(SharedHeads):
    """The multi-scale retention of RetNet: every head forgets at a constant rate of its own.

    q, k, v = W_q u, W_k u, W_v u by heads, q and k turned by t w_j;   gamma_h = 1 - 2^{-5-h}
    S_t = gamma_h S_{t-1} + k_t v_t^T,   y = W_o (n(K^{-1/2} S_t^T q_t) silu(W_g u))

    n is the root mean square norm of every head. u (B, L, H), y (B, L, H), with H = d_model. The state is the number of
    steps so far (B,), and S (B, heads, K, V), K = expand_k H / heads, V = expand_v H / heads.

    d_model             H, the number of channels
    heads               heads with a memory each
    expand_k, expand_v  features of all keys and of all values for each of the H
    rotation            which features turn together: "half" j and j + K/2, w_j = 10000^{-2 j / K};
                        "interleaved" 2 j and 2 j + 1, w_j = 10000^{-j / (K/2 - 1)}
    row_norm            whether what is read at t is divided by sqrt(1 + gamma + ... + gamma^t)
    norm_weight         whether n has a weight
    output_gate         whether outputs have the gate silu(W_g u)
    kv_heads            heads of keys and values, each for heads / kv_heads neighboring heads of q; as many if None
    feature_map         of keys and queries before they turn: "elu" (elu + 1), "relu", "silu", "softmax" or None
    epsilon             of the norm
    chunk               steps of a chunk; the result does not depend on it

    flash-linear-attention has the first rotation, torchscale the second, row_norm, no weight, and epsilon 1e-6.
    Parameters, all real float32: q_proj_weight (expand_k H, H), k_proj_weight (kv_heads K, H), v_proj_weight
    (kv_heads V, H), g_proj_weight (expand_v H, H), g_norm_weight (V,), o_proj_weight (H, expand_v H).

    Sun et al., Retentive network: A successor to Transformer for large language models, 2023,
    https://arxiv.org/abs/2307.08621.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.RetNet(d_model=4, heads=2)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    heads: int = 8
    expand_k: float = 1.0
    expand_v: float = 2.0
    rotation: str = "half"
    row_norm: bool = False
    norm_weight: bool = True
    output_gate: bool = True
    kv_heads: int | None = None
    feature_map: str | None = None
    epsilon: float = 1e-5
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        check_sizes(self)
        if not isinstance(self.rotation, str) or self.rotation not in ROTATIONS:
            raise unknown("RetNet", "rotation", self.rotation, ROTATIONS)
        check_epsilon("RetNet", epsilon=self.epsilon)
        self.check_heads()
        if self.key_dim % 2 or self.value_dim < 1:
            raise OptionError(
                f"RetNet: {self.key_dim} features of a key do not turn in pairs. Change expand_k or heads."
            )

    @cached_property
    def key_dim(self) -> int:
        return head_width("RetNet", "expand_k", self.expand_k, self.d_model, self.heads)

    @cached_property
    def value_dim(self) -> int:
        return head_width("RetNet", "expand_v", self.expand_v, self.d_model, self.heads)

    def decays(self) -> np.ndarray:
        """log gamma_h (heads,)."""
        return np.log1p(-(2.0 ** (-5 - np.arange(self.heads))))

    def speeds(self) -> np.ndarray:
        """w_j (K/2,)."""
        pairs = self.key_dim // 2
        parts = pairs if self.rotation == "half" else max(1, pairs - 1)
        return 10000.0 ** (-np.arange(pairs) / parts)

    def parameters(self) -> tuple[Parameter, ...]:
        H, values = self.d_model, self.heads * self.value_dim
        return (
            *self.maps_of_heads(GAIN),
            *((xavier("g_proj", H, values, GAIN),) if self.output_gate else ()),
            *((constant("g_norm_weight", (self.value_dim,), lambda: 1.0),) if self.norm_weight else ()),
            xavier("o_proj", values, H, GAIN),
        )

    def carried_shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        return {"position": (batch,)}

    def _before(self, u: Array, carried: State, segments: Segments, xp: Namespace) -> tuple[Array, State]:
        """The position of every step."""
        before, last = positions(carried[0], u, segments, xp)
        return before, (last,)

    def _before_step(self, u: Array, carried: State, xp: Namespace) -> tuple[Array, State]:
        return carried[0], (carried[0] + 1,)

    def _signals(self, params: Parameters, u: Array, beside: Array, xp: Namespace) -> tuple[dict[str, Array], Any]:
        q, k, v = self.of_heads(params, u, xp)
        cos, sin = rotation(beside, self.speeds(), xp)
        q, k = (self._turned(x, cos, sin, xp) for x in (q, k))
        k, v = (self.for_queries(x, xp) for x in (k, v))
        gate = affine_map(params, "g_proj", u) if self.output_gate else None
        return {"q": q, "k": k, "v": v}, (gate, beside)

    def _constant_decay(self, params: Parameters, like: Array, xp: Namespace) -> Array:
        return xp.asarray(self.decays(), dtype=like.dtype, device=device(like))

    def _turned(self, x: Array, cos: Array, sin: Array, xp: Namespace) -> Array:
        """Pairs of features of x (..., heads, K) turned by angles (..., 1, K/2)."""
        if self.rotation == "half":
            return turned_halves(x, cos, sin, xp)
        pairs = xp.reshape(x, (*x.shape[:-1], self.key_dim // 2, 2))
        a, b = pairs[..., 0], pairs[..., 1]
        return xp.reshape(xp.stack([a * cos - b * sin, a * sin + b * cos], axis=-1), x.shape)

    def _output(self, params: Parameters, y: Array, waiting: Any, xp: Namespace) -> Array:
        gate, position = waiting
        if self.row_norm:
            g = xp.asarray(self.decays(), dtype=y.dtype, device=device(y))
            total = xp.expm1((position[..., None] + 1) * g) / xp.expm1(g)
            y = y / xp.sqrt(total)[..., None]
        y = joined_heads(normed(y, params.get("g_norm_weight"), epsilon=self.epsilon), xp)
        y = y if gate is None else y * activation("silu")(gate)
        return affine(y, params["o_proj_weight"], None)
