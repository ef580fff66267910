"""Modules of PyTorch, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import torch

from ssm_core import layers
from ssm_core.adapters.torch.base import MODULES, InputDependentModule


class HGRN2(InputDependentModule):
    """The hierarchically gated RNN with states expanded to matrices: what is not forgotten is not written.

    Options as `ssm_core.layers.HGRN2`, calls and steps as `SSMModule`.

    >>> import torch
    >>> from ssm_core.adapters.torch import HGRN2
    >>> layer = HGRN2(d_model=4, heads=2)
    >>> layer(torch.zeros((2, 10, 4))).shape
    torch.Size([2, 10, 4])
    """

    definition: layers.HGRN2

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 8,
        expand_k: float = 1.0,
        lower_bound: float | str | None = 0.0,
        epsilon: float = 1e-05,
        chunk: int = 64,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = layers.HGRN2(
            d_model=d_model,
            heads=heads,
            expand_k=expand_k,
            lower_bound=lower_bound,
            epsilon=epsilon,
            chunk=chunk,
        )
        super().__init__(definition, device, dtype)


MODULES.update(
    HGRN2=HGRN2,
)
