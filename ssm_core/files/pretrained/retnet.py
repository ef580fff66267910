"""RetNet, as fla-hub/retnet-1.3B-100B and its siblings are published."""

from __future__ import annotations

from . import fla
from .architecture import registered

RETNET = registered(
    fla.architecture(
        "retnet",
        "RetNet",
        "RetNet",
        {
            "num_heads": ("heads", 8),
            "expand_k": ("expand_k", 1.0),
            "expand_v": ("expand_v", 2.0),
            "elementwise_affine": ("norm_weight", True),
            "use_output_gate": ("output_gate", True),
            **fla.SHARED,
        },
        ratio=2,
        only={"rotation": "half", "row_norm": False},
        fixed={
            "use_short_conv": (False,),
            "feature_map": fla.FEATURE_MAPS,
        },
        sizes=("num_heads", "num_kv_heads"),
        optional=("num_kv_heads",),
        entries=("conv_size",),
        given=fla.mapped,
        said=fla.map_said,
        fused=True,
    )
)
