"""Gated DeltaNet: the delta rule with one decay a head, and heads of values that share keys."""

from __future__ import annotations

from dataclasses import dataclass

from ..._arrays.library import Array, Namespace
from ...functions.affine import affine
from ...functions.special import activation
from ...gated.delta_run import CHUNK
from ..parameters import Parameter, Parameters
from ..registry import registered
from .delta_memory import GAIN, GroupedValues, check_decays, decay_parameters, strength
from .matrix_memory import xavier


@registered
@dataclass(frozen=True)
class GatedDeltaNet(GroupedValues):
    """The gated delta rule: Gated DeltaNet, and the linear attention of Qwen3-Next.

    q, k, v = silu(conv(W u)) by heads, q and k over their L2 norms
    beta = sigmoid(W_b u);   g = -exp(A_log) softplus(W_a u + dt_bias)
    S' = e^{g_t} S_{t-1},   S_t = S' + beta_t k_t (v_t - S'^T k_t)^T,   y = W_o (n(K^{-1/2} S_t^T q_t) silu(W_g u))

    n is the root mean square norm of every head; head h of v has q and k of head h // (num_v_heads / heads). u
    (B, L, H), y (B, L, H), with H = d_model. The state is the last inputs of the convolutions of q, k and v
    (B, ., d_conv - 1) and S (B, num_v_heads, K, V), with K = head_dim and V = expand_v head_dim.

    d_model               H, the number of channels
    heads                 heads of q and k
    head_dim              K, features of a key
    expand_v              features of a value for each of the K
    num_v_heads           heads of v; as many as of q if None
    d_conv                taps of the causal convolutions
    conv_bias             whether they have biases
    negative_eigenvalues  2 beta for beta: keys may be reflected
    output_gate           whether n(.) has its gate
    dt_min, dt_max        the first softplus(dt_bias) are log-uniform between them, and at least dt_floor
    epsilon               of the norm
    chunk                 steps of a chunk; the result does not depend on it

    Parameters, all real float32: q_proj_weight, k_proj_weight (heads K, H), v_proj_weight, g_proj_weight
    (num_v_heads V, H), q_conv1d_weight, k_conv1d_weight, v_conv1d_weight (., d_conv) and their biases where there are
    any, a_proj_weight, b_proj_weight (num_v_heads, H), A_log, dt_bias (num_v_heads,), o_norm_weight (V,), o_proj_weight
    (H, num_v_heads V).

    Yang, Kautz and Hatamizadeh, Gated delta networks: improving Mamba2 with delta rule, ICLR 2025,
    https://arxiv.org/abs/2412.06464.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.GatedDeltaNet(d_model=4, heads=2, head_dim=2)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    heads: int = 6
    head_dim: int = 256
    expand_v: float = 2.0
    num_v_heads: int | None = None
    d_conv: int = 4
    conv_bias: bool = False
    negative_eigenvalues: bool = False
    output_gate: bool = True
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    dt_floor: float = 1e-4
    epsilon: float = 1e-5
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        self.check_delta("head_dim")
        self.check_groups()
        check_decays(self)

    def parameters(self) -> tuple[Parameter, ...]:
        H, n = self.d_model, self.value_heads
        return (
            *self.entering_parameters(),
            xavier("a_proj", H, n, GAIN),
            xavier("b_proj", H, n, GAIN),
            *decay_parameters(self, n, n, 1e-3),
            *((xavier("g_proj", H, n * self.value_dim, GAIN),) if self.output_gate else ()),
            *self.leaving_parameters(),
        )

    def _gates(self, params: Parameters, u: Array, xp: Namespace) -> dict[str, Array]:
        return {"beta": strength(params, u, self.negative_eigenvalues), "log_decay": head_decay(params, u, xp)}

    def _output_gate(self, params: Parameters, u: Array) -> Array | None:
        return affine(u, params["g_proj_weight"], None) if self.output_gate else None


def head_decay(params: Parameters, u: Array, xp: Namespace) -> Array:
    """-exp(A_log) softplus(W_a u + dt_bias), the log decay of every head."""
    dt = activation("softplus")(affine(u, params["a_proj_weight"], None) + params["dt_bias"])
    return -xp.exp(params["A_log"]) * dt
