"""HGRN2: S = diag(a) S + (1 - a) v^T, y = W_o n(S^T silu(W_q u)), with a = b + (1 - b) sigmoid(W_f u)."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import HGRN2

from ...dispatched import GATES
from ...truth.decay import remembered, sigmoid
from ...truth.gated import normed, silu
from ...truth.layers import Array, Options, Params, States, Steps, linear
from ..layer import GatedCases


def steps(options: Options, params: Params) -> Steps:
    d_model, heads, low = options["d_model"], options["heads"], options["lower_bound"]
    low = params["lower_bound"].reshape(heads, -1) if low is None else low
    K, V = int(options["expand_k"] * d_model) // heads, d_model // heads

    def advance(u: Array, memory: States, scale: float) -> tuple[Array, States]:
        q, f, v = (linear(params, f"{n}_proj_", u).reshape(heads, -1) for n in "qfi")
        a = low + (1 - low) * sigmoid(f)
        y, memory = remembered((silu(q), 1 - a, v, np.log(a)), memory, (heads, K, V))
        y = normed(y.reshape(-1), options["epsilon"]) * params["g_norm_weight"]
        return linear(params, "o_proj_", y), memory

    return Steps(advance, ((heads, K, V),), d_model)


CASES = GatedCases(
    layer=HGRN2,
    truth=steps,
    instances={
        "HGRN2": {"heads": 2, "chunk": 8},
        "HGRN2_learned": {"heads": 2, "lower_bound": None, "chunk": 8},
        "HGRN2_lower_bound": {"heads": 1, "expand_k": 0.5, "lower_bound": 0.3, "epsilon": 1e-2, "chunk": 5},
    },
    ones=("HGRN2_lower_bound",),
    edits={"HGRN2_learned": lambda params: params.update(lower_bound=np.linspace(0, 0.5, 4))},
    least={"heads": 2},
    parameters="q_proj_weight f_proj_weight i_proj_weight g_norm_weight o_proj_weight",
    no_weight_decay="",
    rests_on=("fold", "channel_decay", *GATES),
    small={"chunk": ({"d_model": 2, "heads": 1, "lower_bound": 0.1, "chunk": 4}, "auto")},
    modules={"HGRN2": {"d_model": 4, "heads": 2, "chunk": 16}},
    timed=False,
    refusals=(
        ({"heads": 3}, r"heads = 3 must divide expand_k \* d_model = 4"),
        *(({"lower_bound": x}, r"lower_bound = .* must lie in \[0, 1\)") for x in (-0.1, 1, np.nan, "a", True)),
    ),
)
