"""Powers z^l of the poles of a Diagonal system, and what follows from them, without a tensor of all powers.

The two-level product: with l = a T + j, z^l = z^(aT) z^j, so the sum over n is one real matrix product of (A, 2N) by
(2N, T), where A = ceil(L/T). It needs A + T powers a pole instead of L, and no (N, L) tensor exists.
"""

from __future__ import annotations

import math
from typing import Any

from .._arrays.dispatch import is_open
from .._arrays.idioms import exp, matmul_shared
from .._arrays.library import Array, Namespace, device, is_complex, real_dtype, to_complex
from .._arrays.sizes import BITS, STEPS, chunks_of, unchunked
from ..recurrences.linear import checked_scan
from ..systems import records

Logarithms = tuple[Array, Array | None]
LONG = 2**14  # steps above which the rounding of the logarithms shows


class Powers:
    """Integer powers z^k of poles z (..., N): exp(k w) where their logarithms w are known, else by doubling.

    Doubling takes no logarithm, so z may be 0, and costs one product a power. Logarithms are a pair (w, what w lost
    by rounding, or None): a phase k w of thousands of radians needs both, exp(k (w + r)) = exp(k w) (1 + k r).
    """

    def __init__(self, poles: Array, logarithms: Logarithms | None, xp: Namespace) -> None:
        self.poles, self.logarithms, self.xp = poles, logarithms, xp

    def __getitem__(self, index: object) -> Powers:
        """The powers of poles[index], to add axes for outputs and inputs."""
        if self.logarithms is None:
            return Powers(self.poles[index], None, self.xp)
        w, rest = self.logarithms
        return Powers(self.poles[index], (w[index], None if rest is None else rest[index]), self.xp)

    def _exp(self, k: Any, longest: int, *, as_axis: bool = False) -> Array:
        """exp(k w) for k up to `longest`; with `as_axis` k becomes a new last axis."""
        w, rest = self.logarithms  # type: ignore[misc]
        if as_axis:
            w, rest = w[..., None], None if rest is None else rest[..., None]
        power = exp(w * k)
        short = rest is None or (not is_open(w, longest) and longest < LONG)
        return power if short else power * (1 + rest * k)

    def __call__(self, k: int) -> Array:
        """z^k (..., N)."""
        if self.logarithms is not None:
            return self._exp(float(k), k)
        result, square = self.xp.ones_like(self.poles), self.poles
        while k:
            result = result * square if k & 1 else result
            k >>= 1
            square = square * square if k else square
        return result

    def at(self, k: Array, largest: int) -> Array:
        """z^k for an array of integers 0 <= k <= largest that broadcasts against the poles."""
        xp = self.xp
        if self.logarithms is not None:
            return self._exp(xp.astype(k, real_dtype(self.poles.dtype, xp)), largest)
        result, square = xp.ones_like(self.poles), self.poles
        for bit in range(BITS if is_open(k, largest) else largest.bit_length()):
            result = xp.where((k // 2**bit) % 2 == 1, result * square, result)
            square = square * square
        return result

    def table(self, count: int, *, stride: int = 1, start: int = 0) -> Array:
        """z^(start + stride k), k = 0..count-1, as (..., N, count)."""
        xp = self.xp
        if self.logarithms is not None:
            k = xp.arange(count, dtype=real_dtype(self.poles.dtype, xp), device=device(self.poles))
            return self._exp(k * float(stride) + float(start), start + stride * count, as_axis=True)
        if is_open(self.poles, count):
            k = xp.arange(count, device=device(self.poles)) * stride + start
            return self[..., None].at(k, count)
        ratio, rows = self(stride)[..., None], self(start)[..., None]
        while rows.shape[-1] < count:
            rows = xp.concat([rows, rows * ratio], axis=-1)
            ratio = ratio * ratio
        return rows[..., :count]


def split_length(length: int, like: Array) -> tuple[int, int]:
    """(A, T) with A T >= length: a power of two T near the square root, which balances the two factors.

    A fixed T for a length that the trace of `like` does not know.
    """
    if is_open(like, length):
        return chunks_of(length), STEPS
    T = 2 ** round(math.log2(max(length, 1)) / 2)
    return -(-length // T), T


def power_sum(c: Array, powers: Powers, length: int, *, conj_pairs: bool) -> Array:
    """sum_n c_n z_n^l, or its real part with conj_pairs, for l = 0..length-1: (..., N) to (..., length)."""
    xp = powers.xp
    A, T = split_length(length, c)
    rows = xp.matrix_transpose(c[..., None] * powers.table(A, stride=T))  # (..., A, N)
    y = weighted_sum(rows, powers.table(T), conj_pairs, xp)
    if is_open(c, length):
        return unchunked(y, length, -2, xp)
    y = xp.reshape(y, (*y.shape[:-2], A * T))
    return y if length == A * T else y[..., :length]  # a slice costs its backward a copy


def weighted_sum(x: Array, weights: Array, conj_pairs: bool, xp: Namespace) -> Array:
    """x (..., A, N) times weights (..., N, T); with conj_pairs the real part of it, in real arithmetic."""
    if conj_pairs and (is_complex(x) or is_complex(weights)):
        x, weights = to_complex(x, xp), to_complex(weights, xp)
        x = xp.concat([xp.real(x), -xp.imag(x)], axis=-1)
        weights = xp.concat([xp.real(weights), xp.imag(weights)], axis=-2)
    return matmul_shared(x, weights, xp)


class DiagonalPropagator:
    """What a discrete `Diagonal` system does to states and inputs over many steps, by powers of its poles."""

    def __init__(self, system: Any, logarithms: Logarithms | None, xp: Namespace) -> None:
        self.system, self.xp = system, xp
        self.powers = Powers(system.poles, logarithms, xp)
        rank = records.batch_rank(system)
        self.several_inputs = records.inputs(system, rank) is not None
        self.several_outputs = records.outputs(system, rank) is not None

    def kernel(self, length: int) -> Array:
        """C z^l B, l = 0..length-1: (...[, M][, P], length)."""
        B, C, powers = self.system.B, self.system.C, self.powers
        if self.several_inputs:
            B = self.xp.matrix_transpose(B)  # (..., P, N)
            powers = powers[..., None, :]
        if self.several_outputs:
            B = B[..., None, :, :] if self.several_inputs else B[..., None, :]
            C = C[..., :, None, :] if self.several_inputs else C
            powers = powers[..., None, :] if not self.several_inputs else powers[..., None, :, :]
        elif self.several_inputs:
            C = C[..., None, :]
        return power_sum(self._doubled(C) * B, powers, length, conj_pairs=self.system.conj_pairs)

    def _doubled(self, C: Array) -> Array:
        """C, with conj_pairs for both members of every pair."""
        return 2 * C if self.system.conj_pairs else C

    def respond(self, states: Array, T: int) -> Array:
        """C z^(t+1) x for rows of states x (..., A, N), t = 0..T-1: (...[, M], A, T)."""
        weights = self.powers.table(T, start=1)
        C = self._doubled(self.system.C)[..., None]
        if self.several_outputs:
            weights, states = weights[..., None, :, :], states[..., None, :, :]
        return weighted_sum(states, C * weights, self.system.conj_pairs, self.xp)

    def gather(self, u: Array) -> Array:
        """The state that each chunk of inputs u (...[, P], A, T) leaves, from zero: (..., A, N)."""
        xp = self.xp
        weights = xp.matrix_transpose(xp.flip(self.powers.table(u.shape[-1]), axis=-1))  # (..., T, N)
        if self.several_inputs:
            weights = weights[..., None, :, :]
        x = self._times_complex(u, weights)
        if not self.several_inputs:
            return x * self.system.B[..., None, :]
        B = xp.matrix_transpose(self.system.B)[..., None, :]  # (..., P, 1, N)
        return xp.sum(x * B, axis=-3)

    def _times_complex(self, u: Array, weights: Array) -> Array:
        """u weights, in real arithmetic where u is real."""
        xp, n = self.xp, weights.shape[-1]
        if is_complex(u) or not is_complex(weights):
            return matmul_shared(u, weights, xp)
        x = matmul_shared(u, xp.concat([xp.real(weights), xp.imag(weights)], axis=-1), xp)
        return x[..., :n] + 1j * x[..., n:]

    def spread(self, state: Array, A: int, T: int) -> Array:
        """z^(aT) x, a = 0..A-1, for a state x (..., N): (..., A, N)."""
        return state[..., None, :] * self.xp.matrix_transpose(self.powers.table(A, stride=T))

    def combine(self, ends: Array, T: int) -> Array:
        """The last state from what the chunks leave (..., A, N): sum_a z^(T(A-1-a)) s_a, (..., N)."""
        xp = self.xp
        weights = xp.flip(self.powers.table(ends.shape[-2], stride=T), axis=-1)
        return xp.sum(ends * xp.matrix_transpose(weights), axis=-2)

    def carry(self, ends: Array, T: int, initial: Array, keep: Array | None = None) -> Array:
        """The states after every chunk, s_a + keep_a z^T x_{a-1}: (..., A, N)."""
        gate = self.powers(T)[..., None, :]
        gate = gate if keep is None else gate * keep[..., None]
        return checked_scan(
            "linear_scan", to_complex(gate, self.xp) if is_complex(ends) else gate, ends, axis=-2, initial=initial
        )

    def advance(self, state: Array, k: int | Array, largest: int) -> Array:
        """z^k x for a state x (..., N) and an integer or an array of integers (..., 1) up to largest."""
        return state * (self.powers(k) if isinstance(k, int) else self.powers.at(k, largest))
