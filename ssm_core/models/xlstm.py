"""The language model of xLSTM: mLSTM blocks, as xLSTM 7B has them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .._arrays.numbers import flag
from ..layers.registry import registered
from .blocks import Block
from .language_model import LanguageModel, check_cap
from .pointwise import Norm


@registered
@dataclass(frozen=True, eq=False)
class XLSTMLM(LanguageModel):
    """The language model of xLSTM: `LanguageModel` with blocks of `MLSTM` and gated MLPs, and logits that are capped.

    logits = cap tanh(W n(x) / cap)

    vocab_size, d_model, n_layers, layer_options, tied, epsilon, mix_width  as of `LanguageModel`
    channel_mix  "gated_mlp" unless you say otherwise
    logit_cap    cap; None: none
    out_norm     whether there is the norm n behind the blocks
    bias         whether the norms and the maps of the channel mixes have a bias; those of the layers are layer_options

    Beck et al., xLSTM 7B: A recurrent LLM for fast and efficient inference, 2025, https://arxiv.org/abs/2503.13427.

    >>> import numpy, ssm_core
    >>> model = ssm_core.models.XLSTMLM(vocab_size=10, d_model=8, n_layers=2, layer_options={"heads": 2})
    >>> model.apply(model.initial_parameters(), numpy.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    layer: str = field(default="MLSTM", init=False, repr=False)
    tied: bool = False
    epsilon: float = 1e-6
    channel_mix: str | None = "gated_mlp"
    logit_cap: float | None = 30.0
    out_norm: bool = True
    bias: bool = False

    def __post_init__(self) -> None:
        flag(self.name, out_norm=self.out_norm, bias=self.bias)
        check_cap(self.name, self.logit_cap)
        super().__post_init__()

    def repeated(self) -> Block:
        mix = {"bias": self.bias} if self.channel_mix in ("mlp", "gated_mlp") else {}
        return replace(super().repeated(), norm_bias=self.bias, mix_options=mix)

    def last_norm(self) -> Norm:
        return super().last_norm() if self.out_norm else Norm(None, self.d_model)

    def bound(self) -> float | None:
        return self.logit_cap
