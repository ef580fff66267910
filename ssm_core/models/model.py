"""A model: a pattern of blocks between what makes features of its inputs and what reads the features.

The composition is written once, of functions of arrays: those of a definition, or the native modules of a framework.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

from .._arrays.errors import OptionError, ShapeError, describe
from .._arrays.library import Array, Namespace, bringing, in_dtype_of, namespace, require_arrays
from ..layers.calls import applies
from ..layers.layer import Stepper, check_batch, check_rate, once_per_kind
from ..layers.parameters import Parameters
from ..recurrences.broken import Broken, arrays_in, kept_apart
from ..recurrences.segments import Segments, checked_segments
from ..recurrences.shards import shards_of_now
from .parts import Parts
from .pattern import Pattern
from .pointwise import Function

StepperOf = Callable[..., Stepper]  # (layer, params, rate=) -> its step


class Model(Pattern):
    """A pattern that runs, and steps: what all models share."""

    @abstractmethod
    def ends(self, params: Parameters, xp: Namespace) -> tuple[Function, Function]:
        """What makes features of inputs, and what makes outputs of features."""

    @abstractmethod
    def check_signal(self, u: Array, *, step: bool = False) -> None:
        """Raise unless u is an input of the model by its shape and dtype."""

    def beside(self, params: Parameters) -> Array | None:
        """What the mixers take behind their inputs, the same at every step, of the parameters that they share."""
        return None

    def maps(self) -> dict[str, tuple[int, int]]:
        """(features in, features out) of linear maps between the blocks, by name."""
        return {}

    def pure_maps(self, params: Parameters) -> dict[str, Function]:
        """`maps` as functions of features."""
        return {}

    def check_values(self, operation: str, u: Array) -> None:
        """Raise for inputs that may be read and have no meaning."""

    def entered(self, u: Array, enter: Function) -> Array:
        """The features of the inputs."""
        return enter(u)

    def outputs(self, x: Array, leave: Function, state: Any, **options: Any) -> tuple[Array, tuple[Any, ...]]:
        """Outputs of the features behind the blocks, and the states that they need."""
        return leave(x), ()

    def step_outputs(self, x: Array, leave: Function, state: Any) -> tuple[Array, tuple[Any, ...]]:
        """`outputs` of one step."""
        return leave(x), ()

    def outer_state(self, like: Array, batch: int) -> tuple[Any, ...]:
        """The state behind the blocks before the first step; like is any parameter."""
        return ()

    # Runs -------------------------------------------------------------------------------------------------------------

    @applies
    def apply(
        self,
        params: Parameters,
        u: Array,
        *,
        state: Any = None,
        return_state: bool = False,
        lengths: Array | None = None,
        reset: Array | None = None,
        cu_seqlens: Array | None = None,
        rate: Any = 1.0,
        step_scale: Array | None = None,
        mode: str = "auto",
        recompute: int | None = None,
        dropout: Sequence[Function] | None = None,
    ) -> Any:
        """The outputs for u, and the state after them with return_state.

        state       a tuple as of `initial_state`, zero if None
        lengths     integer (B,): what stands beyond is as if it were not there
        reset       bool (B, L): the states are zeroed before that step
        cu_seqlens  integer (n + 1,) with B = 1: n sequences packed one after another; states have batch n
        rate, step_scale, mode, recompute  as in the layers
        dropout     functions of features, one a block: of what it adds to them, in training
        """
        bring = bringing(params)
        u, state, rate = bring((u, state, rate))
        params = self.prepared(params, **{self.signal: u})
        xp = namespace(self.name, **params)
        y = self.compose(
            u,
            self.parts(params, xp, dropout),
            state=state,
            return_state=return_state,
            lengths=bring(lengths),
            reset=bring(reset),
            cu_seqlens=bring(cu_seqlens),
            rate=rate,
            step_scale=bring(step_scale),
            mode=mode,
            recompute=recompute,
        )
        return (in_dtype_of(u, y[0], xp), y[1]) if return_state else in_dtype_of(u, y, xp)

    def parts(self, params: Parameters, xp: Namespace, dropout: Sequence[Function] | None = None) -> Parts:
        """The model as functions, blocks those of runs."""
        runs = self._blocks(params, lambda layer, own: partial(layer.apply, own))
        dropped = (None,) * len(self.blocks) if dropout is None else dropout
        blocks = [block.parts(own, along, xp, d).run for (block, own, along), d in zip(runs, dropped, strict=True)]
        enter, leave = self.ends(params, xp)
        return Parts(enter, blocks, leave, beside=self.beside(params), maps=self.pure_maps(params))

    def compose(self, u: Array, parts: Parts, *, state: Any = None, return_state: bool = False, **options: Any) -> Any:
        """`apply` of the model's parts, whichever framework they are of."""
        x, states, broken = self.hidden(u, parts, state=state, return_state=return_state, **options)
        before = None if state is None else state[self.n_states :]
        y, outer = self.outputs(x, parts.leave, before, **options)
        y = self.marked(y, broken, **options)
        return (y, (*states, *outer)) if return_state else y

    def hidden(
        self, u: Array, parts: Parts, *, state: Any = None, return_state: bool = False, **options: Any
    ) -> tuple[Array, tuple[Any, ...], Broken]:
        """What stands behind the blocks (B, L, H), with return_state the states of the blocks, and what is NaN of them.

        The features themselves are finite, for the sake of gradients: outputs are marked at last.
        """
        if not parts.own:
            self.check_signal(u)
        segments = self.segments(u, **options)
        if state is not None:
            self.check_state(self.name, state, u.shape[0])
        xp = namespace(self.name, **{self.signal: u})
        signals = {"u": segments.masked(u, 1, xp)}
        scale = options.get("step_scale")
        if tuple(getattr(scale, "shape", ())) == tuple(u.shape[:2]):  # of others the layers complain
            signals["step_scale"] = segments.masked(scale, 1, xp, fill=1.0)
        kinds: dict[str, Any] = {"scales": ("step_scale",), "both_ways": bool(self.layer_options.get("bidirectional"))}
        before = state and tuple(state[: self.n_states])
        signals, before, broken = kept_apart(segments, signals, before, xp, axis=1, **kinds)
        u, options = signals.pop("u"), options | signals
        if options.get("recompute") is not None:
            self._check_recompute(options["recompute"])
        self.check_values(self.name, u)
        # What is not given is not handed on: not every layer has every option.
        options = {name: option for name, option in options.items() if option is not None}
        x, states = self.through(self.entered(u, parts.enter), parts, before, return_state, **options)
        return x, broken.marked_state(states, xp), broken

    def _check_recompute(self, recompute: int) -> None:
        lacking = {layer.name for block in self.blocks for layer in block.layers().values() if not layer.recomputes}
        if lacking:
            raise OptionError(
                f"{self.name}: recompute = {recompute!r}, but {' and '.join(sorted(lacking))} has none: layers whose "
                "dynamics do not depend on their input keep little for the backward. Leave it out."
            )

    def through(
        self, x: Array, parts: Parts, before: Any, return_state: bool, **options: Any
    ) -> tuple[Array, tuple[Any, ...]]:
        """Features (B, L, H) through the blocks, and with return_state the states behind them."""
        states = []
        for i, block in enumerate(parts.blocks):
            x = self._with(x, parts.beside, i)
            x = block(x, state=None if before is None else before[i], return_state=return_state, **options)
            if return_state:
                x, after = x
                states.append(after)
        return self._features(x), tuple(states)

    def marked(self, y: Array, broken: Broken, **options: Any) -> Array:
        """The outputs with NaN where they are made of what is not finite."""
        return broken.marked(y, 1, namespace(self.name, y=y))

    def segments(
        self,
        u: Array,
        *,
        lengths: Any = None,
        reset: Any = None,
        cu_seqlens: Any = None,
        rate: Any = 1.0,
        **others: Any,
    ) -> Segments:
        """Where the sequences of an input begin and end; raises where the options do not fit it or each other."""
        masks = {"reset": reset, "lengths": lengths, "cu_seqlens": cu_seqlens}
        check_rate(self.name, rate, self.d_model)
        given = {self.signal: u} | masks
        shards = shards_of_now(u)
        segments = checked_segments(
            self.name, describe(**given), tuple(u.shape[:1]), u.shape[1], shards=shards, **masks
        )
        namespace(self.name, **given)
        return segments

    # Steps ------------------------------------------------------------------------------------------------------------

    def initial_state(self, params: Parameters, batch: int) -> Any:
        """The states of the blocks, then what the outputs need."""
        params = self.prepared(params)
        found = self._blocks(params, lambda layer, own: partial(layer.initial_state, own))
        starts = [block.start(tuple(along.values())) for block, _, along in found]
        return self.compose_initial_state(starts, next(iter(params.values())), batch)

    def compose_initial_state(self, starts: Sequence[Callable[[int], Any]], like: Array, batch: int) -> tuple[Any, ...]:
        """`initial_state` from those of the blocks; like is any parameter."""
        batch = check_batch(self.name, batch)
        return (*(start(batch) for start in starts), *self.outer_state(like, batch))

    def stepper(self, params: Parameters, *, rate: Any = 1.0) -> Stepper:
        """(u_t, state) -> (y_t, state), without the axis of time."""
        return self.stepper_at(None, params, rate=rate)

    def stepper_at(self, moment: Hashable, params: Parameters, *, rate: Any = 1.0) -> Stepper:
        """`stepper` for steps of one `moment`."""
        return self.stepper_of(params, rate, lambda layer, inner, rate: layer.stepper(inner, rate=rate), moment)

    def real_stepper(self, params: Parameters, *, rate: Any = 1.0) -> Stepper:
        return self.stepper_of(params, rate, lambda layer, inner, rate: layer.real_stepper(inner, rate=rate))

    def stepper_of(self, params: Parameters, rate: Any, stepper_of: StepperOf, moment: Hashable = None) -> Stepper:
        """`stepper` around the steps that a function (layer, params, rate=) makes of the blocks' layers."""
        params = self.prepared(params)
        xp = namespace(self.name, **params)
        steps = self._blocks(params, lambda layer, own: stepper_of(layer, own, rate=rate))
        blocks = [block.parts(own, along, xp).step for block, own, along in steps]
        enter, leave = self.ends(params, xp)
        parts = Parts(enter, blocks, leave, beside=self.beside(params), maps=self.pure_maps(params))
        step = self.compose_stepper(parts, next(iter(params.values())), moment)

        def in_its_dtype(u_t: Array, state: Any) -> tuple[Array, Any]:
            y, state = step(u_t, state)
            return in_dtype_of(u_t, y, xp), state

        return in_its_dtype

    def compose_stepper(self, parts: Parts, like: Array, moment: Hashable = None) -> Stepper:
        """`stepper` of the model's parts of any framework; like is any parameter, moment that of all steps if known."""
        n, check = self.n_states, once_per_kind(partial(self._check_step, like, parts.own))
        bring = bringing({"any": like})

        def step(u_t: Array, state: Any) -> tuple[Array, Any]:
            u_t, state = bring((u_t, state))
            check(u_t, state)
            self.check_values(f"{self.name}.step", u_t)
            x, states = self.step_through(self.entered(u_t, parts.enter), parts, state[:n], moment)
            y, outer = self.step_outputs(x, parts.leave, state[n:])
            return y, (*states, *outer)

        return step

    def step_through(
        self, x: Array, parts: Parts, before: Any, moment: Hashable = None
    ) -> tuple[Array, tuple[Any, ...]]:
        """Features (B, H) of one step through the blocks, and the states behind them."""
        states = []
        for i, block in enumerate(parts.blocks):
            x, after = block(self._with(x, parts.beside, i), before[i])
            states.append(after)
        return self._features(x), tuple(states)

    def moment(self, state: Any) -> Hashable:
        """What there is to do in the step that follows a state, where that changes from step to step; else None."""
        return None

    def _features(self, x: Array) -> Array:
        """The d_model features, without what stands behind them."""
        return x[..., : self.d_model] if x.shape[-1] > self.d_model else x

    def _with(self, x: Array, beside: Array | None, i: int) -> Array:
        """x with what block i takes behind it."""
        if beside is None:
            return x
        xp, x = namespace(self.name, x=x), self._features(x)
        row = xp.astype(beside[i, ...], x.dtype, copy=False)
        return xp.concat([x, xp.broadcast_to(row, (*x.shape[:-1], row.shape[0]))], axis=-1)

    def _check_step(self, like: Array, own: bool, u_t: Array, state: Any) -> None:
        operation = f"{self.name}.step"
        if not own:
            self.check_signal(u_t, step=True)
        namespace(operation, **{self.signal: u_t}, params=like)
        self.check_state(operation, state, u_t.shape[0])

    def check_state(self, operation: str, state: Any, batch: int) -> None:
        """Raise unless the state is one of every block, and what the outputs need; blocks look into their own."""
        n = self.n_states + len(self.behind)
        if not isinstance(state, tuple | list) or len(state) != n or any(x is None for x in state):
            wanted = " and ".join((f"{self.n_states} layer states", *self.behind))
            raise ShapeError(
                f"{operation}: state must be a tuple of {wanted}, not {type(state).__name__} of "
                f"{len(state) if hasattr(state, '__len__') else 0}. Start from initial_state(batch)."
            )
        require_arrays(operation, **{f"state_{i}": x for i, x in enumerate(arrays_in(state))})
