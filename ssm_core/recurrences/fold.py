"""The checkpointed scan: a function over a sequence chunk by chunk, a chunk computed again in the backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._arrays.dispatch import dispatched, is_open
from .._arrays.errors import OptionError
from .._arrays.idioms import moved
from .._arrays.library import Array, namespace
from .._arrays.sizes import chunked, unchunked

Values = dict[str, Any]


def in_chunks(
    body: Callable[[Any, Values], tuple[Any, Array]],
    state: Any,
    signals: Values,
    constants: Values | None = None,
    *,
    axis: int,
    chunk: int,
    recompute: bool = True,
) -> tuple[Array, Any]:
    """A checkpointed scan of signals by name: body(state, values) -> (state, y) over chunks of `chunk` steps, in order.

    Time is on `axis` of all signals and of the result; in the values and in y it comes first. Signals that are None are
    left out. `constants` are the arrays that a body needs besides, the same in every chunk, or None where it closes
    over them.
    """
    present = {name: x for name, x in signals.items() if x is not None}
    held = {} if constants is None else {name: x for name, x in constants.items() if x is not None}
    names, xp = (*present, *held), namespace("in_chunks", x=next(iter(present.values())))

    def named(state: Any, *values: Array) -> tuple[Any, Array]:
        return body(state, dict(zip(names, values, strict=True)))

    time_first = tuple(moved(x, axis, 0, xp) for x in present.values())
    given = None if constants is None else tuple(held.values())
    y, state = fold(named, state, time_first, given, chunk=chunk, recompute=recompute)
    return moved(y, 0, axis, xp), state


def fold(
    body: Callable[..., Any],
    state: Any,
    xs: tuple[Array, ...],
    held: tuple[Array | None, ...] | None = None,
    *,
    chunk: int,
    recompute: bool = True,
) -> tuple[Array, Any]:
    """Run body(state, *chunk of xs, *held) -> (state, y) over consecutive chunks of time (axis 0), in order.

    With `recompute` the inside of a chunk is computed again in the backward instead of being kept, so that memory
    holds one chunk and the states between chunks; least of it where `held` says what a body needs besides, the same for
    every chunk, so that it closes over nothing that has a gradient. xs hold at least one step. The state keeps its
    shapes and dtypes, and y has a row for every step. After xs of a length that a tracer does not know come zeros, in
    whole chunks of them too: a body has to leave the state as it is in a step of zeros.

    Returns (all y joined along axis 0, last state).
    """
    length = xs[0].shape[0]
    if not is_open(xs[0], length):
        return _fold(body, state, xs, held, chunk=chunk, recompute=recompute)
    xp = namespace("fold", x=xs[0])
    pieces = tuple(chunked(x, 0, xp, chunk) for x in xs)
    y, state = _fold_of_chunks(pieces, body, state, held, length=length, recompute=recompute, backend="auto")
    return unchunked(y, length, 0, xp), state


@dispatched
def _fold(
    body: Callable[..., Any], state: Any, xs: tuple[Array, ...], held: Any, *, chunk: int, recompute: bool
) -> tuple[Array, Any]:
    """Array libraries without automatic differentiation have nothing to keep or to compute again."""
    xp, length, outputs = namespace("fold", x=xs[0]), xs[0].shape[0], []
    held = () if held is None else held
    for start in range(0, length, chunk):
        state, y = body(state, *(x[start : min(start + chunk, length), ...] for x in xs), *held)
        outputs.append(y)
    return (xp.concat(outputs, axis=0) if len(outputs) > 1 else outputs[0]), state


@dispatched
def _fold_of_chunks(
    pieces: tuple[Array, ...],
    body: Callable[..., Any],
    state: Any,
    held: tuple[Any, ...] | None,
    *,
    length: Any,
    recompute: bool,
) -> tuple[Array, Any]:
    """The same over pieces (A, T, ...) of a length that a trace does not know: y (A, T, ...), and the state."""
    raise OptionError(
        "fold: the number of chunks is unknown, so that no loop runs over them. Pass arrays of one shape."
    )
