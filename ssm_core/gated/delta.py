"""The gated delta rule: a matrix as the state, of which a step erases what its key reads before it writes a value.

DeltaNet, Gated DeltaNet, DeltaProduct, KDA, GDN-2, Comba and RWKV-7 are this recurrence.
"""

from __future__ import annotations

from typing import Any

from .._arrays.errors import DomainError, OptionError, ShapeError, describe
from .._arrays.library import (
    Array,
    Namespace,
    compute_dtype,
    in_dtype_of,
    namespace,
    real_floating,
    require_arrays,
)
from .._arrays.numbers import flag, whole
from .._arrays.values import check_finite, overflow_ignored
from ..recurrences.segments import checked_segments
from ..recurrences.summaries import Columns
from .checks import check_given, kept_finite
from .delta_run import CHUNK, run_delta, step_delta, widened


def gated_delta(
    q: Array,
    k: Array,
    v: Array,
    log_decay: Array | None = None,
    beta: Array | None = None,
    *,
    erase: Array | None = None,
    write: Array | None = None,
    a: Array | None = None,
    b: Array | None = None,
    scale: float | None = None,
    initial: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    cu_seqlens: Array | None = None,
    return_state: bool = False,
    chunk: int = CHUNK,
) -> Array | tuple[Array, Array]:
    """The gated delta rule, by chunks: products of matrices inside, states between.

    S' = diag(e^{g_t}) S_{t-1},   S_t = S' + beta_t k_t (write_t v_t - S'^T (erase_t k_t))^T,   y_t = scale S_t^T q_t

    a           S_t = S' + beta_t k_t (write_t v_t - S_{t-1}^T a_t)^T: another key, which reads before the decay (Comba)
    a and b     S_t = S' + b_t (S_{t-1}^T a_t)^T + beta_t k_t (write_t v_t)^T: the general form (RWKV-7)

    q           (batch, L, G, K), real: head h of the H uses group h // (H / G)
    k           (batch, L, G, K)
    v           (batch, L, H, V)
    log_decay   g (batch, L, H), or of every channel (batch, L, H, K) or (batch, L, G, K); constant in time as (H,) or
                (H, K); 0 if None
    beta        (batch, L, H), mostly in [0, 2]; 1 if None
    erase       (batch, L, G, K) or (batch, L, H, K); 1 if None
    write       (batch, L, H, V); 1 if None
    a, b        (batch, L, G, K) or (batch, L, H, K)
    scale       K^{-1/2} if None
    initial     S_{-1} (batch, H, K, V), zero if None
    reset       bool (batch, L): the state is zeroed before that step
    lengths     integer (batch,): steps beyond do not touch the state; y beyond is unspecified
    cu_seqlens  integer (n + 1,) with batch 1: n sequences packed one after another; initial and states (n, H, K, V)
    chunk       steps of a chunk; the result does not depend on it, and L need not be a multiple
    returns     y (batch, L, H, V) in v's dtype, with return_state (y, the last state (batch, H, K, V))

    k, v, beta, erase, write, a and b may have an axis of R behind L, all of them: R substeps a step, of which the first
    decays and the last is read (DeltaProduct).

    Keys are taken as they are; with an L2 norm of 1 and beta in [0, 2] no step lets a state grow. No factor of a
    product exceeds 1 where decays are not positive, however strong they are. Memory is that of inputs, outputs, the
    states between chunks and a few chunks. Half precision is computed in float32.
    Raises ShapeError, DTypeError, OptionError, DomainError (host values: NaN, an overflow) and MixedArraysError.
    Source: Yang et al., Gated delta networks, ICLR 2025, https://arxiv.org/abs/2412.06464; by chunks: Yang et al.,
    Parallelizing linear transformers with the delta rule, NeurIPS 2024, https://arxiv.org/abs/2406.06484.

    >>> import numpy, ssm_core
    >>> one, half = numpy.ones((1, 3, 1, 1)), numpy.full((1, 3, 1), 0.5)
    >>> ssm_core.gated_delta(one, one, one, beta=half)[0, :, 0, 0]
    array([0.5  , 0.75 , 0.875])
    """
    operation = "gated_delta"
    chunk, return_state = whole(operation, chunk=chunk), flag(operation, return_state=return_state)
    optional = {"log_decay": log_decay, "beta": beta, "erase": erase, "write": write, "a": a, "b": b}
    masks = {"reset": reset, "lengths": lengths, "cu_seqlens": cu_seqlens}
    options: dict[str, Any] = {"scale": scale, "chunk": chunk, "want_state": return_state}
    y, state = _over_sequences(operation, {"q": q, "k": k, "v": v}, optional | {"initial": initial}, masks, **options)
    y = in_dtype_of(v, y, namespace(operation, v=v))
    return (y, state) if return_state else y


def _over_sequences(
    operation: str,
    signals: dict[str, Array],
    optional: dict[str, Array | None],
    masks: dict[str, Array | None],
    *,
    chunk: int,
    want_state: bool,
    scale: Any = None,
    columns: int = 0,
) -> tuple[Array, Array]:
    """`gated_delta` in the name of the operation that it is part of; without q, keys read.

    With `columns` the state begins with so many more, those of the unit matrix: see `widened`.
    """
    given = {name: x for name, x in optional.items() if x is not None}
    cuts = {name: x for name, x in masks.items() if x is not None}
    require_arrays(operation, **signals, **given, **cuts)
    xp, v = namespace(operation, **signals, **given, **cuts), signals["v"]
    real_floating(operation, **signals, **given)
    shapes = describe(**signals, **given, **cuts)
    if v.ndim not in (4, 5):
        raise ShapeError(f"{operation}: v must be (batch, L, H, V) ({shapes}).")
    factor = _checked(operation, signals, given, scale, 2, shapes)
    (batch, L), (H, V), K = v.shape[:2], v.shape[-2:], signals["k"].shape[-1]
    segments = checked_segments(operation, shapes, (batch,), L, of=v, **masks)
    check_given(operation, given, {"initial": ((segments.count(batch), H, K, V),)}, shapes)
    timed = (*signals, *(name for name, x in given.items() if name != "initial" and x.ndim > 2))
    shared = tuple(name for name in timed if (signals | given)[name].shape[2] != H)
    kept, options = (0,) if v.ndim == 5 else (0, 2), {"signals": timed, "shared": shared, "passing": ("q",)}
    arrays, broken = kept_finite(operation, signals | given, segments, xp, axis=1, kept=kept, **options)

    wide = _wide(arrays, xp)
    wide.setdefault("q", wide["k"] if v.ndim == 4 else wide["k"][:, :, 0, ...])
    first = wide.pop("initial", None)
    if columns:
        first = widened(wide, columns, xp)
    with overflow_ignored(v):
        y, state = run_delta(wide, scale=factor, segments=segments, initial=first, chunk=chunk, want_state=want_state)
    if not cuts:
        _check_bounded(operation, xp, y, shapes)
    return broken.marked(y, 1, xp), broken.marked_state(state, xp)


def gated_delta_update(
    state: Array,
    q: Array,
    k: Array,
    v: Array,
    log_decay: Array | None = None,
    beta: Array | None = None,
    *,
    erase: Array | None = None,
    write: Array | None = None,
    a: Array | None = None,
    b: Array | None = None,
    scale: float | None = None,
) -> tuple[Array, Array]:
    """One step of `gated_delta`: what generation runs for every token.

    state      (batch, H, K, V)
    others     as in `gated_delta`, without the axis L; with one of R behind batch where a step has R substeps
    returns    (y (batch, H, V) in v's dtype, the new state); the state given is not written to

    The equation and the other arguments are those of `gated_delta`. Half precision is computed in float32.
    Raises ShapeError, DTypeError, OptionError, DomainError (host values: NaN) and MixedArraysError.
    Source: Yang et al., Gated delta networks, ICLR 2025, https://arxiv.org/abs/2412.06464, section 3.

    >>> import numpy, ssm_core
    >>> one, state = numpy.ones((1, 1, 1)), numpy.zeros((1, 1, 1, 1))
    >>> y, state = ssm_core.gated_delta_update(state, one, one, one, beta=numpy.full((1, 1), 0.5))
    >>> y
    array([[[0.5]]])
    """
    operation = "gated_delta_update"
    signals = {"q": q, "k": k, "v": v}
    optional = {"log_decay": log_decay, "beta": beta, "erase": erase, "write": write, "a": a, "b": b}
    given = {name: x for name, x in optional.items() if x is not None} | {"state": state}
    require_arrays(operation, **signals, **given)
    xp = namespace(operation, **signals, **given)
    real_floating(operation, **signals, **given)
    shapes = describe(**signals, **given)
    if v.ndim not in (3, 4):
        raise ShapeError(f"{operation}: v must be (batch, H, V) ({shapes}).")
    factor = _checked(operation, signals, given, scale, 1, shapes)
    check_given(operation, given, {"state": ((v.shape[0], v.shape[-2], k.shape[-1], v.shape[-1]),)}, shapes)
    check_finite(operation, xp, **signals, **given)
    wide = _wide(signals | given, xp)
    y, last = step_delta(wide, wide.pop("state"), scale=factor, xp=xp)
    return in_dtype_of(v, y, xp), last


def gated_delta_summary(
    k: Array,
    v: Array,
    log_decay: Array | None = None,
    beta: Array | None = None,
    *,
    erase: Array | None = None,
    write: Array | None = None,
    a: Array | None = None,
    b: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    chunk: int = CHUNK,
) -> Columns:
    """What these steps of `gated_delta` do to the state before them: (P, s) of S -> P S + s.

    P (batch, H, K, K) is the product of diag(e^g) - beta k (e^g erase k)^T over the steps, zero with a reset among
    them, and s (batch, H, K, V) the last state from zero. Arguments and errors are those of `gated_delta`; composition
    as in `chunk_summary`.

    Raises ShapeError, DTypeError, OptionError, DomainError (host values: NaN, an overflow) and MixedArraysError.
    Source: Yang et al., Parallelizing linear transformers with the delta rule, NeurIPS 2024, section 3.

    >>> import numpy, ssm_core
    >>> one = numpy.ones((1, 3, 1, 1))
    >>> ssm_core.gated_delta_summary(one, one, beta=numpy.full((1, 3, 1), 0.5)).through
    array([[[[0.125]]]])
    """
    operation = "gated_delta_summary"
    require_arrays(operation, k=k, v=v)
    optional = {"log_decay": log_decay, "beta": beta, "erase": erase, "write": write, "a": a, "b": b}
    options: dict[str, Any] = {"chunk": whole(operation, chunk=chunk), "want_state": True}
    masks, V = {"reset": reset, "lengths": lengths}, v.shape[-1] if v.ndim else 0
    columns = k.shape[-1] if k.ndim else 0
    _, state = _over_sequences(operation, {"k": k, "v": v}, optional, masks, columns=columns, **options)
    return Columns(state[..., V:], state[..., :V])


def _checked(
    operation: str, signals: dict[str, Array], given: dict[str, Array], scale: Any, lead: int, shapes: object
) -> float:
    """The scale; raises for arguments that exclude each other, and for shapes that do not fit v."""
    k, v = signals["k"], signals["v"]
    head, several, (H, V) = tuple(v.shape[:lead]), tuple(v.shape[lead:-2]), v.shape[-2:]
    many = (*head, *several)
    if k.ndim != v.ndim or tuple(k.shape[:-2]) != many:
        raise ShapeError(f"{operation}: k must be {(*many, 'G', 'K')} ({shapes}).".replace("'", ""))
    G, K = k.shape[-2:]
    if "q" in signals and tuple(signals["q"].shape) != (*head, G, K):
        raise ShapeError(f"{operation}: q must be {(*head, G, K)} ({shapes}).")
    if G < 1 or H % G:
        raise ShapeError(f"{operation}: {G} heads of k do not divide {H} heads of v ({shapes}).")
    if 0 in several:
        raise ShapeError(f"{operation}: a step needs at least one substep ({shapes}).")
    of_k = ((*many, G, K), (*many, H, K))
    decays = ((*head, H), (*head, H, K), (*head, G, K), (H,), *(((H, K),) if lead == 2 else ()))
    wanted = {"log_decay": decays, "beta": ((*many, H),), "write": ((*many, H, V),)}
    check_given(operation, given, wanted | dict.fromkeys(("erase", "a", "b"), of_k), shapes)
    if "a" in given and "erase" in given:
        raise OptionError(f"{operation}: a is the key that reads, so erase has none to act on: multiply it into a.")
    if "b" in given and "a" not in given:
        raise OptionError(f"{operation}: b is written with what a reads: give a too.")
    if scale is not None and (isinstance(scale, bool) or not isinstance(scale, int | float) or not abs(scale) < 1e300):
        raise OptionError(f"{operation}: scale = {scale!r} must be a finite number.")
    return float(K**-0.5 if scale is None else scale)


def _wide(arrays: dict[str, Array], xp: Namespace) -> dict[str, Array]:
    dtype = compute_dtype(xp, *arrays.values())
    return {name: xp.astype(x, dtype, copy=False) for name, x in arrays.items()}


def _check_bounded(operation: str, xp: Namespace, y: Array, shapes: object) -> None:
    """Raise for outputs on the host that are not finite: inputs were."""
    try:
        check_finite(operation, xp, y=y)
    except DomainError as error:
        raise DomainError(
            f"{operation}: the state overflows: log_decay > 0 or keys with beta |k|^2 > 2 let it grow ({shapes}). "
            "Divide k by its L2 norm, and keep beta in [0, 2] and log_decay at most 0."
        ) from error
