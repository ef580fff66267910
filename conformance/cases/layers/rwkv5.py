"""RWKV-5: o = (S + diag(a) k v^T)^T r, S = diag(w) S + k v^T, y = W_o (group_norm(o) silu(g)), after a token shift."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import RWKV5

from ...dispatched import GATES
from ...truth.decay import remembered, standardized
from ...truth.gated import silu
from ...truth.layers import Array, Options, Params, States, Steps, linear
from ..layer import GatedCases

NAMES = ("receptance", "key", "value", "gate")


def steps(options: Options, params: Params) -> Steps:
    H, D = options["d_model"], options["head_dim"]
    heads, w = H // D, np.exp(-np.exp(params["time_decay"]))

    def advance(u: Array, state: States, scale: float) -> tuple[Array, States]:
        before, S = state
        mix = {n: params[f"time_mix_{n[0]}"] for n in NAMES}
        r, k, v, g = (linear(params, f"{n}_", u * m + before * (1 - m)) for n, m in mix.items())
        r, k, v = (x.reshape(heads, D) for x in (r, k, v))
        late = {"bonus": params["time_faaaa"], "exclusive": True, "scale": 1.0}
        y, (S,) = remembered((r, k, v, np.log(w)), (S,), (heads, D, D), **late)
        y = standardized(y, options["epsilon"]).reshape(-1) * params["ln_x_weight"] + params["ln_x_bias"]
        return linear(params, "output_", y * silu(g)), (u, S)

    return Steps(advance, ((H,), (heads, D, D)), H)


PLACE = (
    *(({"layer_idx": x}, r"layer_idx = .* must lie in \[0, num_layers = 1\)") for x in (-1, 1, 0.5, True)),
    ({"num_layers": 0}, "num_layers = 0 must be a whole number"),
)
CASES = GatedCases(
    layer=RWKV5,
    truth=steps,
    instances={
        "RWKV5": {"head_dim": 2, "chunk": 8},
        "RWKV5_later": {"head_dim": 4, "layer_idx": 1, "num_layers": 3, "epsilon": 1e-2, "chunk": 5},
    },
    least={"head_dim": 2},
    parameters="time_mix_k time_mix_v time_mix_r time_mix_g time_decay time_faaaa receptance_weight key_weight "
    "value_weight gate_weight output_weight ln_x_weight ln_x_bias",
    no_weight_decay="time_decay time_faaaa",
    rests_on=("fold", "channel_decay", *GATES),
    small={"chunk": ({"d_model": 2, "head_dim": 2, "epsilon": 1e-2, "chunk": 4}, "auto")},
    modules={"RWKV5": {"d_model": 4, "head_dim": 2, "chunk": 16}},
    timed=False,
    refusals=(({"head_dim": 3}, "head_dim = 3 must divide d_model = 4"), *PLACE),
)
