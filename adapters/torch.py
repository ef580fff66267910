"""The layers as PyTorch modules. All arithmetic is in the definitions of `ssm_core.layers`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ssm_core import checkpoints, layers
from ssm_core._arrays import namespace
from ssm_core._errors import DTypeError, unknown
from ssm_core.layers.sequence_model import EPSILON

__all__ = ["S4D", "SSMModule", "SequenceModel", "load", "param_groups", "save"]


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


class SSMModule(nn.Module):
    """Registers the parameters of a definition and hands them to its functions."""

    def __init__(self, definition: layers.Layer, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.definition = definition
        for p in definition.parameters():
            self.register_parameter(p.name, nn.Parameter(torch.empty(p.shape, device=device, dtype=dtype)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        with torch.no_grad():
            for p in self.definition.parameters():
                tensor = getattr(self, p.name)
                tensor.copy_(p.draw(_Draws(tensor.device, tensor.dtype)))

    def arrays(self) -> dict[str, Tensor]:
        """The parameters by name."""
        return dict(self.named_parameters())

    def forward(
        self,
        u: Tensor,
        *,
        state: Tensor | None = None,
        return_state: bool = False,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        rate: Any = 1.0,
        step_scale: Tensor | None = None,
        mode: str = "auto",
    ) -> Any:
        """y (B, L, H) from u (B, L, H); with return_state the pair (y, state). Options as the definition's `apply`."""
        with _full_precision(u):
            return self.definition.apply(
                self.arrays(), u, state=state, return_state=return_state, lengths=lengths, reset=reset, rate=rate,
                step_scale=step_scale, mode=mode,
            )  # fmt: skip

    def initial_state(self, batch: int) -> Any:
        """The state before the first step."""
        return self.definition.initial_state(self.arrays(), batch)

    def step(self, u_t: Tensor, state: Any, *, rate: Any = 1.0) -> tuple[Tensor, Any]:
        """(y_t, state) from u_t (B, H) and the state before it. To generate many steps, hold the `stepper`."""
        return self.stepper(rate=rate)(u_t, state)

    def stepper(self, *, rate: Any = 1.0) -> layers.Stepper:
        """A function (u_t, state) -> (y_t, state) that holds the discrete system."""
        step = self.definition.stepper(self.arrays(), rate=rate)

        def in_full_precision(u_t: Tensor, state: Any) -> tuple[Tensor, Any]:
            with _full_precision(u_t):
                return step(u_t, state)

        return in_full_precision

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.definition.options().items())


class S4D(SSMModule):
    """S4D: a diagonal state space model in every channel. Options as `ssm_core.layers.S4D`.

    >>> import torch
    >>> S4D(d_model=4, d_state=8)(torch.zeros(2, 10, 4)).shape
    torch.Size([2, 10, 4])
    """

    definition: layers.S4D

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        init: str = "lin",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        discretization: str = "zoh",
        real: bool = False,
        trainable_B: bool = True,
        n_ssm: int | None = None,
        channels: int = 1,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = layers.S4D(
            d_model, d_state, init, dt_min, dt_max, discretization, real, trainable_B, n_ssm, channels, bidirectional,
            activation, output, skip,
        )  # fmt: skip
        super().__init__(definition, device, dtype)

    def kernel(self, length: int, *, rate: Any = 1.0) -> Tensor:
        """The convolution kernels (channels, H, L)."""
        return self.definition.kernel(self.arrays(), length, rate=rate)


class _Block(nn.Module):
    """norm, layer, dropout; the model adds the residual."""

    def __init__(self, definition: layers.SequenceModel, device: Any, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(definition.d_model, eps=EPSILON, device=device, dtype=dtype)
        self.layer = module(definition.block(), device=device, dtype=dtype)
        self.dropout = nn.Dropout(definition.dropout)

    def forward(self, x: Tensor, *, return_state: bool, **options: Any) -> Any:
        y = self.layer(self.norm(x), return_state=return_state, **options)
        return (self.dropout(y[0]), y[1]) if return_state else self.dropout(y)

    def stepper(self, rate: Any) -> layers.Stepper:
        step = self.layer.stepper(rate=rate)
        return lambda x, state: step(self.norm(x), state)


class SequenceModel(nn.Module):
    """Encoder, residual blocks of norm, layer and dropout, pooling, head. Options as `ssm_core.layers.SequenceModel`.

    >>> import torch
    >>> SequenceModel(d_input=1, d_output=10, d_model=8, n_layers=2)(torch.zeros(3, 20, 1)).shape
    torch.Size([3, 10])
    """

    definition: layers.SequenceModel

    def __init__(
        self,
        d_input: int,
        d_output: int,
        d_model: int = 64,
        n_layers: int = 4,
        *,
        layer: str = "S4D",
        layer_options: dict[str, Any] | None = None,
        dropout: float = 0.0,
        pool: str | None = "mean",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.definition = layers.SequenceModel(
            d_input, d_output, d_model, n_layers, layer, layer_options or {}, dropout, pool
        )
        self.encoder = nn.Linear(d_input, d_model, device=device, dtype=dtype)
        self.blocks = nn.ModuleList(_Block(self.definition, device, dtype) for _ in range(n_layers))
        self.head = nn.Linear(d_model, d_output, device=device, dtype=dtype)

    def forward(
        self,
        u: Tensor,
        *,
        state: Any = None,
        return_state: bool = False,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        rate: Any = 1.0,
        step_scale: Tensor | None = None,
        mode: str = "auto",
    ) -> Any:
        """y (B, d_output) from u (B, L, d_input), or (B, L, d_output) without pooling."""
        namespace("SequenceModel", u=u, encoder=self.encoder.weight)
        y, state = self.definition.compose(
            u, self.encoder, self.blocks, self.head,
            state=state, return_state=return_state, lengths=lengths, reset=reset, rate=rate, step_scale=step_scale,
            mode=mode,
        )  # fmt: skip
        return (y, state) if return_state else y

    def arrays(self) -> dict[str, Tensor]:
        """The parameters by name."""
        return dict(self.named_parameters())

    def initial_state(self, batch: int) -> Any:
        """The state before the first step."""
        return self.definition.initial_state(self.arrays(), batch)

    def step(self, u_t: Tensor, state: Any, *, rate: Any = 1.0) -> tuple[Tensor, Any]:
        """(y_t, state) from u_t (B, d_input) and the state before it. To generate many steps, hold the `stepper`."""
        return self.stepper(rate=rate)(u_t, state)

    def stepper(self, *, rate: Any = 1.0) -> layers.Stepper:
        """A function (u_t, state) -> (y_t, state) that holds the discrete systems."""
        blocks: Any = self.blocks
        steps = [block.stepper(rate) for block in blocks]
        return lambda u_t, state: self.definition.compose_step(u_t, state, self.encoder, steps, self.head)


MODULES: dict[str, Any] = {cls.__name__: cls for cls in (S4D, SequenceModel)}


def module(definition: layers.Layer, *, device: Any = None, dtype: torch.dtype | None = None) -> Any:
    """The module of a definition."""
    if definition.name not in MODULES:
        raise unknown("adapters.torch", "layer", definition.name, MODULES)
    return MODULES[definition.name](**definition.options(), device=device, dtype=dtype)


def save(module: Any, path: str | os.PathLike[str]) -> None:
    """Write a layer or model to a safetensors file that every framework loads."""
    if not (isinstance(module, nn.Module) and hasattr(module, "arrays")):
        raise DTypeError(f"save: a {type(module).__name__} is no module of ssm_core. Build one, such as S4D(4).")
    given: Any = module
    checkpoints.save(given.definition, given.arrays(), path)


def load(path: str | os.PathLike[str], *, device: Any = None, dtype: torch.dtype | None = None) -> Any:
    """The layer or model of a safetensors file, whichever framework wrote it."""
    definition, tensors = checkpoints.read(path)
    loaded = module(definition, device=device, dtype=dtype)
    loaded.load_state_dict({name: torch.from_numpy(x) for name, x in tensors.items()})
    return loaded


def param_groups(
    model: nn.Module, *, lr: float, weight_decay: float = 0.0, ssm_lr: float = 1e-3
) -> list[dict[str, Any]]:
    """Optimizer groups: the poles, steps and B of every layer at ssm_lr without weight decay, and all the rest.

    >>> import torch
    >>> optimizer = torch.optim.AdamW(param_groups(S4D(4), lr=1e-2, weight_decay=0.01))
    >>> [group["lr"] for group in optimizer.param_groups]
    [0.01, 0.001]
    """
    special = {id(p) for p in _special(model)}
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if id(p) not in special], "lr": lr, "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) in special], "lr": ssm_lr, "weight_decay": 0.0},
    ]


def _special(model: nn.Module) -> Iterator[nn.Parameter]:
    for part in model.modules():
        if isinstance(part, SSMModule):
            yield from (getattr(part, p.name) for p in part.definition.parameters() if p.special)


def _full_precision(u: Tensor) -> Any:
    """Powers, FFTs and states lose their digits in half precision, so autocast stops here."""
    kind = u.device.type if isinstance(u, Tensor) else "meta"  # what is no tensor is refused further on
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)
