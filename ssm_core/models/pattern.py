"""What a model is made of: blocks one after another, their parameters, and which models are the same."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from functools import cached_property
from typing import Any, ClassVar

from .._arrays.errors import OptionError
from ..layers import parametrizations as common
from ..layers.layer import Layer
from ..layers.options import settle
from ..layers.parameters import Parameter, Parameters
from .blocks import Block, of_place, under


class Pattern(Layer):
    """What all models share. Subclasses are frozen dataclasses: a pattern, the ends, and the names of parameters.

    Models are equal where they are the same function of the same parameters: an option of their layers, or the width of
    their channel mixes, that is given equals one that is left at its default. Subclasses leave this alone:
    `@dataclass(frozen=True, eq=False)`.
    """

    d_model: int
    n_layers: int
    layer: str
    layer_options: Mapping[str, Any]

    signal: ClassVar[str]  # what errors call the input
    prefix: ClassVar[str]  # of the blocks' parameters
    behind: ClassVar[tuple[str, ...]] = ()  # the states behind the blocks
    completed: ClassVar[tuple[str, ...]] = ("mix_width",)  # options that `meaning` compares

    @abstractmethod
    def repeated(self) -> Block:
        """The block that all are like."""

    def pattern(self) -> tuple[Block, ...]:
        """The blocks, one after another; those that depend on their place know it."""
        block, n = self.repeated(), self.n_layers
        if not of_place(block.layer, 0, n) and not of_place(block.channel_mix, 0, n):
            return (block,) * n
        return tuple(block.placed(i, n) for i in range(n))

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The `pattern` that is held, with its layers: compilers cannot trace how they are made."""
        return self.pattern()

    @abstractmethod
    def first_parameters(self) -> tuple[Parameter, ...]:
        """Those of the entry."""

    def shared_parameters(self) -> tuple[Parameter, ...]:
        """Those that blocks share, see `beside`."""
        return ()

    @abstractmethod
    def last_parameters(self) -> tuple[Parameter, ...]:
        """Those behind the blocks."""

    @property
    def n_states(self) -> int:
        """How many states stand before those of the outputs: one a block."""
        return self.n_layers

    def __post_init__(self) -> None:
        if not isinstance(self.layer_options, Mapping):
            raise OptionError(f"{self.name}: layer_options = {self.layer_options!r} must be a dict of options.")
        settle(self)
        common.whole(self.name, d_model=self.d_model, n_layers=self.n_layers)
        if "d_model" in self.layer_options:
            raise OptionError(f"{self.name}: d_model is an option of the model, not one of its layer_options.")
        if self.layer_options.get("first_values") is not None:
            raise OptionError(f"{self.name}: first_values is handed from block to block. Leave it out.")
        for block in dict.fromkeys(self.blocks):
            block.check(self.name)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self is other or (
            all(getattr(self, name) == getattr(other, name) for name in _compared(self))
            and (self.layer_options == other.layer_options or self.block() == other.block())
            and self.meaning() == other.meaning()
        )

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in _compared(self))))

    def meaning(self) -> Any:
        """What is compared of options that mean the same where they are given and where they are not."""
        mix = self.repeated().mix()
        return () if mix is None else tuple((p.name, p.shape) for p in mix.parameters())

    def block(self) -> Layer:
        """The layer of every block."""
        return self.repeated().mixer()

    def parameters(self) -> tuple[Parameter, ...]:
        found, blocks = [*self.first_parameters(), *self.shared_parameters()], self.blocks
        own = {block: block.parameters() for block in set(blocks)}
        for i, block in enumerate(blocks):
            found.extend(replace(p, name=f"{self.prefix}{i}.{p.name}") for p in own[block])
        return (*found, *self.last_parameters())

    def block_parameters(self, params: Parameters, i: int) -> Parameters:
        """The parameters of the layer of block i."""
        return self.blocks[i].mixer_parameters(under(params, f"{self.prefix}{i}."))

    def _blocks(
        self, params: Parameters, made: Callable[[Layer, Parameters], Any]
    ) -> Iterator[tuple[Block, Parameters, dict[str, Any]]]:
        """(block, its parameters, what is made of its layers and theirs, by their names) of every block."""
        blocks = self.blocks
        layers = {block: block.layers() for block in dict.fromkeys(blocks)}
        for block, own in zip(blocks, _of_blocks(params, self.prefix, len(blocks)), strict=True):
            along = {name: made(layer, under(own, f"{name}.")) for name, layer in layers[block].items()}
            yield block, own, along


def _compared(definition: Any) -> tuple[str, ...]:
    """The fields that say what a model is, but for those that defaults complete."""
    return tuple(f.name for f in fields(definition) if f.name not in ("layer_options", *definition.completed))


def _of_blocks(params: Parameters, prefix: str, n: int) -> list[Parameters]:
    """The parameters of every block by their names in it, in one walk over all."""
    found: list[Parameters] = [{} for _ in range(n)]
    for name, p in params.items():
        if name.startswith(prefix):
            i, _, own = name[len(prefix) :].partition(".")
            found[int(i)][own] = p
    return found
