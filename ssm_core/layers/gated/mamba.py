"""Mamba: a selective state space model between two gates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..._arrays.errors import OptionError, unknown
from ..._arrays.library import Array, Namespace, namespace
from ...functions.affine import affine, parted
from ...functions.norms import normed
from ...functions.short_convolution import short_convolution, short_stepper
from ...functions.special import activation, phi1
from ...gated.selective import run_selective
from ...gated.state_update import rank_one_update
from ...recurrences.segments import Segments
from .. import parametrizations as common
from ..options import settle
from ..parameters import Parameter, Parameters, as_map, constant, uniform
from ..registry import registered
from .base import Advance, InputDependent, State, check_epsilon, per_step, projection, step_bias


@registered
@dataclass(frozen=True)
class Mamba(InputDependent):
    """The block of Mamba: a gated selective state space model whose steps, B and C are functions of the input.

    h, g = W_in u;   h = silu(conv(h));   (r, B, C) = W_x h;   dt = softplus(W_dt r + b_dt)
    x_k = exp(dt_k A) x_{k-1} + dt_k B_k h_k,   y = W_out ((C_k x_k + D h_k) silu(g_k)),   A = -exp(A_log)

    u (B, L, H), y (B, L, H). The state is the last inputs of the convolution (B, I, K - 1) and x (B, I, N), with
    H = d_model, I = expand H inner channels, K = d_conv taps and N = d_state.

    d_model         H, the number of channels
    d_state         N, states of every inner channel
    d_conv          K, taps of the causal convolution
    expand          inner channels for each of the H
    dt_rank         rank of the map to the steps; H / 16, rounded up, if None
    dt_min, dt_max  the first steps are log-uniform between them, and at least dt_floor
    conv_bias       whether the convolution has a bias
    bias            whether the maps in and out have one
    norm_epsilon    if given, r, B and C are divided by their root mean squares with this epsilon: Falcon-Mamba
    discretization  "mamba" as above, or "zoh", exact for an input that is held
    norm_weights    whether the norms of norm_epsilon have weights: Jamba, and mamba.py with inner_layernorms

    Parameters, all real float32: in_proj_weight (2 I, H), conv_weight (I, K), conv_bias (I,), x_proj_weight
    (R + 2 N, I), dt_proj_weight (I, R), dt_proj_bias (I,), A_log (I, N), D (I,), out_proj_weight (H, I), and
    in_proj_bias, out_proj_bias, dt_norm_weight (R,), B_norm_weight and C_norm_weight (N,) where there are any.

    Gu and Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, 2023,
    https://arxiv.org/abs/2312.00752.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.Mamba(d_model=4, d_state=8)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    dt_rank: int | None = None
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    dt_floor: float = 1e-4
    conv_bias: bool = True
    bias: bool = False
    norm_epsilon: float | None = None
    discretization: str = "mamba"
    norm_weights: bool = False

    def __post_init__(self) -> None:
        settle(self)
        common.whole("Mamba", d_model=self.d_model, d_state=self.d_state, d_conv=self.d_conv, expand=self.expand)
        if self.dt_rank is not None:
            common.whole("Mamba", dt_rank=self.dt_rank)
        common.check_steps("Mamba", self.dt_min, self.dt_max)
        check_epsilon("Mamba", dt_floor=self.dt_floor)
        if self.norm_epsilon is not None:
            check_epsilon("Mamba", norm_epsilon=self.norm_epsilon)
        elif self.norm_weights:
            raise OptionError("Mamba: norm_weights=True needs norms. Give their norm_epsilon, such as 1e-5.")
        if self.discretization not in ("mamba", "zoh"):
            raise unknown("Mamba", "discretization", self.discretization, ("mamba", "zoh"))

    @property
    def inner(self) -> int:
        """I, the inner channels."""
        return self.expand * self.d_model

    @property
    def rank(self) -> int:
        """R, the rank of the map to the steps."""
        return math.ceil(self.d_model / 16) if self.dt_rank is None else self.dt_rank

    def parameters(self) -> tuple[Parameter, ...]:
        H, inner, N, R, K = self.d_model, self.inner, self.d_state, self.rank, self.d_conv
        taps, steps = 1 / math.sqrt(K), R**-0.5
        return (
            *projection("in_proj_", H, 2 * inner, self.bias),
            uniform("conv_weight", (inner, K), -taps, taps),
            *((uniform("conv_bias", (inner,), -taps, taps),) if self.conv_bias else ()),
            *projection("x_proj_", inner, R + 2 * N, False),
            as_map(uniform("dt_proj_weight", (inner, R), -steps, steps)),
            step_bias("dt_proj_bias", inner, self.dt_min, self.dt_max, self.dt_floor),
            constant("A_log", (inner, N), lambda: np.log(np.arange(1, N + 1)), no_weight_decay=True),
            constant("D", (inner,), lambda: 1.0, no_weight_decay=True),
            *projection("out_proj_", inner, H, self.bias),
            *(constant(name, (n,), lambda: 1.0) for name, n in self._norm_sizes().items() if self.norm_weights),
        )

    def _norm_sizes(self) -> dict[str, int]:
        """The weights that the norms of r, B and C may have."""
        return {"dt_norm_weight": self.rank, "B_norm_weight": self.d_state, "C_norm_weight": self.d_state}

    def state_shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        return {"inputs": (batch, self.inner, self.d_conv - 1), "x": (batch, self.inner, self.d_state)}

    def _run(
        self, params: Parameters, u: Array, state: State, *, segments: Segments, scale: Any, mode: str
    ) -> tuple[Array, State]:
        xp = namespace(self.name, u=u)
        silu = activation("silu")
        h, gate = self._halves(params, u)
        h, inputs = short_convolution(h, params["conv_weight"], params.get("conv_bias"), state[0], segments, xp)
        h = silu(h)
        dt, B, C = self._selected(params, h)
        dt, A = dt * per_step(scale), -xp.exp(params["A_log"])
        h_t, dt_t, B_t, C_t = (xp.matrix_transpose(v) for v in (h, dt, B, C))  # time last
        options = {"segments": segments, "initial": state[1], "discretization": self.discretization}
        y, x = run_selective(h_t, dt_t, A, B_t, C_t, **options)
        y = (xp.matrix_transpose(y) + params["D"] * h) * silu(gate)
        return affine(y, params["out_proj_weight"], params.get("out_proj_bias")), (inputs, x)

    def _halves(self, params: Parameters, u: Array) -> tuple[Array, ...]:
        """What goes through the state space model, and its gate."""
        p = affine(u, params["in_proj_weight"], params.get("in_proj_bias"))
        return parted(p, self.inner, self.inner)

    def _selected(self, params: Parameters, h: Array) -> tuple[Array, Array, Array]:
        """dt (..., I), B and C (..., N)."""
        R, N = self.rank, self.d_state
        p = affine(h, params["x_proj_weight"], None)
        parts = parted(p, R, N, N)
        if self.norm_epsilon is not None:
            weights = map(params.get, self._norm_sizes())
            parts = tuple(normed(v, w, epsilon=self.norm_epsilon) for v, w in zip(parts, weights, strict=True))
        r, B, C = parts
        return activation("softplus")(affine(r, params["dt_proj_weight"], params["dt_proj_bias"])), B, C

    def _advance(self, params: Parameters, rate: Any, xp: Namespace) -> Advance:
        silu, A = activation("silu"), -xp.exp(params["A_log"])
        convolve = short_stepper(params["conv_weight"], params.get("conv_bias"), xp)
        D, out, out_bias = params["D"], params["out_proj_weight"], params.get("out_proj_bias")

        def advance(u: Array, state: State) -> tuple[Array, State]:
            inputs, x = state
            h, gate = self._halves(params, u)
            h, inputs = convolve(h, inputs)
            h = silu(h)
            dt, B, C = self._selected(params, h)
            dt = rate * dt
            w = dt[..., None] * A
            x, y = rank_one_update(x, w, dt * h, B, C, weight=phi1(w) if self.discretization == "zoh" else None)
            y = (y + D * h) * silu(gate)
            return affine(y, out, out_bias), (inputs, x)

        return advance
