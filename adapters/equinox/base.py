"""The bases of all modules: pytrees of the parameters of a definition, which run its functions."""

from __future__ import annotations

from typing import Any

from ssm_core import layers
from ssm_core._arrays.errors import absent

try:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from ssm_core.adapters.jax_calls import calls
except ImportError as error:
    raise absent("adapters.equinox", error, "jax", "jaxlib", "equinox", extra="equinox") from error


class _Draws:
    """JAX's own generator, a key a draw."""

    def __init__(self, key: jax.Array, dtype: Any) -> None:
        self._key, self._dtype = key, dtype

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> jax.Array:
        self._key, key = jax.random.split(self._key)
        return jax.random.uniform(key, shape, self._dtype, low, high)

    def normal(self, shape: tuple[int, ...], std: float) -> jax.Array:
        self._key, key = jax.random.split(self._key)
        return std * jax.random.normal(key, shape, self._dtype)

    def constant(self, value: Any) -> jax.Array:
        return jnp.asarray(value, self._dtype)


class SSMModule(eqx.Module):
    """The module of any definition of a layer."""

    definition: layers.Layer = eqx.field(static=True)
    params: dict[str, jax.Array]  # by the names of weight files

    def __init__(self, definition: layers.Layer, key: jax.Array, dtype: Any = jnp.float32) -> None:
        draws = _Draws(key, dtype)
        self.definition = definition
        self.params = {p.name: p.draw(draws) for p in definition.parameters()}

    def __getattr__(self, name: str) -> jax.Array:
        if isinstance(params := vars(self).get("params"), dict) and name in params:  # transforms put other trees there
            return params[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def arrays(self) -> dict[str, jax.Array]:
        """The parameters by name."""
        return dict(self.params)

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
        key: jax.Array | None = None,
        **others: Any,
    ) -> Any:
        """y (B, L, H) from u (B, L, H); with return_state the pair (y, state). Options as the definition's `apply`.
        No layer needs the key, which Equinox hands to all of its own."""
        others |= {"lengths": lengths, "reset": reset, "cu_seqlens": cu_seqlens, "rate": rate, "step_scale": step_scale}
        return self.definition.apply(self.params, u, state=state, return_state=return_state, mode=mode, **others)

    def initial_state(self, batch: int) -> Any:
        """The state before the first step."""
        return self.definition.initial_state(self.params, batch)

    def step(self, u_t: jax.Array, state: Any, *, rate: Any = 1.0) -> tuple[jax.Array, Any]:
        """(y_t, state) from u_t (B, H) and the state before it. To generate many steps, hold the `stepper`."""
        return self.stepper(rate=rate)(u_t, state)

    def stepper(self, *, rate: Any = 1.0) -> layers.Stepper:
        """A function (u_t, state) -> (y_t, state) that holds the discrete system."""
        return self.definition.stepper(self.params, rate=rate)


class InputDependentModule(SSMModule):
    """A module around gates of the input, whose state is a tuple; `recompute` is among its options."""

    definition: layers.InputDependent = eqx.field(static=True)


class TimeInvariantModule(SSMModule):
    """A module around a linear time-invariant system."""

    definition: layers.TimeInvariant = eqx.field(static=True)

    def kernel(self, length: int, *, rate: Any = 1.0) -> jax.Array:
        """The convolution kernels, of the definition's `kernel`."""
        return self.definition.kernel(self.params, length, rate=rate)


MODULES: dict[str, Any] = {}  # by the name of their definition, entered in modules/
BASES: dict[type[Any], Any] = {  # by the kind of definition; those of models are entered in models.py
    layers.Layer: SSMModule,
    layers.TimeInvariant: TimeInvariantModule,
    layers.InputDependent: InputDependentModule,
}


def module(definition: layers.Layer, *, key: jax.Array, dtype: Any = jnp.float32) -> Any:
    """The module of a definition: of the class with its name, or, where none was written, of the base of its kind."""
    if definition.name in MODULES:
        return MODULES[definition.name](**definition.options(), key=key, dtype=dtype)
    return next(BASES[kind] for kind in type(definition).__mro__ if kind in BASES)(definition, key, dtype)
