"""Recurrences whose gates depend on the input, as one kind of thing: random inputs, runs with a state, cuts in time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ssm_core import causal_conv1d, mamba3_scan, selective_scan, ssd

Inputs = dict[str, Any]
State = tuple[Any, ...]
H, P, N, G, R = 4, 3, 5, 2, 2


@dataclass(frozen=True)
class Gated:
    """draw(generator, batch, length) gives the inputs; `time` the axis of time of those that have one."""

    name: str
    function: Callable[..., Any]
    draw: Callable[[Any, int, int], Inputs]
    time: dict[str, int]
    sizes: tuple[tuple[int, ...], ...]  # of the state, without the batch
    options: dict[str, Any]
    packs: bool = True  # whether it takes cu_seqlens

    @property
    def axis(self) -> int:
        """Of time in y."""
        return next(iter(self.time.values()))

    def inputs(self, seed: int = 0, batch: int = 2, length: int = 17) -> Inputs:
        return self.draw(np.random.default_rng(seed), batch, length)

    def state(self, seed: int = 1, batch: int = 2) -> State:
        r = np.random.default_rng(seed)
        return tuple(r.normal(size=(batch, *size)) for size in self.sizes)

    def run(self, v: Inputs, state: State | None = None, **options: Any) -> tuple[Any, State]:
        """y and the state, a tuple whatever the function makes of it."""
        initial = state if state is None or len(self.sizes) > 1 else state[0]
        y, last = self.function(**v, initial=initial, return_state=True, **self.options | options)
        return y, last if isinstance(last, tuple) else (last,)

    def output(self, v: Inputs, **options: Any) -> Any:
        return self.function(**v, **self.options | options)

    def part(self, v: Inputs, start: int, stop: int) -> Inputs:
        return {n: x[at(x, self.time[n], slice(start, stop))] if n in self.time else x for n, x in v.items()}

    def joined(self, parts: list[Inputs]) -> Inputs:
        """Parts one after another; what has no time is that of the first."""
        return {
            n: np.concatenate([part[n] for part in parts], axis=self.time[n]) if n in self.time else x
            for n, x in parts[0].items()
        }

    def with_options(self, **options: Any) -> Gated:
        return replace(self, options=self.options | options)


def at(x: Any, axis: int, part: Any) -> tuple[Any, ...]:
    return (*(slice(None),) * axis, part, *(slice(None),) * (x.ndim - axis - 1))


def _selective(r: Any, batch: int, length: int) -> Inputs:
    rows = (batch, G, N, length)
    return {"u": r.normal(size=(batch, H, length)), "dt": r.uniform(0.1, 1, (batch, H, length)),
            "A": -r.uniform(0.1, 2, (H, N)), "B": r.normal(size=rows), "C": r.normal(size=rows),
            "D": r.normal(size=H), "z": r.normal(size=(batch, H, length))}  # fmt: skip


def _ssd(r: Any, batch: int, length: int) -> Inputs:
    rows = (batch, length, G, N)
    return {"x": r.normal(size=(batch, length, H, P)), "dt": r.uniform(0.1, 1, (batch, length, H)),
            "A": -r.uniform(0.1, 2, H), "B": r.normal(size=rows), "C": r.normal(size=rows), "D": r.normal(size=H),
            "z": r.normal(size=(batch, length, H, P))}  # fmt: skip


def _mamba3(r: Any, batch: int, length: int) -> Inputs:
    more = {"trap": r.normal(size=(batch, length, H)), "angles": r.normal(size=(batch, length, H, 2))}
    return _ssd(r, batch, length) | more | {"B_bias": r.normal(size=(H, N)), "C_bias": r.normal(size=(H, N))}


def _mamba3_of_several(r: Any, batch: int, length: int) -> Inputs:
    rows = (batch, length, R, G, N)
    more = {"B": r.normal(size=rows), "C": r.normal(size=rows), "B_bias": r.normal(size=(H, R, N)),
            "C_bias": r.normal(size=(H, R, N)), "angles": r.normal(size=(batch, length, 1, 2)),
            "rank_maps": tuple(r.normal(size=(3, H, R, P)))}  # fmt: skip
    return _mamba3(r, batch, length) | more


def _convolution(r: Any, batch: int, length: int) -> Inputs:
    return {"u": r.normal(size=(batch, H, length)), "weight": r.normal(size=(H, 4)), "bias": r.normal(size=H)}


_SELECTIVE = {"u": 2, "dt": 2, "B": 3, "C": 3, "z": 2}
_SSD = {"x": 1, "dt": 1, "B": 1, "C": 1, "z": 1}
_MAMBA3 = {**_SSD, "trap": 1, "angles": 1}

SELECTIVE = Gated("selective_scan", selective_scan, _selective, _SELECTIVE, ((H, N),), {"chunk": 4})
TRAPEZOIDAL = Gated(
    "trapezoidal", selective_scan, _selective, _SELECTIVE, ((H, 2 * N),),
    {"chunk": 4, "discretization": "trapezoidal"},
)  # fmt: skip
SSD = Gated("ssd", ssd, _ssd, _SSD, ((H, P, N),), {"chunk": 4})
MAMBA3 = Gated("mamba3_scan", mamba3_scan, _mamba3, _MAMBA3, ((H, 2), (H, P, N), (H, N), (H, P)), {"chunk": 4})
SEVERAL = Gated(
    "mamba3_scan of several inputs", mamba3_scan, _mamba3_of_several, _MAMBA3,
    ((H, 2), (H, P, N), (H, R, N), (H, R, P)), {"chunk": 4},
)  # fmt: skip
CONVOLUTION = Gated("causal_conv1d", causal_conv1d, _convolution, {"u": 2}, ((H, 3),), {}, packs=False)

RECURRENCES = (SELECTIVE, TRAPEZOIDAL, SSD, MAMBA3, SEVERAL)
ALL = (*RECURRENCES, CONVOLUTION)


def close(actual: Any, expected: Any, tolerance: float = 1e-11) -> None:
    """Whether results, or tuples of them, agree; relative to the largest entry of each."""
    if isinstance(expected, tuple):
        for a, e in zip(actual, expected, strict=True):
            close(a, e, tolerance)
        return
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max(initial=0)))


def states_close(actual: State, expected: State, tolerance: float = 1e-11) -> None:
    """The angles of Mamba-3, the first of four, count on the circle."""
    if len(expected) == 4:
        circle = tuple(np.exp(1j * np.asarray(state[0])) for state in (actual, expected))
        close(*circle, tolerance)
        actual, expected = actual[1:], expected[1:]
    close(actual, expected, tolerance)
