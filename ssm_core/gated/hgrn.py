"""HGRN: `linear_scan` with gates e^g <= 1 that depend on the input."""

from __future__ import annotations

from .._arrays.library import Array, in_dtype_of, namespace
from .._arrays.numbers import flag
from .._arrays.values import overflow_ignored
from ..recurrences.segments import Segments, Signals
from ..recurrences.summaries import Elementwise
from .vectors import check_bounded, checked_step, checked_vectors, scanned, summarized


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
        check_bounded(operation, xp, y, shapes)
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
    return summarized(broken.marked_state(state, xp), v["log_decay"], segments, xp)


def run_hgrn(
    x: Array, log_decay: Array, *, segments: Segments, initial: Array | None = None, want_state: bool = True
) -> tuple[Array, Array]:
    """All states of h_t = e^{g_t} h_{t-1} + x_t, and the last one, for arrays that are known to fit."""
    xp = namespace("hgrn", x=x)

    def run(signals: Signals, state: Array | None, segments: Segments) -> tuple[Array, Array]:
        v = {name: segments.masked(s, 1, xp) for name, s in signals.items()}
        return scanned(xp.exp(v["log_decay"]), v["x"], state, segments.reset, xp)

    def summary(signals: Signals, segments: Segments) -> Elementwise:
        return summarized(run(signals, None, segments)[1], signals["log_decay"], segments, xp)

    signals = {"x": x, "log_decay": log_decay}
    return segments.run("hgrn", run, signals, initial, axis=1, apart=want_state, summary=summary)
