"""Fused implementations for JAX."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ssm_core.functions import matrix_exponential
from ssm_core.recurrences.shards import Shards
from ssm_core.systems import records

FUSED = (
    "linear_scan",
    "diagonal_stepper",
    "fold",
    "fold_of_chunks",
    "either",
    "expm",
    "erf",
    "sigmoid",
    "softplus",
    "gelu",
    "fft_pair",
)
SHORTEST_CONVOLUTION = 4  # steps from which the FFT beats the recurrence: benchmarks "modes-*"
UNROLL = 4  # steps a turn of the loop over blocks. On a CPU none: fused, every one is computed from the first again
SHORTEST = 64  # steps that are split into blocks
SQUARINGS = 20  # of the matrix exponential that are always run
NAMESPACE = jnp


def devices() -> str:
    """Where it can compute."""
    return ", ".join(sorted({d.platform for d in jax.devices()}))


def is_traced(x: Any) -> bool:
    """Whether a transformation of JAX is tracing."""
    return isinstance(x, jax.core.Tracer)


def shards(axis: str) -> Shards:
    """The devices along an axis of shard_map, each with a part of a sequence."""
    size = lax.axis_size(axis)
    return Shards(size, lax.axis_index(axis), partial(lax.all_gather, axis_name=axis), lambda length: (length,) * size)


def is_symbol(size: Any) -> bool:
    """Whether a size is a symbol of jax.export."""
    return not isinstance(size, int)


def _readable(x: Any) -> bool:
    """Whether the host has the numbers at hand."""
    if not isinstance(x, jax.Array) or is_traced(x):
        return False
    return x.is_fully_addressable and all(d.platform == "cpu" for d in x.devices())


def bounds(x: Any) -> tuple[int, int] | None:
    if not _readable(x):
        return None
    x = np.asarray(x)
    return int(x.min()), int(x.max())


def all_finite(x: Any) -> bool | None:
    if not _readable(x):
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.asarray(x).sum()))  # where a function around is traced, a sum of JAX would be too


def owned(x: Any) -> Any:
    """JAX has no views."""
    return x


def to_numpy(x: Any) -> Any:
    return np.asarray(x)


def either(condition: Any, one: Callable[[], Any], other: Callable[[], Any]) -> Any:
    """lax.cond, which runs one of the two, but both under vmap."""
    return lax.cond(condition, one, other) if is_traced(condition) else NotImplemented


def from_numpy(x: np.ndarray) -> Any:
    """A batch of the host as JAX's own functions take it; of a dtype that JAX has not, as it is."""
    try:
        return jnp.asarray(x)
    except TypeError:
        return x


def fft_pair(u: Any, xp: Any) -> Any:
    """On a CPU with all leading axes as one: XLA's FFT there fails on what it has laid out otherwise for devices that
    share the channels, as it does a product of two spectra."""
    if jax.default_backend() != "cpu":
        return NotImplemented
    real = not jnp.iscomplexobj(u)
    return (_rows(jnp.fft.rfft), _rows(jnp.fft.irfft)) if real else (_rows(jnp.fft.fft), _rows(jnp.fft.ifft))


def _rows(transform: Any) -> Any:
    def of_rows(x: Any, n: int) -> Any:
        y = transform(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), n=n)
        return y.reshape(*x.shape[:-1], y.shape[-1])

    return of_rows


def expm(A: Any) -> Any:
    """The generic approximant and squarings; those of very large norms are taken only where there are any."""
    if A.size == 0:
        return jnp.exp(A)
    s = matrix_exponential.squarings(lax.stop_gradient(A), jnp)
    E = matrix_exponential.start(A * 2.0**-s, s, jnp)

    def squarings(E: Any, first: int, last: int) -> Any:
        def one(E: Any, k: Any) -> Any:
            return matrix_exponential.squared(E, s, k, jnp), None

        return lax.scan(one, E, jnp.arange(first, last, dtype=s.dtype))[0]

    E = squarings(E, 0, SQUARINGS)
    more = jax.checkpoint(lambda E: squarings(E, SQUARINGS, jnp.finfo(A.dtype).maxexp))
    return lax.cond(jnp.any(s > SQUARINGS), more, lambda E: E, E)


def shortest_convolution(u: Any) -> int:
    return SHORTEST_CONVOLUTION


def erf(x: Any) -> Any:
    return jax.scipy.special.erf(x)


def sigmoid(x: Any) -> Any:
    return jax.nn.sigmoid(x)


def softplus(x: Any) -> Any:
    return jax.nn.softplus(x)


def gelu(x: Any, approximate: str) -> Any:
    return jax.nn.gelu(x, approximate=approximate == "tanh")


def diagonal_stepper(poles: Any, B: Any, C: Any, *, conj_pairs: bool, several_outputs: bool) -> Any:
    """The sum over the states is a product with ones: XLA fuses a plain one into what follows, again and again."""
    if not conj_pairs or several_outputs or not jnp.iscomplexobj(poles):
        return NotImplemented

    def step(state: Any, u: Any) -> tuple[Any, Any]:
        state = poles * state + B * u[..., None]
        y = 2 * jnp.real(C * state)
        return state, jnp.matmul(y, jnp.ones(y.shape[-1:], y.dtype), precision="highest")

    return step


def linear_scan(a: Any, b: Any, initial: Any, *, axis: int, reverse: bool) -> Any:
    """x_k = a_k x_{k-1} + b_k by a loop, whose tangent is a scan with the same gates."""
    if b.shape[axis] == 0:
        return b
    shape = b.shape[:axis] + b.shape[axis + 1 :]
    first = jnp.zeros(shape, b.dtype) if initial is None else jnp.broadcast_to(initial, shape)
    a, b, first = _varying((a, b, first), (a, b, first))
    if axis == 0:
        return _scan(a, b, first, reverse)
    if axis < b.ndim - 1 and jax.default_backend() == "cpu":
        return _scan_in_place(a, b, first, axis, reverse)
    return jnp.moveaxis(_scan(jnp.moveaxis(a, axis, 0), jnp.moveaxis(b, axis, 0), first, reverse), 0, axis)


def _varying(tree: Any, others: Any) -> Any:
    """The tree, of a type that varies along all axes of shard_map that some of the others vary along.

    What a loop carries has one type: a state of zeros does not vary, and the state after a step does.
    """
    axes = frozenset[str]().union(*map(_axes_of, jax.tree.leaves(others)))

    def vary(x: Any) -> Any:
        missing = tuple(sorted(axes - _axes_of(x)))
        return lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(vary, tree) if axes else tree


def _axes_of(x: Any) -> frozenset[str]:
    """The axes of shard_map that an array varies along; the releases of jax 0.10 call them by two names."""
    kind = jax.typeof(x)
    found: frozenset[str] = kind.manual_axis_type.varying if hasattr(kind, "manual_axis_type") else kind.vma
    return found


def _states(a: Any, b: Any, first: Any, reverse: bool) -> Any:
    """The recurrence, linear in b and first, as the device that it is lowered for wants it.

    Where there is none but the CPU, the blocks are not even traced.
    """
    if b.shape[0] < SHORTEST or jax.default_backend() == "cpu":
        return _loop(a, b, first, reverse)
    loop, blocks = partial(_loop, reverse=reverse), partial(_in_blocks, reverse=reverse)
    return lax.platform_dependent(a, b, first, cpu=loop, default=blocks)


def _loop(a: Any, b: Any, first: Any, reverse: bool, unroll: int = 1) -> Any:
    """One step after another; JAX transposes it by itself."""
    if a.shape[0] == 1:

        def step(x: Any, drive: Any) -> Any:
            x = a[0] * x + drive
            return x, x

        return lax.scan(step, first, b, reverse=reverse, unroll=unroll)[1]

    def gated(x: Any, gate_drive: Any) -> Any:
        x = gate_drive[0] * x + gate_drive[1]
        return x, x

    return lax.scan(gated, first, (a, b), reverse=reverse, unroll=unroll)[1]


@partial(jax.jit, static_argnames="reverse")
def _in_blocks(a: Any, b: Any, first: Any, reverse: bool) -> Any:
    """A blocks of T steps side by side, where launching a step costs more than its arithmetic: 2 T + A steps, not A T.

    The product of the gates of every block and its last state from zero give the states before the blocks, which are
    a recurrence over blocks; and each block runs from the state before it.
    """
    length = b.shape[0]
    T = max(1, round((length / 2) ** 0.5))
    A = -(-length // T)
    missing = A * T - length

    def split(x: Any) -> Any:
        x = jnp.pad(x, [(missing, 0) if reverse else (0, missing), *[(0, 0)] * (x.ndim - 1)])
        return jnp.moveaxis(x.reshape(A, T, *x.shape[1:]), 1, 0)

    constant = a.shape[0] == 1
    gates, drives = a if constant else split(a), split(b)
    through = jnp.broadcast_to(lax.integer_pow(a, T), (A, *a.shape[1:])) if constant else jnp.prod(gates, axis=0)

    def block(x: Any, summary: Any) -> Any:
        x = _handed_on(summary[0], x) + summary[1]
        return x, x

    after = lax.scan(block, first, (through, _last(gates, drives, reverse)), reverse=reverse)[1]
    states = _loop(gates, drives, _before(first, after, reverse), reverse, UNROLL)
    states = jnp.moveaxis(states, 0, 1).reshape(A * T, *b.shape[1:])
    return states[missing:] if reverse else states[:length]


def _last(a: Any, b: Any, reverse: bool) -> Any:
    """The last state from zero."""

    def step(x: Any, gate_drive: Any) -> Any:
        return (a[0] if a.shape[0] == 1 else gate_drive[0]) * x + gate_drive[1], None

    zero = _varying(jnp.zeros_like(b[0]), b)
    return lax.scan(step, zero, (None if a.shape[0] == 1 else a, b), reverse=reverse, unroll=UNROLL)[0]


def _handed_on(P: Any, x: Any) -> Any:
    """P x, linear in x; a product that overflowed leaves zeros as they are, and takes all else to infinity."""
    finite, largest = jnp.isfinite(P), jnp.finfo(P.dtype).max
    return jnp.where(finite, 1, largest) * (jnp.where(finite, P, largest) * x)


def _before(first: Any, x: Any, reverse: bool) -> Any:
    """The state before every step."""
    return jnp.concatenate([x[1:], first[None]]) if reverse else jnp.concatenate([first[None], x[:-1]])


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def _scan(a: Any, b: Any, first: Any, reverse: bool) -> Any:
    return _states(a, b, first, reverse)


@_scan.defjvp
def _scan_jvp(reverse: bool, primals: Any, tangents: Any) -> Any:
    (a, b, first), (da, db, dfirst) = primals, tangents
    x = _scan(a, b, first, reverse)
    return x, _tangent(a, da, db, dfirst, first, x, reverse)


def _tangent(a: Any, da: Any, db: Any, dfirst: Any, first: Any, x: Any, reverse: bool) -> Any:
    """dx_k = a_k dx_{k-1} + (da_k x_{k-1} + db_k)."""
    return _scan(a, da * _before(first, x, reverse) + db, dfirst, reverse)


@partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _scan_in_place(a: Any, b: Any, first: Any, axis: int, reverse: bool) -> Any:
    """Along an axis in the middle, without copies that have time first."""
    length, constant = b.shape[axis], a.shape[axis] == 1

    def step(i: Any, held: Any) -> Any:
        states, x = held
        k = length - 1 - i if reverse else i
        gate, drive = (
            lax.dynamic_index_in_dim(m, j, axis, keepdims=False) for m, j in ((a, 0 if constant else k), (b, k))
        )
        x = gate * x + drive
        return lax.dynamic_update_index_in_dim(states, x, k, axis), x

    states, _ = lax.fori_loop(0, length, step, (_varying(jnp.zeros_like(b), b), first))
    return states


@_scan_in_place.defjvp
def _scan_in_place_jvp(axis: int, reverse: bool, primals: Any, tangents: Any) -> Any:
    """The tangent has time first: JAX can transpose it."""
    a, b, first = primals
    x = _scan_in_place(a, b, first, axis, reverse)
    a, da, db, states = (jnp.moveaxis(m, axis, 0) for m in (a, *tangents[:2], x))
    return x, jnp.moveaxis(_tangent(a, da, db, tangents[2], first, states, reverse), 0, axis)


def fold(body: Callable[..., Any], state: Any, xs: tuple[Any, ...], held: Any, *, chunk: int, recompute: bool) -> Any:
    """lax.scan over the whole chunks, recomputed in the backward, then the rest."""
    held = () if held is None else held
    state = _varying(state, (state, xs, held))
    body = jax.checkpoint(body) if recompute else body
    length = xs[0].shape[0]
    whole = length - length % chunk
    outputs = []
    if whole:
        parts = tuple(x[:whole].reshape(whole // chunk, chunk, *x.shape[1:]) for x in xs)
        state, y = lax.scan(lambda s, x: body(s, *x, *held), state, parts)
        outputs.append(y.reshape(whole, *y.shape[2:]))
    if whole < length:
        state, y = body(state, *(x[whole:] for x in xs), *held)
        outputs.append(y)
    return (jnp.concatenate(outputs) if len(outputs) > 1 else outputs[0]), state


def fold_of_chunks(pieces: tuple[Any, ...], body: Callable[..., Any], state: Any, held: Any, *, recompute: bool) -> Any:
    """lax.scan, whose length may be a symbol."""
    state = _varying(state, (state, pieces, held))
    body = jax.checkpoint(body) if recompute else body
    state, y = lax.scan(lambda s, x: body(s, *x, *held), state, pieces)
    return y, state


for _cls in records.CLASSES:
    jax.tree_util.register_dataclass(
        _cls,
        data_fields=list(records.array_fields(_cls)),
        meta_fields=[name for name in records.FLAGS if name in _cls.__dataclass_fields__],
    )
