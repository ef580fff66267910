"""Krylov sequences B, A B, A^2 B, ... of a dense matrix by doubling, and what follows from them.

[V, A^k V] doubles k columns with one product, so T columns take log2 T products. With l = a T + j, the kernel
C A^l B is one matrix product of the rows C A^(aT) by the columns A^j B: no loop over time, no roots of unity, and
real arithmetic for real matrices.
"""

from __future__ import annotations

from typing import Any

from .._arrays.dispatch import is_open
from .._arrays.idioms import matmul, matmul_shared, moved
from .._arrays.library import Array, Namespace, device
from .._arrays.shapes import broadcast
from .._arrays.sizes import BITS, STEPS, chunks_of, unchunked
from ..recurrences.fold import fold, in_chunks
from ..systems import records


def krylov(A: Array, B: Array, count: int, xp: Namespace) -> Array:
    """A^j B, j = 0..count-1, for A (..., N, N) and B (..., N, P): (..., N, count, P)."""
    if is_open(A, count):
        return _one_by_one(A, B, count, xp)
    return _doubled(A, B, (count - 1).bit_length(), xp)[0][..., :count, :]


def _one_by_one(A: Array, B: Array, count: int, xp: Namespace) -> Array:
    """The same for a count that a trace does not know, of chunks of steps."""
    lead = broadcast("krylov", A=A.shape[:-2], B=B.shape[:-2])
    dtype = xp.result_type(A.dtype, B.dtype)
    x = xp.broadcast_to(xp.astype(B, dtype), (*lead, *B.shape[-2:]))

    def body(x: Array, k: Array, A: Array) -> tuple[Array, Array]:
        return matmul(A, x, xp), x[None, ...]

    columns, _ = fold(body, x, (xp.arange(count, device=device(A)),), (A,), chunk=1, recompute=False)
    return moved(columns, 0, -2, xp)


def _doubled(A: Array, B: Array, times: int, xp: Namespace) -> tuple[Array, Array]:
    """A^j B, j = 0..2^times - 1, and the highest power of A that this took: A^(2^(times - 1))."""
    columns, power = B[..., None, :], A
    for i in range(times):
        power = matmul(power, power, xp) if i else A
        flat = xp.reshape(columns, (*columns.shape[:-2], columns.shape[-2] * columns.shape[-1]))
        more = matmul(power, flat, xp)
        more = xp.reshape(more, (*more.shape[:-1], *columns.shape[-2:]))
        columns = xp.concat([_spread(columns, more, xp), more], axis=-2)
    return columns, power


def _spread(x: Array, like: Array, xp: Namespace) -> Array:
    return xp.astype(xp.broadcast_to(x, like.shape), like.dtype)


def matrix_power(A: Array, k: int, xp: Namespace) -> Array:
    """A^k for an integer k >= 0 by repeated squaring."""
    result = xp.eye(A.shape[-1], dtype=A.dtype, device=device(A))
    while k:
        result = matmul(result, A, xp) if k & 1 else result
        k >>= 1
        A = matmul(A, A, xp) if k else A
    return result


class DensePropagator:
    """What a discrete Dense system does to states and inputs over many steps, by Krylov sequences."""

    def __init__(self, system: Any, logarithms: None, xp: Namespace) -> None:
        rank = records.batch_rank(system)
        self.A, self.xp = system.A, xp
        self.several_inputs = records.inputs(system, rank) is not None
        self.several_outputs = records.outputs(system, rank) is not None
        self.B = system.B if self.several_inputs else system.B[..., None]  # (..., N, P)
        C = system.C if self.several_outputs or system.C is None else system.C[..., None, :]
        self.C = None if C is None else xp.matrix_transpose(C)  # (..., N, M)
        self.A_transposed = xp.matrix_transpose(system.A)

    def kernel(self, length: int) -> Array:
        """C A^l B, l = 0..length-1: (...[, M][, P], length).

        T is a power of two, near sqrt(length): then its columns leave A^T behind for the rows.
        """
        if is_open(self.A, length):
            return self._unknown_kernel(length)
        xp, doublings = self.xp, ((length - 1).bit_length() + 1) // 2
        T = 2**doublings
        A = -(-length // T)
        columns, power = _doubled(self.A, self.B, doublings, xp)  # (..., N, T, P)
        power = matmul(power, power, xp) if doublings else power
        rows = krylov(xp.matrix_transpose(power), self.C, A, xp)  # (..., N, A, M)
        M, P = rows.shape[-1], columns.shape[-1]
        rows = xp.reshape(rows, (*rows.shape[:-2], A * M))
        columns = xp.reshape(columns, (*columns.shape[:-2], T * P))
        K = matmul(xp.matrix_transpose(rows), columns, xp)
        K = xp.reshape(K, (*K.shape[:-2], A, M, T, P))
        batch = tuple(range(K.ndim - 4))
        K = xp.permute_dims(K, (*batch, K.ndim - 3, K.ndim - 1, K.ndim - 4, K.ndim - 2))
        K = xp.reshape(K, (*K.shape[:-2], A * T))[..., :length]
        return self.with_axes_of(K)

    def _unknown_kernel(self, length: int) -> Array:
        """The same for a length that a trace does not know."""
        xp, power = self.xp, matrix_power(self.A, STEPS, self.xp)
        rows = krylov(xp.matrix_transpose(power), self.C, chunks_of(length), xp)  # (..., N, A, M)
        columns = krylov(self.A, self.B, STEPS, xp)  # (..., N, T, P)
        rows, columns = moved(rows, -1, -3, xp), moved(columns, -1, -3, xp)
        K = matmul(xp.matrix_transpose(rows)[..., :, None, :, :], columns[..., None, :, :, :], xp)  # (..., M, P, A, T)
        return self.with_axes_of(unchunked(K, length, -2, xp))

    def with_axes_of(self, K: Array) -> Array:
        """K (..., M, P, L) with the axes that the system has."""
        K = K if self.several_inputs else K[..., 0, :]
        return K if self.several_outputs else K[..., 0, :, :] if self.several_inputs else K[..., 0, :]

    def respond(self, states: Array, T: int) -> Array:
        """C A^(t+1) x for rows of states x (..., A, N), t = 0..T-1: (...[, M], A, T)."""
        xp = self.xp
        rows = krylov(self.A_transposed, matmul(self.A_transposed, self.C, xp), T, xp)  # (..., N, T, M)
        batch = tuple(range(rows.ndim - 3))
        rows = xp.permute_dims(rows, (*batch, rows.ndim - 1, rows.ndim - 3, rows.ndim - 2))  # (..., M, N, T)
        if not self.several_outputs:
            return matmul_shared(states, rows[..., 0, :, :], xp)
        return matmul_shared(states[..., None, :, :], rows, xp)

    def gather(self, u: Array) -> Array:
        """The state that each chunk of inputs u (...[, P], A, T) leaves, from zero: (..., A, N)."""
        xp = self.xp
        columns = xp.flip(krylov(self.A, self.B, u.shape[-1], xp), axis=-2)  # (..., N, T, P)
        batch = tuple(range(columns.ndim - 3))
        last = columns.ndim - 1
        columns = xp.permute_dims(columns, (*batch, last, last - 1, last - 2))  # (..., P, T, N)
        if not self.several_inputs:
            return matmul_shared(u, columns[..., 0, :, :], xp)
        return xp.sum(matmul_shared(u, columns, xp), axis=-3)

    def spread(self, state: Array, A: int, T: int) -> Array:
        """A^(aT) x, a = 0..A-1, for a state x (..., N): (..., A, N)."""
        x = krylov(matrix_power(self.A, T, self.xp), state[..., None], A, self.xp)
        return self.xp.matrix_transpose(x[..., 0])

    def combine(self, ends: Array, T: int) -> Array:
        """The last state from what the chunks leave (..., A, N), pairwise: (..., N)."""
        xp, power = self.xp, matrix_power(self.A, T, self.xp)
        if is_open(ends, ends.shape[-2]):
            return self.carry(ends, T, xp.zeros_like(ends[..., 0, :]))[..., -1, :]
        while ends.shape[-2] > 1:
            if ends.shape[-2] % 2:
                ends = xp.concat([xp.zeros_like(ends[..., :1, :]), ends], axis=-2)
            ends = self._times(power, ends[..., 0::2, :]) + ends[..., 1::2, :]
            power = matmul(power, power, xp)
        return ends[..., 0, :]

    def carry(self, ends: Array, T: int, initial: Array, keep: Array | None = None) -> Array:
        """The states after every chunk, s_a + keep_a A^T x_{a-1}: (..., A, N).

        Doubling: after round i each state holds the sum over its last 2^i chunks, through the gates between them.
        """
        xp, n = self.xp, ends.shape[-2]
        power = matrix_power(self.A, T, xp)
        if is_open(ends, n):
            return self._carried(ends, power, initial, keep)
        first = self._times(power, initial[..., None, :])
        first = first if keep is None else first * keep[..., :1, None]
        states = xp.concat([ends[..., :1, :] + first, ends[..., 1:, :] + xp.zeros_like(first)], axis=-2)
        shift = 1
        while shift < n:
            moved = self._times(power, states[..., :-shift, :])
            if keep is not None:
                moved = moved * keep[..., shift:, None]
                keep = xp.concat([keep[..., :shift], keep[..., shift:] * keep[..., :-shift]], axis=-1)
            states = xp.concat([states[..., :shift, :], states[..., shift:, :] + moved], axis=-2)
            power, shift = matmul(power, power, xp), 2 * shift
        return states

    def _carried(self, ends: Array, power: Array, initial: Array, keep: Array | None) -> Array:
        """The same for a number of chunks that a trace does not know, one after another."""

        def body(state: Array, v: dict[str, Array]) -> tuple[Array, Array]:
            moved = self._times(v["power"], state[..., None, :])[..., 0, :]
            state = v["ends"][0, ...] + (moved * v["keep"][0, ..., None] if "keep" in v else moved)
            return state, state[None, ...]

        state = initial + self.xp.zeros_like(self._times(power, ends[..., :1, :])[..., 0, :])
        signals = {"ends": moved(ends, -2, 0, self.xp), "keep": None if keep is None else moved(keep, -1, 0, self.xp)}
        states, _ = in_chunks(body, state, signals, {"power": power}, axis=0, chunk=1, recompute=False)
        return moved(states, 0, -2, self.xp)

    def advance(self, state: Array, k: int | Array, largest: int) -> Array:
        """A^k x for a state x (..., N) and an integer or an array of integers (..., 1) up to largest."""
        xp = self.xp
        if isinstance(k, int):
            return self._times(matrix_power(self.A, k, xp), state[..., None, :])[..., 0, :]
        power = self.A
        for bit in range(BITS if is_open(state, largest) else largest.bit_length()):
            moved = self._times(power, state[..., None, :])[..., 0, :]
            state = xp.where((k // 2**bit) % 2 == 1, moved, state)
            power = matmul(power, power, xp)
        return state

    def _times(self, power: Array, x: Array) -> Array:
        """A power of A applied to rows of states (..., A, N)."""
        return matmul_shared(x, self.xp.matrix_transpose(power), self.xp)
