"""What a delta rule makes of its signals, and the adjoint of that.

A step writes with keys (m of them), of each a value. The first value is what the step finds with R in the state S
before its decay, w = z - R S; that of a second key, in the general form, is given. R and q are the readers, which both
meet what was written before their step:

    z = beta write v,   R = beta e^g erase k,   keys (k)
    z = beta write v,   R = beta a,             keys (k)
    z = 0,              R = -a,                 keys (b, k), of the second one the value beta write v
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..decay.sums import INF, decays, over_entries


class Given(NamedTuple):
    """Signals in chunks (chunks, batch, H, T, .), None where there are none."""

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
    """Readers (..., T, 2, K), keys (..., T, m, K) and values (..., T, m, V) with the given one as the last, and decays.

    Memory is in the order of the axes.
    """

    def __init__(self, s: Given, scale: float) -> None:
        self.s, self.scale = s, scale
        self.g = s.g.clone(memory_format=torch.contiguous_format)
        if s.reset is not None:
            self.g.masked_fill_(s.reset, -INF)
        self.decay = decays(self.g)
        self.key = s.a if s.a is not None else s.k if s.erase is None else s.erase * s.k
        self.gain = self._gain()
        self.gain_and_beta = self.gain if s.beta is None or s.b is not None else s.beta * self.gain
        keys = [s.k] if s.b is None else [s.b, s.k]
        lead, K, V, m = s.q.shape[:-1], s.q.shape[-1], s.v.shape[-1], len(keys)
        self.readers, self.keys, self.values = (s.q.new_empty((*lead, *x)) for x in ((2, K), (m, K), (m, V)))
        torch.mul(self.key, self.gain_and_beta, out=self.readers[..., 0, :])
        torch.mul(s.q, scale * self.decay, out=self.readers[..., 1, :])
        for i, key in enumerate(keys):
            self.keys[..., i, :] = key
        self.written = s.v if s.write is None else s.write * s.v
        values = self.values[..., -1, :]
        values.copy_(self.written) if s.beta is None else torch.mul(s.beta, self.written, out=values)

    def _gain(self) -> Tensor:
        """What R is times its key and beta."""
        if self.s.a is None:
            return self.decay
        reset, one = self.s.reset, self.s.q.new_full((1,), 1.0 if self.s.b is None else -1.0)
        return one if reset is None else one.masked_fill(reset, 0.0)

    def own(self) -> Tensor:
        """What q reads of the writes of its own step: (..., T, m)."""
        return (self.keys * self.s.q[..., None, :]).sum(-1).mul_(self.scale)

    def adjoint(
        self, dreaders: Tensor, dkeys: Tensor, dvalues: Tensor, dg: Tensor, down: Tensor
    ) -> list[Tensor | None]:
        """The gradients of all signals but resets, of those of the parts, of the given value, and of `own`."""
        s, dR, dq = self.s, dreaders[..., 0, :], dreaders[..., 1, :]
        dbeta = derase = dwrite = da = None
        through = dq * self.readers[..., 1, :]
        through = through if s.a is not None else through.addcmul_(dR, self.readers[..., 0, :])
        dg = dg + (through if dg.shape[-1] == through.shape[-1] else through.sum(-1, keepdim=True))
        dq = over_entries(down[..., None] * self.keys).addcmul_(dq, self.decay).mul_(self.scale)
        dkeys = torch.addcmul(dkeys, down[..., None], s.q[..., None, :], value=self.scale)
        dk, db = dkeys[..., -1, :], None if s.b is None else dkeys[..., 0, :]
        dkey = dR * self.gain_and_beta
        if s.a is not None:
            da = dkey
        elif s.erase is None:
            dk = dk + dkey
        else:
            dk, derase = torch.addcmul(dk, dkey, s.erase), dkey * s.k
        if s.beta is not None:
            dbeta = (dvalues * self.written).sum(-1, keepdim=True)
            if s.b is None:
                dbeta += (dR * self.key).mul_(self.gain).sum(-1, keepdim=True)
            dvalues = s.beta * dvalues
        if s.write is not None:
            dvalues, dwrite = s.write * dvalues, s.v * dvalues
        return [dq, dk, dvalues, dg, dbeta, derase, dwrite, da, db]
