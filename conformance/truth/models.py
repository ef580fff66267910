"""Models of layers: the blocks around them, and what is before and behind those."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .gated import normed
from .layers import Array, Options, Params, linear, under

Mixer = Callable[..., tuple[Array, Any]]  # (options, parameters, u, **cut) -> (y, states): `LayerCases.run`


def language_model(
    mixer: Mixer, options: Options, block: Options, params: Params, ids: Array, **cut: Any
) -> tuple[Array, tuple[Any, ...]]:
    """Logits (B, L, V) and the states of the blocks."""
    table, epsilon = params["backbone.embeddings.weight"], options["epsilon"]
    x, states = table[ids.astype(int)], []
    for i in range(options["n_layers"]):
        own = under(params, f"backbone.layers.{i}.")
        y, last = mixer(block, under(own, "mixer."), normed(x, epsilon) * own["norm.weight"], **cut)
        x = x + y
        states.append(last)
    x = normed(x, epsilon) * params["backbone.norm_f.weight"]
    return x @ (table if options["tied"] else params["lm_head.weight"]).T, tuple(states)


def sequence_model(
    mixer: Mixer, options: Options, block: Options, params: Params, u: Array, lengths: Array | None = None
) -> Array:
    """Encoder, residual blocks with layer norms, pooling and head."""
    x = linear(params, "encoder.", u)
    for i in range(options["n_layers"]):
        own = under(params, f"blocks.{i}.")
        z = normed(x - x.mean(-1, keepdims=True), 1e-5) * own["norm.weight"] + own["norm.bias"]
        x = x + mixer(block, under(own, "layer."), z, lengths=lengths)[0]
    stops = [u.shape[1]] * len(u) if lengths is None else lengths
    pools: dict[Any, Any] = {"mean": lambda row: row.mean(0), "last": lambda row: row[-1]}
    if options["pool"] is not None:
        x = np.stack([pools[options["pool"]](row[:n]) for row, n in zip(x, stops, strict=True)])
    return linear(params, "head.", x)
