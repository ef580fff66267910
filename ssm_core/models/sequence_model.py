"""A small residual model of sequences around any layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .._arrays.errors import OptionError, ShapeError, describe, unknown
from .._arrays.library import Array, Namespace, computable, device, in_dtype_of, namespace
from ..functions.affine import affine
from ..functions.norms import layer_norm
from ..layers.layer import Layer, Stepper, check_batch, check_rate, check_signal
from ..layers.parameters import Parameter, Parameters, constant, linear
from ..layers.registry import make, registered
from ..recurrences.segments import steps_within

POOLS = ("mean", "last", None)


@registered
@dataclass(frozen=True)
class SequenceModel(Layer):
    """Encoder, residual blocks of norm, layer and dropout, pooling, head.

    x = W_e u + b_e;   x = x + dropout(layer(norm(x))) for every block;   y = W_h pool(x) + b_h

    u (B, L, d_input); y (B, d_output) with pooling over time, else (B, L, d_output).

    d_input        features of the input
    d_output       features of the output
    d_model        channels of the blocks
    n_layers       blocks
    layer          name of the layer, such as "S4D"
    layer_options  its options but d_model
    dropout        rate, in training only; it lives in the frameworks' modules
    pool           "mean" over time, "last" step, or None

    Stepping gives the output that the sequence up to now would have, so the last step equals `apply`.

    >>> import numpy, ssm_core
    >>> model = ssm_core.models.SequenceModel(d_input=1, d_output=10, d_model=8, n_layers=2)
    >>> model.apply(model.initial_parameters(), numpy.zeros((3, 20, 1), numpy.float32)).shape
    (3, 10)
    """

    d_input: int
    d_output: int
    d_model: int = 64
    n_layers: int = 4
    layer: str = "S4D"
    layer_options: dict[str, Any] = field(default_factory=dict)
    dropout: float = 0.0
    pool: str | None = "mean"

    def __post_init__(self) -> None:
        for name in ("d_input", "d_output", "d_model", "n_layers"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise OptionError(f"SequenceModel: {name} = {value!r} must be a whole number of at least 1.")
        if self.pool not in POOLS:
            raise unknown("SequenceModel", "pool", self.pool, POOLS)
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise OptionError(f"SequenceModel: dropout = {self.dropout!r} must lie in [0, 1).")
        if not isinstance(self.layer_options, dict):
            raise OptionError(f"SequenceModel: layer_options = {self.layer_options!r} must be a dict of options.")
        if "d_model" in self.layer_options:
            raise OptionError("SequenceModel: d_model is an option of the model, not one of its layer_options.")
        block = self.block()
        output, channels = getattr(block, "output", ""), getattr(block, "channels", 1)
        if output in (None, "half_glu", "half_glu2") and channels > 1:
            raise OptionError(
                f"SequenceModel: a layer of output {output!r} has channels * d_model features (channels: {channels}), "
                "but the residual needs d_model. Use output='linear' or 'glu'."
            )

    def block(self) -> Layer:
        """The layer of every block."""

        return make(self.layer, {"d_model": self.d_model, **self.layer_options})

    def parameters(self) -> tuple[Parameter, ...]:
        found = [*linear("encoder.", self.d_input, self.d_model)]
        for i in range(self.n_layers):
            found.append(constant(f"blocks.{i}.norm.weight", (self.d_model,), lambda: 1.0))
            found.append(constant(f"blocks.{i}.norm.bias", (self.d_model,), lambda: 0.0))
            for p in self.block().parameters():
                found.append(Parameter(f"blocks.{i}.layer.{p.name}", p.shape, p.draw, p.special))
        return (*found, *linear("head.", self.d_model, self.d_output))

    def block_parameters(self, params: Parameters, i: int) -> Parameters:
        """The parameters of the layer of block i."""
        prefix = f"blocks.{i}.layer."
        return {name[len(prefix) :]: p for name, p in params.items() if name.startswith(prefix)}

    def apply(
        self,
        params: Parameters,
        u: Array,
        *,
        state: Any = None,
        return_state: bool = False,
        lengths: Array | None = None,
        reset: Array | None = None,
        rate: Any = 1.0,
        step_scale: Array | None = None,
        mode: str = "auto",
    ) -> Any:
        """y from u (B, L, d_input), without dropout; options as those of the layer, pooling over the lengths."""
        xp = check_signal("SequenceModel", u, self.d_input)
        params = self.prepared(params, u=u)
        options = {"lengths": lengths, "reset": reset, "rate": rate, "step_scale": step_scale, "mode": mode}
        y, state = self.compose(
            computable(u, xp), *self._parts(params, xp), state=state, return_state=return_state, **options
        )
        y = in_dtype_of(u, y, xp)
        return (y, state) if return_state else y

    def compose(
        self,
        u: Array,
        encoder: Callable[[Array], Array],
        blocks: Iterable[Callable[..., Any]],
        head: Callable[[Array], Array],
        *,
        state: Any = None,
        return_state: bool = False,
        lengths: Array | None = None,
        **options: Any,
    ) -> tuple[Array, Any]:
        """The model from its parts, whichever framework they are of: (y, state or None).

        A block maps x, with the options of a layer, to what is added to x; with return_state to (that, its state).
        """
        check_signal("SequenceModel", u, self.d_input)
        check_rate("SequenceModel", options.get("rate", 1.0), self.d_model)
        if state is not None:
            self._check_state(state)
        x, states = encoder(u), []
        for i, block in enumerate(blocks):
            before = None if state is None else state[i]
            y = block(x, state=before, return_state=return_state, lengths=lengths, **options)
            y, after = y if return_state else (y, None)
            x = x + y
            states.append(after)
        pooled, pool = self.pooled(x, lengths=lengths, state=None if state is None else state[self.n_layers])
        return head(pooled), (*states, pool) if return_state else None

    def compose_step(
        self, u_t: Array, state: Any, encoder: Any, steps: Sequence[Stepper], head: Any
    ) -> tuple[Array, Any]:
        """One step of the model from its parts: a block's step maps (x, state) to (what is added to x, state)."""
        check_signal("SequenceModel.step", u_t, self.d_input, step=True)
        self._check_state(state)
        x, states = encoder(u_t), []
        for block_step, before in zip(steps, state, strict=False):
            y, after = block_step(x, before)
            x = x + y
            states.append(after)
        pooled, pool = (x, ()) if self.pool is None else self.pooled(x[:, None, :], state=state[self.n_layers])
        return head(pooled), (*states, pool)

    def _check_state(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != self.n_layers + 1:
            raise ShapeError(
                f"SequenceModel: state must be a tuple of {self.n_layers} layer states and the pool's, "
                f"not {type(state).__name__} of {len(state) if hasattr(state, '__len__') else 0}. "
                "Start from initial_state(batch)."
            )

    def _parts(self, params: Parameters, xp: Namespace) -> tuple[Any, list[Any], Any]:
        """Encoder, blocks and head as functions of arrays."""

        def linear_map(prefix: str) -> Callable[[Array], Array]:
            weight, bias = params[f"{prefix}.weight"], params[f"{prefix}.bias"]
            return lambda x: affine(x, weight, bias)

        def block(i: int) -> Callable[..., Any]:
            norm, inner, layer = self._norm(params, i, xp), self.block_parameters(params, i), self.block()
            return lambda x, **options: layer.apply(inner, norm(x), **options)

        return linear_map("encoder"), [block(i) for i in range(self.n_layers)], linear_map("head")

    def _norm(self, params: Parameters, i: int, xp: Namespace) -> Callable[[Array], Array]:
        weight, bias = params[f"blocks.{i}.norm.weight"], params[f"blocks.{i}.norm.bias"]
        return lambda x: layer_norm(x, weight, bias, xp)

    def pooled(self, x: Array, *, lengths: Array | None = None, state: Any = None) -> tuple[Array, Any]:
        """x (B, L, H) pooled over time to (B, H), and the state of the pool.

        The state is sums (B, H) and counts (B, 1) for the mean, what came last (B, H) for "last", else nothing. A
        sequence of no steps, now and before, pools to zero.
        """
        xp = namespace("SequenceModel", x=x)
        if self.pool is None:
            return x, ()
        if x.shape[1] == 0 and state is None:
            raise ShapeError(f"SequenceModel: pool {self.pool!r} needs at least one step ({describe(x=x)}).")
        if self.pool == "last":
            last = _at_last_step(x, lengths, None if state is None else state[0], xp)
            return last, (last,)
        if lengths is None:
            summed = xp.sum(x, axis=1)
            count = xp.full((x.shape[0], 1), float(x.shape[1]), dtype=x.dtype, device=device(x))
        else:
            valid = steps_within(lengths, x.shape[1], xp)[..., None]
            summed = xp.sum(xp.where(valid, x, xp.zeros_like(x)), axis=1)
            count = xp.astype(lengths, x.dtype)[:, None]
        if state is not None:
            summed, count = summed + state[0], count + state[1]
        return summed / xp.clip(count, 1.0), (summed, count)

    def initial_state(self, params: Parameters, batch: int) -> Any:
        """The states of the blocks, then that of the pool."""
        check_batch("SequenceModel", batch)
        params = self.prepared(params)
        states = [self.block().initial_state(self.block_parameters(params, i), batch) for i in range(self.n_layers)]
        like = params["encoder.bias"]
        xp = namespace("SequenceModel", params=like)
        zeros = partial(xp.zeros, dtype=like.dtype, device=device(like))
        sums = zeros((batch, self.d_model))
        pools: dict[Any, Any] = {"mean": (sums, zeros((batch, 1))), "last": (sums,)}
        return (*states, pools.get(self.pool, ()))

    def stepper(self, params: Parameters, *, rate: Any = 1.0) -> Stepper:
        """(u_t (B, d_input), state) -> (y_t (B, d_output), state)."""
        params = self.prepared(params)
        xp = namespace("SequenceModel", **params)
        encoder, _, head = self._parts(params, xp)
        steps = [self._block_step(params, i, rate, xp) for i in range(self.n_layers)]

        def step(u_t: Array, state: Any) -> tuple[Array, Any]:
            check_signal("SequenceModel.step", u_t, self.d_input, step=True)
            namespace("SequenceModel.step", u_t=u_t, params=params["encoder.weight"])
            y, state = self.compose_step(computable(u_t, xp), state, encoder, steps, head)
            return in_dtype_of(u_t, y, xp), state

        return step

    def _block_step(self, params: Parameters, i: int, rate: Any, xp: Namespace) -> Stepper:
        norm = self._norm(params, i, xp)
        step = self.block().stepper(self.block_parameters(params, i), rate=rate)
        return lambda x, state: step(norm(x), state)


def _at_last_step(x: Array, lengths: Array | None, before: Array | None, xp: Namespace) -> Array:
    """x (B, L, H) at the last step of every sequence (B, H); where there is none, what was before."""
    before = xp.zeros_like(x[:, 0, :]) if before is None else before
    if x.shape[1] == 0:
        return before
    if lengths is None:
        return x[:, -1, :]
    index = xp.broadcast_to(xp.clip(lengths - 1, 0)[:, None, None], (x.shape[0], 1, x.shape[2]))
    return xp.where(lengths[:, None] > 0, xp.take_along_axis(x, index, axis=1)[:, 0, :], before)
