"""DeltaNet, as fla-hub/delta_net-1.3B-100B and its siblings are published."""

from __future__ import annotations

from . import fla
from .architecture import registered

DELTA_NET = registered(
    fla.architecture(
        "delta_net",
        "DeltaNet",
        "DeltaNet",
        {
            "num_heads": ("heads", 16),
            "expand_k": ("expand_k", 1.0),
            "expand_v": ("expand_v", 1.0),
            "conv_size": ("d_conv", 4),
            "allow_neg_eigval": ("negative_eigenvalues", False),
            "use_gate": ("output_gate", False),
        },
        only={"conv_bias": False},
        fixed={
            "use_short_conv": (True,),
            "use_beta": (True,),
            "use_output_norm": (True,),
            "qk_norm": ("l2",),
            "qk_activation": ("silu",),
        },
        sizes=("num_heads", "conv_size"),
    )
)
