"""Every layer at a small size, for tests that compile or export: what a trace takes depends on the layer alone."""

from __future__ import annotations

from typing import Any

WIDTH = 4
OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {"d_state": 4} for name in ("S4D", "S4", "SSM", "LMU", "S5", "LRU", "LinOSS", "RTF", "Mamba")},
    "DSS": {"d_state": 4, "length": 8},
    "Mamba2": {"d_state": 4, "head_dim": 4},
    "Mamba3": {"d_state": 4, "head_dim": 4},
    **{name: {} for name in ("HGRN", "RWKV4", "RWKVChannelMix")},
    **{name: {"heads": 2} for name in ("LinearAttention", "RetNet", "Lightning", "GLA", "HGRN2", "MLSTM", "DeltaNet")},
    **{name: {"heads": 2, "head_dim": 4} for name in ("GatedDeltaNet", "GatedDeltaProduct", "KDA", "GDN2")},
    **{name: {"head_dim": 2} for name in ("RWKV5", "RWKV6", "RWKV7")},
    "RGLRU": {"heads": 2},
}
LAYERS = tuple(OPTIONS)
