"""The checkpointed scan: chunks are computed again in the backward.

What remains of a chunk (outputs and the state after it; in the backward, gradients of its signals) is small beside what
it needs while it runs. Left where it was made it would lie between what is freed, and the C library could give those
holes to nothing larger: several times the memory that is needed. So it goes to one tensor for all chunks, and the
forward makes no graph, whose nodes would lie there as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten
from torch.utils.checkpoint import checkpoint

from .transforms import forward_mode, transformed


def fold(
    body: Callable[..., Any], state: Any, xs: tuple[Tensor, ...], held: Any, *, chunk: int, recompute: bool
) -> tuple[Tensor, Any]:
    """By `_Fold` where all that has gradients is given; else a checkpoint a chunk, and none under torch.func."""
    several, mapped = xs[0].shape[0] > chunk, transformed(xs[0])
    again = recompute and several and not mapped
    if held is not None and again and not (forward_mode() or torch.compiler.is_compiling()):
        leaves, structure = tree_flatten(state)
        plan = _Plan(body, chunk, structure, len(leaves), len(xs))
        tensors = (*leaves, *xs, *held)
        if torch.is_grad_enabled() and any(x.requires_grad for x in tensors if x is not None):
            y, *last = _Fold.apply(plan, *tensors)
        else:
            y, last, _ = plan.run(tensors, keep=False)
        return y, tree_unflatten(last, structure)
    outputs, held = [], () if held is None else held
    if again and torch.is_grad_enabled() and not torch.compiler.is_exporting():
        body = partial(checkpoint, body, use_reentrant=False, preserve_rng_state=False)
    for pieces in zip(*(x.split(chunk) for x in xs), strict=True):
        state, y = body(state, *pieces, *held)
        state = state if torch.compiler.is_compiling() or not again else tree_map(_alone, state)
        outputs.append(y)
    return (torch.cat(outputs) if several else outputs[0]), state


def fold_of_chunks(
    pieces: tuple[Tensor, ...],
    body: Callable[..., Any],
    state: Any,
    held: tuple[Any, ...] | None,
    *,
    length: Any,
    recompute: bool,
) -> tuple[Tensor, Any]:
    """Fused `ssm_core.recurrences.fold._fold_of_chunks`: one program for any number of chunks."""
    from torch._higher_order_ops.scan import scan, scan_op  # after PyTorch itself

    # The operator takes real tensors alone, none of which may be a view of another.
    closed, held = held is None, held or ()
    kinds, fixed = ([x.is_complex() for x in xs] for xs in (pieces, held))
    held = tuple(_real(held))
    leaves, structure = tree_flatten(state)
    paired = [x.is_complex() for x in leaves]
    n, m = len(leaves), len(leaves) + len(pieces)

    def flat(*xs: Tensor) -> list[Tensor]:
        state = tree_unflatten(_complex(xs[:n], paired), structure)
        after, y = body(state, *_complex(xs[n:m], kinds), *_complex(xs[m:], fixed))
        return [*_real(tree_flatten(after)[0]), *([_copy(y.real), _copy(y.imag)] if y.is_complex() else [_copy(y)])]

    def own(leaves: list[Tensor], pieces: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        first, *found = flat(*leaves, *pieces, *held)
        # Inductor makes room for all y out of the sizes that the body knows.
        return [first + 0 * length, *found[: n - 1]], found[n - 1 :]

    if closed or torch.compiler.is_dynamo_compiling():
        last, parts = scan(own, _real(leaves), _real(pieces))  # which finds by Dynamo what the body closes over
    else:
        found = scan_op(flat, _real(leaves), _real(pieces), held)
        last, parts = found[:n], found[n:]
    y = parts[0] if len(parts) == 1 else torch.complex(*parts)
    return y, tree_unflatten(_complex(last, paired), structure)


def _real(xs: Sequence[Tensor]) -> list[Tensor]:
    """Copies in the order of their axes, with (Re x, Im x) along a last axis where they are complex."""
    return [torch.stack([x.real, x.imag], -1) if x.is_complex() else _copy(x) for x in xs]


def _copy(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)


def _complex(xs: Sequence[Tensor], paired: list[bool]) -> list[Tensor]:
    """The way back, by one flag for each."""
    return [torch.complex(x[..., 0], x[..., 1]) if pair else x for x, pair in zip(xs, paired, strict=True)]


def _alone(x: Any) -> Any:
    """A copy of what is a small part of its memory: kept for the backward, it would keep all states of its chunk."""
    partial = isinstance(x, Tensor) and 2 * x.numel() * x.element_size() < x.untyped_storage().nbytes()
    return x.clone() if partial else x


class _Held:
    """A tensor with so many rows, made when the first of them are known."""

    def __init__(self, rows: int):
        self.rows = rows
        self.whole: Any = None

    def put(self, start: int, x: Tensor) -> Tensor:
        """A copy of x as the rows from `start` on."""
        if self.whole is None:
            self.whole = x.new_empty((self.rows, *x.shape[1:]))
        rows = self.whole[start : start + len(x)]
        if (rows.shape, rows.dtype) != (x.shape, x.dtype):
            raise RuntimeError(
                f"checkpointed scan: {x.dtype} {tuple(x.shape)} where chunks before had {rows.dtype} {(*rows.shape,)}."
            )
        return rows.copy_(x)


class _Plan(NamedTuple):
    """All of a checkpointed scan but its tensors: leaves of the state, signals, and what all chunks share."""

    body: Callable[..., Any]
    chunk: int
    structure: TreeSpec
    n_leaves: int
    n_signals: int

    def parted(self, tensors: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        leaves, rest = tensors[: self.n_leaves], tensors[self.n_leaves :]
        return list(leaves), list(rest[: self.n_signals]), list(rest[self.n_signals :])

    def step(self, leaves: Any, pieces: Any, held: Any) -> tuple[list[Tensor], Tensor]:
        """One chunk: the leaves of the state after it, and y."""
        state, y = self.body(tree_unflatten(list(leaves), self.structure), *pieces, *held)
        return tree_flatten(state)[0], y

    def pieces(self, signals: list[Tensor]) -> Iterator[tuple[Tensor, ...]]:
        return zip(*(x.split(self.chunk) for x in signals), strict=True)

    def run(self, tensors: Any, keep: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """y, the last state, and with `keep` the states before every chunk."""
        leaves, signals, held = self.parted([None if x is None else x.detach() for x in tensors])
        length = len(signals[0])
        outputs = _Held(length)
        slots = -(-length // self.chunk) if keep else 2  # in turn: a state may be made of views of the one before
        before = [_Held(slots) for _ in leaves]
        for i, pieces in enumerate(self.pieces(signals)):
            leaves = [rows.put(i % slots, x[None])[0] for rows, x in zip(before, leaves, strict=True)]
            with torch.enable_grad():
                leaves, y = self.step(leaves, pieces, held)
            if y.requires_grad or any(x.requires_grad for x in leaves):
                raise RuntimeError(
                    "checkpointed scan: the body closes over an array that has a gradient. Pass it in `held`."
                )
            if len(y) != len(pieces[0]):
                raise RuntimeError(f"checkpointed scan: {len(y)} rows of y for a chunk of {len(pieces[0])} steps.")
            outputs.put(i * self.chunk, y)
        return outputs.whole, [x.clone() for x in leaves], [rows.whole for rows in before]

    def gradients(self, tensors: Any, needed: Any, before: Any, dy: Any, dlast: Any) -> Iterator[Any]:
        """Those of all tensors, from the last chunk to the first."""
        _, signals, held = self.parted(tensors)
        of_leaves, of_signals, of_held = self.parted(needed)
        slopes = [_Held(len(x)) if need else None for x, need in zip(signals, of_signals, strict=True)]
        sums: list[Any] = [None] * len(held)
        chunks = list(self.pieces(signals))
        for i in reversed(range(len(chunks))):
            start = i * self.chunk
            with torch.enable_grad():
                leaves = [_leaf(x[i], True) for x in before]
                pieces = [_leaf(x, need) for x, need in zip(chunks[i], of_signals, strict=True)]
                constants = [_leaf(x, need) for x, need in zip(held, of_held, strict=True)]
                after, y = self.step(leaves, pieces, constants)
            ahead = [(y, None if dy is None else dy[start : start + len(y)]), *zip(after, dlast, strict=True)]
            found = _derivatives(ahead, [*leaves, *pieces, *constants])
            dlast, of_pieces, of_constants = self.parted(found)
            for rows, piece, g in zip(slopes, pieces, of_pieces, strict=True):
                if rows is not None:
                    rows.put(start, torch.zeros_like(piece) if g is None else g)
            sums = [g if s is None else s if g is None else s + g for s, g in zip(sums, of_constants, strict=True)]
        yield from (g if need else None for g, need in zip(dlast, of_leaves, strict=True))
        yield from (None if rows is None else rows.whole for rows in slopes)
        yield from sums

    def differentiable(self, tensors: Any, needed: Any, grads: Any) -> Iterator[Any]:
        """The same in one graph of all chunks, which can be differentiated again."""
        create = torch.is_grad_enabled()
        with torch.enable_grad():
            apart = [x.view_as(x) if need else x for x, need in zip(tensors, needed, strict=True)]  # one may be another
            leaves, signals, held = self.parted(apart)
            outputs = []
            for pieces in self.pieces(signals):
                leaves, y = self.step(leaves, pieces, held)
                outputs.append(y)
            found = _derivatives(zip([torch.cat(outputs), *leaves], grads, strict=True), apart, create)
        yield from (g if need else None for g, need in zip(found, needed, strict=True))


def _leaf(x: Any, need: bool) -> Any:
    if x is None:
        return None
    differentiable = need and (x.is_floating_point() or x.is_complex())
    return x.detach().requires_grad_() if differentiable else x.detach()


def _derivatives(results: Any, of: list[Any], create_graph: bool = False) -> list[Any]:
    """Of (result, gradient) pairs with regard to the tensors that have any; None for the others."""
    results = [(x, g) for x, g in results if g is not None and x.requires_grad]
    wanted = [x for x in of if x is not None and x.requires_grad]
    if not results or not wanted:
        return [None] * len(of)
    ys, gs = zip(*results, strict=True)
    found = iter(torch.autograd.grad(ys, wanted, gs, allow_unused=True, create_graph=create_graph))
    return [next(found) if x is not None and x.requires_grad else None for x in of]


class _Fold(torch.autograd.Function):
    """(y, *leaves of the last state); keeps its inputs and the states before every chunk."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *tensors: Any) -> Any:
        y, last, before = plan.run(tensors, keep=True)
        ctx.save_for_backward(*tensors, *before)
        ctx.plan, ctx.cast = plan, _autocast_of(y)
        ctx.set_materialize_grads(False)
        return y, *last

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        plan, needed = ctx.plan, ctx.needs_input_grad[1:]
        saved = ctx.saved_tensors  # once: inside a checkpoint they can be read no more than that
        tensors, before = saved[: len(needed)], saved[len(needed) :]
        with ctx.cast():
            if torch.is_grad_enabled() or any(g is not None and transformed(g) for g in grads):
                return None, *plan.differentiable(tensors, needed, grads)
            return None, *plan.gradients(tensors, needed, before, grads[0], grads[1:])


def _autocast_of(x: Tensor) -> Callable[[], AbstractContextManager[Any]]:
    """The mixed precision of now, which the backward is outside of."""
    kind = x.device.type
    if not torch.amp.is_autocast_available(kind):
        return nullcontext
    dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
    # Its cache would hold the pieces of all chunks.
    return partial(torch.autocast, kind, dtype=dtype, enabled=enabled, cache_enabled=False)
