"""What makes features of tokens, and logits of features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssm_core.models.language_model import EMBEDDING_STD


class Embedding(nn.Embedding):
    """Drawn like the definition draws it, whenever it is; takes bytes and other integers too."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=EMBEDDING_STD)

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids if ids.dtype in (torch.int32, torch.int64) else ids.long())


class Head(nn.Linear):
    """Drawn like the definition draws it, whenever it is."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=EMBEDDING_STD)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
