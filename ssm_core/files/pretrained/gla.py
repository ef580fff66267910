"""GLA, as fla-hub/gla-1.3B-100B and its siblings are published."""

from __future__ import annotations

from . import fla
from .architecture import registered

GLA = registered(
    fla.architecture(
        "gla",
        "GLA",
        "GLA",
        {
            "num_heads": ("heads", 4),
            "expand_k": ("expand_k", 0.5),
            "expand_v": ("expand_v", 1.0),
            "use_output_gate": ("output_gate", True),
            "clamp_min": ("lower_bound", None),
            **fla.SHARED,
        },
        maps={"gk_proj_0": "gk_proj.0", "gk_proj_1": "gk_proj.1"},
        only={"gate_rank": 16, "gate_normalizer": 16},
        fixed={
            "elementwise_affine": (True,),
            "use_short_conv": (False,),
            "feature_map": fla.FEATURE_MAPS,
            "use_gk": (True,),
            "use_gv": (False,),
        },
        sizes=("num_heads", "num_kv_heads"),
        optional=("num_kv_heads",),
        entries=("conv_size",),
        given=fla.mapped,
        said=fla.map_said,
        fused=True,
    )
)
