"""The channel mix of RWKV: y = sigmoid(W_r x_r) (W_v relu(W_k x_k)^2) after a token shift."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import RWKVChannelMix

from ...dispatched import MIXING
from ...truth.decay import sigmoid
from ...truth.layers import Array, Options, Params, States, Steps, linear
from ..layer import GatedCases
from .rwkv5 import PLACE


def steps(options: Options, params: Params) -> Steps:
    def advance(u: Array, state: States, scale: float) -> tuple[Array, States]:
        d = state[0] - u
        if options["time_mix"]:
            params.update({f"x_{n}": 1 - params[f"time_mix_{name}"] for n, name in (("k", "key"), ("r", "receptance"))})
        y = linear(params, "value_", np.maximum(linear(params, "key_", u + d * params["x_k"]), 0) ** 2)
        gate = sigmoid(linear(params, "receptance_", u + d * params["x_r"])) if options["gated"] else 1.0
        return gate * y, (u,)

    return Steps(advance, ((options["d_model"],),), options["d_model"])


CASES = GatedCases(
    layer=RWKVChannelMix,
    truth=steps,
    instances={
        "RWKVChannelMix": {},
        "RWKVChannelMix_time_mix": {"time_mix": True, "layer_idx": 1, "num_layers": 3},
        "RWKVChannelMix_no_gate": {"width": 3, "gated": False, "layer_idx": 1, "num_layers": 2},
    },
    parameters="x_k x_r key_weight receptance_weight value_weight",
    no_weight_decay="",
    rests_on=MIXING,
    small={"gated": ({"d_model": 2, "width": 3}, "auto")},
    modules={"RWKVChannelMix": {"d_model": 4, "width": 6}},
    timed=False,
    refusals=(({"width": 0}, "width = 0 must be a whole number"), ({"gated": 1}, "gated = 1 must be True or"), *PLACE),
)
