"""Local attention: of the last steps alone, so that its state has one size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..._arrays.dispatch import is_open
from ..._arrays.errors import OptionError
from ..._arrays.idioms import moved, taken_along
from ..._arrays.library import Array, Namespace, device, namespace
from ..._arrays.sizes import STEPS
from ...functions.affine import affine
from ...functions.attention import _attention
from ...functions.rotation import first_position, positions, rotation, turned_halves, turning
from ...recurrences.fold import in_chunks
from ...recurrences.segments import Segments, Signals
from ...recurrences.shards import Shards
from ...recurrences.summaries import sliding
from .. import parametrizations as common
from ..options import settle
from ..parameters import Parameter, Parameters, as_map, constant, normal
from ..registry import registered
from .base import Advance, InputDependent, State, in_heads, joined_heads
from .matrix_memory import affine_map


@registered
@dataclass(frozen=True)
class LocalAttention(InputDependent):
    """Softmax attention of every step to itself and the steps just before: the attention of Griffin.

    q, k, v = W_q u, W_k u, W_v u by heads, q and k turned by their positions
    y_i = W_o sum_j softmax_j(q_i . k_j / sqrt(D)) v_j + b_o over i - window < j <= i

    u (B, L, H), y (B, L, H), with H = d_model. The state is the keys and the values of the last window - 1 steps
    (B, window - 1, kv_heads, D), and the number of steps so far (B,).

    d_model      H, the number of channels
    heads        heads of q
    kv_heads     heads of k and v, each for heads / kv_heads neighboring heads of q; as many as of q if None
    head_dim     D, features of a head; H / heads if None
    window       steps that are seen, the own one among them
    rotary       the share of the D features that turn, j together with j + n / 2 of these n, at theta^(-2 j / n)
    theta        see above
    bias         whether the maps to q, k and v have one
    output_bias  whether the map back has one
    chunk        steps whose scores are held at once; the result does not depend on it

    Parameters, all real float32: q_proj_weight (heads D, H), k_proj_weight, v_proj_weight (kv_heads D, H),
    o_proj_weight (H, heads D), and their biases where there are any.

    De et al., Griffin: mixing gated linear recurrences with local attention for efficient language models, 2024,
    https://arxiv.org/abs/2402.19427.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.LocalAttention(d_model=8, heads=2, window=4)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 8), numpy.float32)).shape
    (2, 10, 8)
    """

    d_model: int
    heads: int = 8
    kv_heads: int | None = None
    head_dim: int | None = None
    window: int = 2048
    rotary: float = 0.5
    theta: float = 10000.0
    bias: bool = False
    output_bias: bool = True
    chunk: int = 1024

    timed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        settle(self)
        given = [name for name in ("kv_heads", "head_dim") if getattr(self, name) is not None]
        names = ("d_model", "heads", "window", "chunk", *given)
        common.whole("LocalAttention", **{name: getattr(self, name) for name in names})
        if self.head_dim is None and self.d_model % self.heads:
            raise OptionError(f"LocalAttention: heads = {self.heads} must divide d_model = {self.d_model}.")
        if self.heads % self.groups:
            raise OptionError(f"LocalAttention: kv_heads = {self.kv_heads} must divide heads = {self.heads}.")
        for name, most in (("rotary", 1.0), ("theta", float("inf"))):
            x = getattr(self, name)
            if isinstance(x, bool) or not isinstance(x, int | float) or not 0 <= x <= most or x != x:
                raise OptionError(f"LocalAttention: {name} = {x!r} must lie in [0, {most}].")
        if self.turning % 2:
            raise OptionError(
                f"LocalAttention: {self.turning} features do not turn in pairs. Change rotary or head_dim."
            )

    @property
    def width(self) -> int:
        """D, features of a head."""
        return self.d_model // self.heads if self.head_dim is None else self.head_dim

    @property
    def groups(self) -> int:
        """Heads of k and v."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def turning(self) -> int:
        """How many features of a head turn."""
        return int(self.rotary * self.width)

    def parameters(self) -> tuple[Parameter, ...]:
        H, D = self.d_model, self.width
        sizes = {"q": self.heads * D, "k": self.groups * D, "v": self.groups * D}
        return (
            *(p for name, n in sizes.items() for p in _affine(f"{name}_proj", H, n, self.bias)),
            *_affine("o_proj", self.heads * D, H, self.output_bias),
        )

    def state_shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        kept = (batch, self.window - 1, self.groups, self.width)
        return {"keys": kept, "values": kept, "position": (batch,)}

    def _run(
        self, params: Parameters, u: Array, state: State, *, segments: Segments, scale: Any, mode: str
    ) -> tuple[Array, State]:
        xp, found = namespace(self.name, u=u), []
        if segments.shards is not None:
            return self._in_shards(params, u, state, segments, segments.shards, scale=scale, mode=mode)
        if is_open(u, u.shape[1]):
            return self._unknown_chunks(params, u, state, segments, xp)
        for start in range(0, u.shape[1], self.chunk):
            stop = min(start + self.chunk, u.shape[1])
            y, state = self._chunk(params, u[:, start:stop, :], state, segments.part(start, stop, xp), xp)
            found.append(y)
        if not found:
            return u, state
        return found[0] if len(found) == 1 else xp.concat(found, axis=1), state

    def _unknown_chunks(
        self, params: Parameters, u: Array, state: State, segments: Segments, xp: Namespace
    ) -> tuple[Array, State]:
        """The same for a length that a trace does not know: behind the lengths there are chunks of no steps."""

        def body(state: State, v: Signals) -> tuple[State, Array]:
            v = {name: moved(x, 0, 1, xp) if name in signals else x for name, x in v.items()}
            steps = xp.sum(xp.astype(v["valid"], xp.int32), axis=1)
            inner = Segments(v["u"].shape[1], v.get("reset"), steps)
            y, state = self._chunk(v, v["u"], state, inner, xp, speeds=(v["one"], v["many"]))
            return state, moved(y, 1, 0, xp)

        signals = {"u": u, "valid": segments.valid(xp), "reset": segments.reset}
        one, many = turning(self._speeds(), u, xp)  # here: a loop that is exported holds no numbers
        return in_chunks(body, state, signals, params | {"one": one, "many": many}, axis=1, chunk=STEPS)

    def _in_shards(
        self, params: Parameters, u: Array, state: State, segments: Segments, shards: Shards, **options: Any
    ) -> tuple[Array, State]:
        """`_run` of the steps of one process, behind the keys and values of those before it."""
        xp, alone, D = namespace(self.name, u=u), segments.alone(), self.width
        first, after = first_position(state[2], u, segments, shards, xp)
        nothing = (*(xp.zeros_like(x) for x in state[:2]), first)
        _, keys, values, _, end = self._beside(params, u, nothing, alone, xp)
        own, before = (xp.concat(list(x[:2]), axis=-1) for x in (self._left(keys, values, end, alone, xp), state))

        def run(before: Array) -> Array:
            return self._run(params, u, (before[..., :D], before[..., D:], first), segments=alone, **options)[0]

        y, last = shards.across(sliding(own, alone, 1, xp), before, u, run)
        return y, (last[..., :D], last[..., D:], after)

    def _chunk(
        self, params: Parameters, u: Array, state: State, segments: Segments, xp: Namespace, *, speeds: Any = None
    ) -> tuple[Array, State]:
        """y (B, T, H) of some steps, and the state behind them."""
        q, keys, values, position, after = self._beside(params, u, state, segments, xp, speeds=speeds)
        T, kept = u.shape[1], self.window - 1
        i, j = xp.arange(T, device=device(u)), xp.arange(kept + T, device=device(u)) - kept
        back = i[:, None] - j[None, :]  # how far behind a step another lies
        seen = ((back >= 0) & (back <= kept))[None, ...] & (xp.astype(back, position.dtype) <= position[..., None])
        y = affine(
            joined_heads(_attention(q, keys, values, seen), xp), params["o_proj_weight"], params.get("o_proj_bias")
        )
        return y, self._left(keys, values, after, segments, xp)

    def _beside(
        self, params: Parameters, u: Array, state: State, segments: Segments, xp: Namespace, *, speeds: Any = None
    ) -> tuple[Array, ...]:
        """q of some steps, keys and values of these behind those of the state, their positions, and the next one."""
        keys, values, first = state
        position, after = positions(first, u, segments, xp)
        q, k, v = self._projected(params, u, position, self._speeds() if speeds is None else speeds, xp)
        return q, xp.concat([keys, k], axis=1), xp.concat([values, v], axis=1), position, after

    def _left(self, keys: Array, values: Array, after: Array, segments: Segments, xp: Namespace) -> State:
        """The state behind the keys and values, whose next position is `after`."""
        last = tuple(self._last(x, segments, xp) for x in (keys, values))
        if segments.reset is not None:  # of what was before the last reset nothing is left
            ages = self.window - 1 - xp.arange(self.window - 1, device=device(keys))
            left = xp.astype(ages, after.dtype) <= after[:, None]
            last = tuple(xp.where(left[..., None, None], x, xp.zeros_like(x)) for x in last)
        return *last, after

    def _speeds(self) -> np.ndarray:
        """By how much pairs of features turn from one position to the next."""
        n = self.turning
        return self.theta ** (-2 * np.arange(n // 2) / max(n, 1))

    def _projected(
        self, params: Parameters, u: Array, position: Array, speeds: Any, xp: Namespace
    ) -> tuple[Array, Array, Array]:
        """q, k and v by heads, q and k turned by the positions."""
        heads = {"q": self.heads, "k": self.groups, "v": self.groups}
        q, k, v = (in_heads(affine_map(params, f"{name}_proj", u), n, xp) for name, n in heads.items())
        n = 2 * (speeds[0] if isinstance(speeds, tuple) else speeds).shape[0]  # not of `rotary`: a loop takes no number
        if n:
            cos, sin = rotation(position, speeds, xp)
            q, k = (xp.concat([turned_halves(x[..., :n], cos, sin, xp), x[..., n:]], axis=-1) for x in (q, k))
        return q, k, v

    def _last(self, x: Array, segments: Segments, xp: Namespace) -> Array:
        """The window - 1 keys or values (B, window - 1, ...) before the end of every sequence."""
        kept = self.window - 1
        if segments.lengths is None:
            return x[:, x.shape[1] - kept :, ...]
        index = xp.astype(segments.lengths, xp.arange(1).dtype)[:, None] + xp.arange(kept, device=device(x))
        index = xp.broadcast_to(index[..., None, None], (x.shape[0], kept, *x.shape[2:]))
        return taken_along(x, index, 1)

    def _advance(self, params: Parameters, rate: Any, xp: Namespace) -> Advance:
        def advance(u: Array, state: State) -> tuple[Array, State]:
            y, state = self._chunk(params, u[:, None, :], state, Segments(1), xp)
            return y[:, 0, :], state

        return advance


def _affine(name: str, n_in: int, n_out: int, bias: bool) -> tuple[Parameter, ...]:
    """Weight (out, in) of variance 1 / in, and a bias of zeros if there is one."""
    weight = as_map(normal(f"{name}_weight", (n_out, n_in), n_in**-0.5))
    return (weight, constant(f"{name}_bias", (n_out,), lambda: 0.0)) if bias else (weight,)
