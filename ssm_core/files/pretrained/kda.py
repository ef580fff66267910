"""Kimi Delta Attention, as the models of flash-linear-attention are published."""

from __future__ import annotations

from . import fla
from .architecture import registered
from .gated_deltanet import OPTIONS, SIZES, UNSAID

KDA = registered(
    fla.architecture(
        "kda",
        "KDA",
        "KDA",
        {
            "num_heads": ("heads", 16),
            "head_dim": ("head_dim", 128),
            "expand_v": ("expand_v", 1.0),
            "lower_bound": ("lower_bound", None),
            **OPTIONS,
        },
        maps={f"{name}_{part}_proj": f"{name}_proj.{i}" for name in "fg" for i, part in enumerate("ab")},
        only={"conv_bias": False, "gate_bias": True},
        fixed={"use_short_conv": (True,)},
        unsaid=UNSAID,
        sizes=SIZES,
        optional=("num_v_heads",),
        always={"gate_bias": True},
    )
)
