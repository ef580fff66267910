"""RWKV-6: the recurrence of RWKV-5 with decays and a token shift of the input."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import RWKV6

from ...dispatched import GATES
from ...truth.decay import remembered, standardized
from ...truth.gated import silu
from ...truth.layers import Array, Options, Params, States, Steps, linear
from ..layer import GatedCases
from .rwkv5 import NAMES, PLACE


def steps(options: Options, params: Params) -> Steps:
    H, D = options["d_model"], options["head_dim"]
    heads = H // D

    def advance(u: Array, state: States, scale: float) -> tuple[Array, States]:
        before, S = state
        d = before - u
        z = np.tanh((u + d * params["time_maa_x"]) @ params["time_maa_w1"]).reshape(5, -1)
        shift = np.einsum("nr,nrh->nh", z, params["time_maa_w2"])
        x = {n: u + d * (params[f"time_maa_{n}"] + m) for n, m in zip("wkvrg", shift, strict=True)}
        w = params["time_decay"] + np.tanh(x["w"] @ params["time_decay_w1"]) @ params["time_decay_w2"]
        r, k, v, g = (linear(params, f"{n}_", x[n[0]]) for n in NAMES)
        r, k, v, decay = (m.reshape(heads, D) for m in (r, k, v, -np.exp(w)))
        late = {"bonus": params["time_faaaa"], "exclusive": True, "scale": 1.0}
        y, (S,) = remembered((r, k, v, decay), (S,), (heads, D, D), **late)
        y = standardized(y, options["epsilon"]).reshape(-1) * params["ln_x_weight"] + params["ln_x_bias"]
        return linear(params, "output_", y * silu(g)), (u, S)

    return Steps(advance, ((H,), (heads, D, D)), H)


CASES = GatedCases(
    layer=RWKV6,
    truth=steps,
    instances={
        "RWKV6": {"head_dim": 2, "mix_rank": 2, "decay_rank": 3, "chunk": 8},
        "RWKV6_later": {"head_dim": 4, "layer_idx": 2, "num_layers": 3, "mix_rank": 1, "epsilon": 1e-2, "chunk": 5},
    },
    least={"head_dim": 2},
    parameters="time_maa_x time_maa_w time_maa_k time_maa_v time_maa_r time_maa_g time_maa_w1 time_maa_w2 time_decay "
    "time_decay_w1 time_decay_w2 time_faaaa receptance_weight key_weight value_weight gate_weight output_weight "
    "ln_x_weight ln_x_bias",
    no_weight_decay="time_decay time_faaaa",
    rests_on=("fold", "channel_decay", *GATES),
    small={
        "chunk": ({"d_model": 2, "head_dim": 2, "mix_rank": 1, "decay_rank": 1, "epsilon": 1e-2, "chunk": 4}, "auto")
    },
    modules={"RWKV6": {"d_model": 4, "head_dim": 2, "mix_rank": 2, "decay_rank": 2, "chunk": 16}},
    timed=False,
    refusals=(
        ({"head_dim": 3}, "head_dim = 3 must divide d_model = 4"),
        ({"mix_rank": 0}, "mix_rank = 0 must be a whole number"),
        *PLACE,
    ),
)
