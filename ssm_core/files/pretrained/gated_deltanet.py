"""Gated DeltaNet, as the models of flash-linear-attention are published."""

from __future__ import annotations

from . import fla
from .architecture import registered

OPTIONS = {
    "num_v_heads": ("num_v_heads", None),
    "conv_size": ("d_conv", 4),
    "allow_neg_eigval": ("negative_eigenvalues", False),
}
UNSAID = ("chunk", "dt_min", "dt_max", "dt_floor")  # what speed and first draws depend on
SIZES = ("num_heads", "head_dim", "conv_size")

GATED_DELTANET = registered(
    fla.architecture(
        "gated_deltanet",
        "GatedDeltaNet",
        "GatedDeltaNet",
        {
            "num_heads": ("heads", 6),
            "head_dim": ("head_dim", 256),
            "expand_v": ("expand_v", 2.0),
            "use_gate": ("output_gate", True),
            **OPTIONS,
        },
        only={"conv_bias": False},
        fixed={"use_short_conv": (True,)},
        unsaid=UNSAID,
        sizes=SIZES,
        optional=("num_v_heads",),
    )
)
