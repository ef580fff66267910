"""Mamba-3: rows B and C that are turned, the trapezoidal rule, and outputs of several inputs a step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ssm_core.layers import Mamba3

from ...dispatched import GATES, SCAN
from ...truth.gated import mamba3_step, normed, of_heads, silu, softplus
from ...truth.layers import Array, Options, Params, States, Steps
from ..instance import STEPS
from ..layer import GatedCases


def steps(options: Options, params: Params) -> Steps:
    inner, P, N = options["expand"] * options["d_model"], options["head_dim"], options["d_state"]
    heads, G, R = inner // P, options["n_groups"], options["rank"]
    M = math.floor(options["rope_fraction"] * N) // 2
    sizes = (inner, inner, R * G * N, R * G * N, heads, heads, heads, M)
    x_map, z_map, out_map = (params.get(name, np.ones((heads, R, P))) for name in ("x_map", "z_map", "out_map"))

    def rows(v: Array, name: str) -> Array:
        """B or C of all heads (heads, R, N), normalized and biased."""
        v = normed(v.reshape(R, G, N), options["epsilon"]) * params[f"{name}_norm_weight"]
        return np.stack([of_heads(m, heads) for m in v], axis=1) + params[f"{name}_bias"]

    def advance(u: Array, state: States, scale: Any) -> tuple[Array, States]:
        z, x, B, C, r, a, trap, angles = np.split(params["in_proj_weight"] @ u, np.cumsum(sizes)[:-1])
        dt = scale * softplus(r + params["dt_bias"])
        decay = np.asarray([1 + s if s >= 0 else 1 / (1 - s) for s in a])
        x = x.reshape(heads, 1, P) * x_map
        speed = np.broadcast_to(math.pi * np.tanh(angles), (heads, M))
        gate = -np.maximum(decay, options["A_floor"])
        y, state = mamba3_step(state, x, dt, gate, trap, speed, rows(B, "B"), rows(C, "C"))
        y = y + params["D"][:, None, None] * x
        if options["out_norm"]:
            y = normed(y, options["epsilon"]) * params["norm_weight"].reshape(heads, 1, P)
        y = np.sum(y * silu(z.reshape(heads, 1, P) * z_map) * out_map, axis=1)
        return params["out_proj_weight"] @ y.reshape(-1), (np.mod(state[0], 2 * math.pi), *state[1:])

    def swapped(states: States) -> States:
        """Rows and inputs of the step before are (R, heads, ...) in the state of the layer, (heads, R, ...) here."""
        return (*states[:2], *(np.swapaxes(s, 0, 1) for s in states[2:]))

    shapes = ((heads, M), (heads, P, N), (heads, R, N), (heads, R, P))
    return Steps(advance, shapes, options["d_model"], swapped, swapped)


CASES = GatedCases(
    layer=Mamba3,
    truth=steps,
    instances={
        "Mamba3": {"d_state": 4, "head_dim": 4, **STEPS},
        "Mamba3_groups_all_turn": {
            "d_state": 5,
            "head_dim": 2,
            "n_groups": 2,
            "rope_fraction": 1.0,
            "A_floor": 0.5,
            "chunk": 7,
            **STEPS,
        },
        "Mamba3_none_turns": {
            "d_state": 3,
            "head_dim": 1,
            "rope_fraction": 0.0,
            "out_norm": True,
            "expand": 1,
            **STEPS,
        },
        "Mamba3_rank_norm": {
            "d_state": 6,
            "head_dim": 2,
            "n_groups": 2,
            "rank": 2,
            "out_norm": True,
            "epsilon": 1e-2,
            **STEPS,
        },
        "Mamba3_rank": {"d_state": 4, "head_dim": 4, "rank": 3, "rope_fraction": 0.8, "chunk": 20, **STEPS},
    },
    ones=("Mamba3_rank_norm",),
    least={"head_dim": 2},
    parameters="in_proj_weight B_norm_weight C_norm_weight B_bias C_bias dt_bias D out_proj_weight",
    no_weight_decay="B_bias C_bias dt_bias D",
    rests_on=(*SCAN, *GATES),
    small={
        "chunk": ({"d_model": 2, "chunk": 4, "d_state": 4, "head_dim": 2, **STEPS}, "auto"),
        "rank": ({"d_model": 2, "rank": 2, "out_norm": True, "d_state": 4, "head_dim": 2, **STEPS}, "scan"),
    },
    modules={"Mamba3": {"d_model": 4, "d_state": 4, "head_dim": 4, "rank": 2, "out_norm": True, "chunk": 16, **STEPS}},
    refusals=tuple(
        ({"rope_fraction": fraction}, r"rope_fraction = .* must lie in \[0, 1\]")
        for fraction in (-0.1, 1.5, np.nan, "a", None)
    ),
)
