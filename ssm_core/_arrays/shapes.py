"""The letters that stand for sizes in every docstring.

| letter | size                                                                  |
|--------|-----------------------------------------------------------------------|
| B      | batch                                                                 |
| L      | length of a sequence, in steps                                        |
| H      | channels of a layer (`d_model`)                                       |
| N      | stored states: poles of a Diagonal system, rows of a dense A          |
| P      | inputs of a system                                                    |
| M      | outputs of a system                                                   |
| R      | rank of the correction of a DPLR system                               |
| S      | independent copies of a state space model in a layer (`n_ssm`)        |
| T      | steps of one chunk                                                    |
| ...    | the batch axes of a system: any number, broadcast against the input's |

`d_state` counts real states: `d_state=64` with conjugate pairs means N = 32 stored poles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import ShapeError


def broadcast(operation: str, **shapes: Any) -> tuple[int, ...]:
    """The common shape of several, or a ShapeError that lists them."""
    rank = max([0, *[len(s) for s in shapes.values()]])
    sizes = [1] * rank
    for shape in shapes.values():
        for i, n in enumerate(reversed(tuple(shape)), start=1):
            if sizes[-i] != n and n != 1:
                if sizes[-i] != 1:
                    given = ", ".join(f"{name}: {tuple(s)}" for name, s in shapes.items())
                    raise ShapeError(f"{operation}: the axes do not broadcast ({given}).")
                sizes[-i] = n
    return tuple(sizes)


def merged(shape: Sequence[int], *strides: Sequence[int]) -> list[tuple[int, tuple[int, ...]]]:
    """The axes of several arrays in memory, neighbors that every array has in one line as one: (size, its strides).

    >>> merged((4, 3, 5), (15, 5, 1), (0, 5, 1))
    [(4, (15, 0)), (15, (1, 1))]
    """
    axes: list[tuple[int, tuple[int, ...]]] = []
    for n, *inner in zip(shape, *strides, strict=True):
        if axes and all(outer == n * stride for outer, stride in zip(axes[-1][1], inner, strict=True)):
            axes[-1] = (axes[-1][0] * n, tuple(inner))
        elif n > 1:
            axes.append((n, tuple(inner)))
    return axes


def with_axes(x: Any, ndim: int, xp: Any) -> Any:
    """x with axes of size 1 in front, up to ndim."""
    return x if x is None or x.ndim == ndim else xp.reshape(x, (1,) * (ndim - x.ndim) + tuple(x.shape))
