"""Real states with a gate of their own in every step: HGRN, and the real-gated linear recurrent unit of Griffin.

Both are `linear_scan` with gates e^g <= 1 that depend on the input; what enters differs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .._arrays.errors import DomainError, ShapeError, describe
from .._arrays.library import (
    Array,
    Namespace,
    compute_dtype,
    device,
    in_dtype_of,
    namespace,
    real_floating,
    require_arrays,
)
from .._arrays.numbers import flag
from .._arrays.values import check_finite, overflow_ignored
from ..functions.special import activation
from ..recurrences.broken import Broken, kept_apart
from ..recurrences.linear import linear_scan
from ..recurrences.segments import Segments, Signals, checked_segments
from ..recurrences.summaries import Elementwise, through_segments
from .checks import check_given
from .openings import driven, kept_and_entering, strongest

Arrays = dict[str, Array]


def hgrn(
    x: Array,
    log_decay: Array,
    *,
    initial: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    cu_seqlens: Array | None = None,
    return_state: bool = False,
) -> Array | tuple[Array, Array]:
    """The recurrence of HGRN: a vector that every step forgets by gates of its own.

    h_t = e^{g_t} h_{t-1} + x_t,   y_t = h_t

    x           (batch, L, W), real; HGRN's is (1 - e^g) silu(i)
    log_decay   g (batch, L, W); positive ones grow, until they overflow
    initial     h_{-1} (batch, W), zero if None
    reset       bool (batch, L): the state is zeroed before that step
    lengths     integer (batch,): steps beyond do not touch the state; y beyond is unspecified
    cu_seqlens  integer (n + 1,) with batch 1: n sequences packed one after another; initial and states (n, W)
    returns     y (batch, L, W) in x's dtype, with return_state (y, the last state (batch, W))

    Half precision is computed in float32. Raises ShapeError, DTypeError, OptionError, DomainError (host values: NaN,
    an overflow) and MixedArraysError.
    Source: Qin, Yang and Zhong, Hierarchically gated recurrent neural network for sequence modeling, NeurIPS 2023,
    https://arxiv.org/abs/2311.04823.

    >>> import numpy, ssm_core
    >>> one = numpy.ones((1, 3, 1))
    >>> ssm_core.hgrn(one, -one)[0, :, 0].round(3)
    array([1.   , 1.368, 1.503])
    """
    operation, masks = "hgrn", {"reset": reset, "lengths": lengths, "cu_seqlens": cu_seqlens}
    return_state = flag(operation, return_state=return_state)
    signals, first = {"x": x, "log_decay": log_decay}, {"initial": initial}
    v, segments, broken, shapes = checked_vectors(operation, signals, {}, first, masks)
    xp = namespace(operation, x=x)
    with overflow_ignored(x):
        y, state = run_hgrn(
            v["x"], v["log_decay"], segments=segments, initial=v.get("initial"), want_state=return_state
        )
    if not segments.cut:
        _check_bounded(operation, xp, y, shapes)
    y = in_dtype_of(x, broken.marked(y, 1, xp), xp)
    return (y, broken.marked_state(state, xp)) if return_state else y


def hgrn_update(state: Array, x: Array, log_decay: Array) -> tuple[Array, Array]:
    """One step of `hgrn`: what generation runs for every token.

    h = e^g h + x,   y = h

    state         (batch, W)
    x, log_decay  (batch, W)
    returns       (y (batch, W) in x's dtype, the new state (batch, W)); the state given is not written to

    Raises ShapeError, DTypeError, DomainError (host values: NaN) and MixedArraysError.
    Source: as of `hgrn`.

    >>> import numpy, ssm_core
    >>> one = numpy.ones((1, 1))
    >>> ssm_core.hgrn_update(one, one, -one)[0].round(3)
    array([[1.368]])
    """
    v = checked_step("hgrn_update", {"x": x, "log_decay": log_decay}, {}, {"state": state})
    xp = namespace("hgrn_update", x=x)
    h = xp.exp(v["log_decay"]) * v["state"] + v["x"]
    return in_dtype_of(x, h, xp), h


def hgrn_summary(
    x: Array, log_decay: Array, *, reset: Array | None = None, lengths: Array | None = None
) -> Elementwise:
    """What these steps of `hgrn` do to the state before them: (P, s) of h -> P h + s.

    P = exp(sum_t g_t) (batch, W), or zero with a reset among them, and s (batch, W) the last state from zero. Arguments
    are those of `hgrn`; composition as in `chunk_summary`.

    Raises ShapeError, DTypeError, OptionError, DomainError (host values: NaN) and MixedArraysError.
    Source: as of `hgrn`.

    >>> import numpy, ssm_core
    >>> one = numpy.ones((1, 3, 1))
    >>> summary = ssm_core.hgrn_summary(one, -one)
    >>> summary.through.round(3), summary.state.round(3)
    (array([[0.05]]), array([[1.503]]))
    """
    operation, masks = "hgrn_summary", {"reset": reset, "lengths": lengths}
    v, segments, broken, _ = checked_vectors(operation, {"x": x, "log_decay": log_decay}, {}, {}, masks)
    xp = namespace(operation, x=x)
    _, state = run_hgrn(v["x"], v["log_decay"], segments=segments)
    return _summarized(broken.marked_state(state, xp), v["log_decay"], segments, xp)


def rg_lru(
    x: Array,
    input_gate: Array,
    recurrent_gate: Array,
    recurrent_param: Array,
    *,
    initial: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    cu_seqlens: Array | None = None,
    return_state: bool = False,
) -> Array | tuple[Array, Array]:
    """The real-gated linear recurrent unit of Griffin: what is kept and what enters make one together, squared.

    log a_t = -8 sigmoid(r_t) softplus(Lambda),   h_t = a_t h_{t-1} + sqrt(1 - a_t^2) sigmoid(i_t) x_t,   y_t = h_t
    h_t = sigmoid(i_t) x_t   in the first step of a sequence

    x                (batch, L, W), real
    input_gate       i (batch, L, W), before its sigmoid
    recurrent_gate   r (batch, L, W), before its sigmoid
    recurrent_param  Lambda (W,)
    initial          h_{-1} (batch, W) of sequences that go on; None: they begin with the first step
    reset            bool (batch, L): a sequence begins with that step
    lengths          integer (batch,): steps beyond do not touch the state; y beyond is unspecified
    cu_seqlens       integer (n + 1,) with batch 1: n sequences packed one after another; initial and states (n, W)
    returns          y (batch, L, W) in x's dtype, with return_state (y, the last state (batch, W))

    Values and derivatives are exact where gates are shut, too: there sqrt(1 - a^2) goes to 0 as the root of the gate
    does. Half precision is computed in float32. Raises ShapeError, DTypeError, OptionError, DomainError (host values:
    NaN) and MixedArraysError.
    Source: De et al., Griffin: mixing gated linear recurrences with local attention for efficient language models,
    2024, https://arxiv.org/abs/2402.19427; the first step as in recurrentgemma.

    >>> import numpy, ssm_core
    >>> one = numpy.ones((1, 3, 1))
    >>> ssm_core.rg_lru(one, 0 * one, 0 * one, numpy.asarray([-2.0]))[0, :, 0].round(3)
    array([0.5  , 0.7  , 0.821])
    """
    operation, masks = "rg_lru", {"reset": reset, "lengths": lengths, "cu_seqlens": cu_seqlens}
    return_state = flag(operation, return_state=return_state)
    signals = {"x": x, "input_gate": input_gate, "recurrent_gate": recurrent_gate}
    constants = {"recurrent_param": recurrent_param}
    v, segments, broken, _ = checked_vectors(operation, signals, constants, {"initial": initial}, masks)
    xp = namespace(operation, x=x)
    first = None if initial is None else (v["initial"], xp.ones_like(v["initial"][:, 0]))
    y, (state, _) = run_rg_lru(v, segments=segments, initial=first, want_state=return_state)
    y = in_dtype_of(x, broken.marked(y, 1, xp), xp)
    return (y, broken.marked_state(state, xp)) if return_state else y


def rg_lru_update(
    state: Array | None, x: Array, input_gate: Array, recurrent_gate: Array, recurrent_param: Array
) -> tuple[Array, Array]:
    """One step of `rg_lru`: what generation runs for every token.

    h = a h + sqrt(1 - a^2) sigmoid(i) x,   y = h

    state                          (batch, W); None for the first step of all sequences
    x, input_gate, recurrent_gate  (batch, W)
    recurrent_param                (W,)
    returns                        (y (batch, W) in x's dtype, the new state (batch, W)); the state given stays as it is

    Raises ShapeError, DTypeError, DomainError (host values: NaN) and MixedArraysError.
    Source: as of `rg_lru`.

    >>> import numpy, ssm_core
    >>> one = numpy.ones((1, 1))
    >>> ssm_core.rg_lru_update(one / 2, one, 0 * one, 0 * one, numpy.asarray([-2.0]))[0].round(3)
    array([[0.7]])
    """
    operation, signals = "rg_lru_update", {"x": x, "input_gate": input_gate, "recurrent_gate": recurrent_gate}
    given = {} if state is None else {"state": state}
    v = checked_step(operation, signals, {"recurrent_param": recurrent_param}, given)
    xp = namespace(operation, x=x)
    entering = activation("sigmoid")(v["input_gate"]) * v["x"]
    if state is not None:
        a, share = kept_and_entering(v["recurrent_gate"], strongest(v["recurrent_param"]), xp)
        entering = xp.exp(a) * v["state"] + share * entering
    return in_dtype_of(x, entering, xp), entering


def rg_lru_summary(
    x: Array,
    input_gate: Array,
    recurrent_gate: Array,
    recurrent_param: Array,
    *,
    reset: Array | None = None,
    lengths: Array | None = None,
) -> Elementwise:
    """What these steps of `rg_lru` do to the state before them: (P, s) of h -> P h + s.

    P = prod_t a_t (batch, W), or zero with a reset among them, and s (batch, W) the last state from zero, of a sequence
    that goes on. Arguments are those of `rg_lru`; composition as in `chunk_summary`.

    Raises ShapeError, DTypeError, OptionError, DomainError (host values: NaN) and MixedArraysError.
    Source: as of `rg_lru`.

    >>> import numpy, ssm_core
    >>> one = numpy.ones((1, 3, 1))
    >>> summary = ssm_core.rg_lru_summary(one, 0 * one, 0 * one, numpy.asarray([-2.0]))
    >>> summary.through.round(3), summary.state.round(3)
    (array([[0.218]]), array([[0.784]]))
    """
    operation, masks = "rg_lru_summary", {"reset": reset, "lengths": lengths}
    signals = {"x": x, "input_gate": input_gate, "recurrent_gate": recurrent_gate}
    constants = {"recurrent_param": recurrent_param}
    v, segments, broken, _ = checked_vectors(operation, signals, constants, {}, masks)
    xp = namespace(operation, x=x)
    zero = xp.zeros((x.shape[0], x.shape[2]), dtype=v["x"].dtype, device=device(x))
    _, (state, _) = run_rg_lru(v, segments=segments, initial=(zero, xp.ones_like(zero[:, 0])))
    log_a, _ = kept_and_entering(v["recurrent_gate"], strongest(v["recurrent_param"]), xp)
    return _summarized(broken.marked_state(state, xp), log_a, segments, xp)


def run_hgrn(
    x: Array, log_decay: Array, *, segments: Segments, initial: Array | None = None, want_state: bool = True
) -> tuple[Array, Array]:
    """All states of h_t = e^{g_t} h_{t-1} + x_t, and the last one, for arrays that are known to fit."""
    xp = namespace("hgrn", x=x)

    def run(signals: Signals, state: Array | None, segments: Segments) -> tuple[Array, Array]:
        v = {name: segments.masked(s, 1, xp) for name, s in signals.items()}
        return _scanned(xp.exp(v["log_decay"]), v["x"], state, segments.reset, xp)

    def summary(signals: Signals, segments: Segments) -> Elementwise:
        return _summarized(run(signals, None, segments)[1], signals["log_decay"], segments, xp)

    signals = {"x": x, "log_decay": log_decay}
    return segments.run("hgrn", run, signals, initial, axis=1, apart=want_state, summary=summary)


def _summarized(state: Array, log_decay: Array, segments: Segments, xp: Namespace) -> Elementwise:
    """The summary of steps that lead from zero to the state (batch, W)."""
    P = xp.exp(xp.sum(segments.masked(log_decay, 1, xp), axis=1))
    return Elementwise(through_segments(P, segments, 1, xp), state)


def run_rg_lru(
    v: Arrays, *, segments: Segments, initial: tuple[Array, Array] | None = None, want_state: bool = True
) -> tuple[Array, tuple[Array, Array]]:
    """All states of `rg_lru` and the last one, for arrays by name that are known to fit.

    The state is (h (batch, W), begun (batch,)), 0 where the sequence has not begun.
    """
    xp, most = namespace("rg_lru", x=v["x"]), strongest(v["recurrent_param"])

    def run(signals: Signals, state: Any, segments: Segments) -> tuple[Array, tuple[Array, Array]]:
        x, i, r = (segments.masked(signals[name], 1, xp) for name in ("x", "input_gate", "recurrent_gate"))
        batch, L, W = x.shape
        if state is None:
            state = tuple(xp.zeros(shape, dtype=x.dtype, device=device(x)) for shape in ((batch, W), (batch,)))
        h, begun = state
        if L == 0:
            return x, (h, begun)
        begins = (begun == 0)[:, None] & (xp.arange(L, device=device(x)) == 0)
        begins = begins if segments.reset is None else begins | segments.reset
        gate, drive = driven(x, i, r, most, begins)
        y, h = _scanned(segments.masked(gate, 1, xp, fill=1.0), drive, h, None, xp)
        empty = xp.zeros_like(begun) if segments.lengths is None else xp.astype(segments.lengths == 0, begun.dtype)
        return y, (h, xp.where(empty > 0, begun, xp.ones_like(begun)))

    def summary(signals: Signals, segments: Segments) -> Beginning:
        x = signals["x"]
        zero, begun = (xp.zeros(n, dtype=x.dtype, device=device(x)) for n in ((x.shape[0], x.shape[2]), x.shape[:1]))
        going = run(signals, (zero, begun + 1), segments)[1][0]
        begins = run(signals, (zero, begun), segments)[1]
        log_a, _ = kept_and_entering(signals["recurrent_gate"], most, xp)
        return Beginning(_summarized(going, log_a, segments, xp).through, going, begins)

    signals = {name: v[name] for name in ("x", "input_gate", "recurrent_gate")}
    return segments.run("rg_lru", run, signals, initial, axis=1, apart=want_state, summary=summary)


class Beginning(NamedTuple):
    """(h, begun) -> (P h + s, 1) where the sequence has begun, else what the steps make of one that begins."""

    through: Array
    going: Array
    state: tuple[Array, Array]

    def after(self, state: tuple[Array, Array]) -> tuple[Array, Array]:
        xp, (h, begun), (begins, now) = namespace("after", h=state[0]), state, self.state
        h = xp.where(begun[:, None] > 0, self.through * h + self.going, begins)
        return h, xp.maximum(begun, now)


def _scanned(
    gate: Array, drive: Array, state: Array | None, begins: Array | None, xp: Namespace
) -> tuple[Array, Array]:
    """All states (batch, L, W), and the last one."""
    if state is None:
        state = xp.zeros((drive.shape[0], drive.shape[2]), dtype=drive.dtype, device=device(drive))
    if drive.shape[1] == 0:
        return drive, state
    if begins is not None:
        gate = xp.where(begins[..., None], 0.0, gate)
    y = linear_scan(gate, drive, axis=1, initial=state)
    return y, xp.concat([y[:, -1, :]], axis=0)  # a copy: it holds no other states


def checked_vectors(
    operation: str, signals: Arrays, constants: Arrays, state: dict[str, Any], masks: dict[str, Any]
) -> tuple[Arrays, Segments, Broken, object]:
    """What is given in the precision of states, of signals (batch, L, W), constants (W,) and states (batch, W).

    What lies beyond the lengths is zero, and what is not finite too where sequences are cut: the record says what it
    breaks.
    """
    given = {name: s for name, s in state.items() if s is not None}
    cuts = {name: m for name, m in masks.items() if m is not None}
    arrays = signals | constants | given
    require_arrays(operation, **arrays, **cuts)
    xp = namespace(operation, **arrays, **cuts)
    real_floating(operation, **arrays)
    shapes, (name, x) = describe(**arrays, **cuts), next(iter(signals.items()))
    if x.ndim != 3:
        raise ShapeError(f"{operation}: {name} must be (batch, L, W) ({shapes}).")
    batch, L, W = x.shape
    segments = checked_segments(operation, shapes, (batch,), L, of=x, **masks)
    wanted = dict.fromkeys(signals, (tuple(x.shape),)) | dict.fromkeys(constants, ((W,),))
    check_given(operation, arrays, wanted | dict.fromkeys(given, ((segments.count(batch), W),)), shapes)
    dtype = compute_dtype(xp, *arrays.values())
    signals = segments.all_masked(signals, 1, xp)
    check_finite(operation, xp, **constants, **({} if segments.cut else signals | given))
    signals, first, broken = kept_apart(segments, signals, tuple(given.values()), xp, axis=1, kept=(0, 2))
    arrays = signals | constants | dict(zip(given, first, strict=True))
    return {name: xp.astype(a, dtype, copy=False) for name, a in arrays.items()}, segments, broken, shapes


def checked_step(operation: str, signals: Arrays, constants: Arrays, state: Arrays) -> Arrays:
    """What is given in the precision of states, of signals and states (batch, W) and constants (W,)."""
    arrays = state | signals | constants
    require_arrays(operation, **arrays)
    xp = namespace(operation, **arrays)
    real_floating(operation, **arrays)
    shapes, (name, x) = describe(**arrays), next(iter(signals.items()))
    if x.ndim != 2:
        raise ShapeError(f"{operation}: {name} must be (batch, W) ({shapes}).")
    wanted = dict.fromkeys((*signals, *state), (tuple(x.shape),)) | dict.fromkeys(constants, (tuple(x.shape[1:]),))
    check_given(operation, arrays, wanted, shapes)
    check_finite(operation, xp, **arrays)
    dtype = compute_dtype(xp, *arrays.values())
    return {name: xp.astype(a, dtype, copy=False) for name, a in arrays.items()}


def _check_bounded(operation: str, xp: Namespace, y: Array, shapes: object) -> None:
    """Raise for outputs on the host that are not finite: inputs were."""
    try:
        check_finite(operation, xp, y=y)
    except DomainError as error:
        raise DomainError(
            f"{operation}: the state overflows: log_decay > 0 lets it grow, or the inputs are too large ({shapes}). "
            "Keep log_decay at most 0."
        ) from error
