"""RWKV-7: S = diag(e^g) S - (p a) (S^T p)^T + k v^T, with a token shift for each of r, w, k, v, a and g."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import RWKV7

from ...dispatched import GATES
from ...truth.decay import standardized
from ...truth.delta import delta_step, sigmoid
from ...truth.layers import Array, Options, Params, States, Steps, linear
from ..layer import GatedCases
from .rwkv5 import PLACE


def steps(options: Options, params: Params) -> Steps:
    H, D = options["d_model"], options["head_dim"]
    heads = H // D

    def advance(u: Array, state: States, scale: float) -> tuple[Array, States]:
        before, S = state
        x = {n: u + (before - u) * params[f"x_{n}"] for n in "rwkvag"}
        r, k, v = (linear(params, f"{n}_", x[n[0]]) for n in ("receptance", "key", "value"))
        w = params["w0"] + np.tanh(x["w"] @ params["w1"]) @ params["w2"]
        a = sigmoid(params["a0"] + x["a"] @ params["a1"] @ params["a2"])
        p = (k * params["k_k"]).reshape(heads, D)
        p = p / np.sqrt(np.sum(p**2, axis=-1, keepdims=True))
        r, k, v, a, g = (
            m.reshape(heads, D) for m in (r, k * (1 + (a - 1) * params["k_a"]), v, a, -np.exp(-0.5) * sigmoid(w))
        )
        S = delta_step(S, k, v, g, a=-p, b=p * a)
        y = standardized(np.einsum("hk,hkv->hv", r, S), options["epsilon"]).reshape(-1)
        y = y * params["ln_x_weight"] + params["ln_x_bias"]
        y = y + (np.sum(r * k * params["r_k"], axis=-1, keepdims=True) * v).reshape(-1)
        gate = sigmoid(x["g"] @ params["g1"]) @ params["g2"]
        return linear(params, "output_", y * gate), (u, S)

    return Steps(advance, ((H,), (heads, D, D)), H)


SMALL = {"decay_rank": 1, "a_rank": 2, "gate_rank": 3, "epsilon": 1e-2}

CASES = GatedCases(
    layer=RWKV7,
    truth=steps,
    instances={
        "RWKV7": {"head_dim": 2, "chunk": 8, **SMALL},
        "RWKV7_later": {"head_dim": 4, "layer_idx": 2, "num_layers": 3, "chunk": 5, **SMALL},
    },
    least={"head_dim": 2},
    parameters="x_r x_w x_k x_v x_a x_g w0 w1 w2 a0 a1 a2 g1 g2 k_k k_a r_k receptance_weight key_weight value_weight "
    "output_weight ln_x_weight ln_x_bias",
    no_weight_decay="w0",
    rests_on=("fold", "gated_delta", *GATES),
    small={"chunk": ({"d_model": 2, "head_dim": 2, "chunk": 4, **SMALL}, "auto")},
    modules={"RWKV7": {"d_model": 4, "head_dim": 2, "chunk": 16, **SMALL}},
    timed=False,
    refusals=(
        ({"head_dim": 3}, "head_dim = 3 must divide d_model = 4"),
        ({"decay_rank": 0}, "decay_rank = 0 must be a whole number"),
        ({"first_values": "lost"}, "first_values = 'lost' must be None, 'given' or 'taken'"),
        *PLACE,
    ),
)
