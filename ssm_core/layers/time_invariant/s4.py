"""S4: a diagonal plus low-rank state space model in every channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..._arrays.errors import OptionError, unknown
from ..._arrays.library import Namespace
from ...measures.nplr import FORMS, nplr
from ...systems.records import DPLR
from .. import parametrizations as common
from ..parameters import Parameter, Parameters, constant
from ..registry import registered
from .base import TimeInvariant


@registered
@dataclass(frozen=True)
class S4(TimeInvariant):
    """A layer of state space models with a matrix that is diagonal plus low rank, one a channel, as HiPPO's are.

    x'(t) = A x(t) + B u(t),   A = diag(poles) - sum_r P_r P_r^H,   v = C x + D u,   y = glu(W gelu(v) + b)

    poles = -exp(log_A_re) + i A_im, each for itself and its conjugate: A, B and C mean the whole real system. u
    (B, L, H), y (B, L, H), states (B, H, N) complex, with H = d_model and N = d_state / 2.

    d_model         H, the number of channels
    d_state         real states a channel; two to a complex pole
    init            HiPPO measure of A and B: "legs", "legt", "fout" or any other that `nplr` has
    rank            R; that of the measure if None
    dt_min, dt_max  the first steps are log-uniform between them; in units of time
    discretization  "bilinear", "zoh", "euler", "backward_euler" or "dirac"
    min_decay       the least -Re(poles) to start with, since log_A_re is a logarithm ("legt" and "fout" have 0)
    n_ssm           independent copies of A and B; channel h uses copy h mod n_ssm. H if None
    channels, bidirectional, activation, output, skip  as in `S4D`

    The convolution kernel comes from Krylov sequences of the discrete matrix by doubling. It is exact for every length,
    and C is the output vector itself, not one that holds a length.
    Parameters, all real float32: log_dt (H,), log_A_re and A_im (S, N), P_re and P_im (S, R, N), B_re and B_im (S, N),
    C_re and C_im (channels, H, N), and D, output_weight, output_bias as in `S4D`.

    Gu, Goel and Re, Efficiently Modeling Long Sequences with Structured State Spaces, ICLR 2022,
    https://arxiv.org/abs/2111.00396.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.S4(d_model=4, d_state=8)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    d_state: int = 64
    init: str = "legs"
    rank: int | None = None
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    discretization: str = "bilinear"
    min_decay: float = 1e-4
    n_ssm: int | None = None
    channels: int = 1
    bidirectional: bool = False
    activation: str | None = "gelu"
    output: str | None = "glu"
    skip: bool = True

    def __post_init__(self) -> None:
        self.check_options()
        common.pairs("S4", self.d_state)
        if not isinstance(self.init, str) or self.init not in FORMS:
            raise unknown("S4", "init", self.init, FORMS)
        if self.rank is not None and (type(self.rank) is not int or self.rank < FORMS[self.init]):
            raise OptionError(f"S4: rank = {self.rank!r}, but init {self.init!r} needs rank {FORMS[self.init]}.")
        common.check_discretization("S4", self.discretization)
        common.check_steps("S4", self.dt_min, self.dt_max)
        common.check_copies("S4", self.n_ssm, self.d_model)
        if not isinstance(self.min_decay, int | float) or not 0 < self.min_decay < np.inf:
            raise OptionError(f"S4: min_decay = {self.min_decay!r} must be positive: log_A_re is its logarithm.")

    @property
    def n_states(self) -> int:
        return self.d_state // 2

    def parameters(self) -> tuple[Parameter, ...]:
        H, N = self.d_model, self.n_states
        S = H if self.n_ssm is None else self.n_ssm
        R = FORMS[self.init] if self.rank is None else self.rank

        def start() -> DPLR:
            return nplr(self.init, self.d_state, rank=R)[0]

        return (
            common.log_steps(H, self.dt_min, self.dt_max),
            constant(
                "log_A_re",
                (S, N),
                lambda: np.log(np.maximum(-start().poles.real, self.min_decay)),
                no_weight_decay=True,
            ),
            constant("A_im", (S, N), lambda: start().poles.imag, no_weight_decay=True),
            constant("P_re", (S, R, N), lambda: start().P.real, no_weight_decay=True),
            constant("P_im", (S, R, N), lambda: start().P.imag, no_weight_decay=True),
            constant("B_re", (S, N), lambda: start().B.real, no_weight_decay=True),
            constant("B_im", (S, N), lambda: start().B.imag, no_weight_decay=True),
            *common.complex_normal("C", (self.rows(), H, N)),
            *self.outer_parameters(),
        )

    def system(self, params: Parameters, xp: Namespace) -> tuple[DPLR, object]:
        """The continuous systems of all channels: poles (H, N), P (H, R, N), C (rows, H, N); and dt (H,)."""
        poles = -xp.exp(params["log_A_re"]) + 1j * params["A_im"]
        poles, P, B = (
            common.for_channels(x, self.d_model, xp)
            for x in (poles, common.complex_of(params, "P"), common.complex_of(params, "B"))
        )
        return DPLR(poles, P, P, B, common.complex_of(params, "C"), conj_pairs=True), common.steps(params, xp)
