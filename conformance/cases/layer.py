"""What a layer brings to the suite: one record a layer, from which every shared test of layers follows.

A file of `cases/layers/` holds one record named CASES, and is found by being there. From it follow its row of the
capability table; outputs and states against the plain loop in every mode, over any cut of a sequence, with resets,
lengths, packed sequences, rates and steps of their own; half precision; derivatives; the modules of the frameworks,
with weights that travel between them; and what users get wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np

from ..truth import layers as truth
from .functions import REALS, Case
from .instance import H, Instance

Options = dict[str, Any]
MODES = ("conv", "chunk", "scan", "auto")  # of time-invariant layers


@dataclass(frozen=True, eq=False)
class LayerCases:
    """One layer. What is common to a kind of layers is in the three classes below.

    layer          its class
    least          options that it cannot do without, or not with d_model = 4
    truth          (options, parameters) -> its recurrence as plain loops: `truth.layers.System` or `Steps`
    instances      options that matter, by the names that tests show; the first is the plain one. d_model is 4
    parameters     the names of the parameters of the plain instance, in order, without those of the output map
    no_weight_decay  those of them that have a learning rate of their own and no weight decay
    rests_on       the dispatched functions that it calls (`dispatched.py`), of which backends have fast twins
    extensions     the parts of the array API beyond its core that it needs
    small          small ones by name, (options with d_model, mode): for derivatives, compilers, unusual memory
    modules        options with d_model of modules that are built in every framework, by name
    refusals       (options, message): what the constructor refuses
    ones           the instances that stand for it where one is enough; the plain one by default
    edits          changes to the parameters of an instance, that its option needs to be seen
    only_modes     the modes of an instance that has not all of them
    timed          whether it has steps in time, which a rate can change
    thorough       whether it stands for its kind: more draws, dtypes and compiled instances
    """

    layer: type[Any]
    truth: Callable[[Options, dict[str, Any]], Any]
    instances: dict[str, Options]
    parameters: str
    no_weight_decay: str
    rests_on: tuple[str, ...]
    small: dict[str, tuple[Options, str]]
    modules: dict[str, Options]
    refusals: tuple[tuple[Options, str], ...] = ()
    least: Options = field(default_factory=dict)
    extensions: tuple[str, ...] = ()
    ones: tuple[str, ...] = ()
    edits: dict[str, Callable[[dict[str, Any]], None]] = field(default_factory=dict)
    only_modes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    timed: bool = True
    thorough: bool = False

    terms: ClassVar[int]  # roundings that one step adds up
    dtypes: ClassVar[tuple[str, ...]] = REALS  # of the small cases

    @property
    def name(self) -> str:
        return self.layer.__name__

    @property
    def function(self) -> str:
        return f"layers.{self.name}"

    def has(self, option: str) -> bool:
        return option in {f.name for f in fields(self.layer)}

    def instance(self, name: str) -> Instance:
        return Instance(self, name, {"d_model": H} | self.instances[name])

    @property
    def plain(self) -> Instance:
        return self.instance(next(iter(self.instances)))

    @property
    def all(self) -> tuple[Instance, ...]:
        return tuple(self.instance(name) for name in self.instances)

    @property
    def one_each(self) -> tuple[Instance, ...]:
        return tuple(self.instance(name) for name in self.ones or [self.plain.name])

    @property
    def compiled(self) -> tuple[Instance, ...]:
        """The instances of which every run is compiled where a library does that."""
        return self.all if self.thorough else self.one_each

    @property
    def with_step_scale(self) -> tuple[Instance, ...]:
        raise NotImplementedError

    @property
    def small_cases(self) -> tuple[Any, ...]:
        return tuple(Instance(self, name, o).case(name, mode=mode) for name, (o, mode) in self.small.items())

    def steps(self, options: Options, params: dict[str, Any]) -> truth.Steps:
        """The plain loop's."""
        raise NotImplementedError

    def run(self, options: Options, params: dict[str, Any], u: Any, state: Any = None, **cut: Any) -> tuple[Any, Any]:
        """(y, last state) by the plain loop, for sequences cut as `truth.layers.run` says."""
        given = None if state is None else self.parts(state)
        y, last = truth.run(self.steps(options, params), u, given, **cut)
        return y, self.joined(last)

    # A state is one array, or a tuple of them.

    def parts(self, state: Any) -> tuple[Any, ...]:
        raise NotImplementedError

    def joined(self, parts: tuple[Any, ...]) -> Any:
        raise NotImplementedError

    def state_shapes(self, layer: Any, batch: int) -> dict[str, tuple[int, ...]]:
        raise NotImplementedError

    def real_states(self, layer: Any) -> bool:
        raise NotImplementedError

    def modes(self, layer: Any) -> tuple[str, ...]:
        raise NotImplementedError

    def outer_parameters(self, layer: Any) -> str:
        """Names behind those of `parameters`."""
        return ""

    def axes(self, layer: Any, length: int) -> tuple[int, ...]:
        """The shape of a signal between batch and channels."""
        return (length,)


@dataclass(frozen=True, eq=False)
class WholeCases(LayerCases):
    """A layer that needs its whole input at once and has no state.

    truth   (options, parameters, u (axes..., H), rate) -> y (axes..., H'), of one input
    packed  whether it takes cu_seqlens
    """

    packed: bool = True

    terms: ClassVar[int] = 64

    def axes(self, layer: Any, length: int) -> tuple[int, ...]:
        """Axes of several lengths, where the layer has several."""
        return tuple(max(1, length - 2 * a) if length else 0 for a in range(getattr(layer, "dims", 1)))

    def state_shapes(self, layer: Any, batch: int) -> dict[str, tuple[int, ...]]:
        return {}

    def modes(self, layer: Any) -> tuple[str, ...]:
        return tuple(layer.modes)

    def outer_parameters(self, layer: Any) -> str:
        return " D output_weight output_bias" if self.has("skip") else ""

    def expected(self, options: Options, params: dict[str, Any], u: Any, rate: Any = 1.0) -> Any:
        """y of a batch."""
        return np.stack([self.truth(options, params, one, rate) for one in u])

    @property
    def small_cases(self) -> tuple[Any, ...]:
        return tuple(self._case(Instance(self, name, o), mode) for name, (o, mode) in self.small.items())

    def _case(self, one: Instance, mode: str, length: int = 5) -> Case:
        layer = one.layer
        return Case(
            self.function, one.name, lambda d: {n: x for n, x in one.inputs(length).items() if x is not None},
            lambda v: layer.apply(one.params_of(v), v.u, mode=mode),
            lambda v: self.expected(layer.options(), one.params_of(v), v.u),
            self.dtypes, terms=self.terms * length ** getattr(layer, "dims", 1),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class TimeInvariantCases(LayerCases):
    """A layer around a system that does not change with time; its state is one array.

    both        the instances that are tried in both directions; all by default
    scaled      the instances that take a length for every step
    joint       whether all channels share one system: its second direction is a second run
    """

    scaled: tuple[str, ...] = ()
    joint: bool = False
    both: tuple[str, ...] | None = None

    terms: ClassVar[int] = 32

    def steps(self, options: Options, params: dict[str, Any]) -> truth.Steps:
        return truth.steps_of(self.truth(options, params), options, params)

    def parts(self, state: Any) -> tuple[Any, ...]:
        return (state,)

    def joined(self, parts: tuple[Any, ...]) -> Any:
        return parts[0]

    def state_shapes(self, layer: Any, batch: int) -> dict[str, tuple[int, ...]]:
        return {"x": layer.state_shape(batch)}

    def real_states(self, layer: Any) -> bool:
        return bool(layer.real_states)

    def modes(self, layer: Any) -> tuple[str, ...]:
        return MODES

    def outer_parameters(self, layer: Any) -> str:
        return f"{' D' if self.has('skip') else ''} output_weight output_bias"

    @property
    def with_step_scale(self) -> tuple[Instance, ...]:
        return tuple(self.instance(name).in_("float64") for name in self.scaled)

    @property
    def in_both_directions(self) -> tuple[Instance, ...]:
        names = self.instances if self.both is None else self.both
        return tuple(self.instance(name).with_options(bidirectional=True) for name in names)


@dataclass(frozen=True, eq=False)
class GatedCases(LayerCases):
    """A layer whose steps depend on its input; its state is a tuple of real arrays."""

    terms: ClassVar[int] = 64
    dtypes: ClassVar[tuple[str, ...]] = ("float64",)  # they take long to compile

    def steps(self, options: Options, params: dict[str, Any]) -> truth.Steps:
        return self.truth(options, params)  # type: ignore[no-any-return]

    @property
    def compiled(self) -> tuple[Instance, ...]:
        return tuple(one.in_("float32") for one in self.one_each)

    @property
    def with_step_scale(self) -> tuple[Instance, ...]:
        return tuple(one.in_("float32") for one in self.one_each if self.timed)

    def parts(self, state: Any) -> tuple[Any, ...]:
        return tuple(state)

    def joined(self, parts: tuple[Any, ...]) -> Any:
        return parts

    def state_shapes(self, layer: Any, batch: int) -> dict[str, tuple[int, ...]]:
        return dict(layer.state_shapes(batch))

    def real_states(self, layer: Any) -> bool:
        return True

    def modes(self, layer: Any) -> tuple[str, ...]:
        return tuple(layer.modes)
