"""Layers that need the whole input at once: filters as long as it, or a future in every direction."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

from .._arrays.errors import OptionError, unknown
from .._arrays.library import Array
from ..recurrences.shards import whole_sequence
from .layer import Layer, Stepper
from .parameters import Parameters


class Whole(Layer):
    """A layer without states and steps; `cause` says why, in the middle of a sentence."""

    cause: ClassVar[str]
    streaming: ClassVar[bool] = False
    modes: ClassVar[tuple[str, ...]] = ("auto", "conv")

    def refuse_states(self, *, mode: str, **given: Any) -> None:
        """Raise for a mode that is not one of the layer's, and for what only layers with a state have: cuts too."""
        stepped = isinstance(mode, str) and mode in ("chunk", "scan")
        if stepped or any(x is not None and x is not False for x in given.values()):
            self._refuse()
        if not isinstance(mode, str) or mode not in self.modes:
            raise unknown(self.name, "mode", mode, self.modes)
        whole_sequence(self.name, f"But {self.cause}: call it outside of the block.")

    def initial_state(self, params: Parameters, batch: int) -> Any:
        """Raises OptionError: there is none."""
        self._refuse()

    def stepper(self, params: Parameters, *, rate: Any = 1.0) -> Stepper:
        """Raises OptionError: there are no steps."""
        self._refuse()

    def check_state(self, operation: str, state: Any, batch: int, u: Array) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise OptionError(
            f"{self.name}: {self.cause}, so it has no state, step, reset or step_scale. Run whole inputs, in mode "
            "'conv', or take a layer with a state, such as S4D or H3, to stream."
        )
