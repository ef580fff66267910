"""Language models of Flax NNX's own embedding, norm and linear map around the blocks of Mamba."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from flax import nnx

from ssm_core import layers, models
from ssm_core._arrays.errors import OptionError
from ssm_core._arrays.library import namespace
from ssm_core.files import pretrained
from ssm_core.models import generation

from .file_names import load_arrays, named_parameters, to_file
from .mamba import MIXERS


class _Block(nnx.Module):
    """norm, mixer; the model adds the residual."""

    def __init__(self, definition: models.LanguageModel, rngs: nnx.Rngs, param_dtype: Any) -> None:
        self.norm = _norm(definition, rngs, param_dtype)
        self.mixer = MIXERS[definition.layer](**definition.block().options(), rngs=rngs, param_dtype=param_dtype)

    def __call__(self, x: jax.Array, **options: Any) -> Any:
        return self.mixer(self.norm(x), **options)

    def stepper(self) -> layers.Stepper:
        step = self.mixer.stepper()
        return lambda x, state: step(self.norm(x), state)


class _Backbone(nnx.Module):
    """Embedding, blocks and last norm."""

    def __init__(self, definition: models.LanguageModel, rngs: nnx.Rngs, param_dtype: Any) -> None:
        d = definition
        self.embeddings = nnx.Embed(
            d.vocab_size, d.d_model, embedding_init=_embedding_init, param_dtype=param_dtype, rngs=rngs
        )
        self.layers = nnx.List([_Block(d, rngs, param_dtype) for _ in range(d.n_layers)])
        self.norm_f = _norm(d, rngs, param_dtype)


_embedding_init = nnx.initializers.normal(models.language_model.EMBEDDING_STD)


def _head(definition: models.LanguageModel, rngs: nnx.Rngs, param_dtype: Any) -> nnx.Linear:
    sizes = definition.d_model, definition.vocab_size
    return nnx.Linear(*sizes, use_bias=False, kernel_init=_embedding_init, param_dtype=param_dtype, rngs=rngs)


def _norm(definition: models.LanguageModel, rngs: nnx.Rngs, param_dtype: Any) -> nnx.RMSNorm:
    return nnx.RMSNorm(
        definition.d_model, epsilon=definition.epsilon, use_fast_variance=False, param_dtype=param_dtype, rngs=rngs
    )


class LanguageModule(nnx.Module):
    """What the language models share."""

    definition: models.LanguageModel
    kind: ClassVar[type[models.LanguageModel]]

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 256,
        n_layers: int = 4,
        *,
        layer_options: dict[str, Any] | None = None,
        tied: bool = True,
        epsilon: float = 1e-05,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        self.definition = self.kind(vocab_size, d_model, n_layers, layer_options or {}, tied, epsilon)
        self.backbone = _Backbone(self.definition, rngs, param_dtype)
        self.lm_head = None if tied else _head(self.definition, rngs, param_dtype)

    def __call__(
        self,
        ids: jax.Array,
        *,
        state: Any = None,
        return_state: bool = False,
        lengths: jax.Array | None = None,
        reset: jax.Array | None = None,
        cu_seqlens: jax.Array | None = None,
        mode: str = "auto",
        recompute: int | None = None,
    ) -> Any:
        """Logits (B, L, V) from ids (B, L); with return_state (logits, state). Options as the definition's `apply`."""
        namespace(self.definition.name, ids=ids, embeddings=self.backbone.embeddings.embedding[...])
        return self.definition.compose(
            ids, *self._parts(), state=state, return_state=return_state, lengths=lengths, reset=reset,
            cu_seqlens=cu_seqlens, mode=mode, recompute=recompute,
        )  # fmt: skip

    def arrays(self) -> dict[str, jax.Array]:
        """The parameters by the names and in the layouts of weight files."""
        return {name: to_file(part, field, value[...]) for name, part, field, value in named_parameters(self)}

    def initial_state(self, batch: int) -> Any:
        """The states of all blocks."""
        return self.definition.initial_state(self.arrays(), batch)

    def step(self, ids: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        """(logits (B, V), state) from ids (B,) and the state before them. To take many steps, hold the `stepper`."""
        return self.stepper()(ids, state)

    def stepper(self) -> layers.Stepper:
        """A function (ids, state) -> (logits, state) that holds what does not change between steps."""
        embed, _, norm, head = self._parts()
        steps = [block.stepper() for block in self.backbone.layers]

        def step(ids: jax.Array, state: Any) -> tuple[jax.Array, Any]:
            namespace(f"{self.definition.name}.step", ids=ids, embeddings=self.backbone.embeddings.embedding[...])
            self.definition.check_step(ids, state)
            return self.definition.compose_step(ids, state, embed, steps, norm, head)

        return step

    def generate(
        self,
        ids: jax.Array,
        n_tokens: int,
        *,
        lengths: jax.Array | None = None,
        padding: str = "right",
        state: Any = None,
        return_state: bool = False,
        **options: Any,
    ) -> Any:
        """n_tokens tokens (B, n_tokens) that go on from ids (B, L), jitted. Options as the definition's `generate`."""
        fixed, params = _Fixed(self.definition), self.arrays()
        namespace(self.definition.name, ids=ids, lengths=lengths, embeddings=params["backbone.embeddings.weight"])
        logits, state = _prefill(fixed, padding, params, ids, lengths, state)
        tokens, state = generation.generate(logits, state, partial(_step, fixed, params), n_tokens, **options)
        return (tokens, state) if return_state else tokens

    @classmethod
    def from_pretrained(cls, directory: str | os.PathLike[str], *, param_dtype: Any = jnp.float32) -> Self:
        """The model of a directory with config.json and safetensors files. As `ssm_core.from_pretrained`."""
        definition, tensors = pretrained.read(directory)
        if not isinstance(definition, cls.kind):
            raise OptionError(f"{cls.__name__}.from_pretrained: {os.fspath(directory)!r} holds a {definition.name}.")
        loaded = cls(**definition.options(), rngs=nnx.Rngs(0), param_dtype=param_dtype)
        load_arrays(loaded, tensors, param_dtype)
        return loaded

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write the directory that `from_pretrained`, and transformers, read. As `ssm_core.save_pretrained`."""
        pretrained.save_pretrained(self.definition, self.arrays(), directory)

    def _parts(self) -> tuple[Any, Any, Any, Any]:
        backbone = self.backbone
        head = backbone.embeddings.attend if self.lm_head is None else self.lm_head
        return backbone.embeddings, backbone.layers, backbone.norm_f, head


class _Fixed:
    """A definition as a constant of compiled functions."""

    def __init__(self, definition: models.LanguageModel) -> None:
        self.definition = definition

    def __hash__(self) -> int:
        return hash(repr(self.definition))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Fixed) and self.definition == other.definition


@partial(jax.jit, static_argnums=(0, 1))
def _prefill(fixed: _Fixed, padding: str, params: Any, ids: jax.Array, lengths: Any, state: Any) -> Any:
    return fixed.definition.prefill(params, ids, lengths=lengths, padding=padding, state=state)


@partial(jax.jit, static_argnums=0)
def _step(fixed: _Fixed, params: Any, ids: jax.Array, state: Any) -> Any:
    return fixed.definition.stepper(params)(ids, state)


class MambaLM(LanguageModule):
    """The language model of Mamba. Options as `ssm_core.models.MambaLM`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> model = MambaLM(vocab_size=10, d_model=8, n_layers=2, rngs=nnx.Rngs(0))
    >>> model(jnp.asarray([[1, 2, 3]])).shape, model.generate(jnp.asarray([[1, 2, 3]]), 5).shape
    ((1, 3, 10), (1, 5))
    """

    kind = models.MambaLM


class Mamba2LM(LanguageModule):
    """The language model of Mamba-2. Options as `ssm_core.models.Mamba2LM`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> model = Mamba2LM(vocab_size=10, d_model=8, n_layers=2, layer_options={"head_dim": 4}, rngs=nnx.Rngs(0))
    >>> model(jnp.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    kind = models.Mamba2LM


class Mamba3LM(LanguageModule):
    """The language model of Mamba-3. Options as `ssm_core.models.Mamba3LM`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> model = Mamba3LM(vocab_size=10, d_model=8, n_layers=2, layer_options={"head_dim": 4}, rngs=nnx.Rngs(0))
    >>> model(jnp.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    kind = models.Mamba3LM
