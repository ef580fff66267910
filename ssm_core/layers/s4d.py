"""S4D: a diagonal state space model in every channel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .._arrays import Array, Namespace, widest
from .._errors import OptionError, unknown
from ..discretization import METHODS
from ..initializers import NAMES, diagonal_init
from ..systems import Diagonal
from .parameters import Parameter, Parameters, constant, normal, uniform
from .time_invariant import TimeInvariant


@dataclass(frozen=True)
class S4D(TimeInvariant):
    """A layer of diagonal state space models, one a channel, with a nonlinear mix of the channels.

    x'(t) = diag(poles) x(t) + B u(t),   v = 2 Re(C x) + D u,   y = glu(W gelu(v) + b)

    poles = -exp(log_A_re) + i A_im, discretized with dt = exp(log_dt).
    u (B, L, H), y (B, L, H), states (B, H, N), with H = d_model and N = d_state / 2 (d_state for real poles).

    d_model         H, the number of channels
    d_state         real states a channel; two to a complex pole
    init            of the poles: "lin", "inv", "inv2", "legs", "quad" or "real"
    dt_min, dt_max  the first steps are log-uniform between them; in units of time
    discretization  "zoh", "bilinear", "euler", "backward_euler" or "dirac"
    real            real poles; needs init "real"
    trainable_B     B is a parameter; if False it is 1
    n_ssm           independent copies of poles and B; channel h uses copy h mod n_ssm. H if None
    channels        outputs a system; the output map joins them
    bidirectional   a second kernel acts on the future, from the next sample on
    activation      "gelu", "gelu_tanh", "silu", "relu", "sigmoid", "tanh" or None
    output          "glu" (a linear map to 2H, gated), "linear" (to H) or None (channels * H features)
    skip            the direct term D u

    Parameters, all real float32: log_dt (H,), log_A_re and A_im (S, N), B_re and B_im (S, N),
    C_re and C_im (channels, H, N), D (channels, H), output_weight (2H, channels * H), output_bias (2H,).

    Gu, Gupta, Goel and Re, On the Parameterization and Initialization of Diagonal State Space Models, 2022,
    https://arxiv.org/abs/2206.11893.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.S4D(d_model=4, d_state=8)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    d_state: int = 64
    init: str = "lin"
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    discretization: str = "zoh"
    real: bool = False
    trainable_B: bool = True
    n_ssm: int | None = None
    channels: int = 1
    bidirectional: bool = False
    activation: str | None = "gelu"
    output: str | None = "glu"
    skip: bool = True

    def __post_init__(self) -> None:
        self.check_options()
        if self.init not in NAMES:
            raise unknown("S4D", "init", self.init, NAMES)
        known = tuple(m for m in METHODS if m != "gbt")
        if self.discretization not in known:
            raise unknown("S4D", "discretization", self.discretization, known)
        if isinstance(self.d_state, bool) or not isinstance(self.d_state, int) or self.d_state < 1:
            raise OptionError(f"S4D: d_state = {self.d_state!r} must be a whole number of at least 1.")
        if self.real and self.init != "real":
            raise OptionError(f"S4D: real poles need init='real', not init={self.init!r}.")
        if not self.real and self.d_state % 2:
            raise OptionError(
                f"S4D: d_state = {self.d_state} is odd, but complex poles come in conjugate pairs. "
                f"Use d_state={self.d_state + 1}, or real=True with init='real'."
            )
        steps = (self.dt_min, self.dt_max)
        if not all(isinstance(x, int | float) for x in steps) or not 0 < self.dt_min <= self.dt_max < math.inf:
            raise OptionError(f"S4D: needs 0 < dt_min <= dt_max (dt_min: {self.dt_min}, dt_max: {self.dt_max}).")
        if self.n_ssm is not None and (type(self.n_ssm) is not int or self.n_ssm < 1 or self.d_model % self.n_ssm):
            raise OptionError(f"S4D: n_ssm = {self.n_ssm!r} must divide d_model = {self.d_model}.")

    @property
    def copies(self) -> int:
        """S, the number of independent sets of poles."""
        return self.d_model if self.n_ssm is None else self.n_ssm

    @property
    def n_states(self) -> int:
        return self.d_state if self.real else self.d_state // 2

    @property
    def real_states(self) -> bool:
        return self.real

    def parameters(self) -> tuple[Parameter, ...]:
        H, S, N, rows = self.d_model, self.copies, self.n_states, self.rows()

        def start() -> Diagonal:
            return diagonal_init(self.init, self.d_state, conj_pairs=not self.real)

        found = [
            uniform("log_dt", (H,), math.log(self.dt_min), math.log(self.dt_max), special=True),
            constant("log_A_re", (S, N), lambda: np.log(-start().poles.real), special=True),
        ]
        if not self.real:
            found.append(constant("A_im", (S, N), lambda: start().poles.imag, special=True))
        if self.trainable_B:
            found.append(constant("B_re", (S, N), lambda: start().B.real, special=True))
            if not self.real:
                found.append(constant("B_im", (S, N), lambda: start().B.imag, special=True))
        std = 1.0 if self.real else math.sqrt(0.5)
        found.append(normal("C_re", (rows, H, N), std))
        if not self.real:
            found.append(normal("C_im", (rows, H, N), std))
        return (*found, *self.outer_parameters())

    def system(self, params: Parameters, xp: Namespace) -> tuple[Diagonal, Array]:
        """The continuous systems of all channels, poles (H, N) and C (rows, H, N), and dt (H,) in float64."""
        p = params
        poles, C = -xp.exp(p["log_A_re"]), p["C_re"]
        B = p["B_re"] if self.trainable_B else xp.ones_like(poles)
        if not self.real:
            poles, C = poles + 1j * p["A_im"], C + 1j * p["C_im"]
            B = B + 1j * p["B_im"] if self.trainable_B else B
        poles, B = self._for_channels(poles, xp), self._for_channels(B, xp)
        return Diagonal(poles, B, C, conj_pairs=not self.real), xp.exp(widest(p["log_dt"], xp))

    def _for_channels(self, x: Array, xp: Namespace) -> Array:
        """(S, N) to (H, N): channel h takes copy h mod S."""
        return x if self.copies == self.d_model else xp.tile(x, (self.d_model // self.copies, 1))
