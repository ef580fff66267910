"""The models as PyTorch modules; all that they do is in their bases."""

from __future__ import annotations

from typing import Any

import torch

from ssm_core import models

from .base import MODULES
from .blocks import LanguageModule, SequenceModule
from .mamba import MIXERS
from .modules import DSS, LMU, LRU, RTF, S4, S4D, S5, SSM, LinOSS


class SequenceModel(SequenceModule):
    """Encoder, residual blocks of norm, layer and dropout, pooling, head. Options as `ssm_core.models.SequenceModel`.

    >>> import torch
    >>> SequenceModel(d_input=1, d_output=10, d_model=8, n_layers=2)(torch.zeros(3, 20, 1)).shape
    torch.Size([3, 10])
    """

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
        channel_mix: str | None = None,
        mix_width: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = models.SequenceModel(
            d_input, d_output, d_model, n_layers, layer=layer, layer_options=layer_options or {}, dropout=dropout,
            pool=pool, channel_mix=channel_mix, mix_width=mix_width,
        )  # fmt: skip
        super().__init__(definition, device, dtype)


class LanguageModel(LanguageModule):
    """A language model around any layer. Options as `ssm_core.models.LanguageModel`.

    >>> import torch
    >>> model = LanguageModel(vocab_size=10, d_model=8, n_layers=2)
    >>> model(torch.tensor([[1, 2, 3]])).shape, model.generate(torch.tensor([[1, 2, 3]]), 5).shape
    (torch.Size([1, 3, 10]), torch.Size([1, 5]))
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 256,
        n_layers: int = 4,
        *,
        layer: str = "S4D",
        layer_options: dict[str, Any] | None = None,
        tied: bool = True,
        epsilon: float = 1e-05,
        channel_mix: str | None = None,
        mix_width: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = models.LanguageModel(
            vocab_size, d_model, n_layers, layer=layer, layer_options=layer_options or {}, tied=tied, epsilon=epsilon,
            channel_mix=channel_mix, mix_width=mix_width,
        )  # fmt: skip
        super().__init__(definition, device, dtype)


class MambaLM(LanguageModule):
    """The language model of Mamba. Options as `ssm_core.models.MambaLM`.

    >>> import torch
    >>> model = MambaLM(vocab_size=10, d_model=8, n_layers=2)
    >>> model(torch.tensor([[1, 2, 3]])).shape, model.generate(torch.tensor([[1, 2, 3]]), 5).shape
    (torch.Size([1, 3, 10]), torch.Size([1, 5]))
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 256,
        n_layers: int = 4,
        *,
        layer_options: dict[str, Any] | None = None,
        tied: bool = True,
        epsilon: float = 1e-05,
        channel_mix: str | None = None,
        mix_width: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = models.MambaLM(
            vocab_size, d_model, n_layers, layer_options=layer_options or {}, tied=tied, epsilon=epsilon,
            channel_mix=channel_mix, mix_width=mix_width,
        )  # fmt: skip
        super().__init__(definition, device, dtype)


class Mamba2LM(LanguageModule):
    """The language model of Mamba-2. Options as `ssm_core.models.Mamba2LM`.

    >>> import torch
    >>> Mamba2LM(vocab_size=10, d_model=8, n_layers=2, layer_options={"head_dim": 4})(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 10])
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 256,
        n_layers: int = 4,
        *,
        layer_options: dict[str, Any] | None = None,
        tied: bool = True,
        epsilon: float = 1e-05,
        channel_mix: str | None = None,
        mix_width: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = models.Mamba2LM(
            vocab_size, d_model, n_layers, layer_options=layer_options or {}, tied=tied, epsilon=epsilon,
            channel_mix=channel_mix, mix_width=mix_width,
        )  # fmt: skip
        super().__init__(definition, device, dtype)


class Mamba3LM(LanguageModule):
    """The language model of Mamba-3. Options as `ssm_core.models.Mamba3LM`.

    >>> import torch
    >>> Mamba3LM(vocab_size=10, d_model=8, n_layers=2, layer_options={"head_dim": 4})(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 10])
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 256,
        n_layers: int = 4,
        *,
        layer_options: dict[str, Any] | None = None,
        tied: bool = True,
        epsilon: float = 1e-05,
        channel_mix: str | None = None,
        mix_width: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = models.Mamba3LM(
            vocab_size, d_model, n_layers, layer_options=layer_options or {}, tied=tied, epsilon=epsilon,
            channel_mix=channel_mix, mix_width=mix_width,
        )  # fmt: skip
        super().__init__(definition, device, dtype)


MODULES.update(
    {
        cls.__name__: cls
        for cls in (
            S4D,
            S4,
            DSS,
            SSM,
            LMU,
            S5,
            LRU,
            RTF,
            LinOSS,
            SequenceModel,
            LanguageModel,
            MambaLM,
            Mamba2LM,
            Mamba3LM,
        )
    }
    | MIXERS
)
