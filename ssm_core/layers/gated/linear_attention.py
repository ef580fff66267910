"""Linear attention: a feature map in place of the softmax, so that the past is one matrix."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..._arrays.library import Array, Namespace
from ...functions.affine import affine
from ...functions.norms import normed
from ...gated.decay_run import CHUNK, Rule
from ..parameters import Parameter, Parameters, constant
from ..registry import registered
from .base import check_epsilon, joined_heads, projection
from .feature_maps import FEATURE_MAPS, check_feature_map
from .matrix_memory import MatrixMemory, check_sizes, head_width


@registered
@dataclass(frozen=True)
class LinearAttention(MatrixMemory):
    """Causal linear attention with a feature map, and with the sum of the keys as a normalizer.

    q, k, v = W_q u, W_k u, W_v u by heads;   S_t = S_{t-1} + f(k_t) v_t^T,   n_t = n_{t-1} + f(k_t)
    y = W_o o(S_t^T f(q_t) / (n_t . f(q_t)))

    o is the root mean square norm of every head, where there is one. u (B, L, H), y (B, L, H), with H = d_model. The
    state is S (B, heads, K, V), with `normalize` (S, n (B, heads, K)); K = expand_k H / heads, V = expand_v H / heads.

    d_model             H, the number of channels
    heads               heads with a memory each
    expand_k, expand_v  features of all keys and of all values for each of the H
    feature_map         f: "elu" (elu + 1), "relu", "silu", "softmax" or None
    normalize           whether outputs are divided by n . f(q)
    output_norm         whether there is the norm o
    epsilon             of that norm
    chunk               steps of a chunk; the result does not depend on it

    Both products are scaled by K^{-1/2}, and 1e-10 is added to the normalizer, as in flash-linear-attention.
    Parameters, all real float32: q_proj_weight, k_proj_weight (expand_k H, H), v_proj_weight (expand_v H, H),
    norm_weight (V,), o_proj_weight (H, expand_v H).

    Katharopoulos, Vyas, Pappas and Fleuret, Transformers are RNNs, ICML 2020, https://arxiv.org/abs/2006.16236.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.LinearAttention(d_model=4, heads=2)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    heads: int = 8
    expand_k: float = 1.0
    expand_v: float = 1.0
    feature_map: str | None = "elu"
    normalize: bool = True
    output_norm: bool = True
    epsilon: float = 1e-5
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        check_sizes(self)
        check_feature_map("LinearAttention", self.feature_map)
        check_epsilon("LinearAttention", epsilon=self.epsilon)
        _ = self.key_dim, self.value_dim

    @cached_property
    def key_dim(self) -> int:
        return head_width("LinearAttention", "expand_k", self.expand_k, self.d_model, self.heads)

    @cached_property
    def value_dim(self) -> int:
        return head_width("LinearAttention", "expand_v", self.expand_v, self.d_model, self.heads)

    @property
    def rule(self) -> Rule:
        return Rule(normalize="sum" if self.normalize else None, epsilon=1e-10, scale=self.key_dim**-0.5)

    def parameters(self) -> tuple[Parameter, ...]:
        H, keys, values = self.d_model, self.heads * self.key_dim, self.heads * self.value_dim
        return (
            *projection("q_proj_", H, keys, False),
            *projection("k_proj_", H, keys, False),
            *projection("v_proj_", H, values, False),
            *((constant("norm_weight", (self.value_dim,), lambda: 1.0),) if self.output_norm else ()),
            *projection("o_proj_", values, H, False),
        )

    def _signals(self, params: Parameters, u: Array, beside: None, xp: Namespace) -> tuple[dict[str, Array], None]:
        q, k, v = (self.projected(params, f"{name}_proj", u, xp) for name in "qkv")
        f = FEATURE_MAPS[self.feature_map]
        return {"q": f(q, xp), "k": f(k, xp), "v": v}, None

    def _output(self, params: Parameters, y: Array, waiting: None, xp: Namespace) -> Array:
        y = normed(y, params["norm_weight"], epsilon=self.epsilon) if self.output_norm else y
        return affine(joined_heads(y, xp), params["o_proj_weight"], None)
