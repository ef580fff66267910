"""Models as pytrees of their parameters; dropout is Equinox's own."""

from __future__ import annotations

import os
from typing import Any, Self, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

from ssm_core import models
from ssm_core._arrays.errors import OptionError
from ssm_core.adapters import jax_streams
from ssm_core.adapters.jax_calls import calls
from ssm_core.files import pretrained

from .base import BASES, SSMModule
from .weights import described, with_params


class SequenceModule(SSMModule):
    """The module of any `ssm_core.models.SequenceModel`. `equinox.nn.inference_mode` ends its dropout."""

    definition: models.SequenceModel = eqx.field(static=True)
    dropout: eqx.nn.Dropout

    def __init__(self, definition: models.SequenceModel, key: jax.Array, dtype: Any = jnp.float32) -> None:
        super().__init__(definition, key, dtype)
        self.dropout = eqx.nn.Dropout(definition.dropout)

    @calls
    def __call__(self, u: jax.Array, *, key: jax.Array | None = None, **options: Any) -> Any:
        """The outputs for u (B, L, d_input); with return_state (outputs, state). Options as the definition's `apply`.

        Dropout needs the key, where there is any.
        """
        functions = [self._dropout(key, i) for i in range(self.definition.n_layers)]
        return super().__call__(u, key=key, dropout=functions, **options)

    def _dropout(self, key: jax.Array | None, i: int) -> Any:
        """x -> x with features dropped in block i: others where its channel mix adds than where its layer does."""
        if key is None:
            return self.dropout
        keys = iter(jax.random.split(jax.random.fold_in(key, i)))
        return lambda x: self.dropout(x, key=next(keys))


class LanguageModule(SSMModule, jax_streams.Writer):
    """The module of any `ssm_core.models.LanguageModel`."""

    definition: models.LanguageModel = eqx.field(static=True)

    def described(self) -> dict[str, jax.Array]:
        """The parameters; raises where the module is another function than the definition."""
        return described(self)

    @classmethod
    def from_pretrained(cls, directory: str | os.PathLike[str], *, dtype: Any = jnp.float32) -> Self:
        """The model of a directory with config.json and safetensors files. As `ssm_core.from_pretrained`."""
        return loaded(directory, cls, dtype)

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write the directory that `from_pretrained`, and transformers, read. As `ssm_core.save_pretrained`."""
        pretrained.save_pretrained(self.definition, self.described(), directory)


def from_pretrained(directory: str | os.PathLike[str], *, dtype: Any = jnp.float32) -> LanguageModule:
    """The model of a Hugging Face directory, of the class that its config.json describes.

    Its parameters are read one at a time, in the dtype asked for. As `ssm_core.from_pretrained`.
    """
    return loaded(directory, LanguageModule, dtype)


Loaded = TypeVar("Loaded", bound=LanguageModule)


def loaded(directory: str | os.PathLike[str], kind: type[Loaded], dtype: Any) -> Loaded:
    """The model of a directory, of a class that is of this kind."""
    definition, tensors = pretrained.opened(directory)
    made = with_params(definition, {p.name: tensors[p.name].array(jnp, dtype) for p in definition.parameters()})
    if not isinstance(made, kind):
        raise OptionError(
            f"{kind.__name__}.from_pretrained: {os.fspath(directory)!r} holds a {definition.name}. Use "
            "adapters.equinox.from_pretrained, which picks the class."
        )
    return made


BASES[models.SequenceModel] = SequenceModule
BASES[models.LanguageModel] = LanguageModule
