"""DSS: diagonal state spaces whose kernel is a softmax over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..._arrays.errors import OptionError
from ..._arrays.library import Array, Namespace, complex_dtype
from ...functions.special import phi1
from ...measures.initializers import diagonal_init
from ...systems.records import Diagonal
from .. import parametrizations as common
from ..parameters import Parameter, Parameters, constant
from ..registry import registered
from .base import TimeInvariant


@registered
@dataclass(frozen=True)
class DSS(TimeInvariant):
    """A layer of diagonal state spaces, one a channel, whose kernel is normalized over a length.

    K_l = Re sum_n (W_n / poles_n) e^(dt poles_n l) / s_n,   s_n = sum_{j<length} e^(dt poles_n j)

    v = K * u + D u, y = glu(W gelu(v) + b). The normalization bounds the kernel within the length even for poles with
    a positive real part, unless e^(dt Re(poles) length) overflows. It belongs to the layer and not to the input:
    sequences of any length meet the same system. u (B, L, H), y (B, L, H), states (B, H, N) complex, with
    H = d_model and N = d_state / 2. `rate` and `step_scale` take other samples of the same system: what a sample adds
    weighs the time that it stands for, and s stays that of the layer's own steps.

    `kernel` is (channels, H, L); bidirectional (2 channels, H, L), where the rows of the future follow and begin with
    the next sample.

    d_model         H, the number of channels
    length          steps that the softmax runs over, such as the length of the training sequences
    d_state         real states a channel; two to a complex pole
    dt_min, dt_max  the first steps are log-uniform between them; in units of time
    epsilon         1/s is computed as conj(s) / (|s|^2 + epsilon)
    n_ssm           independent copies of the poles; channel h uses copy h mod n_ssm. H if None
    channels, bidirectional, activation, output, skip  as in `S4D`

    The poles start as the legs poles of `diagonal_init`, of the half with positive imaginary part.
    Parameters, all real float32: log_dt (H,), A_re and A_im (S, N), W_re and W_im (channels, H, N), and D,
    output_weight, output_bias as in `S4D`.

    Gupta, Gu and Berant, Diagonal State Spaces are as Effective as Structured State Spaces, NeurIPS 2022,
    https://arxiv.org/abs/2203.14343.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.DSS(d_model=4, length=10, d_state=8)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    length: int
    d_state: int = 64
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    epsilon: float = 1e-7
    n_ssm: int | None = 1
    channels: int = 1
    bidirectional: bool = False
    activation: str | None = "gelu"
    output: str | None = "glu"
    skip: bool = True

    discretization: ClassVar[str] = "dirac"  # type: ignore[misc]  # the normalization is all that B is

    def __post_init__(self) -> None:
        self.check_options()
        common.whole("DSS", length=self.length)
        common.pairs("DSS", self.d_state)
        common.check_steps("DSS", self.dt_min, self.dt_max)
        common.check_copies("DSS", self.n_ssm, self.d_model)
        if not isinstance(self.epsilon, int | float) or not 0 <= self.epsilon < 1:
            raise OptionError(f"DSS: epsilon = {self.epsilon!r} must lie in [0, 1).")

    @property
    def n_states(self) -> int:
        return self.d_state // 2

    def parameters(self) -> tuple[Parameter, ...]:
        H, N = self.d_model, self.n_states
        S = H if self.n_ssm is None else self.n_ssm

        def start() -> Diagonal:
            return diagonal_init("legs", self.d_state)

        return (
            common.log_steps(H, self.dt_min, self.dt_max),
            constant("A_re", (S, N), lambda: start().poles.real, no_weight_decay=True),
            constant("A_im", (S, N), lambda: -start().poles.imag, no_weight_decay=True),
            *common.complex_normal("W", (self.rows(), H, N)),
            *self.outer_parameters(),
        )

    def system(self, params: Parameters, xp: Namespace) -> tuple[Any, Array]:
        """The continuous systems of all channels, poles and B (H, N), C (rows, H, N); and dt (H,)."""
        poles = common.for_channels(common.complex_of(params, "A"), self.d_model, xp)
        dt = common.steps(params, xp)
        C = common.complex_of(params, "W") / 2  # Re(W x) = 2 Re(W/2 x)
        return Diagonal(poles, self._normalization(poles, dt, xp) / poles, C, conj_pairs=True), dt

    def _normalization(self, poles: Array, dt: Array, xp: Namespace) -> Array:
        """1/s_n (H, N), with s = L phi1(z L) / phi1(z), z = dt poles. Growing poles are summed from the other end."""
        L, z = float(self.length), xp.astype(dt, complex_dtype(dt.dtype, xp))[:, None] * poles
        grows = xp.real(z) > 0
        decay = xp.where(grows, -z, z)
        s = L * phi1(decay * L) / phi1(decay)
        inverse = xp.conj(s) / (xp.real(s) ** 2 + xp.imag(s) ** 2 + self.epsilon)
        inverse = inverse * xp.exp(xp.where(grows, (1 - L) * z, xp.zeros_like(z)))
        return xp.astype(inverse, poles.dtype)
