"""RetNet: S = gamma S + k v^T with turning q and k, y = W_o (n(S^T q) silu(W_g u))."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import RetNet

from ...dispatched import GATES
from ...truth.decay import remembered
from ...truth.gated import normed, silu
from ...truth.layers import Array, Options, Params, States, Steps, linear
from ..layer import GatedCases


def turned(x: Array, angles: Array, rotation: str) -> Array:
    """Pairs of features as complex numbers times e^{i angle}."""
    half = len(angles)
    first, second = (x[:, :half], x[:, half:]) if rotation == "half" else (x[:, ::2], x[:, 1::2])
    z = (first + 1j * second) * np.exp(1j * angles)
    pairs = [z.real, z.imag]
    return np.concatenate(pairs, axis=1) if rotation == "half" else np.stack(pairs, axis=-1).reshape(x.shape)


def steps(options: Options, params: Params) -> Steps:
    d_model, heads, rotation = options["d_model"], options["heads"], options["rotation"]
    K, V = (int(options[e] * d_model) // heads for e in ("expand_k", "expand_v"))
    gamma = 1 - 2.0 ** (-5 - np.arange(heads))
    j = np.arange(K // 2)
    w = 10000.0 ** (-2 * j / K if rotation == "half" else -j / max(1, K // 2 - 1))

    def advance(u: Array, state: States, scale: float) -> tuple[Array, States]:
        t, *memory = state
        q, k, v = (linear(params, f"{n}_proj_", u) for n in "qkv")
        q, k = (np.maximum(x, 0) if options["feature_map"] == "relu" else x for x in (q, k))
        q, k, v = (np.repeat(x.reshape(-1, n), heads // (x.size // n), axis=0) for x, n in ((q, K), (k, K), (v, V)))
        q, k = (turned(x, t * w, rotation) for x in (q, k))
        y, memory = remembered((q, k, v, np.log(gamma)), tuple(memory), (heads, K, V))
        if options["row_norm"]:
            y = y / np.sqrt((1 - gamma ** (t + 1)) / (1 - gamma))[:, None]
        y = (normed(y, options["epsilon"]) * params.get("g_norm_weight", 1.0)).reshape(-1)
        y = y * silu(linear(params, "g_proj_", u)) if options["output_gate"] else y
        return linear(params, "o_proj_", y), (t + 1, *memory)

    return Steps(advance, ((), (heads, K, V)), d_model)


CASES = GatedCases(
    layer=RetNet,
    truth=steps,
    instances={
        "RetNet": {"heads": 2, "chunk": 8},
        "RetNet_interleaved": {
            "heads": 1, "expand_v": 1.0, "rotation": "interleaved", "row_norm": True, "norm_weight": False, "chunk": 5,
        },
        "RetNet_without_gate": {"heads": 2, "output_gate": False, "chunk": 8},
        "RetNet_shared_heads": {"heads": 2, "kv_heads": 1, "feature_map": "relu", "chunk": 8},
    },
    least={"heads": 2},
    parameters="q_proj_weight k_proj_weight v_proj_weight g_proj_weight g_norm_weight o_proj_weight",
    no_weight_decay="",
    rests_on=("fold", "ssd", "linear_scan", *GATES),
    small={"chunk": ({"d_model": 2, "heads": 1, "chunk": 4}, "auto")},
    modules={"RetNet": {"d_model": 4, "heads": 2, "chunk": 16}},
    timed=False,
    refusals=(
        ({"heads": 3}, r"heads = 3 must divide expand_k \* d_model = 4"),
        ({"heads": 4}, "1 features of a key do not turn in pairs"),
        ({"kv_heads": 3}, "kv_heads = 3 must divide heads = 2"),
        ({"rotation": "none"}, "unknown rotation 'none'. Known: 'half', 'interleaved'"),
        ({"row_norm": 1}, "row_norm = 1 must be True or False"),
    ),
)  # fmt: skip
