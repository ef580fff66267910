"""Tokens of language models in JAX, whatever their modules are of: prompts and steps are compiled."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any

import jax

from ssm_core import models
from ssm_core._arrays.library import bringing, namespace
from ssm_core.models import generation, sampling


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
