"""RTF: a rational transfer function in every channel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..._arrays.dispatch import is_open
from ..._arrays.errors import unknown
from ..._arrays.library import Array, Namespace
from ...recurrences.segments import Segments
from ...systems.records import Rational
from ...time_invariant.kernels import state_space
from ...time_invariant.rational import BOUNDS, impulse_response, initial_bound, montel
from .. import parametrizations as common
from ..parameters import Parameter, Parameters, constant, normal, uniform
from ..registry import registered
from .base import TimeInvariant

CONSTRAINTS = (None, "montel")


@registered
@dataclass(frozen=True)
class RTF(TimeInvariant):
    """A layer of rational transfer functions, one a channel, trained by their coefficients and free of states.

    H(z) = h_0 + (b_1 z^-1 + ... + b_N z^-N) / (1 + a_1 z^-1 + ... + a_N z^-N),   v = H u,   y = glu(W gelu(v) + b)

    The kernel is the true impulse response, in O(L log L) whatever N is; states (B, H, N + 1) of the companion form
    stream it. h_0 is the direct term. u (B, L, H), y (B, L, H), with H = d_model and N = d_state. The system is
    discrete: there is no rate and no step_scale.

    d_model     H, the number of channels
    d_state     N, the order
    init        of the denominators: "montel" (uniform, all poles stable), "zeros" (no poles but 0) or "xavier"
    constraint  "montel": a = a' / (sum |a'_j| + |slack| + 1e-6), stable whatever the parameters are; None: a = a'
    n_ssm       independent denominators; each serves d_model / n_ssm consecutive channels. H if None
    bidirectional, activation, output  as in `S4D`

    Parameters, all real float32: a (rows, S, N), b (rows, H, N), h_0 (rows, H), slack (rows, S) with the constraint,
    and output_weight, output_bias as in `S4D`; rows are 1, or 2 in two directions.

    Parnichkun, Massaroli, Moro et al., State-Free Inference of State-Space Models: The Transfer Function Approach,
    ICML 2024, https://arxiv.org/abs/2405.06147.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.RTF(d_model=4, d_state=8)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    d_state: int = 16
    init: str = "zeros"
    constraint: str | None = None
    n_ssm: int | None = None
    bidirectional: bool = False
    activation: str | None = "gelu"
    output: str | None = "glu"

    skip: ClassVar[bool] = False  # type: ignore[misc]  # h_0 is the direct term
    timed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.check_options()
        common.whole("RTF", d_state=self.d_state)
        if not isinstance(self.init, str) or self.init not in BOUNDS:
            raise unknown("RTF", "init", self.init, BOUNDS)
        if self.constraint not in CONSTRAINTS:
            raise unknown("RTF", "constraint", self.constraint, CONSTRAINTS)
        common.check_copies("RTF", self.n_ssm, self.d_model)

    @property
    def n_states(self) -> int:
        return self.d_state + 1

    @property
    def real_states(self) -> bool:
        return True

    def parameters(self) -> tuple[Parameter, ...]:
        H, N, rows = self.d_model, self.d_state, self.rows()
        S = H if self.n_ssm is None else self.n_ssm
        bound = initial_bound(self.init, N)
        found = [
            uniform("a", (rows, S, N), -bound, bound, no_weight_decay=True),
            normal("b", (rows, H, N), N**-0.5),
            normal("h_0", (rows, H)),
        ]
        if self.constraint is not None:
            found.append(constant("slack", (rows, S), lambda: 1.0, no_weight_decay=True))
        return (*found, *self.outer_parameters())

    def coefficients(self, params: Parameters, xp: Namespace) -> tuple[Array, Array]:
        """Numerators and denominators (rows, H, N + 1), the direct term within."""
        a, b, direct = params["a"], params["b"], params["h_0"][..., None]
        if self.constraint is not None:
            a = montel(a, params["slack"], xp)
        a = xp.repeat(a, self.d_model // a.shape[1], axis=1)
        return xp.concat([direct, b + direct * a], axis=-1), xp.concat([xp.ones_like(direct), a], axis=-1)

    def system(self, params: Parameters, xp: Namespace) -> tuple[Any, None]:
        """The companion forms of all channels, forward in time: C (1, H, N + 1); no dt."""
        form, _ = self._one_way(params, 1.0, xp, False)
        return replace(form, C=form.C[None, ...]), None

    def _one_way(self, params: Parameters, rate: Any, xp: Namespace, backwards: bool) -> tuple[Any, None]:
        """The companion forms of one direction: C (H, N + 1)."""
        numerator, denominator = self.coefficients(params, xp)
        return state_space(Rational(numerator[int(backwards), ...], denominator[int(backwards), ...])), None

    def _both_directions(self, params: Parameters, x: Array, rate: Any, xp: Namespace, segments: Segments) -> Array:
        """Of a length that a trace leaves open as two runs: the taps of a kernel would fix it."""
        if is_open(x, x.shape[-1]):
            return self._both_by_runs(params, x, rate, xp, segments)
        return super()._both_directions(params, x, rate, xp, segments)

    def _kernel(self, params: Parameters, length: int, rate: Any, xp: Namespace) -> Array:
        return impulse_response(*self.coefficients(params, xp), length, xp)
