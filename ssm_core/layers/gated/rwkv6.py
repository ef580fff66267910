"""RWKV-6, Finch: the decays and the token shift of RWKV-5 depend on the input."""

from __future__ import annotations

from dataclasses import dataclass

from ..._arrays.idioms import plus_product
from ..._arrays.library import Array, Namespace
from ...functions.affine import affine
from ...gated.decay_run import CHUNK
from ..parameters import Parameter, Parameters, constant, uniform
from ..registry import registered
from .base import in_heads
from .rwkv_time_mix import TimeMix, depth_of, shares

MIXED = "wkvrg"  # what has a token shift of its own, in the order of time_maa_w2


@registered
@dataclass(frozen=True)
class RWKV6(TimeMix):
    """The time mix of RWKV-6: decays of every channel and step, and a token shift that depends on the input.

    d = u_{t-1} - u_t;   z = tanh((u_t + d maa_x) maa_w1) in five parts;   x_n = u_t + d (maa_n + z_n maa_w2_n)
    r, k, v, g = W_r x_r, W_k x_k, W_v x_v, W_g x_g by heads;   w = exp(-exp(time_decay + tanh(x_w W_1) W_2))
    o_t = (S_{t-1} + diag(a) k_t v_t^T)^T r_t,   S_t = diag(w_t) S_{t-1} + k_t v_t^T,   y = W_o (n(o) silu(g))

    n is the group norm of the heads, n = w, k, v, r, g. u (B, L, H), y (B, L, H), with H = d_model. The state is the
    last input (B, H) and S (B, heads, D, D), with heads = H / D and D = head_dim; a is time_faaaa.

    d_model     H, the number of channels
    head_dim    D, features of a head
    mix_rank    rank of each of the five maps of the token shift
    decay_rank  rank of the map to the decays
    layer_idx   the place among the layers, from 0: the first draws depend on it
    num_layers  of the whole model
    epsilon     of the norm
    chunk       steps of a chunk; the result does not depend on it

    Parameters, all real float32: time_maa_x, time_maa_w, time_maa_k, time_maa_v, time_maa_r, time_maa_g (H,),
    time_maa_w1 (H, 5 mix_rank), time_maa_w2 (5, mix_rank, H), time_decay (H,), time_decay_w1 (H, decay_rank),
    time_decay_w2 (decay_rank, H), time_faaaa (heads, D), receptance_weight, key_weight, value_weight, gate_weight,
    output_weight (H, H), ln_x_weight, ln_x_bias.

    Peng et al., Eagle and Finch: RWKV with matrix-valued states and dynamic recurrence, COLM 2024,
    https://arxiv.org/abs/2404.05892.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.RWKV6(d_model=4, head_dim=2)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    head_dim: int = 64
    mix_rank: int = 32
    decay_rank: int = 64
    layer_idx: int = 0
    num_layers: int = 1
    epsilon: float = 64e-5
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        self.check_time_mix("mix_rank", "decay_rank")

    def parameters(self) -> tuple[Parameter, ...]:
        H, sizes, rank, small, tiny = self.d_model, (self.heads, self.head_dim), self.mix_rank, 1e-2, 1e-4
        more = {"v": 0.3 * depth_of(self)}
        powers = {"r": 0.5, "g": 0.5}

        def maa(n: str) -> Parameter:
            return constant(f"time_maa_{n}", (H,), lambda: 1 - shares(self, powers.get(n, 1.0)) - more.get(n, 0.0))

        return (
            *(maa(n) for n in ("x", *MIXED)),
            uniform("time_maa_w1", (H, 5 * rank), -tiny, tiny),
            uniform("time_maa_w2", (5, rank, H), -small, small),
            constant("time_decay", (H,), self.first_decays, no_weight_decay=True),
            uniform("time_decay_w1", (H, self.decay_rank), -tiny, tiny),
            uniform("time_decay_w2", (self.decay_rank, H), -small, small),
            constant("time_faaaa", sizes, lambda: self.first_bonus().reshape(sizes), no_weight_decay=True),
            *self.outer_parameters(),
        )

    def _signals(self, params: Parameters, u: Array, beside: Array, xp: Namespace) -> tuple[dict[str, Array], Array]:
        d, rank = beside - u, self.mix_rank
        z = xp.tanh(xp.matmul(plus_product(u, d, params["time_maa_x"]), params["time_maa_w1"]))
        shifts = [xp.matmul(z[..., i * rank : (i + 1) * rank], params["time_maa_w2"][i, ...]) for i in range(5)]
        mixed = {n: plus_product(u, d, params[f"time_maa_{n}"] + shift) for n, shift in zip(MIXED, shifts, strict=True)}
        low = xp.tanh(xp.matmul(mixed["w"], params["time_decay_w1"]))
        w = params["time_decay"] + xp.matmul(low, params["time_decay_w2"])
        rows = (affine(mixed[n[0]], params[f"{n}_weight"], None) for n in ("receptance", "key", "value"))
        q, k, v = (in_heads(x, self.heads, xp) for x in rows)
        signals = {"q": q, "k": k, "v": v, "log_decay": in_heads(-xp.exp(w), self.heads, xp)}
        return signals | {"bonus": params["time_faaaa"]}, affine(mixed["g"], params["gate_weight"], None)
