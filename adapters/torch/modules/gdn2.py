"""Modules of PyTorch, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import torch

from ssm_core import layers
from ssm_core.adapters.torch.base import MODULES, InputDependentModule


class GDN2(InputDependentModule):
    """Gated DeltaNet 2: instead of one strength, what is erased and what is written have gates of every channel.

    Options as `ssm_core.layers.GDN2`, calls and steps as `SSMModule`.

    >>> import torch
    >>> from ssm_core.adapters.torch import GDN2
    >>> layer = GDN2(d_model=4, heads=2, head_dim=2)
    >>> layer(torch.zeros((2, 10, 4))).shape
    torch.Size([2, 10, 4])
    """

    definition: layers.GDN2

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 16,
        head_dim: int = 128,
        expand_v: float = 1.0,
        num_v_heads: int | None = None,
        d_conv: int = 4,
        conv_bias: bool = False,
        negative_eigenvalues: bool = False,
        lower_bound: float | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_floor: float = 0.0001,
        epsilon: float = 1e-05,
        chunk: int = 64,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = layers.GDN2(
            d_model=d_model,
            heads=heads,
            head_dim=head_dim,
            expand_v=expand_v,
            num_v_heads=num_v_heads,
            d_conv=d_conv,
            conv_bias=conv_bias,
            negative_eigenvalues=negative_eigenvalues,
            lower_bound=lower_bound,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_floor=dt_floor,
            epsilon=epsilon,
            chunk=chunk,
        )
        super().__init__(definition, device, dtype)


MODULES.update(
    GDN2=GDN2,
)
