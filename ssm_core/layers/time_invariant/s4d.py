"""S4D: a diagonal state space model in every channel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..._arrays.errors import OptionError, unknown
from ..._arrays.library import Array, Namespace
from ...measures.initializers import NAMES, diagonal_init
from ...systems.records import Diagonal
from .. import parametrizations as common
from ..parameters import Parameter, Parameters, constant, normal
from ..registry import registered
from .base import TimeInvariant


@registered
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
    output          "glu" (a linear map to 2H, gated), "half_glu" (v sigmoid(W v + b)), "half_glu2" (which
                    passes on v as it is before the activation), "linear" (to H) or None; half_glu, half_glu2 and None
                    give channels * H features
    skip            the direct term D u
    dt_tie          one step a channel; if False every state of a channel has its own, log_dt (H, N)
    bandlimit       if given, states that turn faster than this share of the Nyquist frequency are left out of v: those
                    with dt |Im(pole)| >= pi bandlimit, at rate 1

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
    dt_tie: bool = True
    bandlimit: float | None = None

    def __post_init__(self) -> None:
        self.check_options()
        if self.init not in NAMES:
            raise unknown("S4D", "init", self.init, NAMES)
        common.check_discretization("S4D", self.discretization)
        common.whole("S4D", d_state=self.d_state)
        if self.real and self.init != "real":
            raise OptionError(f"S4D: real poles need init='real', not init={self.init!r}.")
        if not self.real:
            common.pairs("S4D", self.d_state, instead=", or real=True with init='real'")
        common.check_steps("S4D", self.dt_min, self.dt_max)
        common.check_copies("S4D", self.n_ssm, self.d_model)
        if not isinstance(self.dt_tie, bool):
            raise OptionError(f"S4D: dt_tie = {self.dt_tie!r} must be True or False.")
        limit = self.bandlimit
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0):
            raise OptionError(f"S4D: bandlimit = {limit!r} must be positive, or None.")

    @property
    def n_states(self) -> int:
        return self.d_state if self.real else self.d_state // 2

    @property
    def real_states(self) -> bool:
        return self.real

    def parameters(self) -> tuple[Parameter, ...]:
        H, N = self.d_model, self.n_states
        S, rows = H if self.n_ssm is None else self.n_ssm, self.rows()

        def start() -> Diagonal:
            return diagonal_init(self.init, self.d_state, conj_pairs=not self.real)

        found = [
            common.log_steps((H,) if self.dt_tie else (H, N), self.dt_min, self.dt_max),
            constant("log_A_re", (S, N), lambda: np.log(-start().poles.real), no_weight_decay=True),
        ]
        if not self.real:
            found.append(constant("A_im", (S, N), lambda: start().poles.imag, no_weight_decay=True))
        if self.trainable_B:
            found.append(constant("B_re", (S, N), lambda: start().B.real, no_weight_decay=True))
            if not self.real:
                found.append(constant("B_im", (S, N), lambda: start().B.imag, no_weight_decay=True))
        C = (normal("C_re", (rows, H, N)),) if self.real else common.complex_normal("C", (rows, H, N))
        return (*found, *C, *self.outer_parameters())

    def system(self, params: Parameters, xp: Namespace) -> tuple[Diagonal, Array]:
        """The continuous systems of all channels, poles (H, N) and C (rows, H, N), and dt (H,) or (H, N) in float64."""
        poles, C = -xp.exp(params["log_A_re"]), params["C_re"]
        B = params["B_re"] if self.trainable_B else xp.ones_like(poles)
        if not self.real:
            poles, C = poles + 1j * params["A_im"], common.complex_of(params, "C")
            B = common.complex_of(params, "B") if self.trainable_B else B
        poles, B = (common.for_channels(x, self.d_model, xp) for x in (poles, B))
        dt = common.steps(params, xp)
        if self.bandlimit is not None and not self.real:
            turned = (dt[:, None] if self.dt_tie else dt) * xp.abs(xp.imag(poles))
            C = xp.where(turned < math.pi * self.bandlimit, C, xp.zeros_like(C))
        return Diagonal(poles, B, C, conj_pairs=not self.real), dt
