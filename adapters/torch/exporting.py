"""Steps of modules as modules of real tensors alone, for torch.onnx.export and its like."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssm_core._arrays.errors import DTypeError, ShapeError
from ssm_core.layers.real_steps import layer_state, real_state
from ssm_core.layers.real_steps import real_stepper as stepper_of


class RealStepper(nn.Module):
    """(u_t, *state) -> (y_t, *state) with a flat, real state; see `real_stepper`."""

    def __init__(self, module: Any, rate: Any = 1.0) -> None:
        super().__init__()
        self.definition = module.definition
        params = {name: p.detach().clone() for name, p in module.arrays().items()}
        with torch.no_grad():
            self._step = stepper_of(self.definition, params, rate=rate)
            self._first = module.initial_state(1)

    def forward(self, u_t: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """y_t of the input u_t, or the logits of tokens, and the state after it."""
        y, after = self._step(u_t, self._nested(state))
        return (y, *_flat(after))

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        """The state before the first step."""
        return tuple(torch.cat([x] * batch) if batch else x[:0] for x in _flat(real_state(self._first)))

    def from_module(self, state: Any) -> tuple[Tensor, ...]:
        """A state of the module, as after a prompt, for this one."""
        return _flat(real_state(state))

    def to_module(self, *state: Tensor) -> Any:
        """A state of this one, for the module."""
        return layer_state(self._nested(state), self._first)

    def _nested(self, state: tuple[Tensor, ...]) -> Any:
        wanted = len(_flat(self._first))
        if len(state) != wanted:
            raise ShapeError(f"real_stepper: {len(state)} tensors of a state of {wanted}. Start from initial_state.")
        return _filled(self._first, list(state))


def real_stepper(module: nn.Module, *, rate: Any = 1.0) -> RealStepper:
    """The step of a module on real tensors alone, with its weights as they are now: what other programs can run.

    The state is flat, as many tensors as `initial_state` gives; complex ones are (Re x, Im x), joined along the last
    axis. `torch.onnx.export(stepper, (u_t, *state))` writes it for ONNX.

    >>> import torch
    >>> from ssm_core.adapters.torch import S4D, real_stepper
    >>> stepper = real_stepper(S4D(4, d_state=8))
    >>> y, *state = stepper(torch.ones(2, 4), *stepper.initial_state(2))
    >>> y.shape, state[0].shape, state[0].dtype
    (torch.Size([2, 4]), torch.Size([2, 4, 8]), torch.float32)
    """
    if not (isinstance(module, nn.Module) and hasattr(module, "arrays")):
        raise DTypeError(f"real_stepper: a {type(module).__name__} is no module of ssm_core, such as S4D(4).")
    return RealStepper(module, rate)


def _flat(state: Any) -> tuple[Tensor, ...]:
    return tuple(x for part in state for x in _flat(part)) if isinstance(state, tuple) else (state,)


def _filled(like: Any, rest: list[Tensor]) -> Any:
    """The tensors in the nesting of another state."""
    return tuple(_filled(part, rest) for part in like) if isinstance(like, tuple) else rest.pop(0)
