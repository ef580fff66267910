"""Fourier transforms as ONNX's operator, and recurrences as those that it has from opset 27 on, in place of the
package's own loops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ssm_core.backends import torch as backend
from ssm_core.recurrences.segments import Segments

OPSET = 27


@contextmanager
def onnx_operators() -> Iterator[None]:
    """Within the block what fits is traced as an operator of ONNX; the arrays of a trace have no values then."""
    operators = {f.__name__: f for f in (channel_decay, ssd, gated_delta, causal_conv1d)}
    before = {name: getattr(backend, name, None) for name in operators}
    try:
        vars(backend).update(operators)
        yield
    finally:
        vars(backend).update(before)


def channel_decay(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, *, bonus: Any, exclusive: bool, segments: Segments,
    chunk: int,
) -> Any:  # fmt: skip
    """`ssm_core.gated.decay_run._channel_decay`."""
    if bonus is not None or exclusive or segments.reset is not None:
        return NotImplemented
    return _linear_attention("gated", q, k, v, state, g)


def ssd(
    drive: Tensor, log_gates: Tensor, B: Tensor, C: Tensor, state: Tensor, *, segments: Segments, chunk: int
) -> Any:
    """`ssm_core.gated.ssd._ssd`, whose state is the transposed one."""
    if segments.reset is not None:
        return NotImplemented
    y, last = _linear_attention("gated", C, B, drive, state.mT, log_gates)
    return y, last.mT


def gated_delta(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor, *, beta: Tensor | None, erase: Any, write: Any,
    a: Any, b: Any, segments: Segments, scale: float, chunk: int,
) -> Any:  # fmt: skip
    """`ssm_core.gated.delta_run._gated_delta`, where one step has one key and beta alone."""
    others = (erase, write, a, b, segments.reset)
    if v.ndim != 4 or beta is None or any(x is not None for x in others):
        return NotImplemented
    return _linear_attention("gated_delta", q, k, v, state, log_decay, beta, scale=scale)


def causal_conv1d(u: Tensor, weight: Tensor, bias: Tensor | None, before: Tensor, segment: Tensor | None) -> Any:
    """`ssm_core.functions.short_convolution._causal_conv1d`, whose features come last."""
    if segment is not None or before.shape[1] == 0:
        return NotImplemented
    u, before = u.mT, before.mT
    y, _ = torch.onnx.ops.symbolic_multi_out(
        "::CausalConvWithState",
        [u, weight[:, None, :], bias, before],
        dtypes=(u.dtype, u.dtype),
        shapes=(u.shape, before.shape),
    )
    return y.mT


def _linear_attention(
    rule: str, q: Tensor, k: Tensor, v: Tensor, state: Tensor, g: Tensor, beta: Any = None, *, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """y (batch, L, H, V) and the last state (batch, H, K, V); features of all heads are one axis in the operator."""
    q, k, g, beta = (None if x is None else x.repeat_interleave(v.shape[2] // x.shape[2], 2) for x in (q, k, g, beta))
    y, last = torch.onnx.ops.symbolic_multi_out(
        "::LinearAttention",
        [q.flatten(2), k.flatten(2), v.flatten(2), state, g.flatten(2), beta],
        {"update_rule": rule, "q_num_heads": v.shape[2], "kv_num_heads": v.shape[2], "scale": scale},
        dtypes=(v.dtype, state.dtype),
        shapes=(v.flatten(2).shape, state.shape),
    )
    return y.reshape(v.shape), last


def fourier_transform(x: Tensor, inverse: bool = False) -> Tensor:
    """That of x (..., n, 1 or 2), real or with both halves, over n: (..., n, 2).

    In double precision: the chirps by which runtimes transform what is no power of two lose four digits of float32.
    The axis is the default one, which older opsets have as an attribute and newer ones as an input.
    """
    rows = x.to(torch.float64).reshape(-1, *x.shape[-2:])
    shape, attributes = (*rows.shape[:-1], 2), {"inverse": int(inverse)}
    found = torch.onnx.ops.symbolic("::DFT", (rows,), attributes, dtype=torch.float64, shape=shape)
    return found.reshape(*x.shape[:-1], 2)
