"""Modules of Equinox, one class a definition; written by `adapters/generate.py`."""

from .d_linoss import DLinOSS
from .delta_net import DeltaNet
from .dss import DSS
from .gated_delta_net import GatedDeltaNet
from .gated_delta_product import GatedDeltaProduct
from .gdn2 import GDN2
from .gla import GLA
from .h3 import H3
from .hgrn import HGRN
from .hgrn2 import HGRN2
from .hgrn2_lm import HGRN2LM
from .hyena import Hyena
from .kda import KDA
from .language_model import LanguageModel, Mamba2LM, Mamba3LM, MambaLM
from .lightning import Lightning
from .linear_attention import LinearAttention
from .linoss import LinOSS
from .lmu import LMU
from .local_attention import LocalAttention
from .lru import LRU
from .mamba import Mamba
from .mamba2 import Mamba2
from .mamba3 import Mamba3
from .mlstm import MLSTM
from .recurrent_gemma import RecurrentGemmaLM
from .retnet import RetNet
from .rg_lru import RGLRU
from .rtf import RTF
from .rwkv import RWKV4LM, RWKV7LM
from .rwkv4 import RWKV4
from .rwkv5 import RWKV5
from .rwkv6 import RWKV6
from .rwkv7 import RWKV7
from .rwkv_channel_mix import RWKVChannelMix
from .s4 import S4
from .s4d import S4D
from .s4nd import S4ND
from .s5 import S5
from .sashimi import SaShiMi
from .sequence_model import SequenceModel
from .ssm import SSM
from .xlstm import XLSTMLM

__all__ = [
    "DSS",
    "GDN2",
    "GLA",
    "H3",
    "HGRN",
    "HGRN2",
    "HGRN2LM",
    "KDA",
    "LMU",
    "LRU",
    "MLSTM",
    "RGLRU",
    "RTF",
    "RWKV4",
    "RWKV4LM",
    "RWKV5",
    "RWKV6",
    "RWKV7",
    "RWKV7LM",
    "S4",
    "S4D",
    "S4ND",
    "S5",
    "SSM",
    "XLSTMLM",
    "DLinOSS",
    "DeltaNet",
    "GatedDeltaNet",
    "GatedDeltaProduct",
    "Hyena",
    "LanguageModel",
    "Lightning",
    "LinOSS",
    "LinearAttention",
    "LocalAttention",
    "Mamba",
    "Mamba2",
    "Mamba2LM",
    "Mamba3",
    "Mamba3LM",
    "MambaLM",
    "RWKVChannelMix",
    "RecurrentGemmaLM",
    "RetNet",
    "SaShiMi",
    "SequenceModel",
]
