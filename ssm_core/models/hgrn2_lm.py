"""The language model of HGRN2, whose layers share what bounds their gates."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from .._arrays.errors import OptionError
from .._arrays.library import Array, namespace
from .._arrays.numbers import flag
from ..layers.parameters import Parameter, Parameters, constant
from ..layers.registry import registered
from .blocks import Block
from .language_model import LanguageModel

BOUNDS = "backbone.lower_bounds"


@registered
@dataclass(frozen=True, eq=False)
class HGRN2LM(LanguageModel):
    """The language model of HGRN2: `LanguageModel` with blocks of `HGRN2`, the later the slower to forget.

    lower_bound_l = s_1 + ... + s_l, none for the first block l = 0;   s = softmax over the blocks of lower_bounds

    vocab_size, d_model, n_layers, layer_options, tied, epsilon, mix_width  as of `LanguageModel`
    channel_mix   "gated_mlp" unless you say otherwise
    lower_bounds  whether gates are bounded: the parameter backbone.lower_bounds (n_layers, gates of a block)

    Qin et al., HGRN2: Gated linear RNNs with state expansion, COLM 2024, https://arxiv.org/abs/2404.07904.

    >>> import numpy, ssm_core
    >>> model = ssm_core.models.HGRN2LM(vocab_size=10, d_model=8, n_layers=2, layer_options={"heads": 2})
    >>> model.apply(model.initial_parameters(), numpy.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    layer: str = field(default="HGRN2", init=False, repr=False)
    channel_mix: str | None = "gated_mlp"
    lower_bounds: bool = True

    def __post_init__(self) -> None:
        flag(self.name, lower_bounds=self.lower_bounds)
        super().__post_init__()
        if self.lower_bounds and "lower_bound" in self.layer_options:
            raise OptionError(
                f"{self.name}: lower_bound is what the blocks share. Leave it out, or set lower_bounds=False."
            )

    def repeated(self) -> Block:
        block = super().repeated()
        given = {"lower_bound": "given"} if self.lower_bounds else {}
        return replace(block, layer_options={**block.layer_options, **given})

    def shared_parameters(self) -> tuple[Parameter, ...]:
        if not self.lower_bounds:
            return ()
        layer: Any = self.blocks[0].mixer()
        return (constant(BOUNDS, (self.n_layers, layer.heads * layer.key_dim), lambda: 0.0),)

    def beside(self, params: Parameters) -> Array | None:
        if not self.lower_bounds:
            return None
        table = params[BOUNDS]
        xp = namespace(self.name, table=table)
        shares = xp.exp(table - xp.max(table, axis=0, keepdims=True))
        shares = shares / xp.sum(shares, axis=0, keepdims=True)
        below = xp.cumulative_sum(shares[1:, ...], axis=0)
        return xp.concat([xp.zeros_like(table[:1, ...]), below], axis=0)
