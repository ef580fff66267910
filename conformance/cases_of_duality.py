"""The functions of Mamba-2 and Mamba-3 with inputs, a call and the truth of it, as in `cases`.

The truths are plain: sequence by sequence, step by step, in double precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np

import ssm_core

from .backends import HALF
from .cases import REALS, Case
from .examples import Draw

BATCH, H, P, G, N, L, TAPS, RANK = 2, 4, 3, 2, 5, 9, 4, 2
LENGTHS = (L, 4)
PACKED = (0, 4, 4, 9)  # the sequence in the middle is empty
SIGNALS = (*REALS, *HALF)
STATE_3 = ("t", "S", "K", "before")
MAPS = ("x_map", "z_map", "out_map")

Draws = Callable[[Draw], dict[str, Any]]


def within(y: Any, axis: int) -> tuple[Any, ...]:
    """A batch of outputs up to the lengths, beyond which they are unspecified."""
    at = (slice(None),) * (axis - 1)
    return tuple(y[(i, *at, slice(0, n), ...)] for i, n in enumerate(LENGTHS))


def _case(
    function: str,
    name: str,
    draw: Draws,
    plain: Callable[..., Any],
    *,
    axis: int = 1,  # that of time in y
    dtypes: tuple[str, ...] = REALS,
    known: tuple[str, ...] = (),
    **options: Any,
) -> Case:
    """A case whose inputs are the arguments by name, the options apart; plain takes the options too."""

    def shown(found: Any, lengths: Any) -> tuple[Any, ...]:
        y, *state = found if isinstance(found, tuple) else (found,)
        state = [*state[0]] if state and isinstance(state[0], tuple) else state
        return (*within(y, axis), *state) if lengths is not None else (y, *state)

    def call(v: SimpleNamespace) -> Any:
        given = {n: x for n, x in vars(v).items() if n not in ("xp", "device", *STATE_3, *MAPS)}
        for whole, parts in (("initial", STATE_3), ("rank_maps", MAPS)):
            if hasattr(v, parts[0]):
                given[whole] = tuple(getattr(v, part) for part in parts)
        return shown(getattr(ssm_core, function)(**given, **options), given.get("lengths"))

    def expected(v: SimpleNamespace) -> Any:
        return shown(plain(v, **options), getattr(v, "lengths", None))

    half = (True, True, False) if "lengths" in draw(Draw(1)) else (True, False)
    many = (*half, *half[-1:] * 3)  # all but y are states
    return Case(function, name, draw, call, expected, dtypes, terms=64 * L, half=many, known=known)


def sequences(v: SimpleNamespace, batch: int, length: int) -> Iterator[tuple[int, range]]:
    """The row and the steps of every sequence, in the order of the states."""
    if hasattr(v, "cu_seqlens"):
        ends = np.asarray(v.cu_seqlens).astype(int)
        yield from ((0, range(start, stop)) for start, stop in pairwise(ends))
    else:
        stops = v.lengths.astype(int) if hasattr(v, "lengths") else [length] * batch
        yield from ((i, range(stop)) for i, stop in enumerate(stops))


def steps_of(v: SimpleNamespace, dt_softplus: bool, limit: tuple[float, float] = (0.0, np.inf)) -> np.ndarray:
    dt = v.dt + getattr(v, "dt_bias", 0.0)
    return np.clip(np.log1p(np.exp(dt)) if dt_softplus else dt, *limit)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def _resets(v: SimpleNamespace, row: int, k: int) -> bool:
    return hasattr(v, "reset") and bool(v.reset[row, k])


# The dual of Mamba-2 -------------------------------------------------------------------------------------------------


def _ssd_inputs(*more: str, groups: int = G, batch: int = BATCH, states: int = BATCH) -> Draws:
    def draw(d: Draw) -> dict[str, Any]:
        rows = (batch, L, groups, N)
        found = {"x": d.real(batch, L, H, P), "dt": d.uniform(0.1, 1, batch, L, H), "A": -d.uniform(0.2, 1.5, H)}
        found |= {"B": d.real(*rows), "C": d.real(*rows)}
        if "A_k" in more:
            found["A"] = -d.uniform(0.2, 1.5, batch, L, H)
        others = {
            "initial": lambda: d.real(states, H, P, N), "D": lambda: d.real(H), "D_p": lambda: d.real(H, P),
            "z": lambda: d.real(batch, L, H, P), "dt_bias": lambda: d.real(H), "reset": lambda: d.resets(batch, L),
            "lengths": lambda: np.asarray(LENGTHS), "cu_seqlens": lambda: np.asarray(PACKED),
        }  # fmt: skip
        return found | {n.removesuffix("_p"): make() for n, make in others.items() if n in more}

    return draw


def ssd(
    v: SimpleNamespace,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, np.inf),
    return_state: bool = False,
    chunk: int = 0,
) -> Any:
    dt = steps_of(v, dt_softplus, dt_limit)
    A = np.broadcast_to(v.A, dt.shape)
    B, C = (np.repeat(rows, H // rows.shape[2], axis=2) for rows in (v.B, v.C))
    y, states = np.zeros(v.x.shape), []
    for i, (row, steps) in enumerate(sequences(v, *v.x.shape[:2])):
        S = v.initial[i] if hasattr(v, "initial") else np.zeros((H, P, N))
        for k in steps:
            S = np.zeros_like(S) if _resets(v, row, k) else S
            at = dt[row, k][:, None]
            S = np.exp(at * A[row, k][:, None])[..., None] * S + (at * v.x[row, k])[..., None] * B[row, k][:, None, :]
            y[row, k] = np.einsum("hpn,hn->hp", S, C[row, k])
        states.append(S)
    if hasattr(v, "D"):
        y = y + (v.D if v.D.ndim == 2 else v.D[:, None]) * v.x
    y = y * silu(v.z) if hasattr(v, "z") else y
    return (y, np.stack(states)) if return_state else y


AROUND = {"dt_softplus": True, "return_state": True}
SSD = (
    _case("ssd", "groups", _ssd_inputs("initial"), ssd, dtypes=SIGNALS, return_state=True),
    _case(
        "ssd", "everything-chunks_of_4", _ssd_inputs("initial", "D", "z", "dt_bias", "reset"), ssd, dtypes=SIGNALS,
        dt_limit=(0.3, 2.0), chunk=4, **AROUND,
    ),
    _case(
        "ssd", "A_and_D_of_all-lengths", _ssd_inputs("initial", "A_k", "D_p", "lengths", "reset", groups=H), ssd,
        return_state=True, chunk=5,
    ),
    _case("ssd", "packed", _ssd_inputs("z", "cu_seqlens", groups=1, batch=1), ssd, dtypes=SIGNALS, chunk=4),
    _case(
        "ssd", "packed-states", _ssd_inputs("initial", "A_k", "cu_seqlens", batch=1, states=3), ssd,
        known=("cu_seqlens",), return_state=True, chunk=2,
    ),
)  # fmt: skip


# Mamba-3 -------------------------------------------------------------------------------------------------------------


def _mamba3_inputs(
    *more: str, rank: int = 0, turning: int = 2, angled: int = H, batch: int = BATCH, states: int = BATCH
) -> Draws:
    """rank 0 is one input a step without an axis for it; angled is 1 where all heads share their angles."""
    ranked = (rank,) if rank else ()

    def draw(d: Draw) -> dict[str, Any]:
        rows = (batch, L, *ranked, G, N)
        found = {"x": d.real(batch, L, H, P), "dt": d.uniform(0.1, 1, batch, L, H)}
        found |= {"A": -d.uniform(0.2, 1.5, *((H,) if "A_h" in more else (batch, L, H))), "trap": d.real(batch, L, H)}
        found |= {"B": d.real(*rows), "C": d.real(*rows), "angles": d.real(batch, L, angled, turning)}
        maps = {n: d.real(H, rank, P) for n in MAPS} if rank else {}
        found |= {n: x if n != "z_map" or "z" in more else None for n, x in maps.items()}
        if "initial" in more:
            found |= {"t": d.uniform(0, 6, states, H, turning), "S": d.real(states, H, P, N)}
            found |= {"K": d.real(states, H, *ranked, N), "before": d.real(states, H, *ranked, P)}
        others = {
            "B_bias": lambda: d.real(H, *ranked, N), "C_bias": lambda: d.real(H, *ranked, N), "D": lambda: d.real(H),
            "z": lambda: d.real(batch, L, H, P), "reset": lambda: d.resets(batch, L),
            "lengths": lambda: np.asarray(LENGTHS), "cu_seqlens": lambda: np.asarray(PACKED),
        }  # fmt: skip
        return found | {n: make() for n, make in others.items() if n in more}

    return draw


def turned(rows: np.ndarray, t: np.ndarray) -> np.ndarray:
    """rows (H, R, N) with their first pairs turned by t (H, M)."""
    rows = rows.copy()
    for m in range(t.shape[1]):
        pair = (rows[..., 2 * m] + 1j * rows[..., 2 * m + 1]) * np.exp(1j * t[:, m])[:, None]
        rows[..., 2 * m], rows[..., 2 * m + 1] = pair.real, pair.imag
    return rows


def mamba3(v: SimpleNamespace, return_state: bool = False, chunk: int = 0) -> Any:
    several, M = v.B.ndim == 5, v.angles.shape[-1]
    # Everything with its rank: (batch, L, H, R, P) of inputs and gates, (H, R, P) of maps, (H, R, N) of biases.
    x_map, out_map = (getattr(v, n) if several else np.ones((H, 1, P)) for n in ("x_map", "out_map"))
    R = x_map.shape[1]
    x = v.x[:, :, :, None, :] * x_map
    rows = [np.reshape(m, (*m.shape[:2], R, -1, N)) for m in (v.B, v.C)]
    B, C = (np.moveaxis(np.repeat(m, H // m.shape[3], axis=3), 2, 3) for m in rows)
    B, C = (m + np.reshape(getattr(v, b, np.zeros(N)), (-1, R if hasattr(v, b) else 1, N)) for m, b in
            ((B, "B_bias"), (C, "C_bias")))  # fmt: skip
    gate = silu(v.z[:, :, :, None, :] * (v.z_map if several else 1)) if hasattr(v, "z") else np.ones_like(x)
    D = getattr(v, "D", np.zeros(H))[:, None, None]
    A, share = np.broadcast_to(v.A, v.dt.shape), 1 / (1 + np.exp(-v.trap))
    speed = np.pi * np.tanh(np.broadcast_to(v.angles, (*v.dt.shape, M))) * v.dt[..., None]
    sizes = ((H, M), (H, P, N), (H, R, N), (H, R, P))
    y, states = np.zeros(v.x.shape), []
    for i, (row, steps) in enumerate(sequences(v, *v.x.shape[:2])):
        zero = [np.zeros(size) for size in sizes]
        first = [np.reshape(getattr(v, n)[i], size) for n, size in zip(STATE_3, sizes, strict=True)] if hasattr(
            v, "S") else zero  # fmt: skip
        t, S, K, before = first
        for k in steps:
            t, S, K, before = zero if _resets(v, row, k) else (t, S, K, before)
            dt, own = v.dt[row, k][:, None, None], share[row, k][:, None, None]
            t = t + speed[row, k]
            entered = S + (1 - own) * dt * np.einsum("hrp,hrn->hpn", before, K)
            K, before, Q = turned(B[row, k], t), x[row, k], turned(C[row, k], t)
            S = np.exp(dt * A[row, k][:, None, None]) * entered + own * dt * np.einsum("hrp,hrn->hpn", before, K)
            outputs = (np.einsum("hpn,hrn->hrp", S, Q) + D * before) * gate[row, k]
            y[row, k] = np.sum(outputs * out_map, axis=1)
        ranked = slice(None) if several else 0
        states.append((np.mod(t, 2 * np.pi), S, K[:, ranked], before[:, ranked]))
    return (y, tuple(np.stack(parts) for parts in zip(*states, strict=True))) if return_state else y


MAMBA3 = (
    _case(
        "mamba3_scan", "shared_angles", _mamba3_inputs("initial", "A_h", angled=1), mamba3, dtypes=SIGNALS,
        return_state=True,
    ),
    _case(
        "mamba3_scan", "everything-chunks_of_4",
        _mamba3_inputs("initial", "B_bias", "C_bias", "D", "z", "reset", turning=1), mamba3, return_state=True,
        chunk=4,
    ),
    _case(
        "mamba3_scan", "rank-lengths",
        _mamba3_inputs("initial", "B_bias", "C_bias", "D", "z", "lengths", "reset", rank=RANK, angled=1), mamba3,
        dtypes=SIGNALS, return_state=True, chunk=5,
    ),
    _case("mamba3_scan", "rank-no_gate", _mamba3_inputs("D", rank=3), mamba3, return_state=True, chunk=3),
    _case("mamba3_scan", "no_angles", _mamba3_inputs("z", "B_bias", turning=0), mamba3, return_state=True, chunk=1),
    _case("mamba3_scan", "packed", _mamba3_inputs("A_h", "cu_seqlens", batch=1, angled=1), mamba3, chunk=4),
    _case(
        "mamba3_scan", "packed-states",
        _mamba3_inputs("initial", "C_bias", "cu_seqlens", rank=RANK, batch=1, states=3), mamba3,
        known=("cu_seqlens",), return_state=True, chunk=2,
    ),
)  # fmt: skip


# Short convolutions, norms, single steps -----------------------------------------------------------------------------


def _taps(*more: str, taps: int = TAPS, length: int = L) -> Draws:
    def draw(d: Draw) -> dict[str, Any]:
        found = {"u": d.real(BATCH, H, length), "weight": d.real(H, taps)}
        others = {
            "bias": lambda: d.real(H), "initial": lambda: d.real(BATCH, H, taps - 1),
            "reset": lambda: d.resets(BATCH, length), "lengths": lambda: np.asarray(LENGTHS),
        }  # fmt: skip
        return found | {n: make() for n, make in others.items() if n in more}

    return draw


def causal_conv1d(v: SimpleNamespace, return_state: bool = False) -> Any:
    n = v.weight.shape[1] - 1
    y, states = np.zeros(v.u.shape), []
    for row, steps in sequences(v, BATCH, v.u.shape[-1]):
        window = v.initial[row] if hasattr(v, "initial") else np.zeros((H, n))
        for k in steps:
            window = np.zeros_like(window) if _resets(v, row, k) else window
            window = np.concatenate([window, v.u[row, :, k, None]], axis=1)
            y[row, :, k] = np.sum(v.weight * window, axis=1) + getattr(v, "bias", 0.0)
            window = window[:, 1:]
        states.append(window)
    return (y, np.stack(states)) if return_state else y


CAUSAL_CONV1D = (
    _case("causal_conv1d", "state", _taps("bias", "initial"), causal_conv1d, dtypes=SIGNALS, return_state=True),
    _case(
        "causal_conv1d", "reset-lengths", _taps("initial", "reset", "lengths"), causal_conv1d, axis=2,
        return_state=True,
    ),
    _case("causal_conv1d", "one_tap", _taps("bias", "reset", taps=1), causal_conv1d, return_state=True),
    _case("causal_conv1d", "two_steps", _taps("initial", length=2), causal_conv1d, return_state=True),
    _case("causal_conv1d", "output_alone", _taps(), causal_conv1d, dtypes=SIGNALS),
)  # fmt: skip


def _features(*more: str) -> Draws:
    def draw(d: Draw) -> dict[str, Any]:
        found = {"x": d.real(BATCH, L, 6), "weight": d.real(6), "gate": d.real(BATCH, L, 6)}
        return {n: x for n, x in found.items() if n in ("x", *more)}

    return draw


def rms_norm(v: SimpleNamespace, groups: int = 1, epsilon: float = 1e-5, gate_first: bool = True) -> np.ndarray:
    gate = silu(v.gate) if hasattr(v, "gate") else np.ones(v.x.shape)
    x = v.x * gate if gate_first else v.x
    parts = np.reshape(x, (*x.shape[:-1], groups, -1))
    y = np.reshape(parts / np.sqrt(np.mean(parts**2, axis=-1, keepdims=True) + epsilon), x.shape)
    return y * getattr(v, "weight", 1.0) * (1 if gate_first else gate)


RMS_NORM = (
    _case("rms_norm", "weight", _features("weight"), rms_norm, dtypes=SIGNALS),
    _case("rms_norm", "gate_first-groups", _features("weight", "gate"), rms_norm, dtypes=SIGNALS, groups=2),
    _case("rms_norm", "gate_after", _features("weight", "gate"), rms_norm, groups=2, gate_first=False),
    _case("rms_norm", "no_weight", _features(), rms_norm, epsilon=0.1),
)


def _one_step(*more: str, per_head: bool) -> Draws:
    vector = (H,) if per_head else (H, P)

    def draw(d: Draw) -> dict[str, Any]:
        found = {"state": d.real(BATCH, H, P, N), "x": d.real(BATCH, H, P), "dt": d.uniform(0.1, 1, BATCH, H, P)}
        found |= {"A": -d.uniform(0.2, 1.5, *((H,) if per_head else (H, P, N)))}
        found |= {"B": d.real(BATCH, G, N), "C": d.real(BATCH, G, N)}
        others = {"D": lambda: d.real(*vector), "dt_bias": lambda: d.real(*vector), "z": lambda: d.real(BATCH, H, P)}
        return found | {n: make() for n, make in others.items() if n in more}

    return draw


def selective_state_update(v: SimpleNamespace, dt_softplus: bool = False) -> tuple[np.ndarray, np.ndarray]:
    y, states = np.zeros(v.x.shape), np.zeros(v.state.shape)
    D, bias = (np.broadcast_to(np.reshape(getattr(v, n, np.zeros(H)), (H, -1)), (H, P)) for n in ("D", "dt_bias"))
    A = np.broadcast_to(np.reshape(v.A, (H, 1, 1)) if v.A.ndim == 1 else v.A, (H, P, N))
    for b, h, p in np.ndindex(BATCH, H, P):
        dt = v.dt[b, h, p] + bias[h, p]
        dt = np.log1p(np.exp(dt)) if dt_softplus else dt
        group = h // (H // G)
        S = np.exp(dt * A[h, p]) * v.state[b, h, p] + dt * v.x[b, h, p] * v.B[b, group]
        states[b, h, p], y[b, h, p] = S, S @ v.C[b, group] + D[h, p] * v.x[b, h, p]
    return (y * silu(v.z) if hasattr(v, "z") else y), states


STATE_UPDATE = (
    _case(
        "selective_state_update", "heads", _one_step("D", "dt_bias", "z", per_head=True), selective_state_update,
        dtypes=SIGNALS, dt_softplus=True,
    ),
    _case(
        "selective_state_update", "features", _one_step("D", "dt_bias", "z", per_head=False), selective_state_update,
        dt_softplus=True,
    ),
    _case("selective_state_update", "bare", _one_step(per_head=False), selective_state_update, dtypes=SIGNALS),
)  # fmt: skip

ALL = (*SSD, *MAMBA3, *CAUSAL_CONV1D, *RMS_NORM, *STATE_UPDATE)
