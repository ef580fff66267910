"""Kimi Delta Attention: the delta rule with a decay a channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..._arrays.errors import OptionError
from ..._arrays.library import Array, Namespace
from ...functions.affine import affine
from ...functions.special import activation
from ...gated.delta_run import CHUNK
from ..parameters import Parameter, Parameters, constant
from ..registry import registered
from .base import in_heads
from .delta_memory import GAIN, GroupedValues, check_decays, decay_parameters, strength
from .matrix_memory import xavier


@registered
@dataclass(frozen=True)
class KDA(GroupedValues):
    """Kimi delta attention: the gated delta rule whose channels of keys have decays of their own.

    q, k, v = silu(conv(W u)) by heads, q and k over their L2 norms
    beta = sigmoid(W_b u);   g = -exp(A_log) softplus(W_fb W_fa u + dt_bias), or with a lower bound
    g = lower_bound sigmoid(exp(A_log) (W_fb W_fa u + dt_bias))
    S' = diag(e^{g_t}) S_{t-1},   S_t = S' + beta_t k_t (v_t - S'^T k_t)^T
    y = W_o (n(K^{-1/2} S_t^T q_t) sigmoid(W_gb W_ga u))

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
    gate_bias             whether the map to the output's gate has one
    negative_eigenvalues  2 beta for beta: keys may be reflected
    lower_bound           of log decays, None for the softplus
    dt_min, dt_max        the first softplus(dt_bias) are log-uniform between them, and at least dt_floor
    epsilon               of the norm
    chunk                 steps of a chunk; the result does not depend on it

    Parameters, all real float32: q_proj_weight, k_proj_weight (heads K, H), v_proj_weight (num_v_heads V, H),
    q_conv1d_weight, k_conv1d_weight, v_conv1d_weight (., d_conv) and their biases where there are any, f_a_proj_weight
    (V, H), f_b_proj_weight (num_v_heads K, V), b_proj_weight (num_v_heads, H), A_log (num_v_heads,), dt_bias
    (num_v_heads K,), g_a_proj_weight (V, H), g_b_proj_weight (num_v_heads V, V) and its bias, o_norm_weight (V,),
    o_proj_weight (H, num_v_heads V).

    Kimi Team, Kimi Linear: an expressive, efficient attention architecture, 2025, https://arxiv.org/abs/2510.26692.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.KDA(d_model=4, heads=2, head_dim=2)
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
    gate_bias: bool = False
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
        H, n, K, V = self.d_model, self.value_heads, self.key_dim, self.value_dim
        return (
            *self.entering_parameters(),
            xavier("f_a_proj", H, V, GAIN),
            xavier("f_b_proj", V, n * K, GAIN),
            xavier("b_proj", H, n, GAIN),
            *decay_parameters(self, n, n * K, 1.0),
            *gate_parameters(self, self.gate_bias),
            *self.leaving_parameters(),
        )

    def _gates(self, params: Parameters, u: Array, xp: Namespace) -> dict[str, Array]:
        g = channel_decay(params, u, self.value_heads, self.lower_bound, xp)
        return {"beta": strength(params, u, self.negative_eigenvalues), "log_decay": g}

    def _output_gate(self, params: Parameters, u: Array) -> Array | None:
        return low_rank_gate(params, u)


def gate_parameters(layer: Any, bias: bool) -> tuple[Parameter, ...]:
    """The map of low rank to the output's gate."""
    H, V, n = layer.d_model, layer.value_dim, layer.value_heads * layer.value_dim
    maps = xavier("g_a_proj", H, V, GAIN), xavier("g_b_proj", V, n, GAIN)
    return (*maps, constant("g_b_proj_bias", (n,), lambda: 0.0)) if bias else maps


def low_rank_gate(params: Parameters, u: Array) -> Array:
    low = affine(u, params["g_a_proj_weight"], None)
    return affine(low, params["g_b_proj_weight"], params.get("g_b_proj_bias"))


def channel_decay(params: Parameters, u: Array, heads: int, lower_bound: float | None, xp: Namespace) -> Array:
    """The log decays (..., heads, K) of a map of low rank."""
    low = affine(u, params["f_a_proj_weight"], None)
    f = in_heads(affine(low, params["f_b_proj_weight"], None) + params["dt_bias"], heads, xp)
    rate = xp.exp(params["A_log"])[:, None]
    if lower_bound is None:
        return -rate * activation("softplus")(f)
    return lower_bound * activation("sigmoid")(rate * f)


def check_bound(layer: Any) -> None:
    bound = layer.lower_bound
    if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int | float) or not -1e4 < bound < 0):
        raise OptionError(f"{layer.name}: lower_bound = {bound!r} must be None or a negative number, such as -5.0.")
