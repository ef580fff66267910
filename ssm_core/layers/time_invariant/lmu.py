"""LMU: a memory of the last theta steps in every channel, by Legendre polynomials."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from ..._arrays.errors import OptionError
from ..._arrays.library import Array, Namespace, device
from ...measures.matrices import hippo
from ...systems.records import Dense
from .. import parametrizations as common
from ..parameters import Parameter, Parameters, normal
from ..registry import registered
from .base import TimeInvariant


@registered
@dataclass(frozen=True)
class LMU(TimeInvariant):
    """A layer of Legendre memory units, one a channel: the state holds the last theta steps in Legendre polynomials.

    theta x'(t) = A x(t) + B u(t),   v = C x + D u,   y = glu(W gelu(v) + b)

    A and B are those of `hippo("lmu", N)` and stay as they are; the layer learns what to read (C). This is the memory
    of the LMU in its parallel form, without the nonlinear cell around it. u (B, L, H), y (B, L, H), states (B, H, N),
    with H = d_model and N = d_state.

    d_model         H, the number of channels
    d_state         N, order of the memory
    theta           its window, in steps
    discretization  "zoh", "bilinear", "euler", "backward_euler" or "dirac"
    channels, bidirectional, activation, output, skip  as in `S4D`

    Parameters, all real float32: C (channels, H, N), and D, output_weight, output_bias as in `S4D`.

    Voelker, Kajic and Eliasmith, Legendre Memory Units: Continuous-Time Representation in Recurrent Neural Networks,
    NeurIPS 2019; in parallel: Chilkuri and Eliasmith, ICML 2021, https://arxiv.org/abs/2102.11417.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.LMU(d_model=4, d_state=6, theta=100)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    d_state: int = 64
    theta: float = 1000.0
    discretization: str = "zoh"
    channels: int = 1
    bidirectional: bool = False
    activation: str | None = "gelu"
    output: str | None = "glu"
    skip: bool = True

    def __post_init__(self) -> None:
        self.check_options()
        common.whole("LMU", d_state=self.d_state)
        common.check_discretization("LMU", self.discretization)
        object.__setattr__(self, "_matrices", hippo("lmu", self.d_state))  # before any trace
        number = isinstance(self.theta, int | float) and not isinstance(self.theta, bool)
        if not number or not 0 < self.theta < math.inf:
            raise OptionError(f"LMU: theta = {self.theta!r} must be a positive number of steps.")

    _matrices: ClassVar[Any]  # (A, B) in NumPy, of an instance

    @property
    def n_states(self) -> int:
        return self.d_state

    @property
    def real_states(self) -> bool:
        return True

    def parameters(self) -> tuple[Parameter, ...]:
        C = normal("C", (self.rows(), self.d_model, self.d_state), 1 / math.sqrt(self.d_state))
        return (C, *self.outer_parameters())

    def system(self, params: Parameters, xp: Namespace) -> tuple[Any, Array]:
        """The continuous system that all channels share, C (rows, H, N); and dt (H,) in windows."""
        C = params["C"]
        A, B = (xp.asarray(x, dtype=C.dtype, device=device(C))[None, ...] for x in self._matrices)
        return Dense(A, B, C), xp.full((self.d_model,), 1 / self.theta, dtype=C.dtype, device=device(C))
