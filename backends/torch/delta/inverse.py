"""Inverses of unit lower triangular matrices, of small blocks by substitution and of larger ones from their halves.

    [[A, 0], [X, B]]^-1 = [[A^-1, 0], [-B^-1 X A^-1, B^-1]]

which is as stable as substitution. With strong decays entries far from the diagonal fall below normal numbers; between
the levels, what is that small becomes zero.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from ..decay.sums import least

BLOCK = 16


def unit_inverse(A: Tensor) -> Tensor:
    """(I + A)^-1 of the part of A (..., T, T) below the diagonal."""
    *lead, T, _ = A.shape
    found, h = A.new_zeros((*lead, T, T)), min(BLOCK, T)
    _blocks(found, h).copy_(_substituted(_blocks(A, h)))
    while h < T:
        inverses, below = _blocks(found, 2 * h), hardshrink(_blocks(A, 2 * h)[..., h:, :h], least(A))
        upper, lower = inverses[..., :h, :h], inverses[..., h:, h:]
        inverses[..., h:, :h] = hardshrink(lower @ (below @ upper), least(A)).neg_()
        h *= 2
    return found


def _substituted(A: Tensor) -> Tensor:
    unit = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    return torch.linalg.solve_triangular(A, unit, upper=False, unitriangular=True)


def _blocks(A: Tensor, h: int) -> Tensor:
    """Those on the diagonal, (..., blocks, h, h)."""
    return A.unflatten(-1, (-1, h)).unflatten(-3, (-1, h)).diagonal(dim1=-4, dim2=-2).movedim(-1, -3)
