"""Tokens of language models in JAX, for the modules of Flax and of Equinox: prompts and steps are compiled."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any

import jax

from ssm_core import models
from ssm_core._arrays.library import bringing, namespace
from ssm_core.models import generation, sampling


class Writer:
    """The methods of modules of language models that write."""

    definition: models.LanguageModel

    def arrays(self) -> dict[str, jax.Array]:
        """The parameters by the names of the definition."""
        raise NotImplementedError

    def described(self) -> dict[str, jax.Array]:
        """`arrays`; raises where the module is another function than the definition, by which tokens are made."""
        return self.arrays()

    def stream(
        self,
        ids: jax.Array,
        *,
        lengths: jax.Array | None = None,
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
        """An iterator over tokens (B,) that go on from ids (B, L), its steps jitted. Options as the definition's."""
        return stream(
            self.definition,
            self.described(),
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

    def generate(
        self,
        ids: jax.Array,
        n_tokens: int,
        *,
        lengths: jax.Array | None = None,
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
        """n_tokens tokens (B, n_tokens) that go on from ids (B, L). Options as the definition's `generate`."""
        generation.check_count(n_tokens, return_state)
        stream = self.stream(
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


def stream(
    definition: models.LanguageModel,
    params: dict[str, jax.Array],
    ids: jax.Array,
    *,
    lengths: jax.Array | None,
    padding: str,
    state: Any,
    seed: Any,
    **draw: Any,
) -> generation.Stream:
    """`LanguageModel.stream` with compiled steps; draw: the options of `sampling.Choice`."""
    ids, lengths, state = bringing(params)((ids, lengths, state))
    namespace(definition.name, ids=ids, lengths=lengths, weight=next(iter(params.values())))
    choice = sampling.Choice.checked(definition.vocab_size, **draw)
    reading, step = partial(_reading, definition, params), partial(_step, definition, params)
    padded: dict[str, Any] = {"lengths": lengths, "padding": padding}
    logits, state = definition.prefill_by(reading, ids, state=state, **padded)
    return definition.drawn(logits, state, step, choice, seed, ids, **padded)


@partial(jax.jit, static_argnums=0)
def _reading(definition: models.LanguageModel, params: Any, ids: jax.Array, lengths: Any, state: Any) -> Any:
    params = definition.prepared(params, ids=ids)
    parts = definition.parts(params, namespace(definition.name, **params))
    return definition.reading(ids, lengths, state, parts=parts)


def _step(definition: models.LanguageModel, params: Any, ids: jax.Array, state: Any) -> Any:
    return _step_at(definition, definition.moment(state), params, ids, state)


@partial(jax.jit, static_argnums=(0, 1))
def _step_at(definition: models.LanguageModel, moment: Hashable, params: Any, ids: jax.Array, state: Any) -> Any:
    return definition.stepper_at(moment, params)(ids, state)
