"""RWKV-7, Goose: the general delta rule with a token shift, decays of every channel, and values of the first layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..._arrays.errors import OptionError
from ..._arrays.idioms import plus_product
from ..._arrays.library import Array, Namespace, namespace
from ...functions.affine import affine
from ...functions.norms import l2_normed, standardized
from ...functions.special import activation
from ...functions.token_shift import token_shift
from ...gated.delta_run import CHUNK, run_delta, step_delta
from ...recurrences.segments import Segments
from .. import parametrizations as common
from ..options import settle
from ..parameters import Parameter, Parameters, as_map, constant, normal, uniform
from ..registry import registered
from .base import Advance, InputDependent, State, check_divides, check_epsilon, in_heads, joined_heads
from .rwkv_time_mix import check_place, depth_of, shares

SHIFTED = {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}  # and how their first shares grow
SLOWEST = math.exp(-0.5)  # what -log decay lies below
LEAST_NORM = 1e-12  # of keys
RANKS = {"decay_rank": 2.5, "a_rank": 2.5, "v_rank": 1.7, "gate_rank": 5.0}  # times sqrt(H), if they are None


@registered
@dataclass(frozen=True)
class RWKV7(InputDependent):
    """The time mix of RWKV-7: a delta rule that removes and adds with different keys, at rates of every channel.

    x_n = u_t + (u_{t-1} - u_t) x_n for n = r, w, k, v, a, g;   r, k, v = W_r x_r, W_k x_k, W_v x_v
    g_t = -e^{-1/2} sigmoid(w0 + tanh(x_w w1) w2);   a = sigmoid(a0 + x_a a1 a2);   c = sigmoid(x_g g1) g2
    p = (k k_k) over its L2 norm a head;   k <- k (1 + (a - 1) k_a)
    S_t = diag(e^{g_t}) S_{t-1} - (p a) (S_{t-1}^T p)^T + k v^T;   y = W_o ((n(S_t^T r) + (r . k r_k) v) c)

    n is the group norm of the heads. u (B, L, H), y (B, L, H), with H = d_model. The state is the last input (B, H) and
    S (B, heads, D, D), with heads = H / D and D = head_dim. The channel mix of RWKV-7 is RWKVChannelMix without gate.

    d_model        H, the number of channels
    head_dim       D, features of a head
    decay_rank, a_rank, v_rank, gate_rank  ranks of the maps to decays, a, the share of first values, and the gate;
                   about 2.5, 2.5, 1.7 and 5 sqrt(H) if None
    first_values   None; or "given": y (B, L, 2 H) has the values v behind it; or "taken": u (B, L, 2 H) has those of
                   the first layer behind it, and v <- v + (v_first - v) sigmoid(v0 + x_v v1 v2)
    layer_idx      the place among the layers, from 0: the first draws depend on it
    num_layers     of the whole model
    epsilon        of the norm
    key_epsilon    added to the squared L2 norm of p, which is at least 1e-24
    chunk          steps of a chunk; the result does not depend on it

    Parameters, all real float32: x_r, x_w, x_k, x_v, x_a, x_g, w0, a0, k_k, k_a (H,), w1 (H, decay_rank), w2
    (decay_rank, H), a1 (H, a_rank), a2 (a_rank, H), g1 (H, gate_rank), g2 (gate_rank, H), r_k (heads, D),
    receptance_weight, key_weight, value_weight, output_weight (H, H), ln_x_weight, ln_x_bias (H,), and with values
    taken v0 (H,), v1 (H, v_rank), v2 (v_rank, H).

    Peng et al., RWKV-7 "Goose" with expressive dynamic state evolution, COLM 2025, https://arxiv.org/abs/2503.14456.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.RWKV7(d_model=4, head_dim=2)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    head_dim: int = 64
    decay_rank: int | None = None
    a_rank: int | None = None
    v_rank: int | None = None
    gate_rank: int | None = None
    first_values: str | None = None
    layer_idx: int = 0
    num_layers: int = 1
    epsilon: float = 64e-5
    key_epsilon: float = 0.0
    chunk: int = CHUNK

    modes: ClassVar[tuple[str, ...]] = ("auto", "chunk", "scan")
    timed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        settle(self)
        sizes = ("d_model", "head_dim", "num_layers", "chunk")
        given = [name for name in RANKS if getattr(self, name) is not None]
        common.whole("RWKV7", **{name: getattr(self, name) for name in (*sizes, *given)})
        check_place(self)
        check_divides("RWKV7", "head_dim", self.head_dim, "d_model", self.d_model)
        check_epsilon("RWKV7", epsilon=self.epsilon)
        if self.key_epsilon != 0:
            check_epsilon("RWKV7", key_epsilon=self.key_epsilon)
        if self.first_values not in (None, "given", "taken"):
            raise OptionError(f"RWKV7: first_values = {self.first_values!r} must be None, 'given' or 'taken'.")

    @property
    def heads(self) -> int:
        """How many heads there are."""
        return self.d_model // self.head_dim

    @property
    def input_width(self) -> int:
        """2 H where values of the first layer are behind the input."""
        return 2 * self.d_model if self.first_values == "taken" else self.d_model

    def rank(self, name: str) -> int:
        """One of the ranks."""
        given: int | None = getattr(self, name)
        return max(32, round(RANKS[name] * math.sqrt(self.d_model) / 32) * 32) if given is None else given

    def parameters(self) -> tuple[Parameter, ...]:
        H, bound = self.d_model, 0.5 / math.sqrt(self.d_model)
        gain = ((1 + self.layer_idx) / self.num_layers) ** 0.7

        def line() -> np.ndarray:
            return np.arange(H) / max(1, H - 1)

        def zigzag() -> np.ndarray:
            rise = 2 * (np.arange(H) % self.head_dim) / max(1, self.head_dim - 1) - 1
            return rise * np.abs(rise)

        def w0() -> np.ndarray:
            return -5.5 + 6 * line() ** (1 + depth_of(self) ** 0.3) + 2.5 * zigzag()

        def a0() -> np.ndarray:
            return -0.19 + 0.3 * zigzag() + 0.4 * (line() - 0.5)

        v0 = self._low_rank("v", "v_rank", lambda: 0.73 - 0.4 * (line() - 0.5)) if self.first_values == "taken" else ()

        def share(n: str, power: float) -> Parameter:
            return constant(f"x_{n}", (H,), lambda: 1 - shares(self, power))

        return (
            *(share(n, power) for n, power in SHIFTED.items()),
            *self._low_rank("w", "decay_rank", w0),
            *self._low_rank("a", "a_rank", a0),
            *v0,
            *self._low_rank("g", "gate_rank", None),
            constant("k_k", (H,), lambda: 0.71 - 0.1 * (line() - 0.5)),
            constant("k_a", (H,), lambda: 1.02),
            constant("r_k", (self.heads, self.head_dim), lambda: -0.04),
            as_map(uniform("receptance_weight", (H, H), -bound, bound)),
            as_map(uniform("key_weight", (H, H), -0.1 * bound, 0.1 * bound)),
            as_map(uniform("value_weight", (H, H), -bound, bound)),
            as_map(constant("output_weight", (H, H), lambda: 0.0)),
            constant("ln_x_weight", (H,), lambda: gain),
            constant("ln_x_bias", (H,), lambda: 0.0),
        )

    def _low_rank(self, name: str, rank: str, bias: Callable[[], np.ndarray] | None) -> tuple[Parameter, ...]:
        H, n = self.d_model, self.rank(rank)
        maps = constant(f"{name}1", (H, n), lambda: 0.0), normal(f"{name}2", (n, H), 0.1 / math.sqrt(H))
        return maps if bias is None else (constant(f"{name}0", (H,), bias, no_weight_decay=name == "w"), *maps)

    def state_shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        D = self.head_dim
        return {"before": (batch, self.d_model), "S": (batch, self.heads, D, D)}

    def _run(
        self, params: Parameters, u: Array, state: State, *, segments: Segments, scale: Any, mode: str
    ) -> tuple[Array, State]:
        xp, (u, first) = namespace(self.name, u=u), self._parted(u)
        previous, last = token_shift(u, state[0], segments, xp)
        signals, gate = self._signals(params, u, previous, first, xp)
        chunk = 1 if mode == "scan" else self.chunk
        y, S = run_delta(signals, segments=segments, initial=state[1], chunk=chunk)
        return self._output(params, y, signals, gate, xp), (last, S)

    def _parted(self, u: Array) -> tuple[Array, Array | None]:
        """The input, and values of the first layer behind it."""
        H = self.d_model
        return (u[..., :H], u[..., H:]) if self.first_values == "taken" else (u, None)

    def _signals(
        self, params: Parameters, u: Array, previous: Array, first: Array | None, xp: Namespace
    ) -> tuple[dict[str, Array], Array]:
        """The arguments of the recurrence by their names, and the gate."""
        sigmoid, d = activation("sigmoid"), previous - u
        x = {n: plus_product(u, d, params[f"x_{n}"]) for n in SHIFTED}
        q, k, v = (
            affine(x[n], params[f"{name}_weight"], None)
            for n, name in (("r", "receptance"), ("k", "key"), ("v", "value"))
        )
        w = params["w0"] + xp.matmul(xp.tanh(xp.matmul(x["w"], params["w1"])), params["w2"])
        a = sigmoid(params["a0"] + xp.matmul(xp.matmul(x["a"], params["a1"]), params["a2"]))
        if first is not None:
            v = v + (first - v) * sigmoid(params["v0"] + xp.matmul(xp.matmul(x["v"], params["v1"]), params["v2"]))
        p = in_heads(k * params["k_k"], self.heads, xp)
        p = l2_normed(p, xp, epsilon=self.key_epsilon, floor=LEAST_NORM)
        k = k * (1 + (a - 1) * params["k_a"])
        signals = {"q": q, "k": k, "v": v, "log_decay": -SLOWEST * sigmoid(w), "a": a}
        signals = {name: in_heads(m, self.heads, xp) for name, m in signals.items()}
        gate = xp.matmul(sigmoid(xp.matmul(x["g"], params["g1"])), params["g2"])
        return signals | {"a": -p, "b": p * signals["a"]}, gate

    def _output(self, params: Parameters, y: Array, signals: dict[str, Array], gate: Array, xp: Namespace) -> Array:
        q, k, v = (signals[name] for name in "qkv")
        y = joined_heads(standardized(y, self.epsilon, xp), xp) * params["ln_x_weight"] + params["ln_x_bias"]
        bonus = joined_heads(xp.sum(q * k * params["r_k"], axis=-1, keepdims=True) * v, xp)
        y = affine((y + bonus) * gate, params["output_weight"], None)
        return xp.concat([y, joined_heads(v, xp)], axis=-1) if self.first_values == "given" else y

    def _advance(self, params: Parameters, rate: Any, xp: Namespace) -> Advance:
        def advance(u: Array, state: State) -> tuple[Array, State]:
            u, first = self._parted(u)
            signals, gate = self._signals(params, u, state[0], first, xp)
            y, S = step_delta(signals, state[1], scale=1.0, xp=xp)
            return self._output(params, y, signals, gate, xp), (u, S)

        return advance
