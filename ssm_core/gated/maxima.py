"""Running maxima that fade: what keeps exponentials of sums in range."""

from __future__ import annotations

from .._arrays.library import Array, Namespace


def maxima(g: Array, k: Array, first: Array, xp: Namespace, least: Array | None = None) -> Array:
    """m_t = max(m_{t-1} + g_t, k_t) along axis 0 from m_{-1} = first, by doubling; no sum of g is below `least`.

    Windows of 1, 2, 4, ... steps have the sum of their g, and the largest k with the g that follow it: sums of few
    numbers first, and no differences.
    """
    width, T = 1, g.shape[0]
    while width < T:
        later = xp.maximum(k[:-width, ...] + g[width:, ...], k[width:, ...])
        k = xp.concat([k[:width, ...], later], axis=0)
        sums = g[width:, ...] + g[:-width, ...]
        g = xp.concat([g[:width, ...], sums if least is None else xp.maximum(sums, least)], axis=0)
        width *= 2
    return xp.maximum(first + g, k)
