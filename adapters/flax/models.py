"""The residual sequence model of Flax NNX's own parts, and the module of any definition."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ssm_core import layers, models
from ssm_core._arrays.errors import unknown
from ssm_core._arrays.library import namespace
from ssm_core.functions.norms import EPSILON

from .file_names import named_parameters, to_file
from .language_models import Mamba2LM, Mamba3LM, MambaLM
from .mamba import MIXERS
from .modules import DSS, LMU, LRU, RTF, S4, S4D, S5, SSM, LinOSS


class _Block(nnx.Module):
    """norm, layer, dropout; the model adds the residual."""

    def __init__(self, definition: models.SequenceModel, rngs: nnx.Rngs, param_dtype: Any) -> None:
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
    """Encoder, residual blocks of norm, layer and dropout, pooling, head. Options as `ssm_core.models.SequenceModel`.

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
        self.definition = models.SequenceModel(
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
        return {name: to_file(part, field, value[...]) for name, part, field, value in named_parameters(self)}

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


MODULES: dict[str, Any] = {
    cls.__name__: cls
    for cls in (S4D, S4, DSS, SSM, LMU, S5, LRU, RTF, LinOSS, SequenceModel, MambaLM, Mamba2LM, Mamba3LM)
} | MIXERS


def module(definition: layers.Layer, *, rngs: nnx.Rngs, param_dtype: Any = jnp.float32) -> Any:
    """The module of a definition."""
    if definition.name not in MODULES:
        raise unknown("adapters.flax", "layer", definition.name, MODULES)
    return MODULES[definition.name](**definition.options(), rngs=rngs, param_dtype=param_dtype)
