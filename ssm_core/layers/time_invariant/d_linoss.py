"""D-LinOSS: a layer of forced harmonic oscillators with learned damping."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ..._arrays.errors import OptionError
from ..._arrays.idioms import clip
from ..._arrays.library import Array, Namespace
from ..._arrays.numbers import is_number, number
from ...functions.special import relu, sigmoid
from .. import parametrizations as common
from ..parameters import Parameter, Parameters, constant
from ..registry import registered
from .linoss import Oscillators

SMALLEST = 1e-6  # dt^2 in the upper bound of A, as in the original code


@registered
@dataclass(frozen=True)
class DLinOSS(Oscillators):
    """A layer of P damped harmonic oscillators between two matrices, in discrete time.

    x''(t) = -A x(t) - G x'(t) + B u(t),   v = Re(C x) + D u,   y = glu(W gelu(v) + b)

    z_k = z_{k-1} + dt (-A x_{k-1} - G z_k + B u_k),   x_k = x_{k-1} + dt z_k   with z = x'

    G = relu(G_diag), dt = sigmoid(steps), and A is A_diag within the bounds (2 + dt G -+ 2 sqrt(1 + dt G)) / dt^2,
    between which the poles are a conjugate pair of radius 1 / sqrt(1 + dt G): never unstable. u (B, L, H),
    y (B, L, H), with H = d_model. States (B, 2P, 2) as those of `LinOSS`; there is no rate and no step_scale either.

    d_model       H, the number of channels
    d_state       P, the number of oscillators
    r_min, r_max  radii of the first poles, evenly in the square
    theta_max     their angles lie between 0 and it, evenly
    dt_std        standard deviation of the first `steps`, which are quantiles of a normal distribution
    bidirectional, activation, output, skip  as in `LinOSS`

    Parameters, all real float32: A_diag, G_diag and steps (P,), the others as in `LinOSS`.

    Boyer, Rusch and Rus, Learning to Dissipate Energy in Oscillatory State-Space Models, 2025,
    https://arxiv.org/abs/2505.12171.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.DLinOSS(d_model=4, d_state=8)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    d_state: int = 64
    r_min: float = 0.9
    r_max: float = 1.0
    theta_max: float = math.pi
    dt_std: float = 0.5
    bidirectional: bool = False
    activation: str | None = "gelu"
    output: str | None = "glu"
    skip: bool = True

    def __post_init__(self) -> None:
        self.check_options()
        common.whole("DLinOSS", d_state=self.d_state)
        if not (is_number(self.r_min) and is_number(self.r_max) and 0 < self.r_min <= self.r_max <= 1):
            raise OptionError(f"DLinOSS: needs 0 < r_min <= r_max <= 1 (r_min: {self.r_min}, r_max: {self.r_max}).")
        number("DLinOSS", "must lie in [0, pi]", 0, math.pi, open=False, theta_max=self.theta_max)
        number("DLinOSS", "must lie in [0, 4]", 0, 4, open=False, dt_std=self.dt_std)

    def moving(self) -> tuple[Parameter, ...]:
        names = ("A_diag", "G_diag", "steps")
        return tuple(
            constant(name, (self.d_state,), lambda i=i: self._first()[i], no_weight_decay=True)  # type: ignore[misc]
            for i, name in enumerate(names)
        )

    def _first(self) -> tuple[np.ndarray, ...]:
        """A, G and steps whose poles are spread over the ring: radius^2 = 1 / (1 + dt G), trace 2 radius cos(angle)."""
        k = np.arange(self.d_state)
        radius, angle, place = ((k + 0.5) * g % 1 for g in (1 / self.d_state, 0.7548776662, 0.5698402910))
        square = self.r_min**2 + radius * (self.r_max**2 - self.r_min**2)
        steps = np.asarray([self.dt_std * NormalDist().inv_cdf(p) for p in place])
        dt = 1 / (1 + np.exp(-steps))
        cosine = np.sqrt(square) * np.cos(self.theta_max * angle)
        return (square - 2 * cosine + 1) / (dt**2 * square), (1 / square - 1) / dt, steps

    def motion(self, params: Parameters, xp: Namespace) -> tuple[Array, ...]:
        dt, G = sigmoid(params["steps"]), relu(params["G_diag"])
        S = 1 + dt * G
        root = 1 + xp.sqrt(S)
        low, high = (G / root) ** 2, root**2 / clip(dt * dt, SMALLEST)  # ((sqrt(S) -+ 1) / dt)^2
        A = low + relu(params["A_diag"] - low) - relu(params["A_diag"] - high)
        return 1 / S, -dt * A / S, dt / S, 1 - dt * dt * A / S, dt / S, dt * dt / S
