"""Local attention: y = W_o sum_j softmax_j(q . k_j / sqrt(D)) v_j over the last steps, with turning q and k."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import LocalAttention

from ...truth.layers import Array, Options, Params, States, Steps, linear
from ..layer import GatedCases
from .retnet import turned


def steps(options: Options, params: Params) -> Steps:
    heads, window = options["heads"], options["window"]
    D, groups = options["head_dim"] or options["d_model"] // heads, options["kv_heads"] or heads
    n = int(options["rotary"] * D)
    w = options["theta"] ** (-2 * np.arange(n // 2) / max(1, n))

    def advance(u: Array, state: States, scale: float) -> tuple[Array, States]:
        keys, values, t = state
        q, k, v = (linear(params, f"{name}_proj_", u).reshape(-1, D) for name in "qkv")
        q, k = (np.concatenate([turned(x[:, :n], t * w, "half"), x[:, n:]], axis=1) for x in (q, k))
        keys, values = np.concatenate([keys, k[None]]), np.concatenate([values, v[None]])
        seen, y = min(int(t) + 1, window), np.empty_like(q)
        for h in range(heads):
            group = h // (heads // groups)
            weights = np.exp(keys[window - seen :, group] @ q[h] / np.sqrt(D))
            y[h] = weights @ values[window - seen :, group] / weights.sum()
        return linear(params, "o_proj_", y.reshape(-1)), (keys[1:], values[1:], t + 1)

    kept = (window - 1, groups, D)
    return Steps(advance, (kept, kept, ()), options["d_model"])


CASES = GatedCases(
    layer=LocalAttention,
    truth=steps,
    instances={
        "LocalAttention": {"heads": 2, "window": 4, "rotary": 1.0, "chunk": 7},
        "LocalAttention_groups": {
            "heads": 4, "kv_heads": 2, "head_dim": 4, "window": 3, "theta": 100.0, "bias": True, "chunk": 5,
        },
        "LocalAttention_still": {"heads": 1, "window": 1, "rotary": 0.0, "output_bias": False},
    },
    least={"heads": 2, "rotary": 1.0, "window": 4},
    parameters="q_proj_weight k_proj_weight v_proj_weight o_proj_weight o_proj_bias",
    no_weight_decay="",
    rests_on=("attention", "linear_scan", "affine"),
    small={"window": ({"d_model": 2, "heads": 1, "window": 3, "rotary": 1.0}, "auto")},
    modules={"LocalAttention": {"d_model": 4, "heads": 2, "window": 5, "rotary": 1.0}},
    timed=False,
    refusals=(
        ({"heads": 3}, "heads = 3 must divide d_model = 4"),
        ({"kv_heads": 3}, "kv_heads = 3 must divide heads = 2"),
        ({"rotary": 0.5, "head_dim": 2}, "1 features do not turn in pairs"),
        *(({name: x}, f"{name} = {x} must lie in") for name, x in (("rotary", 1.5), ("theta", -1.0), ("rotary", True))),
        *(({name: 0}, f"{name} = 0 must be a whole number") for name in ("window", "chunk", "head_dim", "kv_heads")),
    ),
)  # fmt: skip
