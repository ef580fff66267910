"""What a delta rule makes of its signals, and the adjoint of that.

A step writes keys (m of them) with a value each. The first value is solved for: it is what the step itself finds,
w = z - R S of the state S before its decay; a second one, of the general form, is given. Then q reads, R and q are the
two readers, which both meet what was written before their step:

    z = beta write v,  R = beta e^g erase k,  keys (k)         z = 0,  R = -a,  keys (b, k), given beta write v
    z = beta write v,  R = beta a,            keys (k)
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..decay.sums import INF, decays


class Given(NamedTuple):
    """Signals in chunks (N, chunks, T, .) of N heads of all sequences, None where there are none."""

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor
    beta: Tensor | None
    erase: Tensor | None
    write: Tensor | None
    a: Tensor | None
    b: Tensor | None
    reset: Tensor | None


class Rule:
    """Readers (N, chunks, T, 2, K), keys (N, chunks, T, m, K), values (N, chunks, T, V) and log decays of chunks."""

    def __init__(self, s: Given, scale: float) -> None:
        self.s, self.scale = s, scale
        self.g = s.g if s.reset is None else s.g.masked_fill(s.reset, -INF)
        self.decay = decays(self.g.clone())
        self.key = s.a if s.a is not None else s.k if s.erase is None else s.erase * s.k
        self.gain = self._gain()
        self.readers = s.q.new_empty((*s.q.shape[:-1], 2, s.q.shape[-1]))
        torch.mul(self.key, self._gain_and_beta(), out=self.readers[..., 0, :])
        torch.mul(s.q, scale * self.decay, out=self.readers[..., 1, :])
        self.keys = s.k[..., None, :] if s.b is None else torch.stack([s.b, s.k], dim=-2)
        self.written = s.v if s.write is None else s.write * s.v
        self.values = self.written if s.beta is None else s.beta * self.written

    def _gain(self) -> Tensor:
        """What R is times its key and beta."""
        if self.s.a is None:
            return self.decay
        reset, one = self.s.reset, self.s.q.new_full((1,), 1.0 if self.s.b is None else -1.0)
        return one if reset is None else one.masked_fill(reset, 0.0)

    def _gain_and_beta(self) -> Tensor:
        return self.gain if self.s.beta is None or self.s.b is not None else self.s.beta * self.gain

    def own(self) -> Tensor:
        """What q reads of the writes of its own step: (N, chunks, T, m)."""
        return (self.keys @ self.s.q[..., None]).squeeze(-1).mul_(self.scale)

    def adjoint(
        self, dreaders: Tensor, dkeys: Tensor, dvalues: Tensor, dg: Tensor, down: Tensor
    ) -> list[Tensor | None]:  # fmt: skip
        """The gradients of all signals but resets, of those of the parts and of `own`."""
        s, dR, dq = self.s, dreaders[..., 0, :], dreaders[..., 1, :]
        dbeta = derase = dwrite = da = None
        through = dq * self.readers[..., 1, :]
        through = through if s.a is not None else through.addcmul_(dR, self.readers[..., 0, :])
        dg = dg + (through if dg.shape[-1] == through.shape[-1] else through.sum(-1, keepdim=True))
        dq = (down[..., None, :] @ self.keys).squeeze(-2).addcmul_(dq, self.decay).mul_(self.scale)
        dkeys = torch.addcmul(dkeys, down[..., None], s.q[..., None, :], value=self.scale)
        dk, db = dkeys[..., -1, :], None if s.b is None else dkeys[..., 0, :]
        dkey = dR * self._gain_and_beta()
        if s.a is not None:
            da = dkey
        elif s.erase is None:
            dk = dk + dkey
        else:
            dk, derase = torch.addcmul(dk, dkey, s.erase), dkey * s.k
        if s.beta is not None:
            dbeta = (dvalues * self.written).sum(-1, keepdim=True)
            if s.b is None:
                dbeta += (dR * self.key * self.gain).sum(-1, keepdim=True)
            dvalues = s.beta * dvalues
        if s.write is not None:
            dvalues, dwrite = s.write * dvalues, s.v * dvalues
        return [dq, dk, dvalues, dg, dbeta, derase, dwrite, da, db]
