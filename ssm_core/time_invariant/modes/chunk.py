"""Toeplitz products inside chunks of T steps, states between them.

Within a chunk y_t = sum_{j<=t} K_{t-j} u_j + C A^(t+1) x, where x is the state before the chunk. All chunks are
computed at once by matrix products; only the states between them follow one another. With resets the Toeplitz matrix
of a chunk keeps only the entries whose two steps lie in the same segment.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ..._arrays.dispatch import dispatched, is_open
from ..._arrays.idioms import matmul_shared
from ..._arrays.library import Array, Namespace, device
from ..._arrays.sizes import chunked, unchunked
from ...recurrences.fold import in_chunks
from ...recurrences.segments import Segments
from ..run import Run, last_state, masked_input

CHUNK = 64
CHUNK_WITH_RESETS = 32
ELEMENTS_AT_ONCE = 2**22  # of masked Toeplitz matrices


def run_chunks(run: Run) -> tuple[Array, Array | None]:
    """The run in chunks of u masked; the state at the lengths is computed by itself."""
    apart = run.want_state and run.segments.lengths is not None
    unmasked = Segments(run.length, run.reset)
    inner = replace(run, u=masked_input(run), segments=unmasked, want_state=run.want_state and not apart)
    y, state = _chunks(inner.u, inner)
    if apart:
        state = last_state(run)
    return y, state if run.want_state else None


@dispatched
def _chunks(u: Array, run: Run) -> tuple[Array, Array]:
    """All whole chunks together, then the rest of the sequence as a shorter chunk; u is that of the run."""
    if is_open(u, u.shape[-1]):
        return _unknown_chunks(run)
    T = min(CHUNK if run.reset is None else CHUNK_WITH_RESETS, run.length)
    whole = run.length - run.length % T
    y, state = _equal_chunks(_part(run, 0, whole), T)
    if whole < run.length:
        tail, state = _equal_chunks(replace(_part(run, whole, run.length), initial=state), run.length - whole)
        y = run.xp.concat([y, tail], axis=-1)
    return y, state


def _unknown_chunks(run: Run) -> tuple[Array, Array]:
    """The same for a length that is not known: the chunks continue into zeros, and the state is computed by itself."""
    xp = run.xp
    reset = None if run.reset is None else chunked(run.reset, -1, xp)
    y, _ = _chunk_by_chunk(run, chunked(run.u, -1, xp), reset)
    return unchunked(y, run.length, -2, xp), last_state(run) if run.want_state else run.first_state()


def _part(run: Run, start: int, stop: int) -> Run:
    return replace(run, u=run.u[..., start:stop], segments=run.segments.part(start, stop, run.xp))


def _equal_chunks(run: Run, T: int) -> tuple[Array, Array]:
    xp, A = run.xp, run.length // T
    u = xp.reshape(run.u, (*run.u.shape[:-1], A, T))
    reset = None if run.reset is None else xp.reshape(run.reset, (*run.reset.shape[:-1], A, T))
    y, state = _chunk_by_chunk(run, u, reset)
    return xp.reshape(y, (*y.shape[:-2], A * T)), state


def _chunk_by_chunk(run: Run, u: Array, reset: Array | None) -> tuple[Array, Array]:
    """y (..., A, T) and the last state, from u and resets (..., A, T)."""
    xp, propagator, T = run.xp, run.propagator, u.shape[-1]
    toeplitz = toeplitz_transposed(propagator.kernel(T), xp)  # (...[, M][, P], T, T)
    if reset is None:
        y, inputs, keep, reach = _apply(run, u, toeplitz), u, None, None
    else:
        segment = xp.cumulative_sum(xp.astype(reset, xp.int32), axis=-1)
        y = _apply_within_segments(run, u, toeplitz, segment)
        last = segment == segment[..., -1:]
        inputs = xp.where(last[..., None, :, :] if propagator.several_inputs else last, u, xp.zeros_like(u))
        keep = xp.astype(segment[..., -1] == 0, u.dtype)
        reach = segment == 0
    first = run.first_state()
    ends = propagator.gather(inputs)
    ends = ends + xp.zeros((*run.batch, 1, first.shape[-1]), dtype=first.dtype, device=device(first))
    after = propagator.carry(ends, T, first, keep)
    before = xp.concat([first[..., None, :], after[..., :-1, :]], axis=-2)
    from_states = propagator.respond(before, T)
    if reach is not None:
        reach = reach[..., None, :, :] if propagator.several_outputs else reach
        from_states = xp.where(reach, from_states, xp.zeros_like(from_states))
    return y + from_states, after[..., -1, :]


def toeplitz_transposed(K: Array, xp: Namespace) -> Array:
    """M[..., j, t] = K_{t-j} for j <= t and else 0, from K (..., T)."""
    T = K.shape[-1]
    k = xp.arange(T, device=device(K))
    lag = k[None, :] - k[:, None]
    padded = xp.concat([K, xp.zeros_like(K[..., :1])], axis=-1)
    index = xp.where(lag < 0, xp.full_like(lag, T), lag)
    return xp.reshape(xp.take(padded, xp.reshape(index, (-1,)), axis=-1), (*K.shape[:-1], T, T))


def _apply(run: Run, u: Array, toeplitz: Array) -> Array:
    """Every chunk (...[, P], A, T) times the Toeplitz matrix: (...[, M], A, T)."""
    propagator = run.propagator
    if propagator.several_outputs:
        u = u[..., None, :, :, :] if propagator.several_inputs else u[..., None, :, :]
    y = matmul_shared(u, toeplitz, run.xp)
    return run.xp.sum(y, axis=-3) if propagator.several_inputs else y


def _apply_within_segments(run: Run, u: Array, toeplitz: Array, segment: Array) -> Array:
    """The same, with the entries between different segments left out; chunk after chunk, to bound the memory."""
    xp, several = run.xp, run.propagator.several_inputs
    outputs = (None,) * run.propagator.several_outputs
    weights = xp.matrix_transpose(toeplitz)  # (...[, M][, P], T, T), [t, j]

    def body(state: Array, v: dict[str, Array]) -> tuple[Array, Array]:
        u, segment = v["u"], v["segment"]
        same = segment[..., :, None] == segment[..., None, :]
        same = same[(..., *outputs, *((None,) * several), slice(None), slice(None))]
        u = u[(..., *outputs, *((slice(None),) * several), None, slice(None))]
        y = xp.sum(xp.where(same, weights * u, xp.zeros_like(u)), axis=-1)
        return state, xp.sum(y, axis=-2) if several else y

    sizes = (*run.batch, *weights.shape[weights.ndim - 2 - several - len(outputs) :])
    known = [n for n in sizes if not is_open(u, n)]  # of a batch that a trace leaves open, the elements of a sequence
    chunk = max(1, ELEMENTS_AT_ONCE // max(1, math.prod(known)))
    return in_chunks(body, u[..., 0, :], {"u": u, "segment": segment}, axis=-2, chunk=chunk)[0]
