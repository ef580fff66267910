"""The language model of RecurrentGemma: blocks of RG-LRU and of local attention, in a pattern."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from .._arrays.errors import OptionError, unknown
from ..layers.layer import Layer
from ..layers.registry import registered
from .blocks import Block
from .language_model import LanguageModel, check_cap
from .pointwise import Norm

BLOCK_TYPES = ("recurrent", "attention")


@registered
@dataclass(frozen=True, eq=False)
class RecurrentGemmaLM(LanguageModel):
    """The language model of RecurrentGemma, or Griffin: blocks of `RGLRU` and `LocalAttention`, gated MLPs.

    x = sqrt(H) E[ids];   x = x + layer(n(x)),  x = x + W_down (gelu(W_gate n(x)) W_up n(x)) for every block
    logits = cap tanh(W n(x) / cap)

    n is the root mean square norm, weighted by 1 + w, and sqrt(H) is rounded to bfloat16, as it is published.

    vocab_size, d_model, n_layers, tied, epsilon  as of `LanguageModel`
    layer_options      of the recurrent blocks
    attention_options  of those of attention
    block_types        which blocks follow each other, "recurrent" and "attention", over and over
    mix_width          hidden features of the gated MLPs; 3 d_model if None
    activation         of their gates: "gelu_tanh", "gelu" or "silu"
    logit_cap          cap; None: none

    De et al., Griffin, 2024, https://arxiv.org/abs/2402.19427; Botev et al., RecurrentGemma, 2024,
    https://arxiv.org/abs/2404.07839.

    >>> import numpy, ssm_core
    >>> model = ssm_core.models.RecurrentGemmaLM(10, 8, 3, attention_options={"heads": 2, "window": 4})
    >>> model.apply(model.initial_parameters(), numpy.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    layer: str = field(default="RGLRU", init=False, repr=False)
    epsilon: float = 1e-6
    channel_mix: str | None = field(default="gated_mlp", init=False, repr=False)
    attention_options: Mapping[str, Any] = field(default_factory=dict)
    block_types: tuple[str, ...] = ("recurrent", "recurrent", "attention")
    activation: str = "gelu_tanh"
    logit_cap: float | None = 30.0

    completed: ClassVar[tuple[str, ...]] = (*LanguageModel.completed, "attention_options")

    def __post_init__(self) -> None:
        check_cap(self.name, self.logit_cap)
        if not isinstance(self.attention_options, Mapping):
            raise OptionError(f"{self.name}: attention_options = {self.attention_options!r} must be a dict of options.")
        if not isinstance(self.block_types, tuple | list) or not self.block_types:
            raise OptionError(f"{self.name}: block_types = {self.block_types!r} must be a tuple of block types.")
        for kind in self.block_types:
            if kind not in BLOCK_TYPES:
                raise unknown(self.name, "block_type", kind, BLOCK_TYPES)
        if self.activation not in ("gelu_tanh", "gelu", "silu"):
            raise unknown(self.name, "activation", self.activation, ("gelu_tanh", "gelu", "silu"))
        super().__post_init__()
        self._of_attention().check(self.name)

    def meaning(self) -> Any:
        return (*super().meaning(), self.attention())

    def repeated(self) -> Block:
        mix = {"activation": self.activation, "bias": True}
        width = 3 * self.d_model if self.mix_width is None else self.mix_width
        return replace(super().repeated(), norm="rms_offset", mix_width=width, mix_options=mix)

    def attention(self) -> Layer:
        """The layer of the blocks of attention."""
        return self._of_attention().mixer()

    def _of_attention(self) -> Block:
        return replace(self.repeated(), layer="LocalAttention", layer_options=self.attention_options)

    def pattern(self) -> tuple[Block, ...]:
        recurrent, attention, kinds = self.repeated(), self._of_attention(), self.block_types
        return tuple(recurrent if kinds[i % len(kinds)] == "recurrent" else attention for i in range(self.n_layers))

    def last_norm(self) -> Norm:
        return Norm("rms_offset", self.d_model, self.epsilon)

    def embedding_factor(self) -> float:
        return in_bfloat16(math.sqrt(self.d_model))

    def bound(self) -> float | None:
        return self.logit_cap


def in_bfloat16(x: float) -> float:
    """x rounded to the 8 digits of bfloat16, halves to even; in Python alone, which compilers fold."""
    digits, exponent = math.frexp(x)
    return math.ldexp(round(256 * digits), exponent - 8)
