"""H3: a shift and a diagonal state space model with two products between them, in place of attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..._arrays.errors import unknown
from ..._arrays.library import Array, Namespace, namespace
from ...functions.affine import affine
from ...functions.convolution import convolved
from ...functions.short_convolution import short_convolution, short_stepper
from ...measures.initializers import NAMES, diagonal_init
from ...recurrences.pairs import halved, joined
from ...recurrences.segments import Segments
from ...systems.discretization import discretized
from ...systems.records import Diagonal
from ...time_invariant.modes.choice import MODES
from ...time_invariant.simulation import simulated
from ...time_invariant.steps import real_system_stepper
from .. import parametrizations as common
from ..options import settle
from ..parameters import Parameter, Parameters, constant, linear, normal, uniform
from ..registry import registered
from .base import Advance, InputDependent, State, check_divides, in_heads


@registered
@dataclass(frozen=True)
class H3(InputDependent):
    """Hungry hungry hippos: a shift of the keys, their product with the values, and a diagonal system of it.

    q, k, v = W_q u + b_q, W_k u + b_k, W_v u + b_v
    k'_t = sum_j K_j k_{t-j} + D_k k_t,   K_j = sum_n B_n C_{n+j},   j = 0 .. N-1: the shift, u -> (u_t, u_{t-1}, ...)
    z = k' v^T of every head,   x' = diag(poles) x + B z,   s = 2 Re(C x) + D z
    y = W_o (s^T q) + b_o

    poles = -exp(log_A_re) + i A_im, discretized with dt = exp(log_dt). The shift counts samples, so there is no rate
    and no step_scale. u (B, L, H), y (B, L, H). The state is the last N - 1 keys (B, H, N - 1), and (Re x, Im x) of
    every entry of z (B, D, D, H / D, N), keys first, with H = d_model, N = d_state and D = head_dim.

    d_model         H, the number of channels
    d_state         N, taps of the shift, and real states of the diagonal system; two to a complex pole
    head_dim        D, channels of a head, whose keys and values make an outer product
    init            of the poles, as in `S4D`
    dt_min, dt_max  the first steps are log-uniform between them
    discretization  as in `S4D`

    Feature D h + d of q, k and v is the d-th of head h, and so is feature d H / D + h of what W_o maps, as in the
    original code. Parameters, all real float32: q_proj_weight, k_proj_weight, v_proj_weight, output_weight (H, H) and
    their biases, ssm_k_B, ssm_k_C (H, N) and ssm_k_D (H,) of the shift, log_dt (H / D,), log_A_re, A_im, B_re, B_im,
    C_re, C_im (H / D, N / 2) and D (H / D,).

    Fu, Dao et al., Hungry Hungry Hippos: Towards Language Modeling with State Space Models, ICLR 2023,
    https://arxiv.org/abs/2212.14052.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.H3(d_model=4, d_state=8, head_dim=2)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    d_state: int = 64
    head_dim: int = 1
    init: str = "lin"
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    discretization: str = "bilinear"

    timed: ClassVar[bool] = False
    modes: ClassVar[tuple[str, ...]] = MODES
    lean: ClassVar[bool] = True

    def __post_init__(self) -> None:
        settle(self)
        common.whole("H3", d_model=self.d_model, d_state=self.d_state, head_dim=self.head_dim)
        common.pairs("H3", self.d_state)
        check_divides("H3", "head_dim", self.head_dim, "d_model", self.d_model)
        if self.init not in NAMES:
            raise unknown("H3", "init", self.init, NAMES)
        common.check_discretization("H3", self.discretization)
        common.check_steps("H3", self.dt_min, self.dt_max)

    @property
    def heads(self) -> int:
        """H / D."""
        return self.d_model // self.head_dim

    def parameters(self) -> tuple[Parameter, ...]:
        H, N, heads = self.d_model, self.d_state, self.heads
        poles = (heads, N // 2)

        def start() -> Diagonal:
            return diagonal_init(self.init, N, conj_pairs=True)

        return (
            *(p for name in ("q_proj_", "k_proj_", "v_proj_") for p in linear(name, H, H)),
            constant("ssm_k_B", (H, N), lambda: np.arange(N) == 0, no_weight_decay=True),
            uniform("ssm_k_C", (H, N), -(N**-0.5), N**-0.5),
            normal("ssm_k_D", (H,)),
            common.log_steps(heads, self.dt_min, self.dt_max),
            constant("log_A_re", poles, lambda: np.log(-start().poles.real), no_weight_decay=True),
            constant("A_im", poles, lambda: start().poles.imag, no_weight_decay=True),
            constant("B_re", poles, lambda: start().B.real, no_weight_decay=True),
            constant("B_im", poles, lambda: start().B.imag, no_weight_decay=True),
            *common.complex_normal("C", poles),
            normal("D", (heads,)),
            *linear("output_", H, H),
        )

    def state_shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        D, N = self.head_dim, self.d_state
        return {"keys": (batch, self.d_model, N - 1), "x": (batch, D, D, self.heads, N)}

    def _run(
        self,
        params: Parameters,
        u: Array,
        state: State | None,
        *,
        segments: Segments,
        scale: Any,
        mode: str,
        want_state: bool = True,
    ) -> tuple[Array, Any]:
        xp = namespace(self.name, u=u)
        before, x = (None, None) if state is None else (state[0], halved(state[1], xp))
        q, k, v = _projected(params, u)
        k, keys = short_convolution(k, self._taps(params, xp), None, before, segments, xp)
        z = xp.permute_dims(self._products(k, v), (0, 2, 3, 4, 1))  # (B, D, D, H / D, L)
        system, dt = self._system(params, xp)
        s, x = simulated(
            self.name, system, z, xp, dt=dt, method=self.discretization, initial=x, segments=segments.for_rows(3),
            mode=mode, want_state=want_state,
        )  # fmt: skip
        y = self._output(params, xp.permute_dims(s, (0, 4, 1, 2, 3)), q, xp)
        return y, (keys, joined(x, xp)) if want_state else None

    def _taps(self, params: Parameters, xp: Namespace) -> Array:
        """K (H, N) of the shift with its direct term, the tap of the current sample last: C in reverse, over B."""
        B, C, D = (params[f"ssm_k_{name}"] for name in "BCD")
        K = convolved(xp.flip(C, axis=-1), B)
        return xp.concat([K[:, :-1], K[:, -1:] + D[:, None]], axis=-1)

    def _products(self, k: Array, v: Array) -> Array:
        """k v^T of every head: (..., D, D, H / D) of (..., H), keys first."""
        xp = namespace(self.name, k=k)
        k, v = (xp.matrix_transpose(in_heads(x, self.heads, xp)) for x in (k, v))
        return k[..., :, None, :] * v[..., None, :, :]

    def _system(self, params: Parameters, xp: Namespace) -> tuple[Diagonal, Array]:
        """The continuous system of every head with its direct term, and dt (H / D, 1)."""
        poles = -xp.exp(params["log_A_re"]) + 1j * params["A_im"]
        B, C = (common.complex_of(params, name) for name in "BC")
        return Diagonal(poles, B, C, params["D"], conj_pairs=True), common.steps(params, xp)[:, None]

    def _output(self, params: Parameters, s: Array, q: Array, xp: Namespace) -> Array:
        """W_o (s^T q) + b_o of s (..., D, D, H / D) and q (..., H)."""
        q = xp.matrix_transpose(in_heads(q, self.heads, xp))
        y = xp.sum(s * q[..., :, None, :], axis=-3)
        return affine(xp.reshape(y, (*y.shape[:-2], self.d_model)), params["output_weight"], params["output_bias"])

    def _advance(self, params: Parameters, rate: Any, xp: Namespace) -> Advance:
        shift = short_stepper(self._taps(params, xp), None, xp)
        system = discretized(*self._system(params, xp), self.discretization, None, xp)
        move, D = real_system_stepper(system, xp), params["D"]

        def advance(u: Array, state: State) -> tuple[Array, State]:
            q, k, v = _projected(params, u)
            k, keys = shift(k, state[0])
            z = self._products(k, v)
            x, s = move(state[1], z)
            return self._output(params, s + D * z, q, xp), (keys, x)

        return advance


def _projected(params: Parameters, u: Array) -> tuple[Array, ...]:
    """q, k and v."""
    return tuple(affine(u, params[f"{name}_proj_weight"], params[f"{name}_proj_bias"]) for name in "qkv")
