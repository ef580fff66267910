"""HGRN2: gated linear attention whose keys are what the gates leave room for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..._arrays.errors import OptionError
from ..._arrays.library import Array, Namespace
from ...functions.affine import affine
from ...functions.norms import normed
from ...functions.special import activation
from ...gated.decay_run import CHUNK
from ..parameters import Parameter, Parameters, constant
from ..registry import registered
from .base import check_epsilon, in_heads, joined_heads, projection
from .matrix_memory import MatrixMemory, affine_map, check_sizes, head_width


@registered
@dataclass(frozen=True)
class HGRN2(MatrixMemory):
    """The hierarchically gated RNN with states expanded to matrices: what is not forgotten is not written.

    q = silu(W_q u),   a = lower_bound + (1 - lower_bound) sigmoid(W_f u),   v = W_i u by heads
    S_t = diag(a_t) S_{t-1} + (1 - a_t) v_t^T,   y = W_o n(K^{-1/2} S_t^T q_t)

    n is the root mean square norm over all heads together. u (B, L, H), y (B, L, H), with H = d_model. The state is
    S (B, heads, K, V), with K features of a head's gates and V = H / heads.

    d_model      H, the number of channels
    heads        heads with a memory each
    expand_k     gates for each of the H: K = expand_k H / heads
    lower_bound  of the gates, in [0, 1): in the paper it grows with the depth; None: one a gate, a parameter; or
                 "given": u (B, L, H + expand_k H) has those of the gates behind it
    epsilon      of the norm
    chunk        steps of a chunk; the result does not depend on it

    Parameters, all real float32: q_proj_weight, f_proj_weight (expand_k H, H), i_proj_weight, o_proj_weight (H, H),
    g_norm_weight (H,), and lower_bound (expand_k H,) where it is a parameter. In flash-linear-attention that is
    cumsum(s) - s_0 over the layers, with s the softmax over the layers of its lower_bounds, as in HGRN2LM.

    Qin et al., HGRN2: Gated linear RNNs with state expansion, COLM 2024, https://arxiv.org/abs/2404.07904.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.HGRN2(d_model=4, heads=2)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    heads: int = 8
    expand_k: float = 1.0
    lower_bound: float | str | None = 0.0
    epsilon: float = 1e-5
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        check_sizes(self)
        bound = self.lower_bound
        given = isinstance(bound, int | float) and not isinstance(bound, bool) and 0 <= bound < 1
        if bound not in (None, "given") and not given:
            raise OptionError(f"HGRN2: lower_bound = {bound!r} must lie in [0, 1), or be None or 'given'.")
        check_epsilon("HGRN2", epsilon=self.epsilon)
        _ = self.key_dim, self.value_dim

    @cached_property
    def key_dim(self) -> int:
        return head_width("HGRN2", "expand_k", self.expand_k, self.d_model, self.heads)

    @cached_property
    def value_dim(self) -> int:
        return head_width("HGRN2", "1", 1, self.d_model, self.heads)

    @property
    def input_width(self) -> int:
        """H, and the gates' bounds where they are behind the input."""
        return self.d_model + (self.heads * self.key_dim if self.lower_bound == "given" else 0)

    def parameters(self) -> tuple[Parameter, ...]:
        H, keys = self.d_model, self.heads * self.key_dim
        return (
            *projection("q_proj_", H, keys, False),
            *projection("f_proj_", H, keys, False),
            *projection("i_proj_", H, H, False),
            *((constant("lower_bound", (keys,), lambda: 0.0),) if self.lower_bound is None else ()),
            constant("g_norm_weight", (H,), lambda: 1.0),
            *projection("o_proj_", H, H, False),
        )

    def _signals(self, params: Parameters, u: Array, beside: None, xp: Namespace) -> tuple[dict[str, Array], None]:
        low: Any = params["lower_bound"] if self.lower_bound is None else self.lower_bound
        if self.lower_bound == "given":
            u, low = u[..., : self.d_model], u[..., self.d_model :]
        q, f, v = (affine_map(params, f"{name}_proj", u) for name in "qfi")
        kept = (1 - low) * activation("sigmoid")(-f)  # 1 - a, without the cancellation
        g = -activation("softplus")(-f) if self.lower_bound == 0 else xp.log1p(-kept)
        signals = {"q": activation("silu")(q), "k": kept, "v": v, "log_decay": g}
        return {name: in_heads(x, self.heads, xp) for name, x in signals.items()}, None

    def _output(self, params: Parameters, y: Array, waiting: None, xp: Namespace) -> Array:
        y = normed(joined_heads(y, xp), params["g_norm_weight"], epsilon=self.epsilon)
        return affine(y, params["o_proj_weight"], None)
