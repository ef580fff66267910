"""DeltaNet: linear attention that replaces what its memory has under a key."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..._arrays.library import Array, Namespace
from ...functions.affine import affine
from ...gated.delta_run import CHUNK
from ..parameters import Parameter, Parameters
from ..registry import registered
from .delta_memory import GAIN, DeltaMemory, strength
from .matrix_memory import head_width, xavier


@registered
@dataclass(frozen=True)
class DeltaNet(DeltaMemory):
    """The delta rule: every step moves the value under its key towards a new one, and forgets nothing else.

    q, k, v = silu(conv(W u)) by heads, q and k over their L2 norms;   beta = sigmoid(W_b u)
    S_t = S_{t-1} + beta_t k_t (v_t - S_{t-1}^T k_t)^T,   y = W_o n(K^{-1/2} S_t^T q_t)

    n is the root mean square norm of every head. u (B, L, H), y (B, L, H), with H = d_model. The state is the last
    inputs of the convolutions of q, k and v (B, ., d_conv - 1) and S (B, heads, K, V), with K = expand_k H / heads and
    V = expand_v H / heads.

    d_model               H, the number of channels
    heads                 heads with a memory each
    expand_k, expand_v    features of all keys and of all values for each of the H
    d_conv                taps of the causal convolutions
    conv_bias             whether they have biases
    negative_eigenvalues  2 beta for beta: keys may be reflected
    output_gate           whether n(.) is multiplied by silu(W_g u)
    epsilon               of the norm
    chunk                 steps of a chunk; the result does not depend on it

    Parameters, all real float32: q_proj_weight, k_proj_weight (expand_k H, H), v_proj_weight (expand_v H, H),
    q_conv1d_weight, k_conv1d_weight, v_conv1d_weight (., d_conv) and their biases where there are any, b_proj_weight
    (heads, H), o_norm_weight (V,), o_proj_weight (H, expand_v H), and g_proj_weight (expand_v H, H) where there is a
    gate.

    Yang, Wang, Zhang, Shen and Kim, Parallelizing linear transformers with the delta rule over sequence length, NeurIPS
    2024, https://arxiv.org/abs/2406.06484.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.DeltaNet(d_model=4, heads=2)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    heads: int = 4
    expand_k: float = 1.0
    expand_v: float = 1.0
    d_conv: int = 4
    conv_bias: bool = False
    negative_eigenvalues: bool = False
    output_gate: bool = False
    epsilon: float = 1e-5
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        self.check_delta()
        _ = self.key_dim, self.value_dim

    @cached_property
    def key_dim(self) -> int:
        return head_width("DeltaNet", "expand_k", self.expand_k, self.d_model, self.heads)

    @cached_property
    def value_dim(self) -> int:
        return head_width("DeltaNet", "expand_v", self.expand_v, self.d_model, self.heads)

    def parameters(self) -> tuple[Parameter, ...]:
        H, values = self.d_model, self.heads * self.value_dim
        return (
            *self.entering_parameters(),
            xavier("b_proj", H, self.heads, GAIN),
            *((xavier("g_proj", H, values, GAIN),) if self.output_gate else ()),
            *self.leaving_parameters(),
        )

    def _gates(self, params: Parameters, u: Array, xp: Namespace) -> dict[str, Array]:
        return {"beta": strength(params, u, self.negative_eigenvalues)}

    def _output_gate(self, params: Parameters, u: Array) -> Array | None:
        return affine(u, params["g_proj_weight"], None) if self.output_gate else None
