"""The whole sequence as one FFT convolution, plus what the first state adds."""

from __future__ import annotations

from ..._arrays.dispatch import is_open
from ..._arrays.library import Array
from ..._arrays.sizes import unchunked
from ...functions.convolution import convolve_matrix, convolved
from ..run import Run, last_state, masked_input
from ..vandermonde import split_length


def run_convolution(run: Run) -> tuple[Array, Array | None]:
    """y = K * u + C A^(k+1) x_{-1}."""
    u, K = masked_input(run), run.propagator.kernel(run.length)
    if not run.propagator.several_inputs:
        y = convolved(u[..., None, :] if run.propagator.several_outputs else u, K)
    elif run.propagator.several_outputs:
        y = convolve_matrix(u, K, run.xp)
    else:
        y = convolve_matrix(u, K[..., None, :, :], run.xp)[..., 0, :]
    if run.initial is not None:
        y = y + free_response(run)
    return y, last_state(run) if run.want_state else None


def free_response(run: Run) -> Array:
    """C A^(k+1) x_{-1}, k = 0..L-1: (...[, M], L)."""
    A, T = split_length(run.length, run.u)
    y = run.propagator.respond(run.propagator.spread(run.first_state(), A, T), T)
    if is_open(run.u, run.length):
        return unchunked(y, run.length, -2, run.xp)
    return run.xp.reshape(y, (*y.shape[:-2], A * T))[..., : run.length]
