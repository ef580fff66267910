"""One sequence over many processes, each of which holds a part of its steps.

    x_r = (P_{r-1}, s_{r-1}) o ... o (P_0, s_0) x_{-1}      the state before the steps of process r

Every process makes the summary (P, s) of its own steps, one gather gives all of them to all, and each runs from the
state that those before it leave. What a short convolution or a token shift has of earlier inputs is a state as well, so
it comes the same way. The core asks three things of its surroundings: how many processes, which one, and a gather.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from .._arrays.dispatch import framework, framework_of, load
from .._arrays.errors import OptionError
from .._arrays.library import Array, Namespace, device, is_array, is_complex, is_floating, namespace


@dataclass(frozen=True, eq=False)
class Shards:
    """The processes that hold a sequence, in the order of its steps.

    size       how many there are
    rank       which one this is: a number, or an array () under a trace
    gather     x -> (size, *x.shape), the x of all; differentiable, with the sum of what all make of x as its gradient
    lengths    steps of this one -> the steps of all
    backwards  whether time runs from the last one to the first
    """

    size: int
    rank: Any
    gather: Callable[[Array], Array]
    lengths: Callable[[int], tuple[int, ...]]
    backwards: bool = False

    def reversed(self) -> Shards:
        """The same for the reversed sequence."""
        return replace(self, backwards=not self.backwards)

    def across(self, own: Any, initial: Any, signals: Any, run: Callable[[Any], Array]) -> tuple[Array, Any]:
        """The outputs run(state) of the steps of this process, and the state after those of all; as of `enter`."""
        first, last = self.enter(own, initial, signals)
        return reached(run(first), first), last

    def enter(self, own: Any, initial: Any, signals: Any = ()) -> tuple[Any, Any]:
        """The state before the steps of this process, and the one after those of all.

        `own` is the summary of its steps, and `initial` the state before all steps, the same everywhere, with None for
        zero. The state after all is the same bit for bit. The signals are what the summary is made of: without steps
        it depends on them by name alone, for the backward of the gather is one of all processes.
        """
        xp = namespace("sequence", summary=_leaves(own)[0])
        # Not zeros_like, which lies in memory as the state of this process does: all make the same bytes.
        nothing = _mapped(lambda x: xp.zeros(x.shape, dtype=x.dtype, device=device(x)), own.state)
        states = [nothing if initial is None else _mapped(_begun, nothing, initial)]
        every = self._summaries(own, signals, xp)
        for summary in reversed(every) if self.backwards else every:
            states.append(summary.after(states[-1]))
        place = self.size - 1 - self.rank if self.backwards else self.rank
        # Chosen of all states, so that every process takes part in the backward of the gather, whatever it begins with.
        return _mapped(lambda *parts: xp.stack(parts)[place, ...], *states[:-1]), states[-1]

    def _summaries(self, own: Any, signals: Any, xp: Namespace) -> list[Any]:
        """The summaries of all processes, by one gather of all their numbers."""
        leaves = _leaves(own)
        flat = [xp.reshape(part, (-1,)) for x in leaves for part in _parts(x, xp)]
        dtype = xp.result_type(*flat)
        message = xp.concat([xp.astype(x, dtype, copy=False) for x in flat])
        of = [x for x in _leaves(signals) if is_floating(x)]
        every = self.gather(depending(message, of, xp) if any(0 in x.shape for x in of) else message)

        def read(numbers: Array) -> Any:
            first = 0

            def next_of(x: Array) -> Array:
                nonlocal first
                parts = []
                for part in _parts(x, xp):
                    n = math.prod(part.shape)
                    piece = xp.reshape(numbers[first : first + n], part.shape)
                    parts.append(xp.astype(piece, part.dtype, copy=False))
                    first += n
                return parts[0] if len(parts) == 1 else parts[0] + 1j * parts[1]

            return _mapped(next_of, own)

        return [read(every[i, ...]) for i in range(self.size)]


_over: Any = None  # a plain flag, as that of `use_backend`: compilers can read it


@contextmanager
def sequence(over: Any) -> Iterator[None]:
    """Within the block layers and models run over a sequence that is cut over processes, each given its own steps.

    over  a process group or a mesh of one dimension of torch.distributed, the name of an axis of JAX's shard_map, or
          any `Shards`. The processes hold the sequence in the order of their ranks, in parts that may be unequal

    Outputs, and a reset and a step_scale (B, L), belong to the steps of the process. States, lengths and cu_seqlens are
    those of the whole sequence, the same on every process, and so are pooled outputs. Every process calls the same
    layers, with the same options, in the same order, and runs the backward. The gradient is that of the sum of what the
    processes differentiate: a loss that is the same on every one of them counts as often as there are processes, which
    an average over them, as data parallelism takes, undoes.

    Functions outside of `layers` and `models` are not cut: they run over the steps that they are given. The flag
    belongs to the process, not to a thread. Raises OptionError for what is none of these.
    Source: Blelloch, Prefix sums and their applications, 1990, section 1.4; Dao and Gu, Transformers are SSMs, ICML
    2024, https://arxiv.org/abs/2405.21060, section 8.2.

    >>> import numpy, ssm_core
    >>> from ssm_core.distributed import Shards, sequence
    >>> alone = Shards(1, 0, lambda x: x[None, ...], lambda length: (length,))
    >>> layer, u = ssm_core.layers.HGRN(d_model=4), numpy.zeros((2, 10, 4), numpy.float32)
    >>> with sequence(alone):
    ...     layer.apply(layer.initial_parameters(seed=0), u).shape
    (2, 10, 4)
    """
    global _over
    if not isinstance(over, str):  # an axis has a place where it is used, which the block may surround
        _made(framework_of(type(over)), over)
    before, _over = _over, over
    try:
        yield
    finally:
        _over = before


def shards_of_now(u: Array) -> Shards | None:
    """What the innermost `sequence` says of arrays like u, None outside of one."""
    return None if _over is None else _made(framework(u), _over)


def whole_sequence(operation: str, why: str) -> None:
    """Raise for what needs all of a sequence, within `sequence`."""
    if _over is not None:
        raise OptionError(f"{operation}: within ssm_core.distributed.sequence a process has a part of the steps. {why}")


def _made(kind: str | None, over: Any) -> Shards:
    """What a framework makes of it, by the function `shards` of its backend."""
    if isinstance(over, Shards):
        return over
    make = None if kind is None else getattr(load(kind), "shards", None)
    found = NotImplemented if make is None else make(over)
    if found is NotImplemented:
        raise OptionError(
            f"sequence: {over!r} is no process group of torch.distributed, for arrays of torch, and no name of an axis "
            f"of JAX's shard_map, for arrays of jax ({kind or type(over).__name__}). For others pass "
            "ssm_core.distributed.Shards."
        )
    made: Shards = found
    return made


def reached(y: Array, first: Any) -> Array:
    """The outputs, which without steps depend on the state before them by name alone, for the sake of the backward."""
    return depending(y, _leaves(first), namespace("sequence", y=y)) if 0 in y.shape else y


def depending(y: Array, others: list[Array], xp: Namespace) -> Array:
    """y, with sums of no entries of the others: a gradient of y asks for theirs."""
    for x in filter(is_floating, others):
        nothing = xp.sum(xp.reshape(_parts(x, xp)[0], (-1,))[:0])
        y = y + xp.astype(nothing, y.dtype, copy=False)
    return y


def _begun(zero: Array, initial: Array | None) -> Array:
    return zero if initial is None else zero + initial


def _parts(x: Array, xp: Namespace) -> tuple[Array, ...]:
    """x as real arrays."""
    return (xp.real(x), xp.imag(x)) if is_complex(x) else (x,)


def _leaves(tree: Any) -> list[Array]:
    if isinstance(tree, tuple | list):
        return [x for part in tree for x in _leaves(part)]
    return [tree] if is_array(tree) else []


def _mapped(f: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """f of the arrays of trees of one shape, tuples of any kind; what is no array stays."""
    if isinstance(tree, tuple | list):
        found = [_mapped(f, *parts) for parts in zip(tree, *others, strict=True)]
        return type(tree)(*found) if hasattr(tree, "_fields") else tuple(found)
    return f(tree, *others) if is_array(tree) else tree
