"""Lightning attention: linear attention with one constant decay a head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..._arrays.errors import OptionError, unknown
from ..._arrays.library import Array, Namespace, device
from ...functions.affine import affine, parted
from ...functions.norms import normed
from ...functions.special import activation
from ...gated.decay_run import CHUNK, Rule
from .. import parametrizations as common
from ..parameters import Parameter, Parameters, constant
from ..registry import registered
from .base import check_epsilon, joined_heads, projection
from .matrix_memory import MatrixMemory, affine_map, check_sizes

SLOPES = ("minimax", "fla")


@registered
@dataclass(frozen=True)
class Lightning(MatrixMemory):
    """Lightning attention as in MiniMax-01: constant decays, a norm over all heads and a gate.

    q, k, v = silu(W_qkv u) by heads;   S_t = e^{-slope_h} S_{t-1} + k_t v_t^T
    y = W_o (n(scale S_t^T q_t) sigmoid(W_g u))

    n is the root mean square norm over all heads together. u (B, L, H), y (B, L, H), with H = d_model. The state is
    S (B, heads, D, D), with D = head_dim.

    d_model     H, the number of channels
    heads       heads with a memory each
    head_dim    D, features of a key and of a value; H / heads if None
    slopes      "minimax": 2^{-8 (h + 1) / heads} (1 - l / (layers - 1 + 1e-5) + 1e-5), and scale 1;
                "fla": 8 h / heads (1 - l / layers), and scale D^{-1/2}
    layer_idx   l, the place among the layers, from 0
    num_layers  layers, of the whole model
    epsilon     of the norm
    chunk       steps of a chunk; the result does not depend on it

    Parameters, all real float32: qkv_proj_weight (3 heads D, H), the rows of a head together, norm_weight (heads D,),
    output_gate_weight (heads D, H), out_proj_weight (H, heads D).

    Qin et al., Various lengths, constant speed: Efficient language modeling with Lightning attention, ICML 2024,
    https://arxiv.org/abs/2405.17381; MiniMax-01, 2025, https://arxiv.org/abs/2501.08313.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.Lightning(d_model=4, heads=2)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    heads: int = 8
    head_dim: int | None = None
    slopes: str = "minimax"
    layer_idx: int = 0
    num_layers: int = 1
    epsilon: float = 1e-6
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        check_sizes(self, "num_layers")
        if self.head_dim is not None:
            common.whole("Lightning", head_dim=self.head_dim)
        elif self.d_model % self.heads:
            raise OptionError(
                f"Lightning: heads = {self.heads} must divide d_model = {self.d_model}, or give head_dim."
            )
        place = self.layer_idx
        if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < self.num_layers:
            raise OptionError(f"Lightning: layer_idx = {place!r} must lie in [0, num_layers = {self.num_layers}).")
        if self.slopes not in SLOPES:
            raise unknown("Lightning", "slopes", self.slopes, SLOPES)
        check_epsilon("Lightning", epsilon=self.epsilon)

    @property
    def key_dim(self) -> int:
        return self.head_dim or self.d_model // self.heads

    @property
    def value_dim(self) -> int:
        return self.key_dim

    @property
    def rule(self) -> Rule:
        return Rule(scale=1.0 if self.slopes == "minimax" else self.key_dim**-0.5)

    def decays(self) -> np.ndarray:
        """-slope_h (heads,)."""
        h, place = np.arange(self.heads), self.layer_idx
        if self.slopes == "fla":
            return -8 * h / self.heads * (1 - place / self.num_layers)
        return -(2.0 ** (-8 * (h + 1) / self.heads)) * (1 - place / (self.num_layers - 1 + 1e-5) + 1e-5)

    def parameters(self) -> tuple[Parameter, ...]:
        H, inner = self.d_model, self.heads * self.key_dim
        return (
            *projection("qkv_proj_", H, 3 * inner, False),
            constant("norm_weight", (inner,), lambda: 1.0),
            *projection("output_gate_", H, inner, False),
            *projection("out_proj_", inner, H, False),
        )

    def _signals(self, params: Parameters, u: Array, beside: None, xp: Namespace) -> tuple[dict[str, Array], Array]:
        p, D = activation("silu")(self.projected(params, "qkv_proj", u, xp)), self.key_dim
        q, k, v = parted(p, D, D, D)
        return {"q": q, "k": k, "v": v}, affine_map(params, "output_gate", u)

    def _constant_decay(self, params: Parameters, like: Array, xp: Namespace) -> Array:
        return xp.asarray(self.decays(), dtype=like.dtype, device=device(like))

    def _output(self, params: Parameters, y: Array, waiting: Array, xp: Namespace) -> Array:
        y = normed(joined_heads(y, xp), params["norm_weight"], epsilon=self.epsilon)
        return affine(activation("sigmoid")(waiting) * y, params["out_proj_weight"], None)
