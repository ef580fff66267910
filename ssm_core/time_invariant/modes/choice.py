"""Which mode runs a system over a signal."""

from __future__ import annotations

from typing import Any

from ..._arrays.dispatch import dispatched, is_open
from ..._arrays.errors import OptionError, unknown
from ..._arrays.library import Array
from ...systems import records
from ...systems.records import Diagonal

MODES = ("auto", "conv", "chunk", "scan")


def choose_mode(operation: str, system: Any, mode: str, u: Array, **options: Any) -> str:
    """The mode to run in; raises where the one asked for cannot do what the options ask."""
    if not isinstance(mode, str) or mode not in MODES:
        raise unknown(operation, "mode", mode, MODES)
    if options["step_scale"] is not None:
        if not isinstance(system, Diagonal) or system.discrete:
            kind = "Rational" if hasattr(system, "rational") else type(system).__name__
            raise OptionError(
                f"{operation}: step_scale needs a continuous Diagonal system, not a "
                f"{'discrete' if system.discrete else 'continuous'} {kind} one."
                + ("" if system.discrete else f" Diagonalize it: {operation}(to_diagonal(system)[0], ...).")
            )
        if mode == "conv":
            raise OptionError(
                f"{operation}: mode 'conv' has one kernel for all steps, so it takes no step_scale. Use mode='scan'."
            )
        return "scan"
    if mode == "conv" and options["reset"] is not None:
        raise OptionError(f"{operation}: mode 'conv' cannot restart the state at resets. Use mode='chunk'.")
    if mode != "auto":
        return mode
    if is_open(u, u.shape[-1]):
        return "chunk"  # a few programs for all lengths
    if isinstance(system, Diagonal) and records.inputs(system, records.batch_rank(system)) is not None:
        return "scan"
    if options["reset"] is not None:
        return "chunk"
    return "conv" if u.shape[-1] >= (_shortest_convolution(u) if isinstance(system, Diagonal) else 2) else "scan"


@dispatched
def _shortest_convolution(u: Array) -> int:
    """Steps from which the FFT is faster than the recurrence of a Diagonal system.

    Backends keep what was measured for them (docs/performance.md). Steps of a Dense system are always slower.
    """
    return 8
