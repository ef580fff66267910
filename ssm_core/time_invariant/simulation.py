"""Running a system over a signal (`scan`), and one step at a time (`step`)."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from .._arrays.errors import DTypeError, ShapeError, describe
from .._arrays.library import (
    Array,
    Namespace,
    computable,
    compute_dtype,
    device,
    floating,
    in_dtype_of,
    is_complex,
    namespace,
    real_dtype,
    real_floating,
    require_arrays,
)
from .._arrays.numbers import flag
from .._arrays.shapes import broadcast, with_axes
from .._arrays.values import check_finite, check_positive, overflow_ignored
from ..recurrences.broken import Broken, kept_apart
from ..recurrences.pairs import halved, joined
from ..recurrences.segments import Segments, Signals, checked_segments
from ..recurrences.shards import reached
from ..systems import records
from ..systems.discretization import (
    carried,
    check_method,
    check_own_steps,
    check_system_values,
    discretized,
    validated_dt,
)
from ..systems.records import DPLR, Diagonal, check_output
from .conditioning import check_magnification
from .kernels import CompanionForm, check_growth, discrete_form, propagator, state_space
from .modes.choice import choose_mode
from .modes.chunk import run_chunks
from .modes.conv import run_convolution
from .modes.filter import run_filter
from .modes.modal import run_modal
from .modes.scan import run_steps
from .run import Run, with_direct_term
from .through import arrays_of, begun
from .transient import run_in_double, takes_no_powers


def scan(
    system: Any,
    u: Array,
    *,
    dt: Any = None,
    method: str = "zoh",
    alpha: float | None = None,
    initial: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    cu_seqlens: Array | None = None,
    step_scale: Array | None = None,
    mode: str = "auto",
    check_values: bool = False,
) -> tuple[Array, Array]:
    """Run a system over a signal, from a state and to a state.

    x_k = Ab x_{k-1} + Bb u_k,   y_k = C x_k + D u_k   (2 Re C x with conj_pairs),   k = 0..L-1

    system      of any kind (Rational: states of `companion`) or a tuple (A, B, C[, D]); continuous if dt, else discrete
    u           (..., L), several inputs (..., P, L); real or complex; leading axes broadcast against the system's
    dt, method  as in `discretize`, and so are alpha and check_values
    initial     x_{-1} (..., N), zero if None; with foh and tustin the states (x, u) of the discrete system
    reset       bool (..., L): the state is zeroed before that step
    lengths     integer (...): u counts as zero beyond, the state returned is that at the length, y beyond is
                unspecified
    cu_seqlens  integer (n + 1,) with u (1, ..., L): n sequences packed one after another; states (n, ..., N)
    step_scale  (..., L): step k lasts step_scale_k dt (Diagonal, continuous; modes scan and chunk)
    mode        "conv" (FFT), "chunk" (Toeplitz chunks), "scan" (the recurrence), "auto": the fastest; all the same
                function. Where powers of a dense matrix grow far before they decay, as those of companion forms do, all
                are the recurrence in double precision (not under a trace)
    returns     y (..., L) or (..., M, L), and the last state (..., N)

    Raises ShapeError, DTypeError, OptionError, DomainError, MixedArraysError.

    >>> import numpy, ssm_core
    >>> system = ssm_core.Diagonal(numpy.asarray([-1.0]), numpy.ones(1), numpy.ones(1))
    >>> y, state = ssm_core.scan(system, numpy.ones(3), dt=0.1)
    >>> y.round(4), state.round(4)
    (array([0.0952, 0.1813, 0.2592]), array([0.2592]))
    """
    masks = {"reset": reset, "lengths": lengths, "cu_seqlens": cu_seqlens}
    call = checked_call(
        "scan", system, u, dt=dt, method=method, alpha=alpha, initial=initial, step_scale=step_scale,
        check_values=check_values, **masks,
    )  # fmt: skip
    system, xp = call.system, call.xp

    def run(signals: Signals, initial: Any, segments: Segments) -> tuple[Array, Any]:
        if cu_seqlens is not None:
            segments = segments.for_rows(_batch_axes(system, u) - 1)
        options = {"initial": initial, "step_scale": signals["step_scale"], "mode": mode, **call.sampling}
        return simulated("scan", system, signals["u"], xp, segments=segments, watched=True, **options)

    if isinstance(system, CompanionForm):
        check_magnification("scan", system.rational, u.shape[-1], check_values)
    signals, initial, broken = finite_signals(call, u, initial, step_scale, check_values)
    with overflow_ignored(u):
        y, state = call.segments.run("scan", run, signals, initial, axis=-1, apart=True)
        if step_scale is None and lengths is None:
            check_growth("scan", xp, y, lambda: call.discrete()[0], u.shape[-1], check_values)
    return broken.marked(y, -1, xp), broken.marked_state(state, xp)


class Call(NamedTuple):
    """What a public function of systems and signals was given, once it is checked."""

    system: Any
    xp: Namespace
    sampling: dict[str, Any]  # dt, method, alpha
    segments: Segments

    def discrete(self) -> tuple[Any, Any]:
        """The discrete system, and the logarithms of its poles where it has them."""
        return discrete_form(self.system, self.sampling["dt"], self.sampling["method"], self.sampling["alpha"], self.xp)


def checked_call(
    operation: str,
    system: Any,
    u: Array,
    *,
    dt: Any,
    method: str,
    alpha: float | None,
    initial: Array | None,
    step_scale: Array | None,
    check_values: bool,
    **masks: Array | None,
) -> Call:
    """The arguments of `scan`, checked; a method whose state holds the input becomes the system that does."""
    check_values = flag(operation, check_values=check_values)
    system = records.as_system(operation, system, dt)
    check_method(operation, system, dt, method, alpha)
    system, xp = records.validated(operation, system)
    system = state_space(system)
    given = {"u": u, "initial": initial, "step_scale": step_scale, **masks}
    require_arrays(operation, **{name: x for name, x in given.items() if x is not None or name == "u"})
    namespace(operation, B=system.B, **given)
    dt = validated_dt(operation, system, dt, xp)
    system = records.as_precise_as(system, dt, xp)
    check_output(operation, system)
    floating(operation, u=u, initial=initial)
    check_system_values(operation, xp, system, dt, check_values)
    if step_scale is not None:
        real_floating(operation, step_scale=step_scale)
        check_own_steps(operation, system, method)
    system, dt = carried(system, dt, method, alpha, xp)
    _check_signal(operation, system, u, initial, step_scale)
    lead = None if masks.get("cu_seqlens") is None else tuple(u.shape[:1]) if u.ndim > 1 else ()
    segments = checked_segments(operation, describe(B=system.B, **given), lead, u.shape[-1], **masks)
    return Call(system, xp, {"dt": dt, "method": method, "alpha": alpha}, segments)


def finite_signals(
    call: Call, u: Array, initial: Array | None, step_scale: Array | None, check_values: bool, operation: str = "scan"
) -> tuple[Signals, Array | None, Broken]:
    """The signals without what lies beyond the lengths, and without what resets keep apart; the rest is checked."""
    system, xp, segments = call.system, call.xp, call.segments
    if segments.cu_seqlens is None:
        _batch(operation, system, u, initial, segments, step_scale)
    axes = _batch_axes(system, u)
    n = axes if segments.cu_seqlens is not None else max(
        axes, records.batch_rank(system), *(x.ndim - 1 for x in (initial, step_scale, segments.reset) if x is not None),
        0 if segments.lengths is None else segments.lengths.ndim,
    )  # fmt: skip
    u, initial, step_scale = (
        with_axes(u, n + u.ndim - axes, xp),
        with_axes(initial, n + 1, xp),
        with_axes(step_scale, n + 1, xp),
    )
    valid: Any = segments.valid(xp)
    if valid is not None:
        valid = with_axes(valid, n + 1, xp)
        signal = valid[..., None, :] if u.ndim > n + 1 else valid
        u = xp.where(signal, u, xp.zeros_like(u))
        step_scale = step_scale if step_scale is None else xp.where(valid, step_scale, xp.ones_like(step_scale))
    if not segments.cut:
        check_finite(operation, xp, check_values, u=u, initial=initial, step_scale=step_scale)
    signals, initial, broken = kept_apart(
        _with_batch_axes(segments, n, xp), {"u": u, "step_scale": step_scale}, initial, xp, axis=-1,
        kept=tuple(range(n)), scales=("step_scale",),
    )  # fmt: skip
    if step_scale is not None:
        check_positive(operation, xp, check_values, step_scale=signals["step_scale"])
    return signals, initial, broken


def simulated(
    operation: str, system: Any, u: Array, xp: Namespace, *, watched: bool = False, **options: Any
) -> tuple[Array, Array | None]:
    """`scan` of a validated system, without checks of values; options as of `prepared`.

    Watched: a matrix whose powers grow takes none of them, which costs squarings to find out.
    """
    run, mode = prepared(operation, system, u, xp, **options)
    run, last = begun(run)
    y, state = run_in_double(run) if watched and takes_no_powers(operation, run) else _executed(run, mode)
    y, state = (y, state) if last is None else (reached(y, (run.initial, *arrays_of(run.system))), last)
    state = halved(state, xp) if _in_halves(system) and state is not None else state
    return in_dtype_of(u, with_direct_term(operation, system, run.u, y, xp), xp), state


def prepared(
    operation: str,
    system: Any,
    u: Array,
    xp: Namespace,
    *,
    segments: Segments | None = None,
    dt: Any = None,
    method: str = "zoh",
    alpha: float | None = None,
    initial: Array | None = None,
    step_scale: Array | None = None,
    mode: str = "auto",
    want_state: bool = True,
) -> tuple[Run, str]:
    """The run of a validated system over a signal, and the mode to run it in; the state only where wanted."""
    segments = Segments(u.shape[-1]) if segments is None else segments
    dtype = compute_dtype(xp, u, *(getattr(system, n) for n in records.array_fields(type(system))))
    u = computable(u, xp)
    if is_complex(u) and getattr(system, "conj_pairs", False):
        raise DTypeError(
            f"{operation}: u has dtype {u.dtype}, but a system of conj_pairs is a real one "
            f"({describe(B=system.B, u=u)}). Run it over the real and over the imaginary part."
        )
    # A real signal stays real beside a complex system, but takes its precision.
    u = xp.astype(u, dtype if is_complex(u) else real_dtype(dtype, xp), copy=False)
    batch = _batch(operation, system, u, initial, segments, step_scale)
    mode = choose_mode(operation, system, mode, u, reset=segments.reset, step_scale=step_scale)
    discrete, logarithms = discrete_form(system, dt, method, alpha, xp)
    if initial is not None:
        initial = computable(initial, xp)
        initial = joined(initial, xp) if _in_halves(system) else initial
    gates = None
    if step_scale is not None:
        step_scale = with_axes(computable(step_scale, xp), len(batch) + 1, xp)
        gates = partial(_gates, system, dt, method, alpha, xp)
    run = Run(
        system=discrete,
        propagator=propagator(discrete, logarithms, xp),
        xp=xp,
        u=u,
        batch=batch,
        segments=_with_batch_axes(segments, len(batch), xp),
        initial=initial,
        step_scale=step_scale,
        gates=gates,
        want_state=want_state,
    )
    return run, mode


def _in_halves(system: Any) -> bool:
    """Whether the states of the discrete system that runs are (Re x, Im x): a DPLR one runs in its dense form."""
    return isinstance(system, DPLR) and system.conj_pairs


def _executed(run: Run, mode: str) -> tuple[Array, Array | None]:
    """The run in a mode, without the direct term."""
    if run.length == 0:
        return _empty(run)
    if isinstance(run.system, CompanionForm):
        return run_filter(run, mode)
    if isinstance(run.system, Diagonal) and run.propagator.several_inputs and mode != "scan":
        return run_modal(run, _MODES[mode])
    return _MODES[mode](run)


_MODES = {"conv": run_convolution, "chunk": run_chunks, "scan": run_steps}


def _check_step_shapes(system: Any, u_k: Array, state: Array) -> None:
    P, N = records.inputs(system, records.batch_rank(system)), records.state_field(system).shape[-1]
    given = describe(B=system.B, u_k=u_k, state=state)
    if P is not None and (u_k.ndim < 1 or u_k.shape[-1] != P):
        n = u_k.shape[-1] if u_k.ndim else 0
        raise ShapeError(f"step: u_k has {n} inputs but B has {P} ({given}).")
    if state.ndim < 1 or state.shape[-1] != N:
        raise ShapeError(f"step: state must end with {N} states ({given}).")
    broadcast(
        "step",
        u_k=u_k.shape[: u_k.ndim - (P is not None)],
        state=state.shape[:-1],
        B=system.B.shape[:-1][: records.batch_rank(system)],
    )


def _batch_axes(system: Any, u: Array) -> int:
    """How many batch axes a signal has."""
    return u.ndim - (1 if records.inputs(system, records.batch_rank(system)) is None else 2)


def _check_signal(operation: str, system: Any, u: Array, initial: Any, step_scale: Any) -> None:
    """Raise for a signal, a first state or steps of another shape than the system has; batch axes apart."""
    P = records.inputs(system, records.batch_rank(system))
    given = describe(B=system.B, u=u, initial=initial, step_scale=step_scale)
    if _batch_axes(system, u) < 0:
        axes = "L" if P is None else "P, L"
        raise ShapeError(f"{operation}: u needs {1 if P is None else 2} axes ({axes}) or more ({given}).")
    if P is not None and u.shape[-2] != P:
        raise ShapeError(f"{operation}: u has {u.shape[-2]} inputs but B has {P} ({given}).")
    length, states = u.shape[-1], records.state_field(system).shape[-1]
    if initial is not None and (initial.ndim < 1 or initial.shape[-1] != states):
        raise ShapeError(f"{operation}: initial must end with {states} states ({given}).")
    if step_scale is not None and (step_scale.ndim < 1 or step_scale.shape[-1] != length):
        raise ShapeError(f"{operation}: step_scale must have one entry a step, (..., {length}) ({given}).")


def _batch(
    operation: str, system: Any, u: Array, initial: Array | None, segments: Segments, step_scale: Array | None
) -> tuple[int, ...]:
    """The common batch axes; raises ShapeError where they do not broadcast."""
    rank = records.batch_rank(system)
    found = {"u": u.shape[: _batch_axes(system, u)], "system": records.state_field(system).shape[:rank]}
    found |= {"B": system.B.shape[:rank], "C": system.C.shape[:rank]}
    for name, x in (("initial", initial), ("reset", segments.reset), ("step_scale", step_scale)):
        if x is not None:
            found[name] = x.shape[:-1]
    if segments.lengths is not None:
        found["lengths"] = segments.lengths.shape
    return broadcast(operation, **found)


def _with_batch_axes(segments: Segments, axes: int, xp: Namespace) -> Segments:
    """The same masks with axes of size 1 in front, up to so many batch axes."""
    if segments.reset is None and segments.lengths is None:
        return segments
    reset, lengths = with_axes(segments.reset, axes + 1, xp), with_axes(segments.lengths, axes, xp)
    return Segments(segments.length, reset, lengths, shards=segments.shards)


def _gates(system: Any, dt: Any, method: str, alpha: float | None, xp: Namespace, scale: Array) -> Any:
    """From the scales of a chunk (T, ...) to the discrete systems of its steps, with time on axis 0."""
    return discretized(system, scale[..., None] * dt, method, alpha, xp)


def _empty(run: Run) -> tuple[Array, Array | None]:
    """A sequence of no steps: no outputs, and the state stays."""
    rank = records.batch_rank(run.system)
    M = records.outputs(run.system, rank)
    y = run.xp.zeros((*run.batch, *(() if M is None else (M,)), 0), dtype=run.u.dtype, device=device(run.u))
    return y, run.first_state()


def step(
    system: Any, u_k: Array, state: Array, *, dt: Any = None, method: str = "zoh", alpha: float | None = None
) -> tuple[Array, Array]:
    """One step of a system, from a state to the next: `scan` over a single sample.

    x_k = Ab x_{k-1} + Bb u_k,   y_k = C x_k + D u_k   (2 Re C x with conj_pairs)

    system      of any kind (Rational: states of `companion`) or a tuple (A, B, C[, D]); continuous if dt, else discrete
    u_k         (...), several inputs (..., P)
    state       x_{k-1} (..., N): zeros to begin with, or what `scan` or a step returned
    dt, method  as in `discretize`, and so is alpha
    returns     y_k (...) or (..., M), and the next state x_k (..., N)

    Every call discretizes: to stream many samples, discretize once and pass the discrete system.
    Raises ShapeError, DTypeError, OptionError, DomainError, MixedArraysError.

    >>> import numpy, ssm_core
    >>> one, state = numpy.ones(1), numpy.zeros(1)
    >>> system = ssm_core.discretize(ssm_core.Diagonal(-one, one, one), dt=0.1)
    >>> for sample in (1.0, 1.0, 1.0):
    ...     y, state = ssm_core.step(system, numpy.asarray(sample), state)
    >>> round(float(y), 4), state.round(4)
    (0.2592, array([0.2592]))
    """
    system = records.as_system("step", system, dt)
    check_method("step", system, dt, method, alpha)
    system, xp = records.validated("step", system)
    system = state_space(system)
    require_arrays("step", u_k=u_k, state=state)
    namespace("step", B=system.B, u_k=u_k, state=state)
    dt = validated_dt("step", system, dt, xp)
    system = records.as_precise_as(system, dt, xp)
    check_output("step", system)
    floating("step", u_k=u_k, state=state)
    check_system_values("step", xp, system, dt, False)
    check_finite("step", xp, False, u_k=u_k, state=state)
    system, dt = carried(system, dt, method, alpha, xp)
    _check_step_shapes(system, u_k, state)
    y, state = simulated(
        "step", system, u_k[..., None], xp, dt=dt, method=method, alpha=alpha, initial=state, mode="scan"
    )
    return y[..., 0], state
