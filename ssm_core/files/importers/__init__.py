"""Layers from the weights of other implementations: S4 and S4D, S5, LRU, RTF, and single blocks of Mamba's family.

Each takes a dict of tensors by their names over there, of any framework and of half precision too, and gives
(layer, params) with NumPy parameters of this package; `save` writes them for every framework. The tensors are those of
one layer: a prefix that all their names share is passed over, and tensors of two layers are refused. What the names
cannot tell (activation, discretization, ...) are options. `from_sashimi` takes those of a whole SaShiMi.
"""

from __future__ import annotations

from .mamba import from_mamba, from_mamba2, from_mamba3
from .rtf import from_rtf
from .s4 import from_s4
from .s5 import from_lru, from_s5
from .sashimi import from_sashimi

__all__ = ["from_lru", "from_mamba", "from_mamba2", "from_mamba3", "from_rtf", "from_s4", "from_s5", "from_sashimi"]
