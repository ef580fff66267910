"""Mamba-3: heads with trapezoidal steps, states that rotate, and several inputs and outputs a step if wanted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from ..._arrays.errors import OptionError
from ..._arrays.idioms import clip
from ..._arrays.library import Array, Namespace, namespace
from ...functions.affine import affine, parted
from ...functions.norms import normed
from ...functions.special import activation
from ...gated.trapezoid import CHUNK, run_trapezoid
from ...recurrences.segments import Segments
from .. import parametrizations as common
from ..parameters import Parameter, Parameters, constant
from ..registry import registered
from .base import Advance, InputDependent, State, check_epsilon, per_step, projection, step_bias
from .mamba2 import check_heads


@registered
@dataclass(frozen=True)
class Mamba3(InputDependent):
    """The block of Mamba-3: no convolution, but steps that mix the input with the one before, and rotating states.

    z, x, B, C, r, a, l, angles = W_in u;   B, C = n(B), n(C);   dt = softplus(r + dt_bias)
    A = -(1 + a) for a >= 0, else -1 / (1 - a), and at most -A_floor;   y = W_out (mamba3_scan(...) silu(z))

    with the recurrence of `mamba3_scan`. u (B, L, H), y (B, L, H), with H = d_model. The state is the angles
    (B, heads, M), S (B, heads, P, N), the last B as it was turned (B, R, heads, N) and the last inputs
    (B, R, heads, P).

    d_model         H, the number of channels
    d_state         N, states of every feature
    expand          inner channels I for each of the H
    head_dim        P, features of a head
    n_groups        G, groups of heads that share B and C
    rank            R, inputs and outputs of a head in every step: 1, or several ("MIMO")
    rope_fraction   the share of the N states that turn, in pairs: M = floor(rope_fraction N / 2)
    A_floor         the least decay
    dt_min, dt_max  the first steps are log-uniform between them, and at least dt_floor
    out_norm        whether outputs are normalized head by head before their gate
    epsilon         of the norms
    chunk           steps of a chunk; the result does not depend on it

    Parameters, all real float32: in_proj_weight (2 I + 2 R G N + 3 heads + M, H), B_norm_weight and C_norm_weight
    (N,), B_bias and C_bias (heads, R, N), dt_bias and D (heads,), norm_weight (I,) with out_norm, x_map, z_map and
    out_map (heads, R, P) with a rank above 1, out_proj_weight (H, I).

    Lahoti et al., Mamba-3: Improved Sequence Modeling Using State Space Principles, ICLR 2026.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.Mamba3(d_model=4, d_state=8, head_dim=4)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    d_state: int = 128
    expand: int = 2
    head_dim: int = 64
    n_groups: int = 1
    rank: int = 1
    rope_fraction: float = 0.5
    A_floor: float = 1e-4
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    dt_floor: float = 1e-4
    out_norm: bool = False
    epsilon: float = 1e-5
    chunk: int = CHUNK

    modes: ClassVar[tuple[str, ...]] = ("auto", "chunk", "scan")

    def __post_init__(self) -> None:
        check_heads("Mamba3", self)
        common.whole("Mamba3", rank=self.rank)
        share = self.rope_fraction
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise OptionError(f"Mamba3: rope_fraction = {share!r} must lie in [0, 1].")
        check_epsilon("Mamba3", epsilon=self.epsilon, A_floor=self.A_floor)
        object.__setattr__(self, "turning", int(self.d_state * share) // 2)  # before any trace

    turning: ClassVar[int]  # M, the pairs of states that turn, of an instance

    @property
    def inner(self) -> int:
        """I, the inner channels."""
        return self.expand * self.d_model

    @property
    def heads(self) -> int:
        """How many heads there are."""
        return self.inner // self.head_dim

    def parameters(self) -> tuple[Parameter, ...]:
        H, inner, heads, N, R = self.d_model, self.inner, self.heads, self.d_state, self.rank
        n_out = 2 * inner + 2 * R * self.n_groups * N + 3 * heads + self.turning
        maps = {"x_map": 1 / R, "z_map": 1.0, "out_map": 1 / R} if R > 1 else {}
        return (
            *projection("in_proj_", H, n_out, False),
            *(constant(f"{name}_norm_weight", (N,), lambda: 1.0) for name in "BC"),
            *(constant(f"{name}_bias", (heads, R, N), lambda: 1.0, no_weight_decay=True) for name in "BC"),
            step_bias("dt_bias", heads, self.dt_min, self.dt_max, self.dt_floor),
            constant("D", (heads,), lambda: 1.0, no_weight_decay=True),
            *((constant("norm_weight", (inner,), lambda: 1.0),) if self.out_norm else ()),
            *(constant(name, (heads, R, self.head_dim), partial(float, value)) for name, value in maps.items()),
            *projection("out_proj_", inner, H, False),
        )

    def state_shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        heads, R, P, N = self.heads, self.rank, self.head_dim, self.d_state
        return {
            "angles": (batch, heads, self.turning),
            "S": (batch, heads, P, N),
            "B": (batch, R, heads, N),
            "inputs": (batch, R, heads, P),
        }

    def _run(
        self, params: Parameters, u: Array, state: State, *, segments: Segments, scale: Any, mode: str
    ) -> tuple[Array, State]:
        xp = namespace(self.name, u=u)
        batch, L = u.shape[:2]
        heads, R, G, N = self.heads, self.rank, self.n_groups, self.d_state
        sizes = (self.inner, self.inner, R * G * N, R * G * N, heads, heads, heads, self.turning)
        z, x, B, C, r, a, trap, angles = parted(affine(u, params["in_proj_weight"], None), *sizes)
        dt = activation("softplus")(r + params["dt_bias"]) * per_step(scale)
        v = {"dt": dt, "log_gates": dt * self._rates(a, xp), "trap": trap, "angles": angles[:, :, None, :]}
        for name, features in (("x", x), ("z", z)):
            v[name] = xp.reshape(features, (batch, L, heads, self.head_dim))
        for name, rows in (("B", B), ("C", C)):
            rows = xp.reshape(rows, (batch, L, R, G, N))
            v[name] = normed(rows, params[f"{name}_norm_weight"], epsilon=self.epsilon)
        v |= {name: params[name] for name in ("B_bias", "C_bias", "D", "x_map", "z_map", "out_map") if name in params}

        def normalize(y: Array) -> Array:
            weight = xp.reshape(params["norm_weight"], (heads, self.head_dim))
            return normed(y, epsilon=self.epsilon) * weight

        y, after = run_trapezoid(
            v,
            segments=segments,
            initial=state,
            chunk=1 if mode == "scan" else self.chunk,
            normalize=normalize if self.out_norm else None,
        )
        return affine(xp.reshape(y, (batch, L, self.inner)), params["out_proj_weight"], None), after

    def _rates(self, a: Array, xp: Namespace) -> Array:
        """-(1 + a) for a >= 0, else -1 / (1 - a): smooth to the first derivative, and at most -A_floor."""
        right = a >= 0
        zero = xp.zeros_like(a)
        rate = xp.where(right, 1 + xp.where(right, a, zero), 1 / (1 - xp.where(right, zero, a)))
        return -clip(rate, self.A_floor)

    def _advance(self, params: Parameters, rate: Any, xp: Namespace) -> Advance:
        """A run of one step: its products of matrices have one row."""

        def advance(u: Array, state: State) -> tuple[Array, State]:
            y, state = self._run(params, u[:, None, :], state, segments=Segments(1), scale=rate, mode="scan")
            return y[:, 0, :], state

        return advance
