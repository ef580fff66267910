"""What the time mixes of RWKV-5 and RWKV-6 share: the token shift, the late read with a bonus, norm, gate, first draws.

The first draws depend on the place of a layer: l of `num_layers`, from 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..._arrays.errors import OptionError
from ..._arrays.library import Array, Namespace
from ...functions.affine import affine
from ...functions.norms import standardized
from ...functions.special import activation
from ...functions.token_shift import token_shift
from ...gated.decay_run import Rule
from ...recurrences.segments import Segments
from .. import parametrizations as common
from ..options import settle
from ..parameters import Parameter, Parameters, constant
from .base import State, check_epsilon, joined_heads, projection
from .matrix_memory import MatrixMemory


class TimeMix(MatrixMemory):
    """Beside every step stands the input of the step before."""

    d_model: int
    head_dim: int
    layer_idx: int
    num_layers: int
    epsilon: float

    def check_time_mix(self, *names: str) -> None:
        settle(self)
        sizes = ("d_model", "head_dim", "num_layers", "chunk", *names)
        common.whole(self.name, **{name: getattr(self, name) for name in sizes})
        check_place(self)
        if self.d_model % self.head_dim:
            raise OptionError(f"{self.name}: head_dim = {self.head_dim} must divide d_model = {self.d_model}.")
        check_epsilon(self.name, epsilon=self.epsilon)

    @property
    def heads(self) -> int:  # type: ignore[override]
        """How many heads there are."""
        return self.d_model // self.head_dim

    @property
    def key_dim(self) -> int:
        return self.head_dim

    @property
    def value_dim(self) -> int:
        return self.head_dim

    @property
    def rule(self) -> Rule:
        return Rule(exclusive=True)

    def carried_shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        return {"before": (batch, self.d_model)}

    def _before(self, u: Array, carried: State, segments: Segments, xp: Namespace) -> tuple[Array, State]:
        previous, last = token_shift(u, carried[0], segments, xp)
        return previous, (last,)

    def _before_step(self, u: Array, carried: State, xp: Namespace) -> tuple[Array, State]:
        return carried[0], (u,)

    def first_decays(self) -> np.ndarray:
        """log(-log decay) (H,), slow to fast over the channels."""
        n, depth = np.arange(self.d_model), depth_of(self)
        return -6 + 5 * (n / max(1, self.d_model - 1)) ** (0.7 + 1.3 * depth)

    def first_bonus(self) -> np.ndarray:
        """u (H,)."""
        n, depth = np.arange(self.d_model), depth_of(self)
        return depth * (1 - n / max(1, self.d_model - 1)) + 0.1 * ((n + 1) % 3 - 1)

    def outer_parameters(self) -> tuple[Parameter, ...]:
        H = self.d_model
        maps = [
            p for name in ("receptance", "key", "value", "gate", "output") for p in projection(f"{name}_", H, H, False)
        ]
        norm = (constant("ln_x_weight", (H,), lambda: 1.0), constant("ln_x_bias", (H,), lambda: 0.0))
        return (*maps, *norm)

    def _output(self, params: Parameters, y: Array, waiting: Array, xp: Namespace) -> Array:
        y = joined_heads(standardized(y, self.epsilon, xp), xp) * params["ln_x_weight"] + params["ln_x_bias"]
        return affine(y * activation("silu")(waiting), params["output_weight"], None)


def depth_of(layer: Any) -> float:
    """0 for the first of the layers, 1 for the last."""
    return float(layer.layer_idx / max(1, layer.num_layers - 1))


def shares(layer: Any, power: float = 1.0) -> np.ndarray:
    """The first share of the step itself (H,), growing over the channels, and with the depth."""
    left = 1 - layer.layer_idx / layer.num_layers
    return (np.arange(layer.d_model) / layer.d_model) ** (power * left)


def check_place(layer: Any) -> None:
    place = layer.layer_idx
    if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < layer.num_layers:
        raise OptionError(f"{layer.name}: layer_idx = {place!r} must lie in [0, num_layers = {layer.num_layers}).")
