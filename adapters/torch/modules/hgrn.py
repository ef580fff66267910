"""Modules of PyTorch, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import torch

from ssm_core import layers
from ssm_core.adapters.torch.base import MODULES, InputDependentModule


class HGRN(InputDependentModule):
    """The hierarchically gated recurrent network: what is not forgotten is not written.

    Options as `ssm_core.layers.HGRN`, calls and steps as `SSMModule`.

    >>> import torch
    >>> from ssm_core.adapters.torch import HGRN
    >>> layer = HGRN(d_model=4)
    >>> layer(torch.zeros((2, 10, 4))).shape
    torch.Size([2, 10, 4])
    """

    definition: layers.HGRN

    def __init__(
        self,
        d_model: int,
        *,
        expand: int = 1,
        lower_bound: float = 0.0,
        epsilon: float = 1e-05,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = layers.HGRN(
            d_model=d_model,
            expand=expand,
            lower_bound=lower_bound,
            epsilon=epsilon,
        )
        super().__init__(definition, device, dtype)


MODULES.update(
    HGRN=HGRN,
)
