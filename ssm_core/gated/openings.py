"""What the gates of a real-gated linear recurrent unit keep of its state, and what they let in."""

from __future__ import annotations

from .._arrays.dispatch import dispatched
from .._arrays.library import Array, Namespace, namespace
from ..functions.special import activation

SHARPNESS = 8.0  # of the gates of RG-LRU: c in Griffin


def strongest(recurrent_param: Array) -> Array:
    """log a where gates are open: -8 softplus(Lambda)."""
    return -SHARPNESS * activation("softplus")(recurrent_param)


def kept_and_entering(recurrent_gate: Array, strongest: Array, xp: Namespace) -> tuple[Array, Array]:
    """log a and sqrt(1 - a^2).

    The root has a derivative of 0 where the gate is so shut that a = 1: it goes to 0 as e^{r / 2} does.
    """
    log_a = strongest * activation("sigmoid")(recurrent_gate)
    moves = log_a < 0
    share = xp.sqrt(-xp.expm1(2 * xp.where(moves, log_a, -1.0)))
    return log_a, xp.where(moves, share, 0.0)


def driven(x: Array, input_gate: Array, recurrent_gate: Array, strongest: Array, begins: Array) -> tuple[Array, Array]:
    """The gates and the drives (batch, L, W) of h_t = gate_t h_{t-1} + drive_t, of the arguments of `rg_lru`.

    a_t and sqrt(1 - a_t^2) sigmoid(i_t) x_t; 0 and sigmoid(i_t) x_t where `begins` (batch, L).
    """
    gate, drive = _driven(x, input_gate, recurrent_gate, strongest, begins)
    return gate, drive


@dispatched
def _driven(x: Array, input_gate: Array, recurrent_gate: Array, strongest: Array, begins: Array) -> tuple[Array, Array]:
    xp, begins = namespace("rg_lru", x=x), begins[..., None]
    log_a, share = kept_and_entering(recurrent_gate, strongest, xp)
    share = xp.where(begins, 1.0, share)
    return xp.where(begins, 0.0, xp.exp(log_a)), share * activation("sigmoid")(input_gate) * x
