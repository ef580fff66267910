"""RWKV-5, Eagle: linear attention with a constant decay a channel, read before the step is written."""

from __future__ import annotations

from dataclasses import dataclass

from ..._arrays.idioms import plus_product
from ..._arrays.library import Array, Namespace
from ...functions.affine import affine
from ...gated.decay_run import CHUNK
from ..parameters import Parameter, Parameters, constant
from ..registry import registered
from .base import in_heads
from .rwkv_time_mix import TimeMix, depth_of, shares


@registered
@dataclass(frozen=True)
class RWKV5(TimeMix):
    """The time mix of RWKV-5: constant decays of every channel, and a bonus for the step itself.

    x_n = m_n u_t + (1 - m_n) u_{t-1} for n = r, k, v, g;   r, k, v, g = W_r x_r, W_k x_k, W_v x_v, W_g x_g by heads
    o_t = (S_{t-1} + diag(a) k_t v_t^T)^T r_t,   S_t = diag(w) S_{t-1} + k_t v_t^T,   w = exp(-exp(time_decay))
    y = W_o (n(o) silu(g))

    n is the group norm of the heads. u (B, L, H), y (B, L, H), with H = d_model. The state is the last input (B, H) and
    S (B, heads, D, D), with heads = H / D and D = head_dim; a is time_faaaa.

    d_model     H, the number of channels
    head_dim    D, features of a head
    layer_idx   the place among the layers, from 0: the first draws depend on it
    num_layers  of the whole model
    epsilon     of the norm; RWKV divides by 8 first, and adds 1e-5
    chunk       steps of a chunk; the result does not depend on it

    Parameters, all real float32: time_mix_k, time_mix_v, time_mix_r, time_mix_g (H,), time_decay, time_faaaa
    (heads, D), receptance_weight, key_weight, value_weight, gate_weight, output_weight (H, H), ln_x_weight, ln_x_bias.

    Peng et al., Eagle and Finch: RWKV with matrix-valued states and dynamic recurrence, COLM 2024,
    https://arxiv.org/abs/2404.05892.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.RWKV5(d_model=4, head_dim=2)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    head_dim: int = 64
    layer_idx: int = 0
    num_layers: int = 1
    epsilon: float = 64e-5
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        self.check_time_mix()

    def parameters(self) -> tuple[Parameter, ...]:
        sizes = (self.heads, self.head_dim)
        H = (self.d_model,)
        return (
            constant("time_mix_k", H, lambda: shares(self)),
            constant("time_mix_v", H, lambda: shares(self) + 0.3 * depth_of(self)),
            constant("time_mix_r", H, lambda: shares(self, 0.5)),
            constant("time_mix_g", H, lambda: shares(self, 0.5)),
            constant("time_decay", sizes, lambda: self.first_decays().reshape(sizes), no_weight_decay=True),
            constant("time_faaaa", sizes, lambda: self.first_bonus().reshape(sizes), no_weight_decay=True),
            *self.outer_parameters(),
        )

    def _signals(self, params: Parameters, u: Array, beside: Array, xp: Namespace) -> tuple[dict[str, Array], Array]:
        d = u - beside

        def mixed(name: str, letter: str) -> Array:
            return affine(plus_product(beside, d, params[f"time_mix_{letter}"]), params[f"{name}_weight"], None)

        q, k, v = (in_heads(mixed(n, n[0]), self.heads, xp) for n in ("receptance", "key", "value"))
        return {"q": q, "k": k, "v": v, "bonus": params["time_faaaa"]}, mixed("gate", "g")

    def _constant_decay(self, params: Parameters, like: Array, xp: Namespace) -> Array:
        return -xp.exp(params["time_decay"])
