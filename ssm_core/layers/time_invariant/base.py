"""Layers around a linear time-invariant system: everything but the system itself.

    v = SSM(u) + D u,    y = mix(activation(v))

A layer gives its system; how to run it, its states, direct term, activation and output map are here.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from ..._arrays.errors import DTypeError, OptionError, ShapeError, describe, unknown
from ..._arrays.idioms import matmul, moved
from ..._arrays.library import (
    Array,
    Namespace,
    bringing,
    computable,
    device,
    dtype_name,
    floating,
    in_dtype_of,
    is_array,
    is_complex,
    namespace,
    require_arrays,
)
from ...functions.convolution import convolved
from ...functions.token_shift import token_shift
from ...recurrences.broken import kept_apart
from ...recurrences.segments import Segments, Signals
from ...systems import records
from ...systems.discretization import discretized
from ...systems.methods import METHODS
from ...systems.records import DPLR, Dense
from ...time_invariant.kernels import check_length, discrete_form, propagator
from ...time_invariant.modes.choice import MODES
from ...time_invariant.simulation import simulated
from ...time_invariant.steps import SystemStep, in_halves, real_system_stepper, system_stepper
from ..calls import applies
from ..layer import Mixer, Stepper, as_precise, check_batch, check_signal, once_per_kind
from ..options import settle
from ..output_map import OutputMap
from ..parameters import Parameter, Parameters
from ..parametrizations import whole


class TimeInvariant(Mixer):
    """Options every such layer has; subclasses declare them as fields."""

    d_model: int
    channels: int = 1
    bidirectional: bool = False
    activation: str | None
    output: str | None
    skip: bool
    discretization: str = "zoh"

    per_channel: ClassVar[bool] = True  # a system a channel; else one system of H inputs and H outputs

    @abstractmethod
    def system(self, params: Parameters, xp: Namespace) -> tuple[Any, Array | None]:
        """The system with C (rows, H, N), and dt: (H,) or (H, N) of a system a channel, else (N,); None if discrete."""

    @property
    @abstractmethod
    def n_states(self) -> int:
        """N, stored states of a system."""

    @property
    def width(self) -> int:
        """K, the systems of a layer that has one a channel: H, but for layers with `maps`."""
        return self.d_model

    def maps(self, params: Parameters, xp: Namespace) -> tuple[Array, Array] | None:
        """Matrices (K, H) before the systems and (H, K) after them, if there are any."""
        return None

    @property
    def real_states(self) -> bool:
        """Whether states are real."""
        return False

    def state_shape(self, batch: int) -> tuple[int, ...]:
        """(B, K, N) with K systems, or (B, N) with one."""
        return (batch, self.width, self.n_states) if self.per_channel else (batch, self.n_states)

    def rows(self) -> int:
        """Rows of C: one for each output channel and direction."""
        return self.channels * (2 if self.bidirectional else 1)

    def check_options(self) -> None:
        """Raise for options that no such layer can have; all are plain values from here on."""
        settle(self)
        whole(self.name, d_model=self.d_model, channels=self.channels)
        self.output_map.check(self.name)

    def outer_parameters(self) -> tuple[Parameter, ...]:
        """D and the output map."""
        return self.output_map.parameters()

    @applies
    def apply(
        self,
        params: Parameters,
        u: Array,
        *,
        state: Array | None = None,
        return_state: bool = False,
        lengths: Array | None = None,
        reset: Array | None = None,
        cu_seqlens: Array | None = None,
        rate: Any = 1.0,
        step_scale: Array | None = None,
        mode: str = "auto",
    ) -> Any:
        """y (B, L, H) from u (B, L, H), and the last state with return_state.

        state       `state_shape` before the first step, zero if None
        lengths     integer (B,): u counts as zero beyond; the state is that at the length; y beyond is unspecified
        reset       bool (B, L): the state is zeroed before that step
        cu_seqlens  integer (n + 1,) with B = 1: n sequences packed one after another; states have batch n
        rate        multiplies dt: a number, or an array (), or (H,) with a system a channel
        step_scale  (B, L): multiplies dt step by step, in modes scan and chunk
        mode        "auto", "conv", "chunk" or "scan": the same function
        """
        masks = {"reset": reset, "lengths": lengths, "cu_seqlens": cu_seqlens}
        options = {"return_state": return_state, "rate": rate, "step_scale": step_scale}
        entry = self.entry(params, u, state, **options, **masks)
        if self.bidirectional:
            self._refuse_states(state, return_state, reset, step_scale, mode)
        xp, params = entry.xp, entry.params
        maps = self.maps(params, xp)
        unmixed = self.per_channel and maps is None and self.output is None and self.channels == 1
        kept = (0, 2) if unmixed else (0,)
        signals, state, broken = kept_apart(
            entry.segments, {"x": entry.x, "scale": entry.step_scale}, state, xp, axis=1, kept=kept, shared=("scale",),
            scales=("scale",), both_ways=self.bidirectional,
        )  # fmt: skip
        skipped = signals["x"]
        x = xp.permute_dims(skipped, (0, 2, 1))  # (B, H, L)
        x = x if maps is None else matmul(maps[0], x, xp)

        def run(signals: Signals, state: Any, segments: Segments) -> tuple[Array, Any]:
            x, scale = signals["x"], signals["scale"]
            if scale is not None and METHODS[self.discretization].impulse:
                x = x * scale[:, None, :]
            if self.bidirectional:
                return self._both_directions(params, segments.masked(x, -1, xp), entry.rate, xp, segments), None
            if self.per_channel:
                segments, scale = segments.for_rows(), None if scale is None else scale[:, None, :]
            options = {"initial": state, "segments": segments, "step_scale": scale}
            return self._run(params, x, entry.rate, xp, mode=mode, want_state=return_state, **options)

        apart = True if return_state or self.bidirectional else None
        v, last = entry.segments.run(self.name, run, signals | {"x": x}, state, axis=-1, apart=apart)
        v = v if maps is None else matmul(maps[1], v, xp)
        order = (0, 3, 2, 1) if self.channels > 1 else (0, 2, 1)
        y = broken.marked(self.output_map.bound(params, xp)(xp.permute_dims(v, order), skipped), 1, xp)
        y = in_dtype_of(u, y, xp)
        return (y, broken.marked_state(last, xp)) if return_state else y

    def _run(self, params: Parameters, x: Array, rate: Any, xp: Namespace, **options: Any) -> tuple[Array, Any]:
        """The outputs of the systems for x (B, H, L), and their last state or None; options as of `simulated`."""
        system, dt = self._time_first_system(params, rate, xp)
        return simulated(self.name, system, x, xp, dt=dt, method=self.discretization, **options)

    def _time_first_system(self, params: Parameters, rate: Any, xp: Namespace) -> tuple[Any, Array | None]:
        """The system with C (H, N) or (H, channels, N), and rate * dt (H, 1), (H, N) or (N,)."""
        return self._one_way(params, rate, xp, False)

    def _one_way(self, params: Parameters, rate: Any, xp: Namespace, backwards: bool) -> tuple[Any, Array | None]:
        """The same of one direction."""
        system, dt = self._sampled_system(params, rate, xp)
        first = self.channels if backwards else 0
        several = self.channels > 1
        C = system.C[first : first + self.channels, ...] if several else system.C[first, ...]
        return replace(system, C=xp.permute_dims(C, (1, 0, 2)) if several else C), dt

    def _sampled_system(self, params: Parameters, rate: Any, xp: Namespace) -> tuple[Any, Array | None]:
        """The system, and rate * dt. Impulses stand for rate samples each, so that their sum is the same signal's."""
        system, dt = self.system(params, xp)
        if METHODS[self.discretization].impulse and dt is not None and (is_array(rate) or rate != 1):
            weight = rate[:, None] if is_array(rate) and rate.ndim else rate
            system = replace(system, B=weight * system.B)
        return system, self._steps(rate, dt, system)

    def _steps(self, rate: Any, dt: Array | None, system: Any) -> Array | None:
        """rate * dt, with an axis for the states of a system a channel, but for Dense ones."""
        if dt is None:
            return None
        if dt.ndim == 2:
            return (rate[..., None] if is_array(rate) else rate) * dt
        dt = rate * dt
        return dt[:, None] if self.per_channel and not isinstance(system, Dense) else dt

    def _both_directions(self, params: Parameters, x: Array, rate: Any, xp: Namespace, segments: Segments) -> Array:
        """What the systems give for x (B, K, L) and its future, each layer in the way of its paper.

        Beyond the lengths of the segments x is zero.
        """
        if not self.per_channel:
            return self._both_runs(params, x, rate, xp, segments)
        if segments.shards is not None:
            return self._both_by_runs(params, x, rate, xp, segments)
        return self._both_kernels(params, x, rate, xp)

    def _both_runs(self, params: Parameters, x: Array, rate: Any, xp: Namespace, segments: Segments) -> Array:
        """The second C reads the states of a run over the reversed signal, which the current sample has entered."""
        system, dt = self._sampled_system(params, rate, xp)

        def half(C: Array, signal: Array, segments: Segments) -> Array:
            options: dict[str, Any] = {"dt": dt, "method": self.discretization, "segments": segments}
            return simulated(self.name, replace(system, C=C), signal, xp, want_state=False, **options)[0]

        C = system.C
        future = half(C[1, ...], segments.flipped(x, xp), segments.reversed())
        return half(C[0, ...], x, segments) + segments.flipped(future, xp)

    def _both_by_runs(self, params: Parameters, x: Array, rate: Any, xp: Namespace, segments: Segments) -> Array:
        """The kernels of `_both_kernels` as runs, over all processes too, that on the future one step late."""

        def half(backwards: bool, signal: Array, segments: Segments) -> Array:
            system, dt = self._one_way(params, rate, xp, backwards)
            options: dict[str, Any] = {"dt": dt, "method": self.discretization, "segments": segments.for_rows()}
            return simulated(self.name, system, signal, xp, want_state=False, **options)[0]

        back = segments.reversed()
        late = moved(half(True, segments.flipped(x, xp), back), -1, 1, xp)
        rows = xp.reshape(late, (*late.shape[:2], math.prod(late.shape[2:])))
        rows, _ = token_shift(rows, xp.zeros_like(xp.sum(rows, axis=1)), back, xp)
        future = moved(xp.reshape(rows, late.shape), 1, -1, xp)
        return half(False, x, segments) + segments.flipped(future, xp)

    def _both_kernels(self, params: Parameters, x: Array, rate: Any, xp: Namespace) -> Array:
        """The second half of C acts on the future, from the next sample on."""
        K = self._kernel(params, x.shape[-1], rate, xp)  # (rows, H, L)
        forward, backward = K[: self.channels, ...], K[self.channels :, ...]
        if self.channels == 1:
            return convolved(x, forward[0, ...], kernel_reverse=backward[0, ...])
        order = (1, 0, 2)
        return convolved(
            x[:, :, None, :], xp.permute_dims(forward, order), kernel_reverse=xp.permute_dims(backward, order)
        )

    @property
    def output_map(self) -> OutputMap:
        """What follows the systems."""
        return OutputMap(self.d_model, self.channels, self.activation, self.output, self.skip)

    def kernel(self, params: Parameters, length: int, *, rate: Any = 1.0) -> Array:
        """The convolution kernels (channels, H, L), or (H, H, L) from all channels to all where the layer mixes them.

        Bidirectional: those on the future follow along the first axis, (2 channels, H, L) or (2 H, H, L). They begin
        with the next sample in a layer of a system a channel, else (S5, LRU, LinOSS) with the current one.
        """
        length = check_length(self.name, length)
        rate = self.check_rate(bringing(params)(rate))
        params = self.prepared(params)
        return self._kernel(params, length, rate, namespace(self.name, **params))

    def _kernel(self, params: Parameters, length: int, rate: Any, xp: Namespace) -> Array:
        system, dt = self._sampled_system(params, rate, xp)
        if not self.per_channel:
            rows = [propagator(*self._discrete(replace(system, C=C), dt, xp), xp).kernel(length)
                    for C in xp.unstack(system.C, axis=0)]  # fmt: skip
            return rows[0] if len(rows) == 1 else xp.concat(rows, axis=0)
        system = replace(system, C=xp.permute_dims(system.C, (1, 0, 2)))
        return xp.permute_dims(propagator(*self._discrete(system, dt, xp), xp).kernel(length), (1, 0, 2))

    def _discrete(self, system: Any, dt: Array | None, xp: Namespace) -> tuple[Any, Any]:
        return discrete_form(system, dt, self.discretization, None, xp)

    def initial_state(self, params: Parameters, batch: int) -> Array:
        """Zeros, complex where the poles are."""
        self._refuse_states(None, True, None, None, "auto")
        batch = check_batch(self.name, batch)
        params = self.prepared(params)
        xp = namespace(self.name, **params)
        matrix = records.state_field(self.system(params, xp)[0])
        return xp.zeros(self.state_shape(batch), dtype=matrix.dtype, device=device(matrix))

    def stepper(self, params: Parameters, *, rate: Any = 1.0) -> Stepper:
        """(u_t (B, H), state) -> (y_t (B, H), state), with the discrete system held."""
        return self._stepper(params, rate, self._advance, self._check_step)

    def real_stepper(self, params: Parameters, *, rate: Any = 1.0) -> Stepper:
        return self._stepper(params, rate, self._real_advance, self._check_real_step)

    def _advance(self, system: Any, discrete: Any, xp: Namespace) -> SystemStep:
        """One step of the systems: (state, u) -> (state, C state)."""
        advance = system_stepper(discrete, xp)
        in_other_states = isinstance(system, DPLR) and isinstance(discrete, Dense)  # (Re x, Im x)
        return in_halves(advance, xp) if in_other_states else advance

    def _real_advance(self, system: Any, discrete: Any, xp: Namespace) -> SystemStep:
        """The same on real states."""
        return real_system_stepper(discrete, xp)

    def _stepper(self, params: Parameters, rate: Any, advance_of: Any, check_of: Any) -> Stepper:
        """The step around one of the systems, `advance_of`; `check_of` is what it is given first."""
        self._refuse_states(None, True, None, None, "auto")
        rate = self.check_rate(bringing(params)(rate))
        params = self.prepared(params)
        xp, several = namespace(self.name, **params), self.channels > 1
        system, dt = self._time_first_system(params, rate, xp)
        discrete = system if system.discrete else discretized(system, dt, self.discretization, None, xp)
        advance, maps = advance_of(system, discrete, xp), self.maps(params, xp)
        enter, leave = (None, None) if maps is None else map(xp.matrix_transpose, maps)
        check, mapped = once_per_kind(partial(check_of, params)), self.output_map.bound(params, xp)
        bring = bringing(params)

        def step(u_t: Array, state: Array) -> tuple[Array, Array]:
            u_t, state = bring((u_t, state))
            check(u_t, state)
            u, state = as_precise(computable(u_t, xp), state, xp)
            state, v = advance(state, u if enter is None else matmul(u, enter, xp))
            v = v if leave is None else matmul(v, leave, xp)
            y = mapped(xp.permute_dims(v, (0, 2, 1)) if several else v, u)
            return in_dtype_of(u_t, y, xp), state

        return step

    def _check_step(self, params: Parameters, u_t: Array, state: Array) -> None:
        operation, one = f"{self.name}.step", next(iter(params.values()))  # all are of one library
        check_signal(operation, u_t, self.d_model, step=True)
        namespace(operation, u_t=u_t, params=one)
        self.check_state(operation, state, u_t.shape[0], u_t)

    def _check_real_step(self, params: Parameters, u_t: Array, state: Array) -> None:
        operation, shape = f"{self.name}.step", self.state_shape(u_t.shape[0] if getattr(u_t, "ndim", 0) else 0)
        check_signal(operation, u_t, self.d_model, step=True)
        require_arrays(operation, state=state)
        namespace(operation, u_t=u_t, state=state, params=next(iter(params.values())))
        wanted = shape if self.real_states else (*shape[:-1], 2 * shape[-1])
        if is_complex(state) or tuple(state.shape) != wanted:
            raise ShapeError(
                f"{operation}: state must be real {wanted} ({describe(u_t=u_t, state=state)}). Make it with real_state."
            )

    def check_state(self, operation: str, state: Any, batch: int, u: Array) -> None:
        require_arrays(operation, state=state)
        namespace(operation, u=u, state=state)
        if tuple(state.shape) != self.state_shape(batch):
            raise ShapeError(
                f"{operation}: state must be {self.state_shape(batch)} ({describe(u=u, state=state)}). "
                f"Start from initial_state({batch})."
            )
        floating(operation, state=state)
        if self.real_states and is_complex(state):
            raise DTypeError(f"{operation}: state has dtype {dtype_name(state)}, but the poles are real.")

    @property
    def rate_width(self) -> int | None:
        """One for every channel, with a system a channel."""
        return self.d_model if self.per_channel else None

    def _refuse_states(self, state: Any, return_state: bool, reset: Any, step_scale: Any, mode: str) -> None:
        if not self.bidirectional:
            return
        if not isinstance(mode, str) or mode not in MODES:
            raise unknown(self.name, "mode", mode, MODES)
        if (
            state is not None
            or return_state
            or reset is not None
            or step_scale is not None
            or mode in ("chunk", "scan")
        ):
            raise OptionError(
                f"{self.name}: a bidirectional layer sees the future, so it has no state, step, reset or step_scale, "
                "and only mode 'conv'. Build it with bidirectional=False to stream."
            )
