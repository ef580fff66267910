"""The bases of all modules: they register the parameters of a definition and hand them to its functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ssm_core import layers
from ssm_core._arrays.dispatch import load
from ssm_core._arrays.errors import absent
from ssm_core.layers.calls import Call
from ssm_core.layers.parameters import Parameter

try:
    import torch
    from torch import Tensor, nn
except ImportError as error:
    raise absent("adapters.torch", error, "torch", extra="torch") from error

from ssm_core.backends.torch.transforms import full_precision

from .projections import Projection, away, brought, held, placed, projections, replaced_map

load("torch")  # before a trace, in which to do it would make a program of no further use


class _Draws:
    """PyTorch's own generator, on a device and in a dtype."""

    def __init__(self, device: Any, dtype: torch.dtype) -> None:
        self._options: dict[str, Any] = {"device": device, "dtype": dtype}

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> Tensor:
        return torch.empty(shape, **self._options).uniform_(low, high)

    def normal(self, shape: tuple[int, ...], std: float) -> Tensor:
        return torch.empty(shape, **self._options).normal_(0.0, std)

    def constant(self, value: Any) -> Tensor:
        return torch.tensor(value, **self._options)


def redraw(module: nn.Module, parameters: Mapping[str, Parameter]) -> None:
    """Draw these parameters of a module anew."""
    with torch.no_grad():
        for name, p in parameters.items():
            tensor = getattr(module, name)
            tensor.copy_(p.draw(_Draws(tensor.device, tensor.dtype)))


class Called(nn.Module):
    """What calls of layers and models give, for type checkers."""

    if TYPE_CHECKING:
        __call__: Call[Tensor, Tensor]


class SSMModule(Called):
    """The module of any definition of a layer."""

    def __init__(self, definition: layers.Layer, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.definition = definition
        definition.shapes_of({})  # noted before a trace
        for p in definition.parameters():
            self.register_parameter(p.name, nn.Parameter(torch.empty(p.shape, device=device, dtype=dtype)))
        maps = {p.name.removesuffix("_weight"): p.shape for p in definition.parameters() if p.maps}
        self.maps = tuple(name for name in maps if not hasattr(self, name))
        for name in self.maps:
            self.add_module(name, Projection(self, name, *maps[name]))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        redraw(self, {p.name: p for p in self.definition.parameters()})

    def arrays(self) -> dict[str, Tensor]:
        """The parameters by name, as they are used: normalized, pruned, shared or replicated ones too."""
        if away(self):
            with brought(self):
                return self.arrays()
        names = [p.name for p in self.definition.parameters()]
        taken = {name for name in map("{}_weight".format, self.maps) if not hasattr(self, name)}  # in a tool's hands
        found = {name: held(self, name) for name in names if name not in taken}
        for name in self.maps:
            part: Any = self._modules[name]
            if f"{name}_weight" in taken or not isinstance(part, Projection) or part.layer not in (None, self):
                found |= self._replaced(name, part, found)
        return {name: found[name] for name in names} if taken else found

    def any_parameter(self) -> Tensor:
        """Any parameter, for its device."""
        found: Tensor = next(x for p in self.definition.parameters() if (x := getattr(self, p.name, None)) is not None)
        return placed(found, self)

    def _replaced(self, name: str, part: Any, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weight and the bias of what stands in place of a projection, such as a low-rank adapter around it."""
        weight, bias = f"{name}_weight", f"{name}_bias"
        self._take(part)
        n_in = next(p.shape[1] for p in self.definition.parameters() if p.name == weight)
        W, b = replaced_map(part, f"{self.definition.name}.{name}", n_in, found.get(weight), found.get(bias))
        return {weight: W} if b is None else {weight: W, bias: b}

    def _take(self, part: nn.Module) -> None:
        """Make projections that belong to no layer, as in copies, those of this one."""
        for projection in projections(part):
            if projection.layer is None:
                projection.belong(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._take(self)

    def forward(
        self,
        u: Tensor,
        *,
        state: Any = None,
        return_state: bool = False,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        rate: Any = 1.0,
        step_scale: Tensor | None = None,
        mode: str = "auto",
    ) -> Any:
        """y (B, L, H) from u (B, L, H); with return_state the pair (y, state). Options as the definition's `apply`."""
        with full_precision(u):
            return self.definition.apply(
                self.arrays(),
                u,
                state=state,
                return_state=return_state,
                lengths=lengths,
                reset=reset,
                cu_seqlens=cu_seqlens,
                rate=rate,
                step_scale=step_scale,
                mode=mode,
            )

    def initial_state(self, batch: int) -> Any:
        """The state before the first step."""
        return self.definition.initial_state(self.arrays(), batch)

    def step(self, u_t: Tensor, state: Any, *, rate: Any = 1.0) -> tuple[Tensor, Any]:
        """(y_t, state) from u_t (B, H) and the state before it. To generate many steps, hold the `stepper`."""
        return self.stepper(rate=rate)(u_t, state)

    def stepper(self, *, rate: Any = 1.0) -> layers.Stepper:
        """A function (u_t, state) -> (y_t, state) that holds the discrete system."""
        with full_precision(self.any_parameter()):
            step = self.definition.stepper(self.arrays(), rate=rate)

        def in_full_precision(u_t: Tensor, state: Any) -> tuple[Tensor, Any]:
            with full_precision(u_t):
                return step(u_t, state)

        return in_full_precision

    def __repr__(self) -> str:
        if all(isinstance(part, Projection) for part in self.children()):
            return f"{self._get_name()}({self.extra_repr()})"  # the maps of which follow from the options
        return super().__repr__()

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.definition.options().items())


class TimeInvariantModule(SSMModule):
    """A module around a linear time-invariant system."""

    definition: layers.TimeInvariant

    def kernel(self, length: int, *, rate: Any = 1.0) -> Tensor:
        """The convolution kernels: (channels, H, L) of a system a channel, or (2 channels, H, L) in two directions;
        of one system for all channels (H, H, L), from every input to every output; of LinOSS (1, 2P, L), those of
        its oscillators."""
        return self.definition.kernel(self.arrays(), length, rate=rate)


class InputDependentModule(SSMModule):
    """A module around gates of the input, whose state is a tuple."""

    definition: layers.InputDependent

    def forward(
        self,
        u: Tensor,
        *,
        state: Any = None,
        return_state: bool = False,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        rate: Any = 1.0,
        step_scale: Tensor | None = None,
        mode: str = "auto",
        recompute: int | None = None,
    ) -> Any:
        """y (B, L, H) from u (B, L, H); with return_state the pair (y, state). Options as the definition's `apply`."""
        with full_precision(u):
            return self.definition.apply(
                self.arrays(),
                u,
                state=state,
                return_state=return_state,
                lengths=lengths,
                reset=reset,
                cu_seqlens=cu_seqlens,
                rate=rate,
                step_scale=step_scale,
                mode=mode,
                recompute=recompute,
            )


MODULES: dict[str, Any] = {}  # by the name of their definition, entered in modules/
BASES: dict[type[Any], Any] = {  # by the kind of definition; those of models are entered in blocks.py
    layers.Layer: SSMModule,
    layers.TimeInvariant: TimeInvariantModule,
    layers.InputDependent: InputDependentModule,
}


def module(definition: layers.Layer, *, device: Any = None, dtype: torch.dtype | None = None) -> Any:
    """The module of a definition: of the class with its name, or, where none was written, of the base of its kind."""
    if definition.name in MODULES:
        return MODULES[definition.name](**definition.options(), device=device, dtype=dtype)
    return next(BASES[kind] for kind in type(definition).__mro__ if kind in BASES)(definition, device, dtype)
