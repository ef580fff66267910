"""A small residual model of sequences around any layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .._arrays.errors import unknown
from .._arrays.library import Array, Namespace, computable, namespace
from ..functions.norms import EPSILON
from ..layers import parametrizations as common
from ..layers.layer import check_signal
from ..layers.parameters import Parameter, Parameters, linear
from ..layers.registry import registered
from ..recurrences.broken import Broken, nan_where
from ..recurrences.shards import shards_of_now
from .blocks import Block
from .model import Model
from .pointwise import Function, linear_map
from .pooling import POOLS, first_state, pooled


@registered
@dataclass(frozen=True, eq=False)
class SequenceModel(Model):
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
    channel_mix    "mlp" or "gated_mlp" after every layer, with a norm and a residual of its own, or None
    mix_width      hidden features of the channel mix; None takes 4 d_model, or 8 d_model / 3 of a gated one
    postnorm       the norms are behind the residuals, x = norm(x + dropout(layer(x)))
    epsilon        of the norms

    Stepping gives the output that the sequence up to now would have, so the last step equals `apply`. Of n sequences
    that are packed into one (cu_seqlens) a pool gives n rows.

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
    layer_options: Mapping[str, Any] = field(default_factory=dict)
    dropout: float = 0.0
    pool: str | None = "mean"
    channel_mix: str | None = None
    mix_width: int | None = None
    postnorm: bool = False
    epsilon: float = EPSILON

    positional: ClassVar[int] = 4  # options that modules take by position
    signal: ClassVar[str] = "u"
    prefix: ClassVar[str] = "blocks."
    behind: ClassVar[tuple[str, ...]] = ("the pool's",)

    def __post_init__(self) -> None:
        super().__post_init__()
        common.whole(self.name, d_input=self.d_input, d_output=self.d_output)
        if self.pool not in POOLS:
            raise unknown(self.name, "pool", self.pool, POOLS)

    def repeated(self) -> Block:
        return Block(
            self.d_model,
            self.layer,
            self.layer_options,
            channel_mix=self.channel_mix,
            mix_width=self.mix_width,
            dropout=self.dropout,
            mixer_name="layer",
            postnorm=self.postnorm,
            epsilon=self.epsilon,
        )

    def first_parameters(self) -> tuple[Parameter, ...]:
        return linear("encoder.", self.d_input, self.d_model)

    def last_parameters(self) -> tuple[Parameter, ...]:
        return linear("head.", self.d_model, self.d_output)

    def ends(self, params: Parameters, xp: Namespace) -> tuple[Function, Function]:
        encoder, head = (linear_map(params[f"{end}.weight"], params[f"{end}.bias"]) for end in ("encoder", "head"))
        return lambda u: encoder(computable(u, xp)), head

    def outputs(
        self, x: Array, leave: Function, state: Any, *, lengths: Any = None, cu_seqlens: Any = None, **others: Any
    ) -> tuple[Array, tuple[Any, ...]]:
        before, shards = None if state is None else state[0], shards_of_now(x)
        if shards is not None:
            segments = self.segments(x, lengths=lengths, cu_seqlens=cu_seqlens)
            lengths, cu_seqlens = segments.lengths, segments.cu_seqlens
        x, after = pooled(self.name, self.pool, x, before, lengths=lengths, cu_seqlens=cu_seqlens, shards=shards)
        return leave(x), (after,)

    def marked(self, y: Array, broken: Broken, *, lengths: Any = None, cu_seqlens: Any = None, **others: Any) -> Array:
        if self.pool is None or broken.steps is None:
            return super().marked(y, broken)
        xp = namespace(self.name, y=y)
        steps = xp.astype(broken.steps, y.dtype)[..., None]
        rows, _ = pooled(self.name, self.pool, steps, None, lengths=lengths, cu_seqlens=cu_seqlens)
        return y + nan_where(rows > 0, y, xp)

    def step_outputs(self, x: Array, leave: Function, state: Any) -> tuple[Array, tuple[Any, ...]]:
        return (leave(x), ((),)) if self.pool is None else self.outputs(x[:, None, :], leave, state)

    def outer_state(self, like: Array, batch: int) -> tuple[Any, ...]:
        return (first_state(self.pool, batch, self.d_model, like),)

    def check_signal(self, u: Array, *, step: bool = False) -> None:
        check_signal(f"{self.name}.step" if step else self.name, u, self.d_input, step=step)
