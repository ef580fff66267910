"""Gated linear attention: a matrix as the state, which decays and takes in one product of a key and a value a step.

RetNet, Lightning attention, GLA, HGRN2, RWKV-5, RWKV-6 and mLSTM are this recurrence. With one decay a head it is the
state space dual of Mamba-2, and is computed as such.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .._arrays.errors import DomainError, OptionError, ShapeError, describe
from .._arrays.library import Array, Namespace, compute_dtype, in_dtype_of, namespace, real_floating, require_arrays
from .._arrays.numbers import flag, number, whole
from .._arrays.values import check_finite, overflow_ignored
from ..recurrences.segments import checked_segments
from ..recurrences.summaries import Elementwise
from .checks import check_given, check_tuples, kept_finite
from .decay_run import CHUNK, NORMALIZERS, Memory, Rule, log_through, nothing_yet, run_decay, step_decay

EPSILON = 1e-6
EVERY = (-math.inf, math.inf)


class Asked(NamedTuple):
    """The options of a `Rule` as they were given."""

    exclusive: Any
    normalize: str | None
    epsilon: Any
    scale: Any


def gated_linear_attention(
    q: Array,
    k: Array,
    v: Array,
    log_decay: Array | None = None,
    *,
    log_input: Array | None = None,
    bonus: Array | None = None,
    exclusive: bool = False,
    normalize: str | None = None,
    epsilon: float = EPSILON,
    scale: float | None = None,
    initial: Any = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    cu_seqlens: Array | None = None,
    return_state: bool = False,
    chunk: int = CHUNK,
) -> Array | tuple[Array, Any]:
    """Linear attention with decays, by chunks: products of matrices inside, states between.

    S_t = diag(e^{g_t}) S_{t-1} + e^{i_t} k_t v_t^T,   y_t = scale S_t^T q_t

    exclusive   y_t = scale S_{t-1}^T q_t, read before the decay
    bonus       adds scale (q_t . (u k_t)) v_t
    normalize   "sum": y_t = scale S_t^T q_t / (scale n_t . q_t + epsilon), with n_t the same recurrence of values of 1.
                "max": S and n are kept over e^{m_t}, m_t = max(g_t + m_{t-1}, i_t), m_{-1} = 0, and
                y_t = scale S_t^T q_t / (max(|scale n_t . q_t|, e^{-m_t}) + epsilon)

    q, k        (batch, L, G, K), real: head h of the H uses group h // (H / G)
    v           (batch, L, H, V)
    log_decay   g (batch, L, H), or (batch, L, H, K) of every channel; constant in time as (H,) or (H, K); 0 if None
    log_input   i (batch, L, H), 0 if None
    bonus       u (H, K)
    scale       K^{-1/2} if None
    initial     S_{-1} (batch, H, K, V), with "sum" (S, n (batch, H, K)), with "max" (S, n, m (batch, H)); zero if None
    reset       bool (batch, L): the state is zeroed before that step
    lengths     integer (batch,): steps beyond do not touch the state; y beyond is unspecified
    cu_seqlens  integer (n + 1,) with batch 1: n sequences packed one after another; initial and states of batch n
    chunk       steps of a chunk; the result does not depend on it, and L need not be a multiple
    returns     y (batch, L, H, V) in v's dtype, with return_state (y, the last state)

    No factor of a product exceeds 1 where decays are not positive, however strong they are. Memory is that of inputs,
    outputs, the states between chunks and one chunk. Half precision is computed in float32.
    Raises ShapeError, DTypeError, OptionError, DomainError (host values: NaN, an overflow) and MixedArraysError.
    Source: Yang et al., Gated linear attention transformers with hardware-efficient training, ICML 2024,
    https://arxiv.org/abs/2312.06635; "max": Beck et al., xLSTM, NeurIPS 2024, https://arxiv.org/abs/2405.04517.

    >>> import numpy, ssm_core
    >>> one = numpy.ones((1, 3, 1, 1))
    >>> ssm_core.gated_linear_attention(one, one, one, numpy.full((1, 3, 1), -1.0))[0, :, 0, 0].round(3)
    array([1.   , 1.368, 1.503])
    """
    operation = "gated_linear_attention"
    chunk, return_state = whole(operation, chunk=chunk), flag(operation, return_state=return_state)
    optional = {"log_decay": log_decay, "log_input": log_input, "bonus": bonus}
    masks = {"reset": reset, "lengths": lengths, "cu_seqlens": cu_seqlens}
    options: dict[str, Any] = {"exclusive": exclusive, "epsilon": epsilon, "scale": scale}
    signals = {"q": q, "k": k, "v": v}
    options |= {"normalize": normalize, "chunk": chunk, "want_state": return_state}
    y, last = _over_sequences(operation, signals, optional, initial, masks, **options)
    y = in_dtype_of(v, y, namespace(operation, v=v))
    return (y, last if normalize else last[0]) if return_state else y


def _over_sequences(
    operation: str,
    signals: dict[str, Array],
    optional: dict[str, Array | None],
    initial: Any,
    masks: dict[str, Array | None],
    *,
    normalize: str | None,
    chunk: int,
    want_state: bool,
    exclusive: Any = False,
    epsilon: Any = EPSILON,
    scale: Any = None,
) -> tuple[Array, Any]:
    """`gated_linear_attention` in the name of the operation that it is part of; without q, keys read."""
    check_tuples(operation, _parts(operation, normalize, initial))
    state = dict(zip(("S", "n", "m"), initial if isinstance(initial, tuple | list) else (initial,), strict=False))
    given = {name: x for name, x in (optional | state).items() if x is not None}
    cuts = {name: x for name, x in masks.items() if x is not None}
    require_arrays(operation, **signals, **given, **cuts)
    xp, v = namespace(operation, **signals, **given, **cuts), signals["v"]
    real_floating(operation, **signals, **given)
    shapes = describe(**signals, **given, **cuts)
    if v.ndim != 4:
        raise ShapeError(f"{operation}: v must be (batch, L, H, V) ({shapes}).")
    rule = _checked(operation, signals, given, Asked(exclusive, normalize, epsilon, scale), 2, shapes)
    (batch, L, H, V), K = v.shape, signals["k"].shape[-1]
    segments = checked_segments(operation, shapes, (batch,), L, of=v, **masks)
    n = segments.count(batch)
    check_given(operation, given, {"S": ((n, H, K, V),), "n": ((n, H, K),), "m": ((n, H),)}, shapes)
    timed = (*signals, *(name for name in ("log_decay", "log_input") if name in given and given[name].ndim > 2))
    rows: dict[str, Any] = {"signals": timed, "state": tuple(state), "passing": ("q",)}
    rows["shared"] = tuple(name for name in timed if (signals | given)[name].shape[2] != H)
    arrays, broken = kept_finite(operation, signals | given, segments, xp, axis=1, kept=(0, 2), **rows)

    wide = _wide(arrays, xp)
    wide.setdefault("q", wide["k"])
    first = tuple(wide[name] for name in state) if initial is not None else None
    with overflow_ignored(v):
        y, last = run_decay(wide, rule, segments=segments, initial=first, chunk=chunk, want_state=want_state)
    if not cuts:
        check_bounded(operation, xp, y, shapes)
    return broken.marked(y, 1, xp), broken.marked_state(last, xp)


def gated_linear_attention_update(
    state: Any,
    q: Array,
    k: Array,
    v: Array,
    log_decay: Array | None = None,
    *,
    log_input: Array | None = None,
    bonus: Array | None = None,
    exclusive: bool = False,
    normalize: str | None = None,
    epsilon: float = EPSILON,
    scale: float | None = None,
) -> tuple[Array, Any]:
    """One step of `gated_linear_attention`: what generation runs for every token.

    state      as its initial
    q, k, v    (batch, G, K), (batch, G, K) and (batch, H, V)
    log_decay  (batch, H), (batch, H, K) or (H,); log_input (batch, H)
    returns    (y (batch, H, V) in v's dtype, the new state); the state given is not written to

    The other arguments and the equation are those of `gated_linear_attention`. Half precision is computed in float32.
    Raises ShapeError, DTypeError, OptionError, DomainError (host values: NaN) and MixedArraysError.
    Source: Yang et al., Gated linear attention transformers with hardware-efficient training, ICML 2024, section 3.

    >>> import numpy, ssm_core
    >>> one = numpy.ones((1, 1, 1))
    >>> y, state = ssm_core.gated_linear_attention_update(one[..., None], one, one, one, numpy.full((1, 1), -1.0))
    >>> y.round(3)
    array([[[1.368]]])
    """
    operation = "gated_linear_attention_update"
    check_tuples(operation, _parts(operation, normalize, state))
    parts = dict(zip(("S", "n", "m"), state if isinstance(state, tuple | list) else (state,), strict=False))
    signals = {"q": q, "k": k, "v": v}
    optional = {"log_decay": log_decay, "log_input": log_input, "bonus": bonus}
    given = {name: x for name, x in optional.items() if x is not None} | parts
    require_arrays(operation, **signals, **given)
    xp = namespace(operation, **signals, **given)
    real_floating(operation, **signals, **given)
    shapes = describe(**signals, **given)
    if v.ndim != 3:
        raise ShapeError(f"{operation}: v must be (batch, H, V) ({shapes}).")
    rule = _checked(operation, signals, given, Asked(exclusive, normalize, epsilon, scale), 1, shapes)
    batch, H, V = v.shape
    K = k.shape[-1]
    check_given(operation, parts, {"S": ((batch, H, K, V),), "n": ((batch, H, K),), "m": ((batch, H),)}, shapes)
    check_finite(operation, xp, **signals, **given)
    wide = _wide(signals | given, xp)
    y, last = step_decay(wide, tuple(wide[name] for name in parts), rule)
    return in_dtype_of(v, y, xp), last if normalize else last[0]


def gated_linear_attention_summary(
    k: Array,
    v: Array,
    log_decay: Array | None = None,
    *,
    log_input: Array | None = None,
    normalize: str | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    chunk: int = CHUNK,
) -> Elementwise | Memory:
    """What these steps of `gated_linear_attention` do to the state before them: (P, s) of S -> P S + s.

    P = exp(sum_t g_t) (batch, H, K, 1), or with one decay a head (batch, H, 1, 1); zero with a reset among the steps.
    s is the last state from zero, with normalizers (S, n) or (S, n, m), where the larger of the m wins. Arguments and
    errors are those of `gated_linear_attention`; composition as in `chunk_summary`.

    Raises ShapeError, DTypeError, OptionError, DomainError (host values: NaN, an overflow) and MixedArraysError.
    Source: Yang et al., Gated linear attention transformers with hardware-efficient training, ICML 2024, section 4.

    >>> import numpy, ssm_core
    >>> one = numpy.ones((1, 3, 1, 1))
    >>> ssm_core.gated_linear_attention_summary(one, one, numpy.full((1, 3, 1), -1.0)).through.round(3)
    array([[[[0.05]]]])
    """
    operation = "gated_linear_attention_summary"
    cuts: dict[str, Any] = {"reset": reset, "lengths": lengths}
    require_arrays(operation, k=k, v=v)
    _parts(operation, normalize, None)
    nothing = nothing_yet(k, v) if normalize == "max" and k.ndim == v.ndim == 4 else None
    options: dict[str, Any] = {"normalize": normalize, "chunk": whole(operation, chunk=chunk), "want_state": True}
    optional = {"log_decay": log_decay, "log_input": log_input}
    _, parts = _over_sequences(operation, {"k": k, "v": v}, optional, nothing, cuts, **options)
    xp = namespace(operation, state=parts[0])
    v = xp.astype(v, parts[0].dtype, copy=False)
    g = None if log_decay is None else xp.astype(log_decay, v.dtype, copy=False)
    segments = checked_segments(operation, "", tuple(v.shape[:1]), v.shape[1], **cuts)
    total = log_through(g, v, segments, xp)
    return Memory(total, parts) if normalize else Elementwise(xp.exp(total)[..., None], parts[0])


def _parts(operation: str, normalize: Any, state: Any) -> dict[str, tuple[Any, int]]:
    """The state that should be a tuple of so many arrays."""
    if normalize is not None and not (isinstance(normalize, str) and normalize in NORMALIZERS):
        known = ", ".join(repr(name) for name in (*NORMALIZERS, None))
        raise OptionError(f"{operation}: unknown normalize {normalize!r}. Known: {known}.")
    return {} if normalize is None else {"initial": (state, NORMALIZERS[normalize])}


def _checked(
    operation: str, signals: dict[str, Array], given: dict[str, Array], asked: Asked, lead: int, shapes: object
) -> Rule:
    """The options as they hold; raises for those that exclude each other, and for shapes that do not fit v."""
    k, v = signals["k"], signals["v"]
    q: Any = signals.get("q", k)
    head, H = tuple(v.shape[:lead]), v.shape[lead]
    if tuple(q.shape) != tuple(k.shape) or k.ndim != lead + 2 or tuple(k.shape[:lead]) != head:
        both = " and ".join(name for name in signals if name != "v")
        raise ShapeError(f"{operation}: {both} must be {(*head, 'G', 'K')} ({shapes}).".replace("'", ""))
    G, K = k.shape[lead:]
    if G < 1 or H % G:
        raise ShapeError(f"{operation}: {G} heads of k do not divide {H} heads of v ({shapes}).")
    decays = ((H,), (*head, H), (*head, H, K), *(((H, K),) if lead == 2 else ()))
    check_given(operation, given, {"log_decay": decays, "log_input": ((*head, H),), "bonus": ((H, K),)}, shapes)
    exclusive, normalize = flag(operation, exclusive=asked.exclusive), asked.normalize
    epsilon = number(operation, "must be a finite number", *EVERY, epsilon=asked.epsilon)
    scale = asked.scale
    scale = K**-0.5 if scale is None else number(operation, "must be a finite number", *EVERY, scale=scale)
    if normalize is not None and (exclusive or "bonus" in given):
        raise OptionError(f"{operation}: normalize = {normalize!r} goes with a read of the same step, without a bonus.")
    decay = given.get("log_decay")
    if normalize == "max" and decay is not None and tuple(decay.shape) not in ((H,), (*head, H)):
        raise ShapeError(f"{operation}: normalize = 'max' needs one decay a head: {(*head, H)} ({shapes}).")
    return Rule(exclusive, normalize, float(epsilon), float(scale))


def _wide(arrays: dict[str, Array], xp: Namespace) -> dict[str, Array]:
    dtype = compute_dtype(xp, *arrays.values())
    return {name: xp.astype(x, dtype, copy=False) for name, x in arrays.items()}


def check_bounded(operation: str, xp: Namespace, y: Array, shapes: object) -> None:
    """Raise for outputs on the host that are not finite: inputs were."""
    try:
        check_finite(operation, xp, y=y)
    except DomainError as error:
        raise DomainError(
            f"{operation}: the state overflows: log_decay > 0 lets it grow, or log_input or the inputs are too large "
            f"({shapes}). Keep log_decay at most 0, and use normalize='max' for large log_input."
        ) from error
