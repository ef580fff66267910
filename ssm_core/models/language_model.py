"""Language models: an embedding, blocks around any layer, a norm and a head."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, ClassVar

from .._arrays.errors import DomainError, DTypeError, OptionError, ShapeError, describe
from .._arrays.idioms import clip, taken_along
from .._arrays.library import Array, Namespace, bringing, dtype_name, namespace, require_arrays
from .._arrays.values import bounds
from ..functions.special import activation
from ..layers import parametrizations as common
from ..layers.gated.base import check_epsilon
from ..layers.layer import Stepper
from ..layers.parameters import Parameter, Parameters, constant, linear, normal
from ..layers.registry import registered
from ..recurrences.segments import clipped_lengths
from ..recurrences.shards import whole_sequence
from . import generation, prompts, sampling
from .blocks import Block, below, under
from .model import Model
from .parts import Parts
from .pointwise import Function, Norm, linear_map

EMBEDDING_STD = 0.02  # of the first embedding
TABLE, NORM, HEAD, HEAD_BIAS = "backbone.embeddings.weight", "backbone.norm_f.", "lm_head.weight", "lm_head.bias"
FIRST_NORM = "backbone.first_norm."


@registered
@dataclass(frozen=True, eq=False)
class LanguageModel(Model):
    """A language model around any layer.

    x = E[ids];   x = x + layer(n(x)) for every block;   logits = W n(x),   W = E if tied

    n is the root mean square norm. ids (B, L) integer, logits (B, L, V).

    vocab_size     V, the number of tokens
    d_model        H, channels of the blocks
    n_layers       blocks
    layer          name of the layer, such as "S4D", or one of your own
    layer_options  its options but d_model
    tied           whether the head is the embedding
    epsilon        of the norms
    channel_mix    "mlp" or "gated_mlp" after every layer, with a norm and a residual of its own, or None
    mix_width      hidden features of the channel mix; None takes 4 d_model, or 8 d_model / 3 of a gated one

    Layers that have an option for their place (layer_idx, num_layers) are told it, and of RWKV7 the first gives its
    values to all others (first_values).

    Parameters are named as in published checkpoints of Mamba, those of the blocks as in the layer.

    >>> import numpy, ssm_core
    >>> model = ssm_core.models.LanguageModel(vocab_size=10, d_model=8, n_layers=2, layer="S4D", channel_mix="mlp")
    >>> params = model.initial_parameters()
    >>> model.apply(params, numpy.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    >>> model.generate(params, numpy.asarray([[1, 2, 3]]), n_tokens=5).shape
    (1, 5)
    """

    vocab_size: int
    d_model: int = 256
    n_layers: int = 4
    layer: str = "S4D"
    layer_options: Mapping[str, Any] = field(default_factory=dict)
    tied: bool = True
    epsilon: float = 1e-5
    channel_mix: str | None = None
    mix_width: int | None = None

    positional: ClassVar[int] = 3  # options that modules take by position
    origin: ClassVar[Mapping[str, Any]] = {}  # of one that was loaded: what its directory said beyond it, by file
    signal: ClassVar[str] = "ids"
    prefix: ClassVar[str] = "backbone.layers."
    head_bias: ClassVar[bool] = False  # whether a head that is not the embedding has one

    def __post_init__(self) -> None:
        super().__post_init__()
        common.whole(self.name, vocab_size=self.vocab_size)
        check_epsilon(self.name, epsilon=self.epsilon)

    def repeated(self) -> Block:
        return Block(
            self.d_model,
            self.layer,
            self.layer_options,
            norm="rms",
            epsilon=self.epsilon,
            channel_mix=self.channel_mix,
            mix_width=self.mix_width,
        )

    def first_norm(self) -> Norm | None:
        """The norm of the embedding, if there is one."""
        return None

    def last_norm(self) -> Norm:
        """The norm behind the blocks."""
        return Norm("rms", self.d_model, self.epsilon)

    def embedding_factor(self) -> float:
        """What rows of the embedding are multiplied by."""
        return 1.0

    def bound(self) -> float | None:
        """What logits stay below, cap tanh(logits / cap), if anything."""
        return None

    def first_parameters(self) -> tuple[Parameter, ...]:
        norm = self.first_norm()
        table = normal(TABLE, (self.vocab_size, self.d_model), EMBEDDING_STD)
        maps = (linear(f"backbone.{name}.", *sizes) for name, sizes in self.maps().items())
        return (table, *(() if norm is None else below(FIRST_NORM, norm.parameters())), *chain.from_iterable(maps))

    def last_parameters(self) -> tuple[Parameter, ...]:
        norm = below(NORM, self.last_norm().parameters())
        if self.tied:
            return norm
        head = (normal(HEAD, (self.vocab_size, self.d_model), EMBEDDING_STD),)
        bias = (constant(HEAD_BIAS, (self.vocab_size,), lambda: 0.0),) if self.head_bias else ()
        return (*norm, *head, *bias)

    def ends(self, params: Parameters, xp: Namespace) -> tuple[Function, Function]:
        table = params[TABLE]

        def embed(ids: Array) -> Array:
            index = xp.astype(xp.reshape(ids, (-1,)), xp.arange(1).dtype)  # PyTorch takes by no others
            return xp.reshape(xp.take(table, index, axis=0), (*ids.shape, self.d_model))

        first, head = self.first_norm(), linear_map(table if self.tied else params[HEAD], params.get(HEAD_BIAS))
        norms = None if first is None else first.function(under(params, FIRST_NORM), xp)
        return self.compose_ends(embed, norms, self.last_norm().function(under(params, NORM), xp), head)

    def compose_ends(
        self, embed: Function, first_norm: Function | None, norm: Function, head: Function
    ) -> tuple[Function, Function]:
        """`ends` of their parts, whichever framework they are of."""
        scale, cap = self.embedding_factor(), self.bound()

        def enter(ids: Array) -> Array:
            x = embed(ids)
            x = x if scale == 1 else scale * x
            return x if first_norm is None else first_norm(x)

        def leave(x: Array) -> Array:
            y = head(norm(x))
            return y if cap is None else cap * activation("tanh")(y / cap)

        return enter, leave

    def pure_maps(self, params: Parameters) -> dict[str, Function]:
        found = {name: under(params, f"backbone.{name}.") for name in self.maps()}
        return {name: linear_map(p["weight"], p["bias"]) for name, p in found.items()}

    def prefill(
        self,
        params: Parameters,
        ids: Array,
        *,
        lengths: Array | None = None,
        padding: str = "right",
        state: Any = None,
    ) -> tuple[Array, Any]:
        """Logits (B, V) of the token after the prompts ids (B, L), and the states of all blocks.

        lengths (B,) are those of prompts that are padded on the right or on the left; what stands in the padding is as
        if it were not there. Prompts are read in pieces of some thousands of tokens, so that memory holds no more.
        """
        ids, lengths, state = bringing(params)((ids, lengths, state))
        params = self.prepared(params, ids=ids)
        parts = self.parts(params, namespace(self.name, **params))
        return self.compose_prefill(ids, parts, lengths=lengths, padding=padding, state=state)

    def compose_prefill(
        self, ids: Array, parts: Parts, *, lengths: Array | None = None, padding: str = "right", state: Any = None
    ) -> tuple[Array, Any]:
        """`prefill` from the parts of the model; the head sees the last step alone."""
        reading = partial(self.reading, parts=parts)
        return self.prefill_by(reading, ids, lengths=lengths, padding=padding, state=state)

    def prefill_by(
        self,
        reading: prompts.Reading,
        ids: Array,
        *,
        lengths: Array | None = None,
        padding: str = "right",
        state: Any = None,
    ) -> tuple[Array, Any]:
        """`prefill` by what reads a piece of the prompts, whichever framework it is of."""
        whole_sequence(f"{self.name}.prefill", "Read prompts, and generate, outside of the block.")
        self.check_signal(ids)
        prompts.check_prompts(f"{self.name}.prefill", ids, lengths, padding)
        segments, xp = self.segments(ids, lengths=lengths), namespace(self.name, ids=ids)
        if lengths is not None:
            lengths = clip(clipped_lengths(lengths, ids.shape[1], xp), 1)
            ids = prompts.aligned(ids, lengths, padding)
        self.check_values(self.name, segments.masked(ids, 1, xp))
        return prompts.read(reading, ids, lengths, state)

    def reading(self, ids: Array, lengths: Array | None, state: Any, *, parts: Parts) -> tuple[Array, Any]:
        """The logits (B, V) behind a piece (B, L) of prompts, of which `lengths` may be 0, and the states there."""
        xp = namespace(self.name, ids=ids)
        x, last, broken = self.hidden(ids, parts, state=state, return_state=True, lengths=lengths)
        if lengths is None:
            return broken.marked_state(parts.leave(x[:, -1, :]), xp), last
        index = xp.astype(clip(lengths, 1, ids.shape[1]), xp.arange(1).dtype)[:, None, None] - 1
        index = xp.broadcast_to(index, (x.shape[0], 1, x.shape[2]))
        logits = parts.leave(taken_along(x, index, 1)[:, 0, :])
        return broken.marked_state(logits, xp), last

    def stream(
        self,
        params: Parameters,
        ids: Array,
        *,
        lengths: Array | None = None,
        padding: str = "right",
        state: Any = None,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        eos: int | Sequence[int] | None = None,
        seed: Any = 0,
    ) -> generation.Stream:
        """An iterator over tokens (B,) that go on from ids (B, L), each drawn when it is asked for.

        lengths, padding and state as in `prefill`, the options of the draw as in `models.sampling.Choice`, seed that
        of NumPy's generator or one. It ends when all sequences have drawn an eos.

        >>> import itertools, numpy, ssm_core
        >>> model = ssm_core.models.MambaLM(vocab_size=10, d_model=8, n_layers=1)
        >>> tokens = model.stream(model.initial_parameters(), numpy.asarray([[1, 2, 3]]), temperature=1.0)
        >>> [token.shape for token in itertools.islice(tokens, 2)]
        [(1,), (1,)]
        """
        ids, lengths, state = bringing(params)((ids, lengths, state))
        choice = sampling.Choice.checked(
            self.vocab_size,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            eos=eos,
        )
        logits, state = self.prefill(params, ids, lengths=lengths, padding=padding, state=state)
        return self.drawn(logits, state, self.stepper(params), choice, seed, ids, lengths=lengths, padding=padding)

    def drawn(
        self,
        logits: Array,
        state: Any,
        step: Stepper,
        choice: sampling.Choice,
        seed: Any,
        ids: Array,
        *,
        lengths: Array | None = None,
        padding: str = "right",
    ) -> generation.Stream:
        """`stream` from what `prefill` of the prompts ids gives, around any step."""
        penalized = choice.repetition_penalty != 1
        seen = generation.tokens_of(ids, lengths, padding, self.vocab_size) if penalized else None
        return generation.Stream(logits, state, step, choice, seed=seed, seen=seen)

    def generate(
        self,
        params: Parameters,
        ids: Array,
        n_tokens: int,
        *,
        lengths: Array | None = None,
        padding: str = "right",
        state: Any = None,
        return_state: bool = False,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        eos: int | Sequence[int] | None = None,
        seed: Any = 0,
    ) -> Any:
        """n_tokens tokens (B, n_tokens) that go on from ids (B, L): the prompt at once, then step by step.

        Options as in `stream`. When all sequences have drawn an eos there are fewer tokens. With return_state (tokens,
        the state that all but the last of them have entered).
        """
        generation.check_count(n_tokens, return_state)
        stream = self.stream(
            params,
            ids,
            lengths=lengths,
            padding=padding,
            state=state,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            eos=eos,
            seed=seed,
        )
        return generation.taken(stream, n_tokens, return_state)

    def check_signal(self, u: Array, *, step: bool = False) -> None:
        operation = f"{self.name}.step" if step else self.name
        require_arrays(operation, ids=u)
        namespace(operation, ids=u)
        if "int" not in dtype_name(u):
            raise DTypeError(f"{operation}: ids has dtype {dtype_name(u)}, but tokens are integers.")
        if u.ndim != (1 if step else 2):
            raise ShapeError(f"{operation}: ids must be {'(B,)' if step else '(B, L)'} ({describe(ids=u)}).")

    def entered(self, u: Array, enter: Function) -> Array:
        """The rows of the tokens; zeros for what is none, where it cannot be read and refused."""
        if 0 in u.shape or bounds(u) is not None:
            return enter(u)
        xp = namespace(self.name, ids=u)
        known = (u >= 0) & (u < self.vocab_size)
        x = enter(xp.where(known, u, xp.zeros_like(u)))
        return xp.where(known[..., None], x, xp.zeros_like(x))

    def check_values(self, operation: str, u: Array) -> None:
        found = bounds(u)
        if found is not None and not 0 <= found[0] <= found[1] < self.vocab_size:
            raise DomainError(
                f"{operation}: tokens must lie in [0, {self.vocab_size}) (smallest: {found[0]}, largest: {found[1]})."
            )


def check_cap(operation: str, cap: Any) -> None:
    """Raise unless it is None or a positive number."""
    if cap is not None and (isinstance(cap, bool) or not isinstance(cap, int | float) or not 0 < cap < math.inf):
        raise OptionError(f"{operation}: logit_cap = {cap!r} must be a positive number, or None.")


@registered
@dataclass(frozen=True, eq=False)
class MambaLM(LanguageModel):
    """The language model of Mamba: `LanguageModel` with blocks of `Mamba`.

    Gu and Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, 2023,
    https://arxiv.org/abs/2312.00752.

    >>> import numpy, ssm_core
    >>> model = ssm_core.models.MambaLM(vocab_size=10, d_model=8, n_layers=2)
    >>> params = model.initial_parameters()
    >>> model.apply(params, numpy.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    >>> model.generate(params, numpy.asarray([[1, 2, 3]]), n_tokens=5).shape
    (1, 5)
    """

    layer: str = field(default="Mamba", init=False, repr=False)


@registered
@dataclass(frozen=True, eq=False)
class Mamba2LM(LanguageModel):
    """The language model of Mamba-2: `LanguageModel` with blocks of `Mamba2`.

    Dao and Gu, Transformers are SSMs, ICML 2024, https://arxiv.org/abs/2405.21060.

    >>> import numpy, ssm_core
    >>> model = ssm_core.models.Mamba2LM(vocab_size=10, d_model=8, n_layers=2, layer_options={"head_dim": 4})
    >>> model.apply(model.initial_parameters(), numpy.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    layer: str = field(default="Mamba2", init=False, repr=False)


@registered
@dataclass(frozen=True, eq=False)
class Mamba3LM(LanguageModel):
    """The language model of Mamba-3: `LanguageModel` with blocks of `Mamba3`.

    >>> import numpy, ssm_core
    >>> model = ssm_core.models.Mamba3LM(vocab_size=10, d_model=8, n_layers=2, layer_options={"head_dim": 4})
    >>> model.apply(model.initial_parameters(), numpy.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    layer: str = field(default="Mamba3", init=False, repr=False)
