"""GLA: gated linear attention with a decay a channel from a map of low rank."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..._arrays.errors import OptionError
from ..._arrays.idioms import clip
from ..._arrays.library import Array, Namespace
from ...functions.affine import affine
from ...functions.norms import normed
from ...functions.special import activation
from ...gated.decay_run import CHUNK
from ..parameters import Parameter, Parameters, constant
from ..registry import registered
from .base import check_epsilon, in_heads, joined_heads
from .kda import check_bound
from .matrix_memory import SharedHeads, affine_map, check_sizes, head_width, xavier

GAIN = 2**-2.5  # of the first weights


@registered
@dataclass(frozen=True)
class GLA(SharedHeads):
    """Gated linear attention: every channel of the keys forgets at a rate of its own, of the input.

    q, k, v = W_q u, W_k u, W_v u by heads;   g = log sigmoid(W_2 W_1 u + b) / gate_normalizer
    S_t = diag(e^{g_t}) S_{t-1} + k_t v_t^T,   y = W_o (n(K^{-1/2} S_t^T q_t) silu(W_g u))

    n is the root mean square norm of every head. u (B, L, H), y (B, L, H), with H = d_model. The state is
    S (B, heads, K, V), K = expand_k H / heads, V = expand_v H / heads.

    d_model             H, the number of channels
    heads               heads with a memory each
    expand_k, expand_v  features of all keys and of all values for each of the H
    gate_rank           rank of the map to the decays
    gate_normalizer     what their logarithms are divided by
    output_gate         whether outputs have the gate silu(W_g u)
    kv_heads            heads of keys, decays and values, each for heads / kv_heads neighboring heads of q; None: heads
    feature_map         of keys and queries: "elu" (elu + 1), "relu", "silu", "softmax" or None
    lower_bound         what no g is below, such as -5.0, or None
    epsilon             of the norm
    chunk               steps of a chunk; the result does not depend on it

    Parameters, all real float32: q_proj_weight (expand_k H, H), k_proj_weight (kv_heads K, H), v_proj_weight
    (kv_heads V, H), g_proj_weight (expand_v H, H), gk_proj_0_weight (gate_rank, H), gk_proj_1_weight
    (kv_heads K, gate_rank), gk_proj_1_bias, g_norm_weight (V,), o_proj_weight (H, expand_v H).

    Yang, Wang, Shen, Panda and Kim, Gated linear attention transformers with hardware-efficient training, ICML 2024,
    https://arxiv.org/abs/2312.06635.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.GLA(d_model=4, heads=2)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    heads: int = 4
    expand_k: float = 0.5
    expand_v: float = 1.0
    gate_rank: int = 16
    gate_normalizer: float = 16.0
    output_gate: bool = True
    kv_heads: int | None = None
    feature_map: str | None = None
    lower_bound: float | None = None
    epsilon: float = 1e-5
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        check_sizes(self, "gate_rank")
        normalizer = self.gate_normalizer
        if isinstance(normalizer, bool) or not isinstance(normalizer, int | float) or not 0 < normalizer < float("inf"):
            raise OptionError(f"GLA: gate_normalizer = {normalizer!r} must be a positive number.")
        check_epsilon("GLA", epsilon=self.epsilon)
        self.check_heads()
        check_bound(self)
        _ = self.key_dim, self.value_dim

    @cached_property
    def key_dim(self) -> int:
        return head_width("GLA", "expand_k", self.expand_k, self.d_model, self.heads)

    @cached_property
    def value_dim(self) -> int:
        return head_width("GLA", "expand_v", self.expand_v, self.d_model, self.heads)

    def parameters(self) -> tuple[Parameter, ...]:
        H, values, keys = self.d_model, self.heads * self.value_dim, self.memories * self.key_dim
        return (
            *self.maps_of_heads(GAIN),
            *((xavier("g_proj", H, values, GAIN),) if self.output_gate else ()),
            xavier("gk_proj_0", H, self.gate_rank, GAIN),
            xavier("gk_proj_1", self.gate_rank, keys, GAIN),
            constant("gk_proj_1_bias", (keys,), lambda: 0.0),
            constant("g_norm_weight", (self.value_dim,), lambda: 1.0),
            xavier("o_proj", values, H, GAIN),
        )

    def _signals(self, params: Parameters, u: Array, beside: None, xp: Namespace) -> tuple[dict[str, Array], Any]:
        q, k, v = self.of_heads(params, u, xp)
        low = affine_map(params, "gk_proj_1", affine_map(params, "gk_proj_0", u))
        g = -activation("softplus")(-low) / self.gate_normalizer
        g = g if self.lower_bound is None else clip(g, self.lower_bound)
        gate = affine_map(params, "g_proj", u) if self.output_gate else None
        signals = {"k": k, "v": v, "log_decay": in_heads(g, self.memories, xp)}
        return {"q": q} | {name: self.for_queries(x, xp) for name, x in signals.items()}, gate

    def _output(self, params: Parameters, y: Array, waiting: Array | None, xp: Namespace) -> Array:
        y = joined_heads(normed(y, params["g_norm_weight"], epsilon=self.epsilon), xp)
        y = y if waiting is None else y * activation("silu")(waiting)
        return affine(y, params["o_proj_weight"], None)
