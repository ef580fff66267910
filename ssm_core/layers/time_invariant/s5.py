"""S5: one diagonal state space model for all channels together."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ..._arrays.errors import OptionError, unknown
from ..._arrays.library import Array, Namespace, device
from ...measures.initializers import diagonal_init
from ...measures.matrices import hippo
from ...recurrences.diagonal import driven, gated_scan, observed, steps_at_once
from ...recurrences.fold import in_chunks
from ...recurrences.segments import Segments, Signals
from ...recurrences.summaries import Elementwise
from ...systems.discretization import discretized
from ...systems.records import Diagonal
from ...time_invariant.modes.choice import MODES
from ...time_invariant.steps import SystemStep, real_system_stepper
from .. import parametrizations as common
from ..parameters import Parameter, Parameters, constant, normal
from ..registry import registered
from .base import TimeInvariant


@registered
@dataclass(frozen=True)
class S5(TimeInvariant):
    """A layer of one diagonal state space model with as many inputs and outputs as there are channels.

    x'(t) = diag(poles) x(t) + B u(t),   v = 2 Re(C x) + D u,   y = glu(W gelu(v) + b)

    poles = A_re + i A_im, each for itself and its conjugate, discretized with a step of its own, dt = exp(log_dt).
    u (B, L, H), y (B, L, H), states (B, N), with H = d_model and N = d_state / 2 (d_state without conj_sym).

    `kernel` is (H, H, L) from all channels to all; bidirectional (2 H, H, L), where the rows of the future follow and
    begin with the current sample.
    With "dirac", `rate` and `step_scale` weigh an impulse by the time that it stands for.

    d_model         H, the number of channels
    d_state         real states of the system; two to a complex pole
    blocks          J: the poles start as J copies of the normal part of LegS with d_state / J states
    dt_min, dt_max  the first steps are log-uniform between them; in units of time
    discretization  "zoh", "bilinear", "euler", "backward_euler" or "dirac"
    conj_sym        each pole stands for its conjugate too; if False there are d_state poles and v = Re(C x) + D u
    clip_eigs       the real parts are at most -max_real
    max_real        the decay that clip_eigs leaves, 1e-4
    liquid          the input moves the gate too, x_k = (Ab + Bb u_k) x_{k-1} + Bb u_k entry by entry: Liquid-S4's first
                    term. The layer is not linear then: only mode "scan", no kernel and no second direction
    bidirectional   a second C reads the states of a run over the reversed sequence, the current sample included
    activation, output, skip  as in `S4D`; output "half_glu" is v sigmoid(W v + b) with v = gelu(...),
                    "half_glu2" has gelu in the gate only: v sigmoid(W gelu(v) + b)

    Parameters, all real float32: log_dt, A_re and A_im (N,), B_re and B_im (N, H), C_re and C_im (1, H, N), or
    (2, H, N) in two directions, and D, output_weight, output_bias as in `S4D`.

    Smith, Warrington and Linderman, Simplified State Space Layers for Sequence Modeling, ICLR 2023,
    https://arxiv.org/abs/2208.04933. Liquid: Hasani et al., Liquid Structural State-Space Models, ICLR 2023.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.S5(d_model=4, d_state=8)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    d_state: int = 64
    blocks: int = 1
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    discretization: str = "zoh"
    conj_sym: bool = True
    clip_eigs: bool = False
    max_real: float = 1e-4
    liquid: bool = False
    bidirectional: bool = False
    activation: str | None = "gelu"
    output: str | None = "glu"
    skip: bool = True

    per_channel: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.check_options()
        if self.conj_sym:
            common.pairs("S5", self.d_state, instead=", or conj_sym=False")
        common.whole("S5", d_state=self.d_state, blocks=self.blocks)
        if self.n_states % self.blocks:
            half = " / 2" if self.conj_sym else ""
            raise OptionError(f"S5: blocks = {self.blocks} must divide d_state{half} = {self.n_states}.")
        common.check_discretization("S5", self.discretization)
        common.check_steps("S5", self.dt_min, self.dt_max)
        if self.liquid and self.bidirectional:
            raise OptionError("S5: a liquid layer runs forward in time only. Use bidirectional=False.")
        if not isinstance(self.max_real, int | float) or not 0 <= self.max_real < math.inf:
            raise OptionError(f"S5: max_real = {self.max_real!r} must be at least 0.")

    @property
    def n_states(self) -> int:
        return self.d_state // 2 if self.conj_sym else self.d_state

    def parameters(self) -> tuple[Parameter, ...]:
        H, N = self.d_model, self.n_states

        def poles() -> np.ndarray:
            return np.tile(_legs_poles(self.d_state // self.blocks, self.conj_sym), self.blocks)

        std = math.sqrt(0.5 / H)
        return (
            common.log_steps(N, self.dt_min, self.dt_max),
            constant("A_re", (N,), lambda: poles().real, no_weight_decay=True),
            constant("A_im", (N,), lambda: poles().imag, no_weight_decay=True),
            normal("B_re", (N, H), std, no_weight_decay=True),
            normal("B_im", (N, H), std, no_weight_decay=True),
            *common.complex_normal("C", (self.rows(), H, N), 1 / math.sqrt(N)),
            *self.outer_parameters(),
        )

    def system(self, params: Parameters, xp: Namespace) -> tuple[Any, Array]:
        """The continuous system, B (N, H), C (rows, H, N); and dt (N,)."""
        real = params["A_re"]
        if self.clip_eigs:
            real = xp.where(real > -self.max_real, xp.full_like(real, -self.max_real), real)
        C = common.complex_of(params, "C")
        C = C if self.conj_sym else C / 2  # Re(C x) = 2 Re(C/2 x)
        system = Diagonal(real + 1j * params["A_im"], common.complex_of(params, "B"), C, conj_pairs=True)
        return system, common.steps(params, xp)

    def kernel(self, params: Parameters, length: int, *, rate: Any = 1.0) -> Array:
        if self.liquid:
            raise OptionError("S5: a liquid layer is not linear, so it has no kernel.")
        return super().kernel(params, length, rate=rate)

    def _advance(self, system: Any, discrete: Any, xp: Namespace) -> SystemStep:
        if not self.liquid:
            return super()._advance(system, discrete, xp)

        def advance(state: Array, u: Array) -> tuple[Array, Array]:
            drive = driven(discrete.B, u, True, xp)
            state = (discrete.poles + drive) * state + drive
            return state, observed(discrete.C, state, True, True, xp)

        return advance

    def _real_advance(self, system: Any, discrete: Any, xp: Namespace) -> SystemStep:
        return real_system_stepper(discrete, xp, liquid=self.liquid)

    def _run(self, params: Parameters, x: Array, rate: Any, xp: Namespace, **options: Any) -> tuple[Array, Any]:
        return (self._liquid if self.liquid else super()._run)(params, x, rate, xp, **options)

    def _liquid(
        self,
        params: Parameters,
        x: Array,
        rate: Any,
        xp: Namespace,
        *,
        initial: Array | None,
        segments: Segments,
        step_scale: Array | None,
        mode: str,
        want_state: bool,
    ) -> tuple[Array, Array | None]:
        """The recurrence chunk by chunk, time first, with the gates Ab + Bb u."""
        if not isinstance(mode, str) or mode not in MODES:
            raise unknown("S5", "mode", mode, MODES)
        if mode not in ("auto", "scan"):
            raise OptionError(f"S5: a liquid layer is not linear, so mode {mode!r} cannot run it. Use mode='scan'.")
        system, dt = self._time_first_system(params, rate, xp)
        one = replace(system, B=xp.ones_like(system.poles))
        state = xp.zeros((x.shape[0], self.n_states), dtype=system.poles.dtype, device=device(x))
        state = state if initial is None else state + initial
        fixed = discretized(one, dt, self.discretization, None, xp)

        def gates_of(v: Signals) -> tuple[Array, Array]:
            """Gates and drives of a chunk, time first."""
            unit = fixed
            if step_scale is not None:
                unit = discretized(one, v["scale"][..., None] * dt, self.discretization, None, xp)
            drive = unit.B * driven(system.B, v["u"], True, xp)
            return unit.poles + drive, drive

        def body(state: Array, v: Signals) -> tuple[Array, Array]:
            states = gated_scan(*gates_of(v), state, v.get("reset"), v.get("valid"), xp)
            return states[-1, ...], observed(system.C, states, True, True, xp)

        def through(P: Array, v: Signals) -> tuple[Array, Array]:
            gates, _ = gates_of(v)
            gates = gates if "valid" not in v else xp.where(v["valid"][..., None], gates, xp.ones_like(gates))
            gates = gates if "reset" not in v else xp.where(v["reset"][..., None], xp.zeros_like(gates), gates)
            return P * xp.prod(gates, axis=0), v["u"]

        signals = {"u": x, "reset": segments.reset, "valid": segments.valid(xp), "scale": step_scale}
        chunk = steps_at_once(x.shape[0] * self.n_states, x.shape[-1], x)

        def over(body: Any, state: Array) -> tuple[Array, Array]:
            return in_chunks(body, state, signals, axis=-1, chunk=chunk) if x.shape[-1] else (x, state)

        if segments.shards is not None:
            zero = xp.zeros_like(state)
            own = Elementwise(over(through, zero + 1)[1], over(body, zero)[1])
            y, state = segments.shards.across(
                own, state, (x, system.poles, system.B, dt), lambda state: over(body, state)[0]
            )
        else:
            y, state = over(body, state)
        return y, state if want_state else None


def _legs_poles(n: int, pairs: bool) -> np.ndarray:
    """Those of the normal part of LegS with n states, an odd number of which has one real pole."""
    if n % 2 == 0:
        poles: np.ndarray = diagonal_init("legs", n, conj_pairs=pairs).poles
        return poles
    normal = hippo("legsd", n)[0]
    return -0.5 + 1j * np.linalg.eigvalsh(0.5j * (normal - normal.T))
