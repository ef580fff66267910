"""SSM: a state space model with a full trainable matrix in every channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..._arrays.errors import OptionError, unknown
from ..._arrays.library import Array, Namespace
from ...measures.matrices import MEASURES, hippo
from ...systems.records import Dense
from .. import parametrizations as common
from ..parameters import Parameter, Parameters, constant, normal
from ..registry import registered
from .base import TimeInvariant

PAIRED = ("fout", "fourier_decay", "fourier2", "foud")


@registered
@dataclass(frozen=True)
class SSM(TimeInvariant):
    """A layer of state space models with a full matrix, one a channel: the linear state space layer without structure.

    x'(t) = A x(t) + B u(t),   v = C x + D u,   y = glu(W gelu(v) + b)

    Any matrix, trained entry by entry. The kernel takes log2(L) products of A with itself, in real arithmetic. u
    (B, L, H), y (B, L, H), states (B, H, N), with H = d_model and N = d_state.

    d_model         H, the number of channels
    d_state         N, states a channel
    init            HiPPO measure of A and B, any that `hippo` has
    dt_min, dt_max  the first steps are log-uniform between them; in units of time
    discretization  "bilinear", "zoh", "euler", "backward_euler" or "dirac"
    n_ssm           independent copies of A and B; channel h uses copy h mod n_ssm. H if None
    channels, bidirectional, activation, output, skip  as in `S4D`

    Parameters, all real float32: log_dt (H,), A (S, N, N), B (S, N), C (channels, H, N), and D, output_weight,
    output_bias as in `S4D`.

    Gu, Johnson, Goel, Saab, Dao, Rudra and Re, Combining Recurrent, Convolutional, and Continuous-time Models with
    Linear State-Space Layers, NeurIPS 2021, https://arxiv.org/abs/2110.13985.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.SSM(d_model=4, d_state=8)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    d_state: int = 64
    init: str = "legs"
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    discretization: str = "bilinear"
    n_ssm: int | None = None
    channels: int = 1
    bidirectional: bool = False
    activation: str | None = "gelu"
    output: str | None = "glu"
    skip: bool = True

    def __post_init__(self) -> None:
        self.check_options()
        common.whole("SSM", d_state=self.d_state)
        if self.init not in MEASURES:
            raise unknown("SSM", "init", self.init, MEASURES)
        if self.init in PAIRED and self.d_state % 2:
            raise OptionError(f"SSM: d_state = {self.d_state} is odd, but {self.init!r} has its states in pairs.")
        common.check_discretization("SSM", self.discretization)
        common.check_steps("SSM", self.dt_min, self.dt_max)
        common.check_copies("SSM", self.n_ssm, self.d_model)

    @property
    def n_states(self) -> int:
        return self.d_state

    @property
    def real_states(self) -> bool:
        return True

    def parameters(self) -> tuple[Parameter, ...]:
        H, N = self.d_model, self.d_state
        S = H if self.n_ssm is None else self.n_ssm
        return (
            common.log_steps(H, self.dt_min, self.dt_max),
            constant("A", (S, N, N), lambda: hippo(self.init, N)[0], no_weight_decay=True),
            constant("B", (S, N), lambda: hippo(self.init, N)[1], no_weight_decay=True),
            normal("C", (self.rows(), H, N)),
            *self.outer_parameters(),
        )

    def system(self, params: Parameters, xp: Namespace) -> tuple[Any, Array]:
        """The continuous systems of all channels: A (H, N, N), C (rows, H, N); and dt (H,)."""
        A, B = (common.for_channels(params[name], self.d_model, xp) for name in ("A", "B"))
        return Dense(A, B, params["C"]), common.steps(params, xp)
