"""A sequence run in pieces, each in a mode of its own or step by step, state in and state out."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from .cases.instance import Instance
from .plans import Plan

Piece = Callable[[int, int, str, Any], tuple[Any, Any]]
Step = Callable[[int, Any], tuple[Any, Any]]


def run_pieces(plan: Plan, state: Any, piece: Piece, step: Step) -> tuple[list[Any], Any]:
    """The outputs of all pieces, and the last state.

    piece(start, stop, mode, state) and step(k, state) give (y, state); what a step gives has an axis for time.
    """
    outputs, start = [], 0
    for length, mode in plan.pieces:
        stop = start + length
        if mode == "step":
            for k in range(start, stop):
                y, state = step(k, state)
                outputs.append(y)
        else:
            y, state = piece(start, stop, mode, state)
            outputs.append(y)
        start = stop
    return outputs, state


def layer_in_pieces(instance: Instance, v: SimpleNamespace, plan: Plan, rate: Any) -> tuple[Any, Any]:
    """A layer over the signal of v, with the masks and steps that are there."""
    layer, params = instance.layer, instance.params_of(v)
    advance = layer.stepper(params, rate=rate)

    def piece(start: int, stop: int, mode: str, state: Any) -> tuple[Any, Any]:
        part = (slice(None), slice(start, stop))
        more = {"reset": v.reset, "step_scale": v.scale}
        more = {name: x[part] for name, x in more.items() if x is not None}
        u = v.u[(*part, slice(None))]
        return layer.apply(params, u, state=state, return_state=True, mode=mode, rate=rate, **more)

    def step(k: int, state: Any) -> tuple[Any, Any]:
        y, state = advance(v.u[:, k, :], state)
        return y[:, None, :], state

    outputs, state = run_pieces(plan, instance.state_in(v), piece, step)
    return v.xp.concat(outputs, axis=1), state
