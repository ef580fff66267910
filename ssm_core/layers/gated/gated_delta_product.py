"""Gated DeltaProduct: several delta rules a step, which together can be any rotation."""

from __future__ import annotations

from dataclasses import dataclass

from ..._arrays.library import Array, Namespace
from ...functions.affine import affine
from ...functions.special import activation
from ...gated.delta_run import CHUNK
from ..parameters import Parameter, Parameters
from ..registry import registered
from .base import in_heads
from .delta_memory import GAIN, GroupedValues, check_decays, decay_parameters
from .gated_delta_net import head_decay
from .matrix_memory import xavier


@registered
@dataclass(frozen=True)
class GatedDeltaProduct(GroupedValues):
    """Gated DeltaNet with several keys and values a step: a product of generalized Householder matrices.

    q, k_j, v_j = silu(conv(W u)) by heads, q and k_j over their L2 norms, j = 1 .. num_householder
    beta_j = 2 sigmoid(W_b u)_j;   g = -exp(A_log) softplus(W_a u + dt_bias)
    S <- e^{g_t} S;   S <- S + beta_j k_j (v_j - S^T k_j)^T for all j;   y = W_o (n(K^{-1/2} S^T q_t) silu(W_g u))

    n is the root mean square norm of every head; head h of v has q and k of head h // (num_v_heads / heads). u
    (B, L, H), y (B, L, H), with H = d_model. The state is the last inputs of the convolutions of q, k and v
    (B, ., d_conv - 1) and S (B, num_v_heads, K, V), with K = head_dim and V = expand_v head_dim.

    d_model               H, the number of channels
    heads                 heads of q and k
    head_dim              K, features of a key
    expand_v              features of a value for each of the K
    num_v_heads           heads of v; as many as of q if None
    num_householder       delta rules a step
    d_conv                taps of the causal convolutions
    conv_bias             whether they have biases
    negative_eigenvalues  whether beta has the factor 2: keys may be reflected
    forget_gate           whether there is the decay
    output_gate           whether n(.) has its gate
    dt_min, dt_max        the first softplus(dt_bias) are log-uniform between them, and at least dt_floor
    epsilon               of the norm
    chunk                 delta rules of a chunk; the result does not depend on it

    Parameters, all real float32, with R = num_householder: q_proj_weight (heads K, H), k_proj_weight (R heads K, H),
    v_proj_weight (R num_v_heads V, H), q_conv1d_weight, k_conv1d_weight, v_conv1d_weight (., d_conv) and their biases
    where there are any, b_proj_weight (R num_v_heads, H), a_proj_weight (num_v_heads, H), A_log, dt_bias
    (num_v_heads,), g_proj_weight (num_v_heads V, H), o_norm_weight (V,), o_proj_weight (H, num_v_heads V).

    Siems et al., DeltaProduct: improving state-tracking in linear RNNs via Householder products, NeurIPS 2025,
    https://arxiv.org/abs/2502.10297.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.GatedDeltaProduct(d_model=4, heads=2, head_dim=2)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    heads: int = 6
    head_dim: int = 256
    expand_v: float = 2.0
    num_v_heads: int | None = None
    num_householder: int = 2
    d_conv: int = 4
    conv_bias: bool = False
    negative_eigenvalues: bool = True
    forget_gate: bool = True
    output_gate: bool = True
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    dt_floor: float = 1e-4
    epsilon: float = 1e-5
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        self.check_delta("head_dim", "num_householder")
        self.check_groups()
        check_decays(self)

    @property
    def substeps(self) -> int:  # type: ignore[override]
        """R, delta rules a step."""
        return self.num_householder

    def parameters(self) -> tuple[Parameter, ...]:
        H, n = self.d_model, self.value_heads
        decays = (xavier("a_proj", H, n, GAIN), *decay_parameters(self, n, n, 1e-3)) if self.forget_gate else ()
        return (
            *self.entering_parameters(),
            xavier("b_proj", H, self.num_householder * n, GAIN),
            *decays,
            *((xavier("g_proj", H, n * self.value_dim, GAIN),) if self.output_gate else ()),
            *self.leaving_parameters(),
        )

    def _gates(self, params: Parameters, u: Array, xp: Namespace) -> dict[str, Array]:
        beta = activation("sigmoid")(affine(u, params["b_proj_weight"], None))
        beta = beta if self.substeps == 1 else in_heads(beta, self.substeps, xp)
        beta = 2 * beta if self.negative_eigenvalues else beta
        return {"beta": beta} | ({"log_decay": head_decay(params, u, xp)} if self.forget_gate else {})

    def _output_gate(self, params: Parameters, u: Array) -> Array | None:
        return affine(u, params["g_proj_weight"], None) if self.output_gate else None
