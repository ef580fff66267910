"""Lightning attention: S = e^{-slope} S + k v^T, y = W_o (n(S^T q) sigmoid(W_g u)), with q, k, v = silu(W u)."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import Lightning

from ...dispatched import GATES
from ...truth.decay import remembered, sigmoid
from ...truth.gated import normed, silu
from ...truth.layers import Array, Options, Params, States, Steps, linear
from ..layer import GatedCases


def slopes(options: Options) -> Array:
    h, heads, place, layers = np.arange(options["heads"]), options["heads"], options["layer_idx"], options["num_layers"]
    if options["slopes"] == "fla":
        return 8 * h / heads * (1 - place / layers)
    return 1 / 2 ** (8 * (h + 1) / heads) * (1 - place / (layers - 1 + 1e-5) + 1e-5)


def steps(options: Options, params: Params) -> Steps:
    heads, g = options["heads"], -slopes(options)
    D = options["head_dim"] or options["d_model"] // heads
    scale_of = 1.0 if options["slopes"] == "minimax" else D**-0.5

    def advance(u: Array, memory: States, scale: float) -> tuple[Array, States]:
        q, k, v = np.split(silu(linear(params, "qkv_proj_", u)).reshape(heads, 3 * D), 3, axis=-1)
        y, memory = remembered((q, k, v, g), memory, (heads, D, D), scale=scale_of)
        y = normed(y.reshape(-1), options["epsilon"]) * params["norm_weight"]
        return linear(params, "out_proj_", sigmoid(linear(params, "output_gate_", u)) * y), memory

    return Steps(advance, ((heads, D, D),), options["d_model"])


CASES = GatedCases(
    layer=Lightning,
    truth=steps,
    instances={
        "Lightning": {"heads": 2, "layer_idx": 1, "num_layers": 4, "chunk": 8},
        "Lightning_fla": {"heads": 3, "head_dim": 2, "slopes": "fla", "layer_idx": 2, "num_layers": 5, "epsilon": 1e-2},
    },
    least={"heads": 2},
    parameters="qkv_proj_weight norm_weight output_gate_weight out_proj_weight",
    no_weight_decay="",
    rests_on=("fold", "ssd", *GATES),
    small={"chunk": ({"d_model": 2, "heads": 1, "chunk": 4}, "auto")},
    modules={"Lightning": {"d_model": 4, "heads": 2, "chunk": 16}},
    timed=False,
    refusals=(
        ({"heads": 3}, "heads = 3 must divide d_model = 4"),
        ({"slopes": "alibi"}, "unknown slopes 'alibi'. Known: 'minimax', 'fla'"),
        *(({"layer_idx": x}, r"layer_idx = .* must lie in \[0, num_layers = 1\)") for x in (-1, 1, 0.5, True)),
        ({"num_layers": 0}, "num_layers = 0 must be a whole number"),
    ),
)
