"""The real-gated linear recurrent unit of Griffin: a gate of its own in every step, and what enters follows from it."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._arrays.dispatch import dispatched
from .._arrays.library import Array, Namespace, device, in_dtype_of, namespace
from .._arrays.numbers import flag
from ..functions.special import activation
from ..recurrences.segments import Segments, Signals
from ..recurrences.summaries import Elementwise
from .vectors import Arrays, checked_step, checked_vectors, scanned, summarized

SHARPNESS = 8.0  # of the gates: c in Griffin


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
    return summarized(broken.marked_state(state, xp), log_a, segments, xp)


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
        y, h = scanned(segments.masked(gate, 1, xp, fill=1.0), drive, h, None, xp)
        empty = xp.zeros_like(begun) if segments.lengths is None else xp.astype(segments.lengths == 0, begun.dtype)
        return y, (h, xp.where(empty > 0, begun, xp.ones_like(begun)))

    def summary(signals: Signals, segments: Segments) -> Beginning:
        x = signals["x"]
        zero, begun = (xp.zeros(n, dtype=x.dtype, device=device(x)) for n in ((x.shape[0], x.shape[2]), x.shape[:1]))
        going = run(signals, (zero, begun + 1), segments)[1][0]
        begins = run(signals, (zero, begun), segments)[1]
        log_a, _ = kept_and_entering(signals["recurrent_gate"], most, xp)
        return Beginning(summarized(going, log_a, segments, xp).through, going, begins)

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


def strongest(recurrent_param: Array) -> Array:
    """log a where gates are open: -8 softplus(Lambda)."""
    return -SHARPNESS * activation("softplus")(recurrent_param)


def kept_and_entering(recurrent_gate: Array, strongest: Array, xp: Namespace) -> tuple[Array, Array]:
    """log a and sqrt(1 - a^2).

    The root has a derivative of 0 where the gate is so shut that a = 1: it goes to 0 as e^{r / 2} does.
    """
    log_a = strongest * activation("sigmoid")(recurrent_gate)
    moves = log_a < 0
    share = xp.sqrt(-xp.expm1(2 * xp.where(moves, log_a, -1.0)))
    return log_a, xp.where(moves, share, 0.0)


def driven(x: Array, input_gate: Array, recurrent_gate: Array, strongest: Array, begins: Array) -> tuple[Array, Array]:
    """The gates and the drives (batch, L, W) of h_t = gate_t h_{t-1} + drive_t, of the arguments of `rg_lru`.

    a_t and sqrt(1 - a_t^2) sigmoid(i_t) x_t; 0 and sigmoid(i_t) x_t where `begins` (batch, L).
    """
    gate, drive = _driven(x, input_gate, recurrent_gate, strongest, begins)
    return gate, drive


@dispatched
def _driven(x: Array, input_gate: Array, recurrent_gate: Array, strongest: Array, begins: Array) -> tuple[Array, Array]:
    xp, begins = namespace("rg_lru", x=x), begins[..., None]
    log_a, share = kept_and_entering(recurrent_gate, strongest, xp)
    share = xp.where(begins, 1.0, share)
    return xp.where(begins, 0.0, xp.exp(log_a)), share * activation("sigmoid")(input_gate) * x
