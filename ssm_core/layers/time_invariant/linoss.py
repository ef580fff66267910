"""LinOSS: a layer of forced harmonic oscillators."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from ..._arrays.dispatch import is_open
from ..._arrays.errors import unknown
from ..._arrays.idioms import matmul
from ..._arrays.library import Array, Namespace, device, widest
from ...functions.convolution import convolve
from ...functions.special import relu, sigmoid
from ...recurrences.segments import Segments
from ...systems.records import Dense
from .. import parametrizations as common
from ..parameters import Parameter, Parameters, uniform
from ..registry import registered
from .base import TimeInvariant

SCHEMES = ("im", "imex")
LONG = 2**10  # steps above which rounded frequencies show everywhere, and not only near the angle pi
SHORT = 2**5  # steps up to which they show nowhere


class Oscillators(TimeInvariant):
    """P oscillators on (z, x) between the matrices B and C: all but what moves them. B u is complex."""

    d_state: int
    timed: ClassVar[bool] = False

    @abstractmethod
    def moving(self) -> tuple[Parameter, ...]:
        """Parameters of the oscillators themselves (P,), A_diag among them."""

    @abstractmethod
    def motion(self, params: Parameters, xp: Namespace) -> tuple[Array, ...]:
        """The entries of the step of every oscillator, each (P,): those of its matrix by rows, and of its drive."""

    @property
    def width(self) -> int:
        return 2 * self.d_state

    @property
    def n_states(self) -> int:
        return 2

    @property
    def real_states(self) -> bool:
        return True

    def parameters(self) -> tuple[Parameter, ...]:
        H, P = self.d_model, self.d_state
        b, c = 1 / math.sqrt(H), 1 / math.sqrt(P)
        return (
            *self.moving(),
            *(uniform(name, (P, H), -b, b) for name in ("B_re", "B_im")),
            *(uniform(name, (self.rows(), H, P), -c, c) for name in ("C_re", "C_im")),
            *self.outer_parameters(),
        )

    def maps(self, params: Parameters, xp: Namespace) -> tuple[Array, Array]:
        """B (2P, H) and Re(C x) = [C_re, -C_im] (H, 2P), or (H, 4P) of both directions."""
        B = xp.concat([params["B_re"], params["B_im"]], axis=0)
        C = xp.concat([params["C_re"], -params["C_im"]], axis=-1)
        return B, xp.concat([C[i, ...] for i in range(C.shape[0])], axis=-1)

    def _kernel(self, params: Parameters, length: int, rate: Any, xp: Namespace) -> Array:
        """Re(C k B) of the oscillators' kernels k: (H, H, L), in two directions (2 H, H, L)."""
        K = self._oscillations(params, length, rate, xp)
        enter, leave = self.maps(params, xp)
        driven = xp.reshape(enter[..., None] * K[:, None, :], (self.width, self.d_model * length))
        halves = [leave[:, start : start + self.width] for start in range(0, leave.shape[-1], self.width)]
        return xp.reshape(matmul(xp.concat(halves, axis=0), driven, xp), (-1, self.d_model, length))

    def _oscillations(self, params: Parameters, length: int, rate: Any, xp: Namespace) -> Array:
        """The kernels of the oscillators (2P, L), as precise as the library can: their phases need its digits."""
        K = super()._kernel(self._doubled(params, xp), length, rate, xp)[0, ...]
        return xp.astype(K, params["A_diag"].dtype, copy=False)

    def _run(self, params: Parameters, x: Array, rate: Any, xp: Namespace, **options: Any) -> tuple[Array, Any]:
        """By the kernel of double precision, and where a state comes or goes in it for long sequences.

        Of a length that a trace does not know, chunks in double precision.
        """
        length = x.shape[-1]
        known = not is_open(x, length)
        segments = options.get("segments") or Segments(length)
        given = [options.get(name) for name in ("initial", "step_scale")] + [segments.reset]
        free = segments.shards is None and all(v is None for v in given) and not options.get("want_state", True)
        if known and length > SHORT and free and options.get("mode", "auto") in ("auto", "conv"):
            K = self._oscillations(params, length, rate, xp)
            return convolve(segments.masked(x, -1, xp), xp.astype(K, x.dtype, copy=False)), None
        if known and length <= LONG:
            return super()._run(params, x, rate, xp, **options)
        y, state = super()._run(self._doubled(params, xp), x, rate, xp, **options)
        dtype = xp.result_type(x.dtype, params["A_diag"].dtype)
        return xp.astype(y, dtype, copy=False), None if state is None else xp.astype(state, dtype, copy=False)

    def _both_directions(self, params: Parameters, x: Array, rate: Any, xp: Namespace, segments: Segments) -> Array:
        """The oscillators' positions after the past, then those after the future: (B, 4P, L)."""
        rows, back = segments.for_rows(), segments.reversed().for_rows()
        past, _ = self._run(params, x, rate, xp, segments=rows, want_state=False)
        future, _ = self._run(params, segments.flipped(x, xp), rate, xp, segments=back, want_state=False)
        return xp.concat([past, segments.flipped(future, xp)], axis=1)

    def system(self, params: Parameters, xp: Namespace) -> tuple[Any, None]:
        """The discrete systems of all oscillators on (z, x): A (2P, 2, 2), B (2P, 2), C (1, 2P, 2); no dt."""
        zz, zx, xz, xx, *drive = self.motion(params, xp)
        matrix = xp.stack([xp.stack([zz, zx], axis=-1), xp.stack([xz, xx], axis=-1)], axis=-2)
        position = xp.asarray([0.0, 1.0], dtype=zz.dtype, device=device(zz))
        C = xp.broadcast_to(position, (1, self.width, 2))
        return Dense(xp.tile(matrix, (2, 1, 1)), xp.tile(xp.stack(drive, axis=-1), (2, 1)), C, discrete=True), None

    def _doubled(self, params: Parameters, xp: Namespace) -> Parameters:
        """The parameters of the oscillators in double precision, where the library has it."""
        return {**params, **{p.name: widest(params[p.name], xp) for p in self.moving()}}


@registered
@dataclass(frozen=True)
class LinOSS(Oscillators):
    """A layer of P forced harmonic oscillators between two matrices, in discrete time.

    x''(t) = -A x(t) + B u(t),   v = Re(C x) + D u,   y = glu(W gelu(v) + b),   A = relu(A_diag), dt = sigmoid(steps)

    with z = x', implicit ("im", dissipative) or implicit-explicit ("imex", which keeps the energy):

    im:    z_k = z_{k-1} + dt (-A x_k + B u_k),       x_k = x_{k-1} + dt z_k
    imex:  z_k = z_{k-1} + dt (-A x_{k-1} + B u_k),   x_k = x_{k-1} + dt z_k

    u (B, L, H), y (B, L, H), with H = d_model. B u is complex: states (B, 2P, 2) hold (z, x) of its real parts, then
    of its imaginary parts. The steps are part of the scheme: there is no rate and no step_scale.
    `kernel` is (H, H, L) from all channels to all; bidirectional (2 H, H, L), where the rows of the future follow and
    begin with the current sample.

    d_model  H, the number of channels
    d_state  P, the number of oscillators
    scheme   "im" or "imex"
    bidirectional  a second C reads the states of a run over the reversed sequence, the current sample included
    activation, output, skip  as in `S5`

    Parameters, all real float32: A_diag and steps (P,), B_re and B_im (P, H), C_re and C_im (1, H, P), or (2, H, P) in
    two directions, and D, output_weight, output_bias as in `S4D`.

    Rusch and Rus, Oscillatory State-Space Models, ICLR 2025, https://arxiv.org/abs/2410.03943.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.LinOSS(d_model=4, d_state=8)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    d_state: int = 64
    scheme: str = "imex"
    bidirectional: bool = False
    activation: str | None = "gelu"
    output: str | None = "glu"
    skip: bool = True

    def __post_init__(self) -> None:
        self.check_options()
        common.whole("LinOSS", d_state=self.d_state)
        if self.scheme not in SCHEMES:
            raise unknown("LinOSS", "scheme", self.scheme, SCHEMES)

    def moving(self) -> tuple[Parameter, ...]:
        return tuple(uniform(name, (self.d_state,), 0.0, 1.0, no_weight_decay=True) for name in ("A_diag", "steps"))

    def motion(self, params: Parameters, xp: Namespace) -> tuple[Array, ...]:
        A, dt = relu(params["A_diag"]), sigmoid(params["steps"])
        s = 1 / (1 + dt * dt * A) if self.scheme == "im" else xp.ones_like(A)
        corner = s if self.scheme == "im" else 1 - dt * dt * A
        return s, -dt * A * s, dt * s, corner, dt * s, dt * dt * s
