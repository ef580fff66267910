"""The layers as Flax NNX modules. All arithmetic is in the definitions of `ssm_core.layers`."""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ssm_core import checkpoints, layers
from ssm_core._arrays import namespace
from ssm_core._errors import DTypeError, unknown
from ssm_core.layers.sequence_model import EPSILON

__all__ = ["S4D", "SSMModule", "SequenceModel", "load", "param_labels", "save"]


class _Draws:
    """JAX's own generator, through the module's stream of keys."""

    def __init__(self, rngs: nnx.Rngs, dtype: Any) -> None:
        self._rngs, self._dtype = rngs, dtype

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> jax.Array:
        return jax.random.uniform(self._rngs.params(), shape, self._dtype, low, high)

    def normal(self, shape: tuple[int, ...], std: float) -> jax.Array:
        return std * jax.random.normal(self._rngs.params(), shape, self._dtype)

    def constant(self, value: Any) -> jax.Array:
        return jnp.asarray(value, self._dtype)


class SSMModule(nnx.Module):
    """Registers the parameters of a definition and hands them to its functions."""

    def __init__(self, definition: layers.Layer, rngs: nnx.Rngs, param_dtype: Any = jnp.float32) -> None:
        self.definition = definition
        draws = _Draws(rngs, param_dtype)
        for p in definition.parameters():
            setattr(self, p.name, nnx.Param(p.draw(draws)))

    def arrays(self) -> dict[str, jax.Array]:
        """The parameters by name."""
        return {p.name: getattr(self, p.name)[...] for p in self.definition.parameters()}

    def __call__(
        self,
        u: jax.Array,
        *,
        state: jax.Array | None = None,
        return_state: bool = False,
        lengths: jax.Array | None = None,
        reset: jax.Array | None = None,
        rate: Any = 1.0,
        step_scale: jax.Array | None = None,
        mode: str = "auto",
    ) -> Any:
        """y (B, L, H) from u (B, L, H); with return_state the pair (y, state). Options as the definition's `apply`."""
        return self.definition.apply(
            self.arrays(), u, state=state, return_state=return_state, lengths=lengths, reset=reset, rate=rate,
            step_scale=step_scale, mode=mode,
        )  # fmt: skip

    def initial_state(self, batch: int) -> Any:
        """The state before the first step."""
        return self.definition.initial_state(self.arrays(), batch)

    def step(self, u_t: jax.Array, state: Any, *, rate: Any = 1.0) -> tuple[jax.Array, Any]:
        """(y_t, state) from u_t (B, H) and the state before it. To generate many steps, hold the `stepper`."""
        return self.stepper(rate=rate)(u_t, state)

    def stepper(self, *, rate: Any = 1.0) -> layers.Stepper:
        """A function (u_t, state) -> (y_t, state) that holds the discrete system."""
        return self.definition.stepper(self.arrays(), rate=rate)


class S4D(SSMModule):
    """S4D: a diagonal state space model in every channel. Options as `ssm_core.layers.S4D`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> S4D(d_model=4, d_state=8, rngs=nnx.Rngs(0))(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.S4D

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        init: str = "lin",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        discretization: str = "zoh",
        real: bool = False,
        trainable_B: bool = True,
        n_ssm: int | None = None,
        channels: int = 1,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.S4D(
            d_model, d_state, init, dt_min, dt_max, discretization, real, trainable_B, n_ssm, channels, bidirectional,
            activation, output, skip,
        )  # fmt: skip
        super().__init__(definition, rngs, param_dtype)

    def kernel(self, length: int, *, rate: Any = 1.0) -> jax.Array:
        """The convolution kernels (channels, H, L)."""
        return self.definition.kernel(self.arrays(), length, rate=rate)


class _Block(nnx.Module):
    """norm, layer, dropout; the model adds the residual."""

    def __init__(self, definition: layers.SequenceModel, rngs: nnx.Rngs, param_dtype: Any) -> None:
        self.norm = nnx.LayerNorm(
            definition.d_model, epsilon=EPSILON, use_fast_variance=False, param_dtype=param_dtype, rngs=rngs
        )
        self.layer = module(definition.block(), rngs=rngs, param_dtype=param_dtype)
        self.dropout = nnx.Dropout(definition.dropout, rngs=rngs)

    def __call__(self, x: jax.Array, *, return_state: bool, **options: Any) -> Any:
        y = self.layer(self.norm(x), return_state=return_state, **options)
        return (self.dropout(y[0]), y[1]) if return_state else self.dropout(y)

    def stepper(self, rate: Any) -> layers.Stepper:
        step = self.layer.stepper(rate=rate)
        return lambda x, state: step(self.norm(x), state)


class SequenceModel(nnx.Module):
    """Encoder, residual blocks of norm, layer and dropout, pooling, head. Options as `ssm_core.layers.SequenceModel`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> SequenceModel(d_input=1, d_output=10, d_model=8, n_layers=2, rngs=nnx.Rngs(0))(jnp.zeros((3, 20, 1))).shape
    (3, 10)
    """

    def __init__(
        self,
        d_input: int,
        d_output: int,
        d_model: int = 64,
        n_layers: int = 4,
        *,
        layer: str = "S4D",
        layer_options: dict[str, Any] | None = None,
        dropout: float = 0.0,
        pool: str | None = "mean",
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        self.definition = layers.SequenceModel(
            d_input, d_output, d_model, n_layers, layer, layer_options or {}, dropout, pool
        )
        self.encoder = nnx.Linear(d_input, d_model, param_dtype=param_dtype, rngs=rngs)
        self.blocks = nnx.List([_Block(self.definition, rngs, param_dtype) for _ in range(n_layers)])
        self.head = nnx.Linear(d_model, d_output, param_dtype=param_dtype, rngs=rngs)

    def __call__(
        self,
        u: jax.Array,
        *,
        state: Any = None,
        return_state: bool = False,
        lengths: jax.Array | None = None,
        reset: jax.Array | None = None,
        rate: Any = 1.0,
        step_scale: jax.Array | None = None,
        mode: str = "auto",
    ) -> Any:
        """y (B, d_output) from u (B, L, d_input), or (B, L, d_output) without pooling."""
        namespace("SequenceModel", u=u, encoder=self.encoder.kernel[...])
        y, state = self.definition.compose(
            u, self.encoder, self.blocks, self.head,
            state=state, return_state=return_state, lengths=lengths, reset=reset, rate=rate, step_scale=step_scale,
            mode=mode,
        )  # fmt: skip
        return (y, state) if return_state else y

    def arrays(self) -> dict[str, jax.Array]:
        """The parameters by the names and in the layouts of weight files."""
        return {name: _to_file(part, field, value[...]) for name, part, field, value in _parameters(self)}

    def initial_state(self, batch: int) -> Any:
        """The state before the first step."""
        return self.definition.initial_state(self.arrays(), batch)

    def step(self, u_t: jax.Array, state: Any, *, rate: Any = 1.0) -> tuple[jax.Array, Any]:
        """(y_t, state) from u_t (B, d_input) and the state before it. To generate many steps, hold the `stepper`."""
        return self.stepper(rate=rate)(u_t, state)

    def stepper(self, *, rate: Any = 1.0) -> layers.Stepper:
        """A function (u_t, state) -> (y_t, state) that holds the discrete systems."""
        steps = [block.stepper(rate) for block in self.blocks]
        return lambda u_t, state: self.definition.compose_step(u_t, state, self.encoder, steps, self.head)


MODULES: dict[str, Any] = {cls.__name__: cls for cls in (S4D, SequenceModel)}


def module(definition: layers.Layer, *, rngs: nnx.Rngs, param_dtype: Any = jnp.float32) -> Any:
    """The module of a definition."""
    if definition.name not in MODULES:
        raise unknown("adapters.flax", "layer", definition.name, MODULES)
    return MODULES[definition.name](**definition.options(), rngs=rngs, param_dtype=param_dtype)


# Native submodules whose parameters have another name, and maybe another layout, in weight files.
_FILE_NAMES: dict[tuple[type, str], tuple[str, tuple[int, ...] | None]] = {
    (nnx.Linear, "kernel"): ("weight", (1, 0)),
    (nnx.LayerNorm, "scale"): ("weight", None),
}


def _parameters(model: nnx.Module) -> list[tuple[str, nnx.Module, str, Any]]:
    """(name in files, module, field, nnx.Param) of every parameter."""
    found = []
    for path, part in nnx.iter_modules(model):
        for field, value in vars(part).items():
            if isinstance(value, nnx.Param):
                stored, _ = _FILE_NAMES.get((type(part), field), (field, None))
                found.append((".".join([*map(str, path), stored]), part, field, value))
    return found


def _to_file(part: nnx.Module, field: str, value: jax.Array) -> jax.Array:
    axes = _FILE_NAMES.get((type(part), field), (field, None))[1]
    return value if axes is None else jnp.transpose(value, axes)


def save(module: Any, path: str | os.PathLike[str]) -> None:
    """Write a layer or model to a safetensors file that every framework loads."""
    if not (isinstance(module, nnx.Module) and hasattr(module, "arrays")):
        raise DTypeError(f"save: a {type(module).__name__} is no module of ssm_core. Build one, such as S4D(4).")
    given: Any = module
    checkpoints.save(given.definition, given.arrays(), path)


def load(path: str | os.PathLike[str], *, param_dtype: Any = jnp.float32, rngs: nnx.Rngs | None = None) -> Any:
    """The layer or model of a safetensors file, whichever framework wrote it. rngs serve dropout."""
    definition, tensors = checkpoints.read(path)
    loaded = module(definition, rngs=nnx.Rngs(0) if rngs is None else rngs, param_dtype=param_dtype)
    for name, part, field, value in _parameters(loaded):
        value[...] = _to_file(part, field, jnp.asarray(tensors[name], param_dtype))  # the swap is its own inverse
    return loaded


def param_labels(model: nnx.Module) -> Any:
    """The tree of labels for optax: "ssm" for the poles, steps and B of every layer, "regular" for all the rest.

    >>> import optax
    >>> from flax import nnx
    >>> model = S4D(4, rngs=nnx.Rngs(0))
    >>> rules = {"regular": optax.adamw(1e-2, weight_decay=0.01), "ssm": optax.adam(1e-3)}
    >>> optimizer = nnx.Optimizer(model, optax.multi_transform(rules, param_labels(model)), wrt=nnx.Param)
    """
    special = {
        id(getattr(part, p.name))
        for _, part in nnx.iter_modules(model)
        if isinstance(part, SSMModule)
        for p in part.definition.parameters()
        if p.special
    }
    state = nnx.state(model, nnx.Param)
    by_path = {path: id(value) in special for path, value in _by_path(model)}
    return nnx.map_state(lambda path, _: "ssm" if by_path[path] else "regular", state)


def _by_path(model: nnx.Module) -> list[tuple[tuple[Any, ...], Any]]:
    return [
        ((*path, field), value)
        for path, part in nnx.iter_modules(model)
        for field, value in vars(part).items()
        if isinstance(value, nnx.Param)
    ]
