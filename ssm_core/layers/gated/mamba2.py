"""Mamba-2: a selective state space model with one gate a head."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from ..._arrays.errors import OptionError
from ..._arrays.idioms import clip
from ..._arrays.library import Array, Namespace, namespace
from ...functions.affine import affine, parted
from ...functions.norms import normed
from ...functions.short_convolution import short_convolution, short_stepper
from ...functions.special import activation
from ...gated.checks import check_limit
from ...gated.ssd import CHUNK, run_ssd
from ...gated.state_update import rank_one_update
from ...recurrences.segments import Segments
from .. import parametrizations as common
from ..options import settle
from ..parameters import Parameter, Parameters, Random, constant, uniform
from ..registry import registered
from .base import Advance, InputDependent, State, check_epsilon, per_step, projection, step_bias


@registered
@dataclass(frozen=True)
class Mamba2(InputDependent):
    """The block of Mamba-2: heads of features with one decay each, computed as products of matrices.

    z, v, r = W_in u;   x, B, C = silu(conv(v));   dt = softplus(r + dt_bias)
    S_k = exp(dt_k A) S_{k-1} + dt_k x_k B_k^T,   y = W_out n((S_k C_k + D x_k) silu(z_k)),   A = -exp(A_log)

    n is the root mean square norm over each group of features. u (B, L, H), y (B, L, H), with H = d_model. The state
    is the last inputs of the convolution (B, I + 2 G N, K - 1) and S (B, heads, P, N), with I = expand H inner
    channels in heads of P = head_dim features, G = n_groups groups of heads that share B and C, K = d_conv taps and
    N = d_state.

    d_model         H, the number of channels
    d_state         N, states of every feature
    d_conv          K, taps of the causal convolution
    expand          inner channels for each of the H
    head_dim        P, features of a head
    n_groups        G
    A_min, A_max    the first -A of every head is uniform between them
    dt_min, dt_max  the first steps are log-uniform between them, and at least dt_floor
    dt_limit        steps are clipped to lie between these two
    conv_bias       whether the convolution has a bias
    bias            whether the maps in and out have one
    epsilon         of the norm
    chunk           steps of a chunk; the result does not depend on it

    Parameters, all real float32: in_proj_weight (2 I + 2 G N + heads, H), conv_weight (I + 2 G N, K), conv_bias,
    dt_bias, A_log and D (heads,), norm_weight (I,), out_proj_weight (H, I), and in_proj_bias, out_proj_bias where
    there are any.

    Dao and Gu, Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State Space
    Duality, ICML 2024, https://arxiv.org/abs/2405.21060.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.Mamba2(d_model=4, d_state=8, head_dim=4)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    d_state: int = 128
    d_conv: int = 4
    expand: int = 2
    head_dim: int = 64
    n_groups: int = 1
    A_min: float = 1.0
    A_max: float = 16.0
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    dt_floor: float = 1e-4
    dt_limit: tuple[float, float] = (0.0, math.inf)
    conv_bias: bool = True
    bias: bool = False
    epsilon: float = 1e-5
    chunk: int = CHUNK

    modes: ClassVar[tuple[str, ...]] = ("auto", "chunk", "scan")

    def __post_init__(self) -> None:
        object.__setattr__(self, "dt_limit", check_heads("Mamba2", self))
        common.whole("Mamba2", d_conv=self.d_conv)
        real = all(isinstance(a, int | float) for a in (self.A_min, self.A_max))
        if not real or not 0 < self.A_min <= self.A_max < math.inf:
            raise OptionError(f"Mamba2: needs 0 < A_min <= A_max (A_min: {self.A_min}, A_max: {self.A_max}).")
        check_epsilon("Mamba2", epsilon=self.epsilon)

    @property
    def inner(self) -> int:
        """I, the inner channels."""
        return self.expand * self.d_model

    @property
    def heads(self) -> int:
        """How many heads there are."""
        return self.inner // self.head_dim

    @property
    def convolved(self) -> int:
        """I + 2 G N, the channels of the convolution: x, B and C."""
        return self.inner + 2 * self.n_groups * self.d_state

    def parameters(self) -> tuple[Parameter, ...]:
        H, inner, heads, K = self.d_model, self.inner, self.heads, self.d_conv
        taps = 1 / math.sqrt(K)

        def rates(random: Random) -> Array:
            drawn = random.uniform((heads,), self.A_min, self.A_max)
            return namespace("Mamba2", drawn=drawn).log(drawn)

        return (
            *projection("in_proj_", H, inner + self.convolved + heads, self.bias),
            uniform("conv_weight", (self.convolved, K), -taps, taps),
            *((uniform("conv_bias", (self.convolved,), -taps, taps),) if self.conv_bias else ()),
            step_bias("dt_bias", heads, self.dt_min, self.dt_max, self.dt_floor),
            Parameter("A_log", (heads,), rates, no_weight_decay=True),
            constant("D", (heads,), lambda: 1.0, no_weight_decay=True),
            constant("norm_weight", (inner,), lambda: 1.0),
            *projection("out_proj_", inner, H, self.bias),
        )

    def state_shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        return {
            "inputs": (batch, self.convolved, self.d_conv - 1),
            "S": (batch, self.heads, self.head_dim, self.d_state),
        }

    def _run(
        self, params: Parameters, u: Array, state: State, *, segments: Segments, scale: Any, mode: str
    ) -> tuple[Array, State]:
        xp = namespace(self.name, u=u)
        z, v, dt = self._split(params, u)
        v, inputs = short_convolution(v, params["conv_weight"], params.get("conv_bias"), state[0], segments, xp)
        x, B, C = self._parts(activation("silu")(v), xp)
        dt = dt * per_step(scale)
        options = {"segments": segments, "initial": state[1], "chunk": 1 if mode == "scan" else self.chunk}
        y, S = run_ssd(dt[..., None] * x, dt * -xp.exp(params["A_log"]), B, C, **options)
        return self._out(params, y, x, z, xp), (inputs, S)

    def _split(self, params: Parameters, u: Array) -> tuple[Array, Array, Array]:
        """The gate (..., I), what is convolved, and dt (..., heads)."""
        p = affine(u, params["in_proj_weight"], params.get("in_proj_bias"))
        z, v, dt = parted(p, self.inner, self.convolved, self.heads)
        dt = activation("softplus")(dt + params["dt_bias"])
        if self.dt_limit != (0.0, math.inf):
            dt = clip(dt, *self.dt_limit)
        return z, v, dt

    def _parts(self, v: Array, xp: Namespace) -> tuple[Array, Array, Array]:
        """x (..., heads, P), B and C (..., G, N)."""
        lead, size = tuple(v.shape[:-1]), self.n_groups * self.d_state
        x, *rows = parted(v, self.inner, size, size)
        B, C = (xp.reshape(row, (*lead, self.n_groups, self.d_state)) for row in rows)
        return xp.reshape(x, (*lead, self.heads, self.head_dim)), B, C

    def _out(self, params: Parameters, y: Array, x: Array, z: Array, xp: Namespace) -> Array:
        y = xp.reshape(y + params["D"][:, None] * x, z.shape)
        y = normed(y, params["norm_weight"], gate=z, groups=self.n_groups, epsilon=self.epsilon)
        return affine(y, params["out_proj_weight"], params.get("out_proj_bias"))

    def _advance(self, params: Parameters, rate: Any, xp: Namespace) -> Advance:
        silu, A = activation("silu"), -xp.exp(params["A_log"])
        convolve = short_stepper(params["conv_weight"], params.get("conv_bias"), xp)
        share = self.heads // self.n_groups

        def advance(u: Array, state: State) -> tuple[Array, State]:
            inputs, S = state
            z, v, dt = self._split(params, u)
            v, inputs = convolve(v, inputs)
            x, B, C = self._parts(silu(v), xp)
            dt = rate * dt
            if self.n_groups > 1:
                B, C = (xp.repeat(row, share, axis=-2) for row in (B, C))
            S, y = rank_one_update(S, (dt * A)[..., None, None], dt[..., None] * x, B, C)
            return self._out(params, y, x, z, xp), (inputs, S)

        return advance


def check_heads(name: str, layer: Any) -> tuple[float, float]:
    """Raise for sizes of Mamba-2 and Mamba-3 that do not fit; the limits of dt as a pair of numbers."""
    settle(layer)
    sizes = ("d_model", "d_state", "expand", "head_dim", "n_groups", "chunk")
    common.whole(name, **{size: getattr(layer, size) for size in sizes})
    inner = layer.expand * layer.d_model
    if inner % layer.head_dim:
        raise OptionError(
            f"{name}: head_dim = {layer.head_dim} must divide expand * d_model = {inner}, the inner channels."
        )
    if (inner // layer.head_dim) % layer.n_groups:
        raise OptionError(f"{name}: n_groups = {layer.n_groups} must divide the {inner // layer.head_dim} heads.")
    common.check_steps(name, layer.dt_min, layer.dt_max)
    check_epsilon(name, dt_floor=layer.dt_floor)
    return check_limit(name, getattr(layer, "dt_limit", (0.0, math.inf)))
