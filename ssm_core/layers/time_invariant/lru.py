"""LRU: the linear recurrent unit, a diagonal recurrence that is discrete from the start."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..._arrays.errors import OptionError
from ..._arrays.library import Array, Namespace, namespace
from ...systems.records import Diagonal
from .. import parametrizations as common
from ..parameters import Parameter, Parameters, Random, constant, normal
from ..registry import registered
from .base import TimeInvariant


@registered
@dataclass(frozen=True)
class LRU(TimeInvariant):
    """A layer of one diagonal recurrence with as many inputs and outputs as there are channels, in discrete time.

    x_k = poles x_{k-1} + gamma B u_k,   v = Re(C x) + D u,   y = glu(W gelu(v) + b)

    poles = exp(-exp(nu_log) + i exp(theta_log)) lie within the unit circle whatever the parameters are, and gamma =
    exp(gamma_log) keeps the states of size one. u (B, L, H), y (B, L, H), states (B, N) complex, with H = d_model and
    N = d_state / 2. There is no step in time, hence no rate and no step_scale.
    `kernel` is (H, H, L) from all channels to all; bidirectional (2 H, H, L), where the rows of the future follow and
    begin with the current sample.

    d_model       H, the number of channels
    d_state       real states; two to a complex pole
    r_min, r_max  the poles start uniform on the ring between these radii
    max_phase     and with phases uniform in [0, max_phase], in radians
    bidirectional, activation, output, skip  as in `S5`

    Parameters, all real float32: nu_log, theta_log and gamma_log (N,), B_re and B_im (N, H), C_re and C_im (1, H, N),
    and D, output_weight, output_bias as in `S4D`. gamma starts at sqrt(1 - |poles|^2).

    Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu and De, Resurrecting Recurrent Neural Networks for Long Sequences,
    ICML 2023, https://arxiv.org/abs/2303.06349.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.LRU(d_model=4, d_state=8)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    d_state: int = 128
    r_min: float = 0.0
    r_max: float = 1.0
    max_phase: float = 2 * math.pi
    bidirectional: bool = False
    activation: str | None = "gelu"
    output: str | None = "glu"
    skip: bool = True

    per_channel: ClassVar[bool] = False
    timed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.check_options()
        common.pairs("LRU", self.d_state)
        if (
            not all(isinstance(x, int | float) for x in (self.r_min, self.r_max))
            or not 0 <= self.r_min < self.r_max <= 1
        ):
            raise OptionError(f"LRU: needs 0 <= r_min < r_max <= 1 (r_min: {self.r_min}, r_max: {self.r_max}).")
        if not isinstance(self.max_phase, int | float) or not 0 < self.max_phase <= 2 * math.pi:
            raise OptionError(f"LRU: max_phase = {self.max_phase!r} must lie in (0, 2 pi].")

    @property
    def n_states(self) -> int:
        return self.d_state // 2

    def parameters(self) -> tuple[Parameter, ...]:
        H, N = self.d_model, self.n_states

        def radii() -> np.ndarray:
            """Evenly spaced in their squares, which is uniform on the ring."""
            return np.sqrt(self.r_min**2 + (self.r_max**2 - self.r_min**2) * (np.arange(N) + 0.5) / N)

        def phases(random: Random) -> Array:
            drawn = random.uniform((N,), 1e-4 * self.max_phase, self.max_phase)
            return namespace("LRU", theta=drawn).log(drawn)

        return (
            constant("nu_log", (N,), lambda: np.log(-np.log(radii())), no_weight_decay=True),
            Parameter("theta_log", (N,), phases, no_weight_decay=True),
            constant("gamma_log", (N,), lambda: np.log(1 - radii() ** 2) / 2, no_weight_decay=True),
            normal("B_re", (N, H), math.sqrt(0.5 / H)),
            normal("B_im", (N, H), math.sqrt(0.5 / H)),
            *common.complex_normal("C", (self.rows(), H, N), math.sqrt(2 / N)),
            *self.outer_parameters(),
        )

    def system(self, params: Parameters, xp: Namespace) -> tuple[Any, None]:
        """The discrete system, B (N, H), C (rows, H, N); no dt."""
        poles = xp.exp(-xp.exp(params["nu_log"]) + 1j * xp.exp(params["theta_log"]))
        B = xp.exp(params["gamma_log"])[:, None] * common.complex_of(params, "B")
        C = common.complex_of(params, "C") / 2  # Re(C x) = 2 Re(C/2 x)
        return Diagonal(poles, B, C, conj_pairs=True, discrete=True), None
