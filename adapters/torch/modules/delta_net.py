"""Modules of PyTorch, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import torch

from ssm_core import layers
from ssm_core.adapters.torch.base import MODULES, InputDependentModule


class DeltaNet(InputDependentModule):
    """The delta rule: every step moves the value under its key towards a new one, and forgets nothing else.

    Options as `ssm_core.layers.DeltaNet`, calls and steps as `SSMModule`.

    >>> import torch
    >>> from ssm_core.adapters.torch import DeltaNet
    >>> layer = DeltaNet(d_model=4, heads=2)
    >>> layer(torch.zeros((2, 10, 4))).shape
    torch.Size([2, 10, 4])
    """

    definition: layers.DeltaNet

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 4,
        expand_k: float = 1.0,
        expand_v: float = 1.0,
        d_conv: int = 4,
        conv_bias: bool = False,
        negative_eigenvalues: bool = False,
        output_gate: bool = False,
        epsilon: float = 1e-05,
        chunk: int = 64,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = layers.DeltaNet(
            d_model=d_model,
            heads=heads,
            expand_k=expand_k,
            expand_v=expand_v,
            d_conv=d_conv,
            conv_bias=conv_bias,
            negative_eigenvalues=negative_eigenvalues,
            output_gate=output_gate,
            epsilon=epsilon,
            chunk=chunk,
        )
        super().__init__(definition, device, dtype)


MODULES.update(
    DeltaNet=DeltaNet,
)
