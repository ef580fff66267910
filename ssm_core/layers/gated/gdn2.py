"""GDN-2: the delta rule that erases and writes by channels, each with gates of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..._arrays.library import Array, Namespace
from ...functions.affine import affine
from ...functions.special import activation
from ...gated.delta_run import CHUNK
from ..parameters import Parameter, Parameters
from ..registry import registered
from .base import in_heads
from .delta_memory import GAIN, GroupedValues, check_decays, decay_parameters
from .kda import channel_decay, check_bound, gate_parameters, low_rank_gate
from .matrix_memory import xavier


@registered
@dataclass(frozen=True)
class GDN2(GroupedValues):
    """Gated DeltaNet 2: instead of one strength, what is erased and what is written have gates of every channel.

    q, k, v = silu(conv(W u)) by heads, q and k over their L2 norms
    b = sigmoid(W_b u);   w = sigmoid(W_w u);   g = -exp(A_log) softplus(W_fb W_fa u + dt_bias), or with a lower bound
    g = lower_bound sigmoid(exp(A_log) (W_fb W_fa u + dt_bias))
    S' = diag(e^{g_t}) S_{t-1},   S_t = S' + k_t (w_t v_t - S'^T (b_t k_t))^T
    y = W_o (n(K^{-1/2} S_t^T q_t) sigmoid(W_gb W_ga u + bias))

    n is the root mean square norm of every head; head h of v has q, k, g and b of head h // (num_v_heads / heads). u
    (B, L, H), y (B, L, H), with H = d_model. The state is the last inputs of the convolutions of q, k and v
    (B, ., d_conv - 1) and S (B, num_v_heads, K, V), with K = head_dim and V = expand_v head_dim.

    d_model               H, the number of channels
    heads                 heads of q and k
    head_dim              K, features of a key
    expand_v              features of a value for each of the K
    num_v_heads           heads of v; as many as of q if None
    d_conv                taps of the causal convolutions
    conv_bias             whether they have biases
    negative_eigenvalues  2 b for b: keys may be reflected
    lower_bound           of log decays, None for the softplus
    dt_min, dt_max        the first softplus(dt_bias) are log-uniform between them, and at least dt_floor
    epsilon               of the norm
    chunk                 steps of a chunk; the result does not depend on it

    Parameters, all real float32: q_proj_weight, k_proj_weight, b_proj_weight (heads K, H), v_proj_weight, w_proj_weight
    (num_v_heads V, H), q_conv1d_weight, k_conv1d_weight, v_conv1d_weight (., d_conv) and their biases where there are
    any, f_a_proj_weight (V, H), f_b_proj_weight (heads K, V), A_log (heads,), dt_bias (heads K,), g_a_proj_weight
    (V, H), g_b_proj_weight (num_v_heads V, V), g_b_proj_bias, o_norm_weight (V,), o_proj_weight (H, num_v_heads V).

    Gated DeltaNet-2: decoupling erase and write in linear attention, as in flash-linear-attention's `gdn2`.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.GDN2(d_model=4, heads=2, head_dim=2)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    heads: int = 16
    head_dim: int = 128
    expand_v: float = 1.0
    num_v_heads: int | None = None
    d_conv: int = 4
    conv_bias: bool = False
    negative_eigenvalues: bool = False
    lower_bound: float | None = None
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    dt_floor: float = 1e-4
    epsilon: float = 1e-5
    chunk: int = CHUNK

    gate: ClassVar[str] = "sigmoid"

    def __post_init__(self) -> None:
        self.check_delta("head_dim")
        self.check_groups()
        check_decays(self)
        check_bound(self)

    def parameters(self) -> tuple[Parameter, ...]:
        H, keys, V = self.d_model, self.heads * self.key_dim, self.value_dim
        return (
            *self.entering_parameters(),
            xavier("f_a_proj", H, V, GAIN),
            xavier("f_b_proj", V, keys, GAIN),
            xavier("b_proj", H, keys, GAIN),
            xavier("w_proj", H, self.value_heads * V, GAIN),
            *decay_parameters(self, self.heads, keys, 1.0),
            *gate_parameters(self, bias=True),
            *self.leaving_parameters(),
        )

    def _gates(self, params: Parameters, u: Array, xp: Namespace) -> dict[str, Array]:
        erase, write = (activation("sigmoid")(affine(u, params[f"{n}_proj_weight"], None)) for n in "bw")
        erase = 2 * erase if self.negative_eigenvalues else erase
        return {
            "erase": in_heads(erase, self.heads, xp),
            "write": in_heads(write, self.value_heads, xp),
            "log_decay": channel_decay(params, u, self.heads, self.lower_bound, xp),
        }

    def _output_gate(self, params: Parameters, u: Array) -> Array | None:
        return low_rank_gate(params, u)
