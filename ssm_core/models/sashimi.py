"""SaShiMi: blocks on levels of shorter and shorter sequences, for sound sample by sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from .._arrays.dispatch import is_open
from .._arrays.errors import DTypeError, OptionError, ShapeError, describe
from .._arrays.library import Array, device, dtype_name, namespace, real_floating
from .._arrays.numbers import flag, whole
from ..layers.registry import registered
from ..recurrences.broken import arrays_in
from ..recurrences.segments import Segments, clipped_lengths
from ..recurrences.shards import whole_sequence
from .blocks import Block, of_place
from .language_model import LanguageModel
from .levels import Runs, Steps, due, filled_up, first_pools
from .parts import Parts
from .pointwise import Function, Norm


@registered
@dataclass(frozen=True, eq=False)
class SaShiMi(LanguageModel):
    """SaShiMi, a U-shaped autoregressive model of quantized sound, sample by sample, around any layer.

    x = E[ids];   x = level_0(x);   logits = W n(x) + b
    level_i(x) = blocks(z) + z,   z = x + up(level_{i+1}(down(x))),   and at the lowest level z = x

    down takes s steps side by side, s H features, to one step of e H features; up takes one step to s steps of H
    features, each one pooled step late, so that logits see no sample that they foretell. A block is x = x +
    layer(n(x)), x = x + W_2 gelu(W_1 n(x)). ids (B, L) integer, logits (B, L, V), for any L.

    vocab_size     V, the levels of the quantization, see `quantize`
    d_model        H at the highest level
    n_layers       blocks a level
    layer          name of the layer, such as "S4D", or one of your own
    layer_options  its options but d_model, of all levels
    tied           whether the head is the embedding, and has no bias
    epsilon        of the norms
    channel_mix    "mlp" or "gated_mlp" after every layer, or None
    pool           s of every level but the lowest; () is the isotropic model
    expand         e
    ff             hidden features of the channel mixes, in H of their level
    unet           blocks before down too, and every half block of the way up gets the features before its twin
    dropout        rate, in training only; it lives in the frameworks' modules

    In steps a level below goes on once in s steps and rests meanwhile. Sequences in one batch may be at different
    samples; a compiled step, which cannot know where they are, computes all levels.

    Goel, Gu, Donahue and Ré, It's Raw! Audio generation with state-space models, ICML 2022,
    https://arxiv.org/abs/2202.09729.

    >>> import numpy, ssm_core
    >>> model = ssm_core.models.SaShiMi(vocab_size=16, d_model=4, n_layers=1, layer_options={"d_state": 4}, pool=(2,))
    >>> params = model.initial_parameters()
    >>> model.apply(params, numpy.asarray([[8, 9, 10]])).shape
    (1, 3, 16)
    >>> model.generate(params, numpy.asarray([[8]]), n_tokens=5, temperature=1.0).shape
    (1, 5)
    """

    vocab_size: int = 256
    d_model: int = 64
    n_layers: int = 8
    layer: str = "S4"
    tied: bool = False
    channel_mix: str | None = "mlp"
    mix_width: int | None = field(default=None, init=False, repr=False)
    pool: tuple[int, ...] = (4, 4)
    expand: int = 2
    ff: int = 2
    unet: bool = False
    dropout: float = 0.0

    head_bias: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.pool, str) or not isinstance(self.pool, Sequence):
            raise OptionError(f"{self.name}: pool = {self.pool!r} must be a tuple of whole numbers, such as (4, 4).")
        for s in self.pool:
            whole(self.name, 2, pool=s)
        if self.ff == 0:
            raise OptionError(f"{self.name}: ff = 0 leaves channel mixes nothing. Use channel_mix=None.")
        whole(self.name, expand=self.expand, ff=self.ff)
        flag(self.name, unet=self.unet, tied=self.tied)
        super().__post_init__()

    # The pattern ------------------------------------------------------------------------------------------------------

    def repeated(self) -> Block:
        return self._block(0)

    def _block(self, level: int) -> Block:
        H = self.d_model * self.expand**level
        width = None if self.channel_mix is None else self.ff * H
        return replace(super().repeated(), d_model=H, norm="layer", mix_width=width, dropout=self.dropout)

    def pattern(self) -> tuple[Block, ...]:
        """The blocks on the way down, if there are any, those of the lowest level, and those on the way up."""
        levels = range(len(self.pool))
        order = [*(levels if self.unet else ()), len(self.pool), *reversed(levels)]
        blocks = [self._block(level) for level in order for _ in range(self.n_layers)]
        return tuple(_placed(block, i, len(blocks)) for i, block in enumerate(blocks))

    @property
    def n_states(self) -> int:
        """Those of the blocks, and that of the pools."""
        n = len(self.pool)
        return self.n_layers * (1 + n * (2 if self.unet else 1)) + (n > 0)

    def maps(self) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        H, e = self.d_model, self.expand
        for i, s in enumerate(self.pool):
            found |= {f"down_{i}": (s * H, e * H), f"up_{i}": (e * H, s * H)}
            H *= e
        return found

    def last_norm(self) -> Norm:
        return Norm("layer", self.d_model, self.epsilon)

    # Through the levels -----------------------------------------------------------------------------------------------

    def through(
        self, x: Array, parts: Parts, before: Any, return_state: bool, *, lengths: Any = None, **options: Any
    ) -> tuple[Array, tuple[Any, ...]]:
        if self.pool:
            whole_sequence(self.name, "But pools take steps together: call it outside of the block, or with pool=().")
        xp, (B, L, _) = namespace(self.name, x=x), x.shape
        if lengths is not None:
            lengths = clipped_lengths(lengths, L, xp)
        ragged = bool(self.pool) and is_open(x, L % math.prod(self.pool))
        if ragged:
            x = filled_up(x, math.prod(self.pool))
            if lengths is None and return_state:
                lengths = xp.zeros((B,), dtype=xp.arange(1).dtype, device=device(x)) + L
        runs = Runs(parts, self.pool, before, return_state, lengths=lengths, **options)
        y = self._level(0, x, runs)
        if ragged:
            y = xp.take(y, xp.arange(L, device=device(y)), axis=1)
        return y, runs.after(B, L, x)

    def step_through(
        self, x: Array, parts: Parts, before: Any, moment: Hashable = None
    ) -> tuple[Array, tuple[Any, ...]]:
        steps = Steps(parts, self.pool, before, moment)
        return self._level(0, x, steps), steps.after()

    def moment(self, state: Any) -> Hashable:
        return due(self.pool, state[self.n_states - 1][-1]) if self.pool else None

    def _level(self, i: int, x: Array, walk: Runs | Steps) -> Array:
        """x, (B, L, H) of a run or (B, H) of a step, through level i and all below it."""
        n, levels = self.n_layers, len(self.pool)
        first = n * (levels if self.unet else 0)
        if i == levels:
            return _through(range(first, first + n), x, walk) + x
        begin = first + n * (levels - i)
        up = range(begin, begin + n)
        if not self.unet:
            z = x + walk.across(i, x, lambda v: self._level(i + 1, v, walk))
            return _through(up, z, walk) + z
        halves = [x]
        for k in range(n * i, n * (i + 1)):
            x = walk.block(k, x, self._between(_kept(halves)))
            halves.append(x)
        x = halves.pop() + walk.across(i, x, lambda v: self._level(i + 1, v, walk))
        for k in up:
            x = walk.block(k, x, self._between(lambda v: v + halves.pop())) + halves.pop()
        return x

    def _between(self, between: Function) -> Function | None:
        """What is done before the channel mix, where there is one."""
        return None if self.channel_mix is None else between

    # Checks -----------------------------------------------------------------------------------------------------------

    def outer_state(self, like: Array, batch: int) -> tuple[Any, ...]:
        widths = [self.d_model * self.expand**i for i in range(len(self.pool))]
        return (first_pools(self.pool, widths, like, batch),) if self.pool else ()

    def segments(
        self, u: Array, *, reset: Any = None, cu_seqlens: Any = None, step_scale: Any = None, **others: Any
    ) -> Segments:
        given = {"reset": reset, "cu_seqlens": cu_seqlens, "step_scale": step_scale}
        named = [name for name, option in given.items() if option is not None]
        if self.pool and named:
            raise OptionError(
                f"{self.name}: {', '.join(named)} cannot be had with pool = {self.pool!r}, whose steps are of several "
                "samples. Put every clip in a row of its own, with lengths=."
            )
        if self.pool and self.layer_options.get("bidirectional") and u.ndim == 2 and u.shape[1] % math.prod(self.pool):
            raise ShapeError(
                f"{self.name}: in two directions the length must be a multiple of {math.prod(self.pool)}, the product "
                f"of pool = {self.pool!r} ({describe(ids=u)}). Pad the clips."
            )
        return super().segments(u, reset=reset, cu_seqlens=cu_seqlens, **others)

    def check_state(self, operation: str, state: Any, batch: int) -> None:
        super().check_state(operation, state, batch)
        if not self.pool:
            return
        pools, count = state[self.n_states - 1], len(self.pool)
        found = arrays_in(pools) if isinstance(pools, tuple | list) and len(pools) == count + 1 else []
        widths = [self.d_model * self.expand**i for i in range(count)]
        wanted = [(batch, s, H) for s, H in zip(self.pool, widths, strict=True) for _ in range(2)]
        named = {f"pool_{i}": x for i, x in enumerate(found)}
        if [tuple(x.shape) for x in found] != [*wanted, (batch,)]:
            raise ShapeError(
                f"{operation}: the last state must be a tuple of {count} pairs of the pools and their count, "
                f"{', '.join(map(str, wanted))} and {(batch,)}{f' ({describe(**named)})' if named else ''}. "
                f"Start from initial_state({batch})."
            )
        if "int" not in dtype_name(found[-1]):
            raise DTypeError(
                f"{operation}: the count of the pools has dtype {dtype_name(found[-1])}, but it is a whole number "
                f"({describe(**named)}). Start from initial_state({batch})."
            )
        real_floating(operation, **{name: x for name, x in named.items() if x is not found[-1]})


def _placed(block: Block, i: int, n: int) -> Block:
    """The block with its place; the first values of RWKV-7 do not go on to levels of other widths."""
    place = {name: value for name, value in of_place(block.layer, i, n).items() if name != "first_values"}
    options: Mapping[str, Any] = place | dict(block.layer_options)
    return replace(block, layer_options=options)


def _through(blocks: range, x: Array, walk: Runs | Steps) -> Array:
    for k in blocks:
        x = walk.block(k, x)
    return x


def _kept(found: list[Array]) -> Callable[[Array], Array]:
    """x -> x, which is found in the list then."""

    def keep(x: Array) -> Array:
        found.append(x)
        return x

    return keep
