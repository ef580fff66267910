"""Modules of PyTorch, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import torch

from ssm_core import layers
from ssm_core.adapters.torch.base import MODULES, TimeInvariantModule


class RTF(TimeInvariantModule):
    """A layer of rational transfer functions, one a channel, trained by their coefficients and free of states.

    Options as `ssm_core.layers.RTF`, calls and steps as `SSMModule`.

    >>> import torch
    >>> from ssm_core.adapters.torch import RTF
    >>> layer = RTF(d_model=4, d_state=8)
    >>> layer(torch.zeros((2, 10, 4))).shape
    torch.Size([2, 10, 4])
    """

    definition: layers.RTF

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        init: str = "zeros",
        constraint: str | None = None,
        n_ssm: int | None = None,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = layers.RTF(
            d_model=d_model,
            d_state=d_state,
            init=init,
            constraint=constraint,
            n_ssm=n_ssm,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
        )
        super().__init__(definition, device, dtype)


MODULES.update(
    RTF=RTF,
)
