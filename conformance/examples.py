"""Small systems and random inputs that the tests share. Everything starts in NumPy double precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

import ssm_core

from . import truth
from .backends import HALF, Backend
from .tolerances import of_kind


class Draw:
    """Random inputs; a signal is real or complex, as the dtype of the test is."""

    def __init__(self, seed: int = 0, dtype: str = "float64") -> None:
        self.generator = np.random.default_rng(seed)
        self.is_complex = dtype.startswith("complex")

    def real(self, *shape: int) -> np.ndarray:
        return self.generator.normal(size=shape)

    def complex(self, *shape: int) -> np.ndarray:
        return self.real(*shape) + 1j * self.real(*shape)

    def signal(self, *shape: int) -> np.ndarray:
        return self.complex(*shape) if self.is_complex else self.real(*shape)

    def uniform(self, low: float, high: float, *shape: int) -> np.ndarray:
        return self.generator.uniform(low, high, shape)

    def poles(self, *shape: int) -> np.ndarray:
        return -self.uniform(0.2, 1.5, *shape) + 1j * self.uniform(-4, 4, *shape)

    def stable(self, *shape: int) -> np.ndarray:
        """Real matrices (..., n, n) whose eigenvalues have negative real parts."""
        return 0.5 * self.real(*shape) - 1.5 * np.eye(shape[-1])

    def gates(self, *shape: int) -> np.ndarray:
        """Per-step gates of modulus below 1."""
        radius = self.uniform(0.3, 0.99, *shape)
        return radius * np.exp(1j * self.uniform(-3, 3, *shape)) if self.is_complex else radius

    def resets(self, *shape: int) -> np.ndarray:
        return self.generator.uniform(size=shape) < 0.2


def as_arrays(backend: Backend, dtype: str, inputs: dict[str, Any]) -> SimpleNamespace:
    """Inputs as arrays of the backend: floating ones in the precision of dtype; numbers and None stay.

    With the namespace `xp` and the `device`, for functions that make arrays out of nothing.
    """
    arrays = {name: _as_array(backend, dtype, x) for name, x in inputs.items()}
    return SimpleNamespace(**arrays, xp=backend.xp, device=backend.device)


def _as_array(backend: Backend, dtype: str, x: Any) -> Any:
    if not isinstance(x, np.ndarray):
        return x
    if x.dtype.kind not in "fc":
        return backend.asarray(x)
    half = dtype in HALF and x.dtype.kind == "f"
    return backend.asarray(x, dtype if half else of_kind(dtype, x))


def rounded(backend: Backend, arrays: SimpleNamespace) -> SimpleNamespace:
    """The values that the arrays hold, in double precision: what the truth is computed from."""
    given = {name: x for name, x in vars(arrays).items() if name not in ("xp", "device")}
    return SimpleNamespace(**{name: backend.to_numpy(x) if hasattr(x, "shape") else x for name, x in given.items()})


@dataclass(frozen=True)
class Example:
    """A continuous system: how its fields are drawn, its flags, its batch axes and numbers of inputs and outputs."""

    label: str
    fields: Callable[[Draw], dict[str, Any]]
    flags: dict[str, bool] = field(default_factory=dict)
    batch: tuple[int, ...] = ()
    inputs: int | None = None
    states: int = 4  # stored ones
    complex_states: bool = False

    @property
    def diagonal(self) -> bool:
        return not self.label.startswith("dense")

    def system(self, arrays: SimpleNamespace) -> Any:
        """The record of ssm_core."""
        cls = ssm_core.Diagonal if self.diagonal else ssm_core.Dense
        return cls(**{n: getattr(arrays, n) for n in cls.ARRAYS if hasattr(arrays, n)}, **self.flags)

    def plain(self, values: SimpleNamespace) -> truth.Plain:
        """The same system as full matrices."""
        names = ("poles", "A", "B", "C", "D")
        return truth.plain({n: getattr(values, n) for n in names if hasattr(values, n)}, **self.flags)

    def signal(self, draw: Draw, length: int, batch: tuple[int, ...] | None = None) -> np.ndarray:
        axes = () if self.inputs is None else (self.inputs,)
        return draw.signal(*(self.batch if batch is None else batch), *axes, length)

    def state(self, draw: Draw, batch: tuple[int, ...] | None = None) -> np.ndarray:
        shape = (*(self.batch if batch is None else batch), self.states)
        return draw.complex(*shape) if self.complex_states else draw.signal(*shape)

    def full_state(self, state: np.ndarray | None) -> np.ndarray | None:
        """The state of the full matrices."""
        if state is None or not self.flags.get("conj_pairs"):
            return state
        return np.concatenate([state, state.conj()], axis=-1)

    def stored_state(self, full: np.ndarray) -> np.ndarray:
        """The part of the full state that the library stores."""
        return full[..., : self.states]


PAIRS = Example(
    "pairs",
    lambda d: {"poles": d.poles(4), "B": d.complex(4), "C": d.complex(4), "D": 0.5},
    {"conj_pairs": True},
    complex_states=True,
)
UNPAIRED = Example(
    "unpaired", lambda d: {"poles": d.poles(4), "B": d.complex(4), "C": d.complex(4)}, complex_states=True
)
REAL = Example("real", lambda d: {"poles": -d.uniform(0.2, 2, 4), "B": d.real(4), "C": d.real(4)})
BATCHED = Example(
    "batched",
    lambda d: {"poles": d.poles(2, 4), "B": d.complex(1, 4), "C": d.complex(2, 4), "D": d.real(2)},
    {"conj_pairs": True},
    batch=(2,),
    complex_states=True,
)
MIMO = Example(
    "mimo",
    lambda d: {"poles": d.poles(4), "B": d.complex(4, 2), "C": d.complex(3, 4), "D": d.real(3, 2)},
    {"conj_pairs": True},
    inputs=2,
    complex_states=True,
)
OUTPUTS = Example(
    "outputs",
    lambda d: {"poles": d.poles(2, 4), "B": d.complex(2, 4), "C": d.complex(2, 3, 4)},
    {"conj_pairs": True},
    batch=(2,),
    complex_states=True,
)
INPUTS = Example(
    "inputs", lambda d: {"poles": -d.uniform(0.2, 2, 4), "B": d.real(4, 3), "C": d.real(4), "D": d.real(3)}, inputs=3
)
DENSE = Example("dense", lambda d: {"A": d.stable(4, 4), "B": d.real(4), "C": d.real(4), "D": -0.25})
DENSE_MIMO = Example(
    "dense_mimo",
    lambda d: {"A": d.stable(2, 4, 4), "B": d.real(2, 4, 2), "C": d.real(2, 3, 4), "D": d.real(2, 3, 2)},
    batch=(2,),
    inputs=2,
)

EXAMPLES = (PAIRS, UNPAIRED, REAL, BATCHED, MIMO, OUTPUTS, INPUTS, DENSE, DENSE_MIMO)
METHODS = ("zoh", "bilinear", "euler", "backward_euler", "gbt", "dirac")


def alpha_of(method: str) -> dict[str, float]:
    """The further option that a method needs."""
    return {"alpha": 0.3} if method == "gbt" else {}
