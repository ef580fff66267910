"""Weight files, and the parameters that want their own learning rate."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ssm_core._arrays.errors import DTypeError
from ssm_core.files import weights as checkpoints

from .base import SSMModule, module
from .places import described


def save(module: Any, path: str | os.PathLike[str]) -> None:
    """Write a layer or model to a safetensors file that every framework loads."""
    if not (isinstance(module, nn.Module) and hasattr(module, "arrays")):
        raise DTypeError(f"save: a {type(module).__name__} is no module of ssm_core. Build one, such as S4D(4).")
    given: Any = module
    checkpoints.save(given.definition, described(module), path)


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
    >>> from ssm_core.adapters.torch import S4D
    >>> optimizer = torch.optim.AdamW(param_groups(S4D(4), lr=1e-2, weight_decay=0.01))
    >>> [group["lr"] for group in optimizer.param_groups]
    [0.01, 0.001]
    """
    undecayed = {id(p) for p in _undecayed(model)}
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if id(p) not in undecayed], "lr": lr, "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) in undecayed], "lr": ssm_lr, "weight_decay": 0.0},
    ]


def _undecayed(model: nn.Module) -> Iterator[nn.Parameter]:
    for part in model.modules():
        if isinstance(part, SSMModule):
            undecayed = {p.name for p in part.definition.parameters() if p.no_weight_decay}
            for name, p in part.named_parameters():
                # `parametrizations.B_re.original0` or, pruned, `B_re_orig` is what B_re is computed of.
                if name.removeprefix("parametrizations.").partition(".")[0].removesuffix("_orig") in undecayed:
                    yield p
