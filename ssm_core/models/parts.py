"""Models and their blocks as functions of arrays, whichever framework these are of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._arrays.library import Array, namespace
from .pointwise import Function


@dataclass(frozen=True)
class BlockParts:
    """A block as functions of arrays, whichever framework they are of.

    d_model       H: what is behind so many features goes by the norms
    norm          of the features before the mixer, or behind its residual
    mixer         of a run: (z, **options of a layer) -> y, and with return_state (y, state); of a step:
                  (z, state) -> (y, state)
    channel_norm  before the channel mix, or behind its residual
    channel_mix   None without one
    stateful      whether the channel mix is called as the mixer is, and has a state: the block's is then a pair
    dropout       of what is added
    postnorm      whether the norms are behind the residuals
    """

    d_model: int
    norm: Function
    mixer: Callable[..., Any]
    channel_norm: Function | None = None
    channel_mix: Callable[..., Any] | None = None
    stateful: bool = False
    dropout: Function | None = None
    postnorm: bool = False

    def run(
        self,
        x: Array,
        *,
        state: Any = None,
        return_state: bool = False,
        between: Function | None = None,
        **options: Any,
    ) -> Any:
        """x (B, L, H) through the block, and with return_state the last state of its layers.

        between is done to the features before the channel mix.
        """
        before = (None, None) if state is None else self._apart(state)
        options["return_state"] = return_state

        def mixer(z: Array) -> Any:
            return self.mixer(z, state=before[0], **options)

        def mix(z: Array) -> Any:  # its modes are not the mixer's
            return self.channel_mix(z, state=before[1], **options | {"mode": "auto"})  # type: ignore[misc]

        x, after = self._through(x, mixer, mix, return_state, between)
        return (x, after) if return_state else x

    def step(self, x: Array, state: Any, *, between: Function | None = None) -> tuple[Array, Any]:
        """x (B, H) through the block, and the state of its layers after it."""
        before = self._apart(state)
        mix = self.channel_mix
        return self._through(
            x,
            lambda z: self.mixer(z, before[0]),
            lambda z: mix(z, before[1]),  # type: ignore[misc]
            True,
            between,
        )

    def _apart(self, state: Any) -> Any:
        """The states of the mixer and of the channel mix."""
        return state if self.stateful else (state, None)

    def _through(
        self, x: Array, mixer: Function, mix: Function, stepping: bool, between: Function | None
    ) -> tuple[Array, Any]:
        """x and the states behind both, of functions that give (y, state) where states are kept."""
        H, behind = self.d_model, None
        if x.shape[-1] > H:
            x, behind = x[..., :H], x[..., H:]
        z = x if self.postnorm else self.norm(x)
        y: Any = mixer(z if behind is None else _joined(z, behind))
        y, state = y if stepping else (y, None)
        if y.shape[-1] > H:
            y, behind = y[..., :H], y[..., H:]
        x = self._added(x, y, self.norm)
        if self.channel_mix is not None and self.channel_norm is not None:
            x = x if between is None else between(x)
            z = x if self.postnorm else self.channel_norm(x)
            y = mix(z) if self.stateful else self.channel_mix(z)
            if self.stateful:
                y, after = y if stepping else (y, None)
                state = (state, after)
            x = self._added(x, y, self.channel_norm)
        return x if behind is None else _joined(x, behind), state

    def _added(self, x: Array, y: Array, norm: Function) -> Array:
        x = x + (y if self.dropout is None else self.dropout(y))
        return norm(x) if self.postnorm else x


@dataclass(frozen=True)
class Parts:
    """A model as functions of arrays, whichever framework they are of.

    enter   inputs -> features (..., H)
    blocks  of a run: `BlockParts.run` or what is called alike; of a step: `BlockParts.step`
    leave   features -> outputs
    own     enter is not the definition's: it says which inputs there are
    beside  (n, features): what the mixer of every block takes behind its input; None: nothing
    maps    the linear maps between levels, by name
    """

    enter: Function
    blocks: Sequence[Callable[..., Any]]
    leave: Function
    own: bool = False
    beside: Array | None = None
    maps: Mapping[str, Function] = field(default_factory=dict)


def _joined(x: Array, behind: Array) -> Array:
    return namespace("models", x=x).concat([x, behind], axis=-1)
