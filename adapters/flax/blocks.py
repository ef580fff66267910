"""Models of Flax NNX's own embedding, norms, linear maps and dropout around layers; definitions compose them."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import reduce
from typing import Any, Self, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from ssm_core import layers, models
from ssm_core._arrays.errors import OptionError
from ssm_core._arrays.library import bringing, namespace
from ssm_core.adapters import jax_streams
from ssm_core.adapters.jax_calls import calls
from ssm_core.files import pretrained
from ssm_core.files.functions import check_blocks
from ssm_core.models.language_model import EMBEDDING_STD
from ssm_core.models.parts import Parts

from .base import BASES, MODULES, module, register
from .file_names import file_arrays, set_arrays
from .places import described, norm_of


class Block(nnx.Module):
    """norm, mixer, dropout, and maybe a channel mix, each with its residual."""

    def __init__(self, definition: models.Block, rngs: nnx.Rngs, param_dtype: Any = jnp.float32) -> None:
        self.definition = definition
        norms, mix = definition.norms(), definition.mix()
        self.norm = _norm(norms["norm"], rngs, param_dtype)
        setattr(self, definition.mixer_name, module(definition.mixer(), rngs=rngs, param_dtype=param_dtype))
        self.channel_norm = None if mix is None else _norm(norms["channel_norm"], rngs, param_dtype)
        self.channel_mix = None if mix is None else _mix(mix, rngs, param_dtype)
        self.dropout = None if definition.dropout is None else nnx.Dropout(definition.dropout, rngs=rngs)

    def __call__(self, x: jax.Array, **options: Any) -> Any:
        """x (B, L, H) through the block; with return_state (x, state). Options as those of the layer."""
        return self.definition.composed(vars(self), self.dropout).run(x, **options)

    def stepper(self, *, rate: Any = 1.0) -> layers.Stepper:
        """A function (x (B, H), state) -> (x, state)."""
        steps = {name: getattr(self, name).stepper(rate=rate) for name in self.definition.layers()}
        return self.definition.composed(vars(self) | steps).step

    def standing(self) -> dict[str, Any]:
        """What a file would name: the definitions of its layers, its channel mix and its norms."""
        parts = {name: part for name, part in vars(self).items() if isinstance(part, nnx.Module)}
        found = {name: part.definition for name, part in parts.items() if hasattr(part, "definition")}
        return found | {name: norm for name, part in parts.items() if (norm := norm_of(part)) is not None}

    @property
    def mixer_module(self) -> Any:
        """The layer along time."""
        return getattr(self, self.definition.mixer_name)


def _mix(definition: Any, rngs: nnx.Rngs, param_dtype: Any) -> Any:
    """The features of every step by themselves, or a layer that looks at the step before."""
    if isinstance(definition, models.ChannelMix):
        return ChannelMix(definition, rngs, param_dtype)
    return module(definition, rngs=rngs, param_dtype=param_dtype)


class ChannelMix(nnx.Module):
    """The features of every step by themselves."""

    def __init__(self, definition: models.ChannelMix, rngs: nnx.Rngs, param_dtype: Any = jnp.float32) -> None:
        self.definition = definition
        for name, sizes in definition.maps().items():
            setattr(self, name, nnx.Linear(*sizes, use_bias=definition.biased, param_dtype=param_dtype, rngs=rngs))

    def __call__(self, x: jax.Array) -> jax.Array:
        """x (..., H) mixed."""
        return self.definition.compose(x, {name: getattr(self, name) for name in self.definition.maps()})


class Norm(nnx.Module):
    """A norm that Flax has not: a root mean square norm with a bias, or weighted by 1 + weight."""

    def __init__(self, definition: models.Norm, rngs: nnx.Rngs, param_dtype: Any = jnp.float32) -> None:
        self.definition = definition
        register(self, definition.parameters(), rngs, param_dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x (..., H) normed."""
        params = {p.name: getattr(self, p.name)[...] for p in self.definition.parameters()}
        return self.definition.function(params, namespace("Norm", x=x))(x)


def _norm(definition: models.Norm, rngs: nnx.Rngs, param_dtype: Any) -> Any:
    options: dict[str, Any] = {"epsilon": definition.epsilon, "param_dtype": param_dtype, "rngs": rngs}
    if definition.kind is None:
        return lambda x: x
    if definition.kind == "layer":
        return nnx.LayerNorm(definition.d_model, use_bias=definition.biased, use_fast_variance=False, **options)
    if definition.kind == "rms" and not definition.biased:
        return nnx.RMSNorm(definition.d_model, use_fast_variance=False, **options)
    return Norm(definition, rngs, param_dtype)


class ModelModule(nnx.Module):
    """What the modules of models share: the definition composes the parts that a subclass has."""

    definition: models.Model

    def ends(self) -> tuple[Any, Any, Any]:
        """What makes features of inputs, the blocks, and what makes outputs of features."""
        raise NotImplementedError

    def any_parameter(self) -> jax.Array:
        """Any parameter that inputs meet, for its device."""
        raise NotImplementedError

    def parts(self, blocks: Any) -> Parts:
        """The model around runs or steps of its blocks."""
        enter, _, leave = self.ends()
        return Parts(enter, blocks, leave)

    @calls
    def __call__(
        self,
        u: jax.Array,
        *,
        state: Any = None,
        return_state: bool = False,
        lengths: jax.Array | None = None,
        reset: jax.Array | None = None,
        cu_seqlens: jax.Array | None = None,
        rate: Any = 1.0,
        step_scale: jax.Array | None = None,
        mode: str = "auto",
        recompute: int | None = None,
    ) -> Any:
        """The outputs for u (B, L, d_input), of a language model logits (B, L, V) for tokens (B, L); with return_state
        (outputs, state). Options as the definition's `apply`."""
        bring = bringing({"any": self.any_parameter()})
        u, state, rate = bring((u, state, rate))
        self._check(u)
        return self.definition.compose(
            u,
            self.parts(self.ends()[1]),
            state=state,
            return_state=return_state,
            lengths=bring(lengths),
            reset=bring(reset),
            cu_seqlens=bring(cu_seqlens),
            rate=rate,
            step_scale=bring(step_scale),
            mode=mode,
            recompute=recompute,
        )

    def arrays(self) -> dict[str, jax.Array]:
        """The parameters by the names and in the layouts of weight files."""
        check_blocks(self.definition, len(self.ends()[1]))
        return file_arrays(self)

    def described(self) -> dict[str, jax.Array]:
        """`arrays` for a file; raises where the module is another function than the definition."""
        return described(self)

    def initial_state(self, batch: int) -> Any:
        """The state before the first step."""
        return self.definition.initial_state(self.arrays(), batch)

    def step(self, u_t: jax.Array, state: Any, *, rate: Any = 1.0) -> tuple[jax.Array, Any]:
        """(outputs, state) of one step u_t (B, d_input), or of tokens (B,). To take many, hold the `stepper`."""
        return self.stepper(rate=rate)(u_t, state)

    def stepper(self, *, rate: Any = 1.0) -> layers.Stepper:
        """A function (u_t, state) -> (y_t, state) that holds what does not change between steps."""
        steps = [block.stepper(rate=rate) for block in self.ends()[1]]
        return self.definition.compose_stepper(self.parts(steps), self.any_parameter())

    def _check(self, u: jax.Array) -> None:
        namespace(self.definition.name, **{self.definition.signal: u}, weight=self.any_parameter())


class SequenceModule(ModelModule):
    """The module of any `ssm_core.models.SequenceModel`."""

    definition: models.SequenceModel

    def __init__(self, definition: models.SequenceModel, rngs: nnx.Rngs, param_dtype: Any = jnp.float32) -> None:
        self.definition = definition
        self.encoder = nnx.Linear(definition.d_input, definition.d_model, param_dtype=param_dtype, rngs=rngs)
        self.blocks = nnx.List([Block(block, rngs, param_dtype) for block in definition.blocks])
        self.head = nnx.Linear(definition.d_model, definition.d_output, param_dtype=param_dtype, rngs=rngs)

    def ends(self) -> tuple[Any, Any, Any]:
        return self.encoder, self.blocks, self.head

    def any_parameter(self) -> jax.Array:
        return self.encoder.kernel[...]


_embedding_init = nnx.initializers.normal(EMBEDDING_STD)


class _Backbone(nnx.Module):
    """Embedding, blocks and norms, what blocks share, and the maps between levels."""

    def __init__(self, definition: models.LanguageModel, rngs: nnx.Rngs, param_dtype: Any) -> None:
        sizes = definition.vocab_size, definition.d_model
        self.embeddings = nnx.Embed(*sizes, embedding_init=_embedding_init, param_dtype=param_dtype, rngs=rngs)
        first = definition.first_norm()
        self.first_norm = None if first is None else _norm(first, rngs, param_dtype)
        shared = (replace(p, name=p.name.removeprefix("backbone.")) for p in definition.shared_parameters())
        register(self, shared, rngs, param_dtype)
        self.layers = nnx.List([Block(block, rngs, param_dtype) for block in definition.blocks])
        self.norm_f = _norm(definition.last_norm(), rngs, param_dtype)
        for name, map_sizes in definition.maps().items():
            setattr(self, name, nnx.Linear(*map_sizes, param_dtype=param_dtype, rngs=rngs))


def _head(definition: models.LanguageModel, rngs: nnx.Rngs, param_dtype: Any) -> nnx.Linear:
    sizes = definition.d_model, definition.vocab_size
    options: dict[str, Any] = {"use_bias": definition.head_bias, "param_dtype": param_dtype, "rngs": rngs}
    return nnx.Linear(*sizes, kernel_init=_embedding_init, **options)


class LanguageModule(ModelModule, jax_streams.Writer):
    """The module of any `ssm_core.models.LanguageModel`."""

    definition: models.LanguageModel

    def __init__(self, definition: models.LanguageModel, rngs: nnx.Rngs, param_dtype: Any = jnp.float32) -> None:
        self.definition = definition
        self.backbone = _Backbone(definition, rngs, param_dtype)
        self.lm_head = None if definition.tied else _head(definition, rngs, param_dtype)

    def ends(self) -> tuple[Any, Any, Any]:
        part = self.backbone
        enter, leave = self.definition.compose_ends(part.embeddings, part.first_norm, part.norm_f, self._logits)
        return enter, part.layers, leave

    def parts(self, blocks: Any) -> Parts:
        shared = {p.name: reduce(getattr, p.name.split("."), self)[...] for p in self.definition.shared_parameters()}
        maps = {name: getattr(self.backbone, name) for name in self.definition.maps()}
        return replace(super().parts(blocks), beside=self.definition.beside(shared), maps=maps)

    def any_parameter(self) -> jax.Array:
        return self.backbone.embeddings.embedding[...]

    def _logits(self, x: jax.Array) -> jax.Array:
        head = self.backbone.embeddings.attend if self.lm_head is None else self.lm_head
        return head(x)

    @classmethod
    def from_pretrained(cls, directory: str | os.PathLike[str], *, param_dtype: Any = jnp.float32) -> Self:
        """The model of a directory with config.json and safetensors files. As `ssm_core.from_pretrained`."""
        return loaded(directory, cls, param_dtype=param_dtype)

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write the directory that `from_pretrained`, and transformers, read. As `ssm_core.save_pretrained`."""
        pretrained.save_pretrained(self.definition, self.described(), directory)


def from_pretrained(directory: str | os.PathLike[str], *, param_dtype: Any = jnp.float32) -> LanguageModule:
    """The model of a Hugging Face directory, of the class that its config.json describes.

    Its parameters are read one at a time, in the dtype asked for. As `ssm_core.from_pretrained`.
    """
    return loaded(directory, LanguageModule, param_dtype=param_dtype)


Loaded = TypeVar("Loaded", bound=LanguageModule)


def loaded(directory: str | os.PathLike[str], kind: type[Loaded], *, param_dtype: Any) -> Loaded:
    """The model of a directory, of a class that is of this kind: made without storage, then read tensor by tensor."""
    definition, tensors = pretrained.opened(directory)
    written = MODULES.get(definition.name, LanguageModule)
    cls = kind if issubclass(kind, written) else written
    if not issubclass(cls, kind):
        raise OptionError(
            f"{kind.__name__}.from_pretrained: {os.fspath(directory)!r} holds a {definition.name}. Use "
            "adapters.flax.from_pretrained, which picks the class."
        )
    options: Any = definition.options()
    made: Any = nnx.eval_shape(lambda: cls(**options, rngs=nnx.Rngs(0), param_dtype=param_dtype))
    made.definition = definition
    set_arrays(made, lambda name: tensors[name].array(jnp, param_dtype))
    return made


BASES[models.SequenceModel] = SequenceModule
BASES[models.LanguageModel] = LanguageModule
