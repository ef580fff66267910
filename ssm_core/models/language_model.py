"""Language models of Mamba's blocks: embedding, residual blocks, norm, head."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np

from .._arrays.errors import DomainError, DTypeError, OptionError, ShapeError, describe, unknown
from .._arrays.library import Array, Namespace, device, dtype_name, namespace, require_arrays
from ..functions.affine import affine
from ..functions.norms import normed
from ..layers import parametrizations as common
from ..layers.gated.base import InputDependent, check_bools, check_epsilon
from ..layers.layer import Layer, Stepper, check_batch, once_per_kind
from ..layers.parameters import Parameter, Parameters, constant, normal
from ..layers.registry import make, registered
from ..recurrences.segments import checked_segments
from . import generation

PADDINGS = ("right", "left")
EMBEDDING_STD = 0.02  # of the first embedding


@dataclass(frozen=True)
class LanguageModel(Layer):
    """Embedding, residual blocks of norm and layer, a last norm and the head; see `MambaLM`."""

    vocab_size: int
    d_model: int = 256
    n_layers: int = 4
    layer_options: dict[str, Any] = field(default_factory=dict)
    tied: bool = True
    epsilon: float = 1e-5

    layer: ClassVar[str]

    def __post_init__(self) -> None:
        common.whole(self.name, vocab_size=self.vocab_size, d_model=self.d_model, n_layers=self.n_layers)
        check_bools(self.name, tied=self.tied)
        check_epsilon(self.name, epsilon=self.epsilon)
        if not isinstance(self.layer_options, dict):
            raise OptionError(f"{self.name}: layer_options = {self.layer_options!r} must be a dict of options.")
        if "d_model" in self.layer_options:
            raise OptionError(f"{self.name}: d_model is an option of the model, not one of its layer_options.")
        self.block()

    def block(self) -> InputDependent:
        """The layer of every block."""

        made: Any = make(self.layer, {"d_model": self.d_model, **self.layer_options})
        return made

    def parameters(self) -> tuple[Parameter, ...]:
        V, H = self.vocab_size, self.d_model
        found = [normal("backbone.embeddings.weight", (V, H), EMBEDDING_STD)]
        for i in range(self.n_layers):
            found.append(constant(f"backbone.layers.{i}.norm.weight", (H,), lambda: 1.0))
            for p in self.block().parameters():
                found.append(Parameter(f"backbone.layers.{i}.mixer.{p.name}", p.shape, p.draw, p.special))
        found.append(constant("backbone.norm_f.weight", (H,), lambda: 1.0))
        return (*found, *(() if self.tied else (normal("lm_head.weight", (V, H), EMBEDDING_STD),)))

    def block_parameters(self, params: Parameters, i: int) -> Parameters:
        """The parameters of the layer of block i."""
        prefix = f"backbone.layers.{i}.mixer."
        return {name[len(prefix) :]: p for name, p in params.items() if name.startswith(prefix)}

    def apply(  # type: ignore[override]
        self,
        params: Parameters,
        ids: Array,
        *,
        state: Any = None,
        return_state: bool = False,
        lengths: Array | None = None,
        reset: Array | None = None,
        cu_seqlens: Array | None = None,
        mode: str = "auto",
        recompute: int | None = None,
    ) -> Any:
        """Logits (B, L, V) of the token after each of ids (B, L), and with return_state the states of all blocks.

        lengths (B,) are those of right-padded sequences, reset (B, L) bool begins anew at a step (True at the first
        token of a left-padded sequence), cu_seqlens (n + 1,) with B = 1 is for sequences packed one after another,
        recompute the steps of a piece whose inside the backward computes again, as in the layers.
        """
        params = self.prepared(params, ids=ids)
        return self.compose(
            ids, *self._parts(params), state=state, return_state=return_state, lengths=lengths, reset=reset,
            cu_seqlens=cu_seqlens, mode=mode, recompute=recompute,
        )  # fmt: skip

    def compose(
        self,
        ids: Array,
        embed: Callable[[Array], Array],
        blocks: Iterable[Callable[..., Any]],
        norm: Callable[[Array], Array],
        head: Callable[[Array], Array],
        *,
        state: Any = None,
        return_state: bool = False,
        lengths: Array | None = None,
        reset: Array | None = None,
        cu_seqlens: Array | None = None,
        mode: str = "auto",
        recompute: int | None = None,
    ) -> Any:
        """The model from its parts, whichever framework they are of. A block maps x, with the options of a layer, to
        what is added to x; with return_state to (that, its state)."""
        self._check_ids(ids)
        masks: dict[str, Any] = {"reset": reset, "lengths": lengths, "cu_seqlens": cu_seqlens}
        self._check_masks(ids, **masks)
        blocks = tuple(blocks)
        run = partial(
            self._hidden, embed=embed, blocks=blocks, norm=norm, return_state=return_state, mode=mode,
            recompute=recompute,
        )  # fmt: skip
        if state is not None:
            self._check_state(state)
        x, last = run(ids, state=state, **masks)
        y = head(x)
        return (y, last) if return_state else y

    def _hidden(
        self,
        ids: Array,
        *,
        embed: Callable[[Array], Array],
        blocks: Sequence[Callable[..., Any]],
        norm: Callable[[Array], Array],
        state: Any,
        return_state: bool,
        **options: Any,
    ) -> tuple[Array, Any]:
        """What the head reads (B, L, H), and the states of the blocks."""
        x, states = embed(ids), []
        for i, block in enumerate(blocks):
            y = block(x, state=None if state is None else state[i], return_state=return_state, **options)
            y, after = y if return_state else (y, None)
            x = x + y
            states.append(after)
        return norm(x), tuple(states) if return_state else None

    def compose_step(
        self, ids: Array, state: Any, embed: Any, steps: Sequence[Stepper], norm: Any, head: Any
    ) -> tuple[Array, Any]:
        """One step of the model from its parts: a block's step maps (x, state) to (what is added to x, state)."""
        x, states = embed(ids), []
        for block_step, before in zip(steps, state, strict=True):
            y, after = block_step(x, before)
            x = x + y
            states.append(after)
        return head(norm(x)), tuple(states)

    def stepper(self, params: Parameters, *, rate: Any = 1.0) -> Stepper:
        """(ids (B,), state) -> (logits (B, V), state)."""
        params = self.prepared(params)
        embed, _, norm, head = self._parts(params)
        steps = [self._block_step(params, i, rate) for i in range(self.n_layers)]
        check = once_per_kind(self.check_step)

        def step(ids: Array, state: Any) -> tuple[Array, Any]:
            check(ids, state)
            self._check_range(f"{self.name}.step", ids)
            return self.compose_step(ids, state, embed, steps, norm, head)

        return step

    def prefill(
        self,
        params: Parameters,
        ids: Array,
        *,
        lengths: Array | None = None,
        padding: str = "right",
        state: Any = None,
    ) -> tuple[Array, Any]:
        """Logits (B, V) of the token after the prompts ids (B, L), all at once, and the states of all blocks.

        lengths (B,) are those of prompts that are padded on the right or on the left.
        """
        params = self.prepared(params, ids=ids)
        return self.compose_prefill(ids, *self._parts(params), lengths=lengths, padding=padding, state=state)

    def compose_prefill(
        self,
        ids: Array,
        embed: Any,
        blocks: Iterable[Any],
        norm: Any,
        head: Any,
        *,
        lengths: Array | None = None,
        padding: str = "right",
        state: Any = None,
    ) -> tuple[Array, Any]:
        """`prefill` from the parts of the model; the head sees the last step alone."""
        xp = self._check_ids(ids)
        if padding not in PADDINGS:
            raise unknown(f"{self.name}.prefill", "padding", padding, PADDINGS)
        if ids.shape[1] == 0:
            raise ShapeError(f"{self.name}.prefill: a prompt needs at least one token ({describe(ids=ids)}).")
        self._check_masks(ids, lengths=lengths)
        if isinstance(lengths, np.ndarray) and lengths.size and lengths.min() < 1:
            raise DomainError(f"{self.name}.prefill: every prompt needs at least one token (lengths: {lengths}).")
        if state is not None:
            self._check_state(state)
        reset = None
        if lengths is not None and padding == "left":
            if state is not None:
                raise OptionError(f"{self.name}.prefill: left-padded prompts begin anew. Leave out state.")
            k = xp.arange(ids.shape[1], device=device(lengths))
            reset, lengths = k == (ids.shape[1] - xp.astype(lengths, k.dtype))[:, None], None
        x, last = self._hidden(
            ids, embed=embed, blocks=tuple(blocks), norm=norm, state=state, return_state=True, lengths=lengths,
            reset=reset,
        )  # fmt: skip
        if lengths is None:
            return head(x[:, -1, :]), last
        index = xp.astype(lengths, xp.arange(1).dtype)[:, None, None] - 1
        index = xp.broadcast_to(index, (x.shape[0], 1, x.shape[2]))
        return head(xp.take_along_axis(x, index, axis=1)[:, 0, :]), last

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
        eos: int | None = None,
        seed: Any = 0,
    ) -> Any:
        """n_tokens tokens (B, n_tokens) that go on from ids (B, L): the prompt at once, then step by step.

        lengths, padding and state as in `prefill`, the options of the draw as in `models.generation.generate`. With
        return_state (tokens, the state that all but the last of them have entered).
        """
        generation.check_options(n_tokens, temperature, top_k, top_p, eos, self.vocab_size)
        logits, state = self.prefill(params, ids, lengths=lengths, padding=padding, state=state)
        tokens, state = generation.generate(
            logits, state, self.stepper(params), n_tokens, temperature=temperature, top_k=top_k, top_p=top_p, eos=eos,
            seed=seed,
        )  # fmt: skip
        return (tokens, state) if return_state else tokens

    def initial_state(self, params: Parameters, batch: int) -> Any:
        """The states of all blocks."""
        check_batch(self.name, batch)
        params = self.prepared(params)
        return tuple(self.block().initial_state(self.block_parameters(params, i), batch) for i in range(self.n_layers))

    def _parts(self, params: Parameters) -> tuple[Any, list[Any], Any, Any]:
        """Embedding, blocks, last norm and head as functions of arrays."""
        table = params["backbone.embeddings.weight"]
        xp = namespace(self.name, table=table)
        rows = table if self.tied else params["lm_head.weight"]

        def embed(ids: Array) -> Array:
            index = xp.astype(xp.reshape(ids, (-1,)), xp.arange(1).dtype)  # PyTorch takes by no others
            return xp.reshape(xp.take(table, index, axis=0), (*ids.shape, self.d_model))

        def block(i: int) -> Callable[..., Any]:
            norm, inner = self._norm(params, f"layers.{i}.norm", xp), self.block_parameters(params, i)
            layer = self.block()
            return lambda x, **options: layer.apply(inner, norm(x), **options)

        blocks = [block(i) for i in range(self.n_layers)]
        return embed, blocks, self._norm(params, "norm_f", xp), lambda x: affine(x, rows, None)

    def _norm(self, params: Parameters, name: str, xp: Namespace) -> Callable[[Array], Array]:
        weight = params[f"backbone.{name}.weight"]
        return lambda x: normed(x, weight, epsilon=self.epsilon)

    def _block_step(self, params: Parameters, i: int, rate: Any) -> Stepper:
        xp = namespace(self.name, **params)
        norm = self._norm(params, f"layers.{i}.norm", xp)
        step = self.block().stepper(self.block_parameters(params, i), rate=rate)
        return lambda x, state: step(norm(x), state)

    def check_step(self, ids: Array, state: Any) -> None:
        """Raise unless ids (B,) are tokens and the state is one of every block."""
        self._check_ids(ids, step=True)
        self._check_state(state, f"{self.name}.step")

    def _check_ids(self, ids: Array, step: bool = False) -> Namespace:
        operation = f"{self.name}.step" if step else self.name
        require_arrays(operation, ids=ids)
        xp = namespace(operation, ids=ids)
        if "int" not in dtype_name(ids):
            raise DTypeError(f"{operation}: ids has dtype {dtype_name(ids)}, but tokens are integers.")
        if ids.ndim != (1 if step else 2):
            raise ShapeError(f"{operation}: ids must be {'(B,)' if step else '(B, L)'} ({describe(ids=ids)}).")
        self._check_range(operation, ids)
        return xp

    def _check_range(self, operation: str, ids: Array) -> None:
        """Raise for tokens that may be read and are none."""
        if isinstance(ids, np.ndarray) and ids.size and not 0 <= ids.min() <= ids.max() < self.vocab_size:
            raise DomainError(
                f"{operation}: tokens must lie in [0, {self.vocab_size}) (smallest: {ids.min()}, largest: {ids.max()})."
            )

    def _check_masks(self, ids: Array, **masks: Any) -> None:
        batch, length = ids.shape
        checked_segments(self.name, describe(ids=ids, **masks), (batch,), length, **masks)

    def _check_state(self, state: Any, operation: str | None = None) -> None:
        if not isinstance(state, tuple | list) or len(state) != self.n_layers or any(x is None for x in state):
            raise ShapeError(
                f"{operation or self.name}: state must be a tuple of {self.n_layers} layer states, not "
                f"{type(state).__name__} of {len(state) if hasattr(state, '__len__') else 0}. "
                "Start from initial_state(batch)."
            )


@registered
@dataclass(frozen=True)
class MambaLM(LanguageModel):
    """The language model of Mamba.

    x = E[ids];   x = x + Mamba(n(x)) for every block;   logits = W n(x),   W = E if tied

    n is the root mean square norm. ids (B, L) integer, logits (B, L, V).

    vocab_size     V, the number of tokens
    d_model        H, channels of the blocks
    n_layers       blocks
    layer_options  options of `Mamba` but d_model
    tied           whether the head is the embedding
    epsilon        of the norms

    Parameters are named as in published checkpoints, those of the blocks as in `Mamba`.

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

    layer: ClassVar[str] = "Mamba"


@registered
@dataclass(frozen=True)
class Mamba2LM(LanguageModel):
    """The language model of Mamba-2: `MambaLM` with blocks of `Mamba2`.

    Dao and Gu, Transformers are SSMs, ICML 2024, https://arxiv.org/abs/2405.21060.

    >>> import numpy, ssm_core
    >>> model = ssm_core.models.Mamba2LM(vocab_size=10, d_model=8, n_layers=2, layer_options={"head_dim": 4})
    >>> model.apply(model.initial_parameters(), numpy.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    layer: ClassVar[str] = "Mamba2"


@registered
@dataclass(frozen=True)
class Mamba3LM(LanguageModel):
    """The language model of Mamba-3: `MambaLM` with blocks of `Mamba3`.

    >>> import numpy, ssm_core
    >>> model = ssm_core.models.Mamba3LM(vocab_size=10, d_model=8, n_layers=2, layer_options={"head_dim": 4})
    >>> model.apply(model.initial_parameters(), numpy.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    layer: ClassVar[str] = "Mamba3"
