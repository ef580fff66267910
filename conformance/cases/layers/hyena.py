"""Hyena: gates, and convolutions by direct sums with filters that a network draws sample by sample."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssm_core.layers import Hyena

from ...dispatched import FFT
from ...truth.gated import tap
from ...truth.layers import Array, Options, Params, linear
from ..layer import WholeCases


def filters(options: Options, params: Params, length: int) -> Array:
    """(L, (order - 1) H), the sample of every step by itself."""
    l_max, bands, width = options["l_max"], (options["emb_dim"] - 1) // 2, (options["order"] - 1) * options["d_model"]
    f = np.linspace(1e-4, bands - 1, bands)
    rates = [np.log(options["target"]) / options[f"{name}_decay_pct"] for name in ("slow", "fast")]
    found = []
    for k in range(length):
        t = k / max(l_max - 1, 1)
        turned = np.exp(-2j * np.pi * f * k / l_max)
        x = np.concatenate([[t], turned.real, turned.imag])
        x = params["filter_z"][k] if options["trained_embedding"] else x
        for i in range(options["num_inner_mlps"] + 1):
            x = np.sin(params["filter_freq"] * linear(params, f"filter_{i}_", x))
        decay = np.exp(-t * np.abs(np.linspace(*rates, width)))
        found.append(linear(params, "filter_out_", x) * (decay + options["shift"]))
    return np.asarray(found).reshape(length, width)


def run(options: Options, params: Params, u: Array, rate: Any) -> Array:
    H, order, (length, _) = options["d_model"], options["order"], u.shape
    window, rows = np.zeros(((order + 1) * H, options["short_filter_order"] - 1)), []
    for u_k in u:
        inner = linear(params, "in_proj_", u_k)
        inner, window = tap(window, inner, params["short_filter_weight"], params["short_filter_bias"])
        rows.append(inner)
    *gates, v = np.split(np.asarray(rows).reshape(length, (order + 1) * H), order + 1, axis=-1)
    h = filters(options, params, length).reshape(length, H, order - 1)
    D = params["filter_bias"].reshape(H, order - 1)
    for o in range(order - 1):
        v = v * gates[order - 1 - o]
        sums = [sum((h[k - j, :, o] * v[j] for j in range(k + 1)), start=np.zeros(H)) for k in range(length)]
        v = np.asarray(sums).reshape(length, H) + D[:, o] * v
    return linear(params, "out_proj_", v * gates[0])


SMALL = {"l_max": 24, "filter_order": 5, "w": 3.0}
CASES = WholeCases(
    layer=Hyena,
    truth=run,
    instances={
        "Hyena": SMALL | {"l_max": 21},
        "Hyena_order_3": SMALL | {
            "order": 3, "emb_dim": 5, "short_filter_order": 2, "num_inner_mlps": 0, "shift": 0.1, "target": 0.2,
        },
        "Hyena_trained_embedding": SMALL | {"order": 4, "trained_embedding": True, "fast_decay_pct": 0.7},
    },
    least=SMALL,
    parameters=(
        "in_proj_weight in_proj_bias short_filter_weight short_filter_bias filter_0_weight filter_0_bias "
        "filter_1_weight filter_1_bias filter_2_weight filter_2_bias filter_out_weight filter_freq filter_bias "
        "out_proj_weight out_proj_bias"
    ),
    no_weight_decay=(
        "filter_0_weight filter_0_bias filter_1_weight filter_1_bias filter_2_weight filter_2_bias filter_out_weight "
        "filter_freq"
    ),
    rests_on=(*FFT, "affine", "parted", "causal_conv1d"),
    extensions=("fft",),
    small={"order_3": ({"d_model": 2, "order": 3, **SMALL}, "auto")},
    modules={
        "Hyena": {"d_model": 4, **SMALL},
        "Hyena_trained_embedding": {"d_model": 4, "l_max": 20, "filter_order": 5, "trained_embedding": True},
    },
    refusals=(
        ({"order": 1}, "order = 1 must be a whole number of at least 2"),
        ({"emb_dim": 4}, "emb_dim = 4 must be odd and at least 3"),
        ({"l_max": 0}, "l_max = 0 must be a whole number"),
        ({"target": 1.0}, r"target = 1.0 must lie in \(0, 1\)"),
        ({"w": -1.0}, "w = -1.0 must be positive"),
        ({"shift": float("nan")}, "shift = nan must be a finite number"),
        ({"trained_embedding": 1}, "trained_embedding = 1 must be True or False"),
    ),
    timed=False,
)  # fmt: skip
