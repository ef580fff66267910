"""Sixteen steps of SaShiMi with pools of 4 and 4, batch 1, 64 features at the highest level, 2 blocks a level.

Against the same steps with every level computed in each of them, and against an isotropic model of the blocks of the
highest level alone: on average the levels below add what they cost every fourth and every sixteenth step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ssm_core.models import SaShiMi

from ..harness import Case, Job

STEPS = 16  # of the lowest level one
LAYER: dict[str, Any] = {"layer": "S4D", "layer_options": {"d_state": 64}}


def steps(pool: tuple[int, ...], moment: Any = None) -> Callable[[], Any]:
    model = SaShiMi(256, 64, 2, **LAYER, pool=pool)
    params = model.initial_parameters(0)
    step, state = model.stepper_at(moment, params), model.initial_state(params, 1)
    token = np.asarray([128])

    def run() -> Any:
        now = state
        for _ in range(STEPS):
            logits, now = step(token, now)
        return logits

    return run


def with_numpy() -> Case:
    others = {"every level in every step": steps((4, 4), (None, None)), "the highest level alone": steps(())}
    return Case("16 steps of SaShiMi", steps((4, 4)), others, wanted="wanted: under a half of every level", inner=10)


JOBS = {"sashimi-steps-numpy": Job(with_numpy, "numpy")}
