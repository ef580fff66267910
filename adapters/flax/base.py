"""The bases of all modules: they register the parameters of a definition and hand them to its functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ssm_core import layers
from ssm_core._arrays.errors import absent
from ssm_core.layers.parameters import Parameter

try:
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from ssm_core.adapters.jax_calls import calls
except ImportError as error:
    raise absent("adapters.flax", error, "jax", "jaxlib", "flax", extra="flax") from error


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


def register(module: nnx.Module, parameters: Iterable[Parameter], rngs: nnx.Rngs, param_dtype: Any) -> None:
    """Set these parameters of a module to their first draws."""
    draws = _Draws(rngs, param_dtype)
    for p in parameters:
        setattr(module, p.name, nnx.Param(p.draw(draws)))


class SSMModule(nnx.Module):
    """The module of any definition of a layer."""

    def __init__(self, definition: layers.Layer, rngs: nnx.Rngs, param_dtype: Any = jnp.float32) -> None:
        self.definition = definition
        register(self, definition.parameters(), rngs, param_dtype)

    def arrays(self) -> dict[str, jax.Array]:
        """The parameters by name."""
        return {p.name: getattr(self, p.name)[...] for p in self.definition.parameters()}

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
    ) -> Any:
        """y (B, L, H) from u (B, L, H); with return_state the pair (y, state). Options as the definition's `apply`."""
        return self.definition.apply(
            self.arrays(),
            u,
            state=state,
            return_state=return_state,
            lengths=lengths,
            reset=reset,
            cu_seqlens=cu_seqlens,
            rate=rate,
            step_scale=step_scale,
            mode=mode,
        )

    def initial_state(self, batch: int) -> Any:
        """The state before the first step."""
        return self.definition.initial_state(self.arrays(), batch)

    def step(self, u_t: jax.Array, state: Any, *, rate: Any = 1.0) -> tuple[jax.Array, Any]:
        """(y_t, state) from u_t (B, H) and the state before it. To generate many steps, hold the `stepper`."""
        return self.stepper(rate=rate)(u_t, state)

    def stepper(self, *, rate: Any = 1.0) -> layers.Stepper:
        """A function (u_t, state) -> (y_t, state) that holds the discrete system."""
        return self.definition.stepper(self.arrays(), rate=rate)


class TimeInvariantModule(SSMModule):
    """A module around a linear time-invariant system."""

    definition: layers.TimeInvariant

    def kernel(self, length: int, *, rate: Any = 1.0) -> jax.Array:
        """The convolution kernels: (channels, H, L) of a system a channel, or (2 channels, H, L) in two directions;
        of one system for all channels (H, H, L), from every input to every output; of LinOSS (1, 2P, L), those of
        its oscillators."""
        return self.definition.kernel(self.arrays(), length, rate=rate)


class InputDependentModule(SSMModule):
    """A module around gates of the input, whose state is a tuple."""

    definition: layers.InputDependent

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
        """y (B, L, H) from u (B, L, H); with return_state the pair (y, state). Options as the definition's `apply`."""
        return self.definition.apply(
            self.arrays(),
            u,
            state=state,
            return_state=return_state,
            lengths=lengths,
            reset=reset,
            cu_seqlens=cu_seqlens,
            rate=rate,
            step_scale=step_scale,
            mode=mode,
            recompute=recompute,
        )


MODULES: dict[str, Any] = {}  # by the name of their definition, entered in modules/
BASES: dict[type[Any], Any] = {  # by the kind of definition; those of models are entered in blocks.py
    layers.Layer: SSMModule,
    layers.TimeInvariant: TimeInvariantModule,
    layers.InputDependent: InputDependentModule,
}


def module(definition: layers.Layer, *, rngs: nnx.Rngs, param_dtype: Any = jnp.float32) -> Any:
    """The module of a definition: of the class with its name, or, where none was written, of the base of its kind."""
    if definition.name in MODULES:
        return MODULES[definition.name](**definition.options(), rngs=rngs, param_dtype=param_dtype)
    return next(BASES[kind] for kind in type(definition).__mro__ if kind in BASES)(definition, rngs, param_dtype)
