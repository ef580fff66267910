"""mLSTM: the matrix memory of xLSTM, with exponential input gates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..._arrays.errors import OptionError
from ..._arrays.library import Array, Namespace
from ...functions.affine import affine
from ...functions.norms import standardized
from ...functions.special import activation
from ...gated.decay_run import CHUNK, Rule
from ..parameters import Parameter, Parameters, as_map, constant
from ..registry import registered
from .base import check_epsilon, joined_heads, projection
from .matrix_memory import MatrixMemory, affine_map, check_sizes, head_width


@registered
@dataclass(frozen=True)
class MLSTM(MatrixMemory):
    """The mLSTM layer of xLSTM: gates of a head and a step, exponential ones for the input.

    i, f = cap tanh((W_i u + b_i) / cap), cap tanh((W_f u + b_f) / cap);   g = log sigmoid(f)
    C_t = e^{g_t} C_{t-1} + e^{i_t} k_t v_t^T,   n_t = e^{g_t} n_{t-1} + e^{i_t} k_t
    h = K^{-1/2} C_t^T q_t / max(|K^{-1/2} n_t . q_t|, 1),   y = W_out (sigmoid(W_o u) o(h))

    o is the layer norm of every head without a bias. u (B, L, H), y (B, L, H), with H = d_model. The state is C and n
    over e^m, (B, heads, K, V) and (B, heads, K), and the running maximum m (B, heads), as in `gated_linear_attention`
    with normalize="max"; K = qk_dim_factor H / heads, V = v_dim_factor H / heads.

    d_model         H, the number of channels
    heads           heads with a memory each
    qk_dim_factor   features of all keys for each of the H
    v_dim_factor    features of all values for each of the H
    gate_soft_cap   cap, what the gates stay below
    bias            whether the maps have a bias; those of the gates always have
    norm_bias       whether the norm o has one
    epsilon         of the quotient
    norm_epsilon    of the norm
    chunk           steps of a chunk; the result does not depend on it

    The gates do not see the input at first: b_i = -10, and b_f from 3 to 6 over the heads.
    Parameters, all real float32: q_weight, k_weight (heads K, H), v_weight, ogate_preact_weight (heads V, H),
    igate_preact_weight, fgate_preact_weight (heads, H), their biases (heads,), multihead_norm_weight (heads V,) and
    its bias where there is one, out_proj_weight (H, heads V).

    Beck et al., xLSTM: Extended long short-term memory, NeurIPS 2024, https://arxiv.org/abs/2405.04517; xLSTM 7B, 2025,
    https://arxiv.org/abs/2503.13427.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.MLSTM(d_model=4, heads=2)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    heads: int = 8
    qk_dim_factor: float = 0.5
    v_dim_factor: float = 1.0
    gate_soft_cap: float = 15.0
    bias: bool = False
    norm_bias: bool = False
    epsilon: float = 1e-6
    norm_epsilon: float = 1e-6
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        check_sizes(self)
        cap = self.gate_soft_cap
        if isinstance(cap, bool) or not isinstance(cap, int | float) or not 0 < cap < float("inf"):
            raise OptionError(f"MLSTM: gate_soft_cap = {cap!r} must be a positive number.")
        check_epsilon("MLSTM", epsilon=self.epsilon, norm_epsilon=self.norm_epsilon)
        _ = self.key_dim, self.value_dim

    @cached_property
    def key_dim(self) -> int:
        return head_width("MLSTM", "qk_dim_factor", self.qk_dim_factor, self.d_model, self.heads)

    @cached_property
    def value_dim(self) -> int:
        return head_width("MLSTM", "v_dim_factor", self.v_dim_factor, self.d_model, self.heads)

    @property
    def rule(self) -> Rule:
        return Rule(normalize="max", epsilon=self.epsilon, scale=self.key_dim**-0.5)

    def parameters(self) -> tuple[Parameter, ...]:
        H, heads, bias = self.d_model, self.heads, self.bias
        keys, values = heads * self.key_dim, heads * self.value_dim
        return (
            *projection("q_", H, keys, bias),
            *projection("k_", H, keys, bias),
            *projection("v_", H, values, bias),
            *projection("ogate_preact_", H, values, bias),
            as_map(constant("igate_preact_weight", (heads, H), lambda: 0.0)),
            constant("igate_preact_bias", (heads,), lambda: -10.0, no_weight_decay=True),
            as_map(constant("fgate_preact_weight", (heads, H), lambda: 0.0)),
            constant("fgate_preact_bias", (heads,), lambda: np.linspace(3.0, 6.0, heads), no_weight_decay=True),
            constant("multihead_norm_weight", (values,), lambda: 1.0),
            *((constant("multihead_norm_bias", (values,), lambda: 0.0),) if self.norm_bias else ()),
            *projection("out_proj_", values, H, bias),
        )

    def _signals(self, params: Parameters, u: Array, beside: None, xp: Namespace) -> tuple[dict[str, Array], Array]:
        q, k, v = (self.projected(params, name, u, xp) for name in "qkv")
        cap = self.gate_soft_cap
        i, f = (cap * xp.tanh(affine_map(params, f"{name}gate_preact", u) / cap) for name in "if")
        signals = {"q": q, "k": k, "v": v, "log_decay": -activation("softplus")(-f), "log_input": i}
        return signals, affine_map(params, "ogate_preact", u)

    def _output(self, params: Parameters, y: Array, waiting: Array, xp: Namespace) -> Array:
        y = joined_heads(standardized(y, self.norm_epsilon, xp), xp) * params["multihead_norm_weight"]
        y = y + params["multihead_norm_bias"] if self.norm_bias else y
        return affine(activation("sigmoid")(waiting) * y, params["out_proj_weight"], params.get("out_proj_bias"))
