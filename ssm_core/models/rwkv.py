"""Language models of RWKV: blocks of a time mix and a channel mix, both of which look at the step before."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from .._arrays.numbers import flag, whole
from ..layers.gated.base import check_epsilon
from ..layers.registry import registered
from .blocks import Block
from .language_model import LanguageModel
from .pointwise import Norm


class RWKV(LanguageModel):
    """What the language models of RWKV share: layer norms, one of them behind the embedding, and the channel mix."""

    entry_norm: bool
    norm_bias: bool

    def __post_init__(self) -> None:
        flag(self.name, entry_norm=self.entry_norm, norm_bias=self.norm_bias)
        super().__post_init__()

    def mix_options(self) -> dict[str, Any]:
        """Options of the channel mix but its width."""
        return {}

    def repeated(self) -> Block:
        block = replace(super().repeated(), norm="layer", norm_bias=self.norm_bias)
        return replace(block, channel_mix="RWKVChannelMix", mix_width=self.mix_width, mix_options=self.mix_options())

    def first_norm(self) -> Norm | None:
        return self.last_norm() if self.entry_norm else None

    def last_norm(self) -> Norm:
        return Norm("layer", self.d_model, self.epsilon, self.norm_bias)


@registered
@dataclass(frozen=True, eq=False)
class RWKV4LM(RWKV):
    """The language model of RWKV-4: `RWKV4` and `RWKVChannelMix` in every block, and layer norms.

    x = n(E[ids]);   x = x + time_mix(n(x)),  x = x + channel_mix(n(x)) for every block;   logits = W n(x)

    vocab_size, d_model, n_layers, layer_options, tied, epsilon  as of `LanguageModel`
    mix_width     hidden features of the channel mix; 4 d_model if None
    halved_every  blocks after which published code halves the features and what is added to them, for half precision.
                  That changes the norms behind alone, as if their epsilon were four times as large; None: nowhere
    entry_norm    whether there is a norm behind the embedding
    norm_bias     whether the norms have a bias
    last_epsilon  of the norm behind the blocks; that of the others if None

    The state of a block is that of the time mix and that of the channel mix.

    Peng et al., RWKV: Reinventing RNNs for the Transformer era, 2023, https://arxiv.org/abs/2305.13048.

    >>> import numpy, ssm_core
    >>> model = ssm_core.models.RWKV4LM(vocab_size=10, d_model=8, n_layers=2)
    >>> model.apply(model.initial_parameters(), numpy.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    layer: str = field(default="RWKV4", init=False, repr=False)
    tied: bool = False
    channel_mix: str | None = field(default="RWKVChannelMix", init=False, repr=False)
    halved_every: int | None = None
    entry_norm: bool = True
    norm_bias: bool = True
    last_epsilon: float | None = None

    completed: ClassVar[tuple[str, ...]] = (*RWKV.completed, "last_epsilon")

    def __post_init__(self) -> None:
        check_epsilon(self.name, epsilon=self.epsilon)
        if self.last_epsilon is not None:
            check_epsilon(self.name, last_epsilon=self.last_epsilon)
        if self.halved_every is not None:
            whole(self.name, halved_every=self.halved_every)
        super().__post_init__()

    def meaning(self) -> Any:
        return (*super().meaning(), self.last_norm())

    def mix_options(self) -> dict[str, Any]:
        return {"time_mix": True}

    def pattern(self) -> tuple[Block, ...]:
        return tuple(replace(b, epsilon=self.epsilon * self._factor(i)) for i, b in enumerate(super().pattern()))

    def last_norm(self) -> Norm:
        epsilon = self.epsilon if self.last_epsilon is None else self.last_epsilon
        return replace(super().last_norm(), epsilon=epsilon * self._factor(self.n_layers))

    def first_norm(self) -> Norm | None:
        return replace(super().last_norm(), epsilon=self.epsilon) if self.entry_norm else None

    def _factor(self, blocks: int) -> int:
        """4^j behind so many blocks: n(x / 2^j; epsilon) = n(x; 4^j epsilon)."""
        return 1 if self.halved_every is None else 4 ** (blocks // self.halved_every)


@registered
@dataclass(frozen=True, eq=False)
class RWKV7LM(RWKV):
    """The language model of RWKV-7: `RWKV7` and `RWKVChannelMix` in every block, and layer norms.

    x = n(E[ids]);   x = x + time_mix(n(x), v_first),  x = x + channel_mix(n(x)) for every block;   logits = W n(x)

    v_first are the values of the first time mix, which all others take. The state of a block is that of the time mix
    and that of the channel mix.

    vocab_size, d_model, n_layers, layer_options, tied, epsilon  as of `LanguageModel`
    mix_width   hidden features of the channel mix; 4 d_model if None
    entry_norm  whether there is a norm behind the embedding
    norm_bias   whether the norms have a bias

    Peng et al., RWKV-7 "Goose" with expressive dynamic state evolution, COLM 2025, https://arxiv.org/abs/2503.14456.

    >>> import numpy, ssm_core
    >>> model = ssm_core.models.RWKV7LM(vocab_size=10, d_model=8, n_layers=2, layer_options={"head_dim": 4})
    >>> model.apply(model.initial_parameters(), numpy.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    layer: str = field(default="RWKV7", init=False, repr=False)
    tied: bool = False
    channel_mix: str | None = field(default="RWKVChannelMix", init=False, repr=False)
    entry_norm: bool = True
    norm_bias: bool = True

    def mix_options(self) -> dict[str, Any]:
        return {"gated": False}
