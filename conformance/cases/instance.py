"""One layer with its options: what every shared test of layers runs on."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends import HALF, STANDARD, Backend
from ..examples import Draw, as_arrays
from ..tolerances import assert_close
from .functions import Case

if TYPE_CHECKING:
    from .layer import LayerCases

H, BATCH = 4, 2
STEPS = {"dt_min": 0.05, "dt_max": 0.5}  # so that short sequences see the whole memory


def parameters(layer: Any, seed: int = 0) -> dict[str, np.ndarray]:
    """Less regular than the first ones, as trained ones are."""
    generator = np.random.default_rng(seed + 1)
    first = layer.initial_parameters(seed, dtype=np.float64)
    return {name: p + 0.1 * generator.normal(size=p.shape) for name, p in first.items()}


def params_of(v: SimpleNamespace, layer: Any) -> dict[str, Any]:
    return {p.name: getattr(v, p.name) for p in layer.parameters()}


@dataclass(frozen=True)
class Instance:
    """A layer of `cases` under its name; a test runs it for `dtypes`."""

    cases: LayerCases
    name: str
    options: dict[str, Any]
    dtypes: tuple[str, ...] = (*STANDARD, *HALF)

    @property
    def label(self) -> str:
        return self.name

    @property
    def function(self) -> str:
        """The row of the capability table and of the report."""
        return self.cases.function

    @property
    def layer(self) -> Any:
        return self.cases.layer(**self.options)

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes that it has: of those of its kind, the ones it does not refuse."""
        return self.cases.only_modes.get(self.name, self.cases.modes(self.layer))

    @property
    def rate(self) -> float:
        """A rate other than 1, where the layer has steps in time."""
        return 0.7 if self.cases.timed else 1.0

    @property
    def rate_is_of_channels(self) -> bool:
        """Whether a rate may be an array (H,): each channel has a system of its own."""
        return bool(getattr(self.layer, "per_channel", False))

    def takes(self, argument: str) -> bool:
        """Whether `apply` has this argument."""
        return argument in inspect.signature(self.cases.layer.apply).parameters

    def in_(self, *dtypes: str) -> Instance:
        return replace(self, dtypes=dtypes)

    def with_options(self, **more: Any) -> Instance:
        return replace(self, options=self.options | more)

    def parameters(self, seed: int = 0) -> dict[str, np.ndarray]:
        found = parameters(self.layer, seed)
        if self.name in self.cases.edits:
            self.cases.edits[self.name](found)
        return found

    def inputs(self, length: int, seed: int = 0, batch: int = BATCH, **more: Any) -> dict[str, Any]:
        """Parameters, a signal and first states; masks and steps are None unless given."""
        d = Draw(seed)
        u = d.real(batch, *self.cases.axes(self.layer, length), self.layer.d_model)
        given = {"u": u, "reset": None, "scale": None, "lengths": None}
        return self.parameters() | given | self.states(batch, d) | more

    def arrays(self, backend: Backend, dtype: str, length: int, seed: int = 0, **more: Any) -> SimpleNamespace:
        return as_arrays(backend, dtype, self.inputs(length, seed, **more))

    def states(self, batch: int, d: Draw) -> dict[str, np.ndarray]:
        """The arrays of a state; what is an angle, a count or a normalizer, as it comes out: not negative."""
        layer = self.layer
        return {
            f"state_{name}": d.uniform(0, 6, *shape)
            if name in ("angles", "position", "n")
            else (d.real if self.cases.real_states(layer) else d.complex)(*shape)
            for name, shape in self.cases.state_shapes(layer, batch).items()
        }

    def state_in(self, v: SimpleNamespace) -> Any:
        """The state among inputs, as `apply` takes it."""
        return self.cases.joined(tuple(getattr(v, f"state_{n}") for n in self.cases.state_shapes(self.layer, 1)))

    def params_of(self, v: SimpleNamespace) -> dict[str, Any]:
        return params_of(v, self.layer)

    def truth(self, v: SimpleNamespace, **more: Any) -> tuple[Any, Any]:
        """(y, last state) of the values v by the plain loop."""
        masks = {"reset": "reset", "lengths": "lengths", "step_scale": "scale"}
        given = {name: getattr(v, held, None) for name, held in masks.items()} | {"state": self.state_in(v)} | more
        return self.cases.run(self.options_given, self.params_of(v), v.u, given.pop("state"), **given)

    @property
    def options_given(self) -> dict[str, Any]:
        """All options, the defaults too."""
        return self.layer.options()

    def check(self, found: Any, wanted: Any, length: int, backend: Backend, dtype: str) -> None:
        """(y, state) of an array library against the truth."""
        terms = self.cases.terms * length
        assert_close(found[0], wanted[0], backend, dtype, function=self.function, terms=terms, half=True)
        self.check_state(found[1], wanted[1], backend, dtype, terms=terms)

    def check_state(self, found: Any, wanted: Any, backend: Backend, dtype: str, **budget: Any) -> None:
        """Angles count on the circle; states stay in float32 where the inputs are in half precision."""
        dtype = "float32" if dtype in HALF else dtype
        names = self.cases.state_shapes(self.layer, 1)
        for name, actual, expected in zip(names, *map(self.cases.parts, (found, wanted)), strict=True):
            pairs = [(actual, expected)]
            if name == "angles":
                pairs = [(f(actual), g(expected)) for f, g in ((backend.xp.cos, np.cos), (backend.xp.sin, np.sin))]
            for a, e in pairs:
                assert_close(a, e, backend, dtype, function=self.function, **budget)

    def case(self, name: str, length: int = 9, mode: str = "auto", dtypes: tuple[str, ...] | None = None) -> Case:
        """The whole layer with its state as a function of arrays: for derivatives, compilers, unusual memory."""
        cases = self.cases

        def call(v: SimpleNamespace) -> Any:
            options = {"state": self.state_in(v), "return_state": True, "mode": mode}
            y, state = self.layer.apply(self.params_of(v), v.u, **options)
            return (y, *cases.parts(state))

        def expected(v: SimpleNamespace) -> Any:
            y, state = self.truth(v)
            return (y, *cases.parts(state))

        def draw(d: Draw) -> dict[str, Any]:
            return {n: x for n, x in self.inputs(length).items() if x is not None}

        half = (True, *(False for _ in cases.state_shapes(self.layer, 1)))
        chosen = cases.dtypes if dtypes is None else dtypes
        return Case(self.function, name, draw, call, expected, chosen, terms=cases.terms * length, half=half)
