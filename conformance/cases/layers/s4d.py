"""S4D: x' = diag(poles) x + B u in every channel, poles = -exp(log_A_re) + i A_im."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import S4D

from ...dispatched import LONG, MIXING, SCAN
from ...truth import discretize_poles
from ...truth.layers import Array, Options, Params, System, copies
from ..instance import STEPS
from ..layer import TimeInvariantCases


def system(options: Options, params: Params) -> System:
    i = 0.0 if options["real"] else 1j
    A = copies(-np.exp(params["log_A_re"]) + i * params.get("A_im", 0.0), options)
    B = np.ones_like(A)
    if options["trainable_B"]:
        B = copies(params["B_re"] + i * params.get("B_im", 0.0), options)
    C = params["C_re"] + i * params.get("C_im", 0.0)
    dt = np.exp(params["log_dt"]).reshape(options["d_model"], -1)  # of every channel, or of every state
    if options["bandlimit"] is not None:
        C = np.where(dt * np.abs(A.imag) < np.pi * options["bandlimit"], C, 0.0)

    def advance(x: Array, u: Array, scale: float | Array) -> Array:
        steps = dt * np.broadcast_to(scale, u.shape)[:, None]
        Ab, gain = discretize_poles(A, steps, options["discretization"])
        if options["discretization"] == "dirac":  # impulses weigh the time that they stand for
            gain = gain * np.broadcast_to(scale, u.shape)[:, None]
        return Ab * x + gain * B * u[:, None]

    def observe(x: Array) -> Array:
        y = np.sum(C * x, axis=-1)
        return y if options["real"] else 2 * y.real

    return System(advance, observe, A.shape)


def small(**options: object) -> Options:
    return {"d_model": 2, "d_state": 4, **STEPS, **options}


BASIS = {"d_state": 6, **STEPS}
REAL = {"real": True, "init": "real"}
CASES = TimeInvariantCases(
    layer=S4D,
    truth=system,
    instances={
        "S4D": BASIS,
        "S4D_real": BASIS | REAL,
        "S4D_copies_channels": BASIS | {"n_ssm": 2, "channels": 3},
        "S4D_one_copy_real_channels": BASIS | REAL | {"n_ssm": 1, "channels": 2, "output": "linear"},
        "S4D_fixed_B_legs": BASIS | {"trainable_B": False, "init": "legs", "activation": "silu"},
        "S4D_bare": BASIS | {"activation": None, "output": None, "skip": False},
        "S4D_bilinear_tanh": BASIS | {"discretization": "bilinear", "activation": "tanh", "init": "inv"},
        "S4D_euler_relu": BASIS | {"discretization": "euler", "activation": "relu", "output": None},
        "S4D_backward_euler": BASIS | {"discretization": "backward_euler", "activation": "gelu_tanh", "init": "quad"},
        "S4D_own_steps_limited": BASIS | {"dt_tie": False, "bandlimit": 0.25},
        "S4D_dirac": BASIS | {"discretization": "dirac", "init": "inv2"},
    },
    ones=("S4D", "S4D_copies_channels", "S4D_real"),
    scaled=("S4D", "S4D_copies_channels", "S4D_dirac"),
    both=("S4D", "S4D_copies_channels", "S4D_real", "S4D_bare"),
    thorough=True,
    parameters="log_dt log_A_re A_im B_re B_im C_re C_im",
    no_weight_decay="log_dt log_A_re A_im B_re B_im",
    rests_on=(*LONG, *SCAN, *MIXING),
    extensions=("fft",),
    small={
        **{mode: (small(), mode) for mode in ("conv", "chunk", "scan")},
        "real_channels": (small(**REAL, channels=2, n_ssm=1), "auto"),
    },
    modules={
        "S4D": {"d_model": 4, **BASIS},
        "S4D_copies_channels": {"d_model": 4, **BASIS, "n_ssm": 2, "channels": 2},
        "S4D_real_bidirectional": {"d_model": 4, "d_state": 3, **REAL, "bidirectional": True, **STEPS},
    },
    refusals=(
        ({"d_state": 7}, r"d_state = 7 is odd, .* Use d_state=8, or real=True"),
        ({"init": "legt"}, "unknown init 'legt'. Known: 'legs', 'lin'"),
        ({"init": ["lin"]}, r"unknown init \('lin',\)"),
        ({"real": True}, "real poles need init='real', not init='lin'"),
    ),
)
