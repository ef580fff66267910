"""The public names, written by `adapters/generate.py`: T is any one library's arrays."""

import os
from contextlib import AbstractContextManager
from typing import Any, Literal, TypeAlias, TypeVar, overload

from . import adapters as adapters
from . import backends as backends
from . import distributed as distributed
from . import layers as layers
from . import models as models
from . import plot as plot
from ._arrays.errors import DomainError as DomainError
from ._arrays.errors import DTypeError as DTypeError
from ._arrays.errors import MissingFileError as MissingFileError
from ._arrays.errors import MissingPackageError as MissingPackageError
from ._arrays.errors import MixedArraysError as MixedArraysError
from ._arrays.errors import OptionError as OptionError
from ._arrays.errors import ShapeError as ShapeError
from ._arrays.errors import SSMError as SSMError
from .files import importers as importers
from .functions import special as special
from .gated.decay_run import Memory as Memory
from .gated.rwkv4 import Weighted as Weighted
from .gated.turning import Turning as Turning
from .layers.layer import Layer as Layer
from .models.language_model import LanguageModel as LanguageModel
from .recurrences.summaries import Carried as Carried
from .recurrences.summaries import Columns as Columns
from .recurrences.summaries import Elementwise as Elementwise
from .recurrences.summaries import Matrix as Matrix
from .systems.records import DPLR as DPLR
from .systems.records import Dense as Dense
from .systems.records import Diagonal as Diagonal
from .systems.records import Rational as Rational

T = TypeVar("T")
_System: TypeAlias = Dense[T] | Diagonal[T] | DPLR[T] | Rational[T] | tuple[T, ...]

__version__: str
__all__ = [
    "DPLR",
    "DTypeError",
    "Dense",
    "Diagonal",
    "DomainError",
    "MissingFileError",
    "MissingPackageError",
    "MixedArraysError",
    "OptionError",
    "Rational",
    "SSMError",
    "ShapeError",
    "adapters",
    "backends",
    "causal_conv1d",
    "chunk_summary",
    "convolve",
    "dequantize",
    "diagonal_init",
    "diagonal_scan",
    "diagonal_summary",
    "discretize",
    "distributed",
    "eigenvector_condition",
    "expm",
    "frequency_response",
    "from_control",
    "from_pretrained",
    "from_scipy",
    "gated_delta",
    "gated_delta_summary",
    "gated_delta_update",
    "gated_linear_attention",
    "gated_linear_attention_summary",
    "gated_linear_attention_update",
    "hgrn",
    "hgrn_summary",
    "hgrn_update",
    "hippo",
    "hippo_project",
    "hippo_reconstruct",
    "importers",
    "kernel",
    "layers",
    "linear_scan",
    "load",
    "mamba3_scan",
    "mamba3_summary",
    "models",
    "nplr",
    "plot",
    "poles",
    "quantize",
    "rg_lru",
    "rg_lru_summary",
    "rg_lru_update",
    "rms_norm",
    "rwkv4",
    "rwkv4_summary",
    "rwkv4_update",
    "save",
    "save_pretrained",
    "scan",
    "scan_summary",
    "selective_scan",
    "selective_state_update",
    "selective_summary",
    "show_backends",
    "special",
    "ssd",
    "ssd_summary",
    "step",
    "to_control",
    "to_dense",
    "to_diagonal",
    "to_rational",
    "to_scipy",
    "use_backend",
]

@overload
def causal_conv1d(
    u: T,
    weight: T,
    bias: T | None = ...,
    *,
    initial: T | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: Literal[False] = False,
) -> T: ...
@overload
def causal_conv1d(
    u: T,
    weight: T,
    bias: T | None = ...,
    *,
    initial: T | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: Literal[True],
) -> tuple[T, T]: ...
@overload
def causal_conv1d(
    u: T,
    weight: T,
    bias: T | None = ...,
    *,
    initial: T | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: bool = ...,
) -> T | tuple[T, T]: ...
def chunk_summary(
    a: Any,
    b: T,
    *,
    axis: int,
) -> Elementwise: ...
def convolve(
    u: T,
    k: T,
    *,
    kernel_reverse: T | None = ...,
) -> T: ...
def dequantize(
    q: T,
    *,
    law: str = ...,
    levels: int = ...,
    dtype: Any = ...,
) -> T: ...
def diagonal_init(
    name: str,
    N: int,
    *,
    real_scale: float = ...,
    imag_scale: float = ...,
    B_init: str = ...,
    B_scale: float = ...,
    B_clip: float | None = ...,
    normalize: bool = ...,
    conj_pairs: bool = ...,
    xp: Any = ...,
    dtype: Any = ...,
    device: Any = ...,
) -> Diagonal[Any]: ...
def diagonal_scan(
    u: T,
    Ab: T,
    Bb: T,
    C: T,
    *,
    initial: T | None = ...,
    reset: T | None = ...,
    conj_pairs: bool = ...,
    per_step: bool = ...,
    chunk: int | None = ...,
) -> tuple[T, T]: ...
def diagonal_summary(
    u: T,
    Ab: T,
    Bb: T,
    *,
    reset: T | None = ...,
    per_step: bool = ...,
    chunk: int | None = ...,
) -> Elementwise: ...
def discretize(
    system: _System[T],
    dt: Any,
    method: str = ...,
    *,
    alpha: float | None = ...,
    check_values: bool = ...,
) -> Dense[T] | Diagonal[T] | DPLR[T] | Rational[T]: ...
def eigenvector_condition(
    A: T,
) -> float: ...
def expm(
    A: T,
) -> T: ...
def frequency_response(
    system: _System[T],
    omega: T,
) -> T: ...
def from_control(
    statespace: Any,
    *,
    xp: Any = ...,
    dtype: Any = ...,
    device: Any = ...,
) -> Dense[Any] | Rational[Any]: ...
def from_pretrained(
    directory: str | os.PathLike[str],
    *,
    xp: Any = ...,
    dtype: Any = ...,
) -> tuple[LanguageModel, dict[str, Any]]: ...
def from_scipy(
    statespace: Any,
    *,
    xp: Any = ...,
    dtype: Any = ...,
    device: Any = ...,
) -> Dense[Any] | Rational[Any]: ...
@overload
def gated_delta(
    q: T,
    k: T,
    v: T,
    log_decay: T | None = ...,
    beta: T | None = ...,
    *,
    erase: T | None = ...,
    write: T | None = ...,
    a: T | None = ...,
    b: T | None = ...,
    scale: float | None = ...,
    initial: T | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: Literal[False] = False,
    chunk: int = ...,
) -> T: ...
@overload
def gated_delta(
    q: T,
    k: T,
    v: T,
    log_decay: T | None = ...,
    beta: T | None = ...,
    *,
    erase: T | None = ...,
    write: T | None = ...,
    a: T | None = ...,
    b: T | None = ...,
    scale: float | None = ...,
    initial: T | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: Literal[True],
    chunk: int = ...,
) -> tuple[T, T]: ...
@overload
def gated_delta(
    q: T,
    k: T,
    v: T,
    log_decay: T | None = ...,
    beta: T | None = ...,
    *,
    erase: T | None = ...,
    write: T | None = ...,
    a: T | None = ...,
    b: T | None = ...,
    scale: float | None = ...,
    initial: T | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: bool = ...,
    chunk: int = ...,
) -> T | tuple[T, T]: ...
def gated_delta_summary(
    k: T,
    v: T,
    log_decay: T | None = ...,
    beta: T | None = ...,
    *,
    erase: T | None = ...,
    write: T | None = ...,
    a: T | None = ...,
    b: T | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    chunk: int = ...,
) -> Columns: ...
def gated_delta_update(
    state: T,
    q: T,
    k: T,
    v: T,
    log_decay: T | None = ...,
    beta: T | None = ...,
    *,
    erase: T | None = ...,
    write: T | None = ...,
    a: T | None = ...,
    b: T | None = ...,
    scale: float | None = ...,
) -> tuple[T, T]: ...
@overload
def gated_linear_attention(
    q: T,
    k: T,
    v: T,
    log_decay: T | None = ...,
    *,
    log_input: T | None = ...,
    bonus: T | None = ...,
    exclusive: bool = ...,
    normalize: str | None = ...,
    epsilon: float = ...,
    scale: float | None = ...,
    initial: Any = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: Literal[False] = False,
    chunk: int = ...,
) -> T: ...
@overload
def gated_linear_attention(
    q: T,
    k: T,
    v: T,
    log_decay: T | None = ...,
    *,
    log_input: T | None = ...,
    bonus: T | None = ...,
    exclusive: bool = ...,
    normalize: str | None = ...,
    epsilon: float = ...,
    scale: float | None = ...,
    initial: Any = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: Literal[True],
    chunk: int = ...,
) -> tuple[T, Any]: ...
@overload
def gated_linear_attention(
    q: T,
    k: T,
    v: T,
    log_decay: T | None = ...,
    *,
    log_input: T | None = ...,
    bonus: T | None = ...,
    exclusive: bool = ...,
    normalize: str | None = ...,
    epsilon: float = ...,
    scale: float | None = ...,
    initial: Any = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: bool = ...,
    chunk: int = ...,
) -> T | tuple[T, Any]: ...
def gated_linear_attention_summary(
    k: T,
    v: T,
    log_decay: T | None = ...,
    *,
    log_input: T | None = ...,
    normalize: str | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    chunk: int = ...,
) -> Elementwise | Memory: ...
def gated_linear_attention_update(
    state: Any,
    q: T,
    k: T,
    v: T,
    log_decay: T | None = ...,
    *,
    log_input: T | None = ...,
    bonus: T | None = ...,
    exclusive: bool = ...,
    normalize: str | None = ...,
    epsilon: float = ...,
    scale: float | None = ...,
) -> tuple[T, Any]: ...
@overload
def hgrn(
    x: T,
    log_decay: T,
    *,
    initial: T | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: Literal[False] = False,
) -> T: ...
@overload
def hgrn(
    x: T,
    log_decay: T,
    *,
    initial: T | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: Literal[True],
) -> tuple[T, T]: ...
@overload
def hgrn(
    x: T,
    log_decay: T,
    *,
    initial: T | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: bool = ...,
) -> T | tuple[T, T]: ...
def hgrn_summary(
    x: T,
    log_decay: T,
    *,
    reset: T | None = ...,
    lengths: T | None = ...,
) -> Elementwise: ...
def hgrn_update(
    state: T,
    x: T,
    log_decay: T,
) -> tuple[T, T]: ...
def hippo(
    measure: str,
    N: int,
    *,
    alpha: float | None = ...,
    beta: float | None = ...,
    xp: Any = ...,
    dtype: Any = ...,
    device: Any = ...,
) -> tuple[Any, Any]: ...
def hippo_project(
    u: T,
    measure: str,
    N: int,
    *,
    dt: Any = ...,
    times: T | None = ...,
    method: str = ...,
    window: float | None = ...,
    alpha: float | None = ...,
    beta: float | None = ...,
    initial: T | None = ...,
    start: float | None = ...,
    check_values: bool = ...,
) -> T: ...
def hippo_reconstruct(
    coefficients: T,
    measure: str,
    points: T,
    *,
    window: float | None = ...,
    alpha: float | None = ...,
    beta: float | None = ...,
    check_values: bool = ...,
) -> T: ...
@overload
def kernel(
    system: _System[T],
    length: int,
    *,
    dt: Any = ...,
    method: str = ...,
    alpha: float | None = ...,
    algorithm: str | None = ...,
    xp: None = None,
    check_values: bool = ...,
) -> T: ...
@overload
def kernel(
    system: _System[T],
    length: int,
    *,
    dt: Any = ...,
    method: str = ...,
    alpha: float | None = ...,
    algorithm: str | None = ...,
    xp: Any,
    check_values: bool = ...,
) -> Any: ...
def linear_scan(
    a: Any,
    b: T,
    *,
    axis: int,
    initial: Any = ...,
    reverse: bool = ...,
    backend: str | None = ...,
) -> T: ...
def load(
    path: str | os.PathLike[str],
    *,
    xp: Any = ...,
) -> tuple[Layer, dict[str, Any]]: ...
@overload
def mamba3_scan(
    x: T,
    dt: T,
    A: T,
    B: T,
    C: T,
    *,
    trap: T,
    angles: T,
    B_bias: T | None = ...,
    C_bias: T | None = ...,
    D: T | None = ...,
    z: T | None = ...,
    rank_maps: tuple[T, T | None, T] | None = ...,
    initial: Any | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: Literal[False] = False,
    chunk: int = ...,
) -> T: ...
@overload
def mamba3_scan(
    x: T,
    dt: T,
    A: T,
    B: T,
    C: T,
    *,
    trap: T,
    angles: T,
    B_bias: T | None = ...,
    C_bias: T | None = ...,
    D: T | None = ...,
    z: T | None = ...,
    rank_maps: tuple[T, T | None, T] | None = ...,
    initial: Any | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: Literal[True],
    chunk: int = ...,
) -> tuple[T, Any]: ...
@overload
def mamba3_scan(
    x: T,
    dt: T,
    A: T,
    B: T,
    C: T,
    *,
    trap: T,
    angles: T,
    B_bias: T | None = ...,
    C_bias: T | None = ...,
    D: T | None = ...,
    z: T | None = ...,
    rank_maps: tuple[T, T | None, T] | None = ...,
    initial: Any | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: bool = ...,
    chunk: int = ...,
) -> T | tuple[T, Any]: ...
def mamba3_summary(
    x: T,
    dt: T,
    A: T,
    B: T,
    *,
    trap: T,
    angles: T,
    B_bias: T | None = ...,
    x_map: T | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    chunk: int = ...,
) -> Turning: ...
def nplr(
    measure: str,
    N: int,
    *,
    rank: int | None = ...,
    alpha: float | None = ...,
    beta: float | None = ...,
    B_clip: float | None = ...,
    xp: Any = ...,
    dtype: Any = ...,
    device: Any = ...,
) -> tuple[DPLR[Any], Any]: ...
def poles(
    system: _System[T],
) -> T: ...
def quantize(
    x: T,
    *,
    law: str = ...,
    levels: int = ...,
    minmax: bool = ...,
) -> T: ...
@overload
def rg_lru(
    x: T,
    input_gate: T,
    recurrent_gate: T,
    recurrent_param: T,
    *,
    initial: T | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: Literal[False] = False,
) -> T: ...
@overload
def rg_lru(
    x: T,
    input_gate: T,
    recurrent_gate: T,
    recurrent_param: T,
    *,
    initial: T | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: Literal[True],
) -> tuple[T, T]: ...
@overload
def rg_lru(
    x: T,
    input_gate: T,
    recurrent_gate: T,
    recurrent_param: T,
    *,
    initial: T | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: bool = ...,
) -> T | tuple[T, T]: ...
def rg_lru_summary(
    x: T,
    input_gate: T,
    recurrent_gate: T,
    recurrent_param: T,
    *,
    reset: T | None = ...,
    lengths: T | None = ...,
) -> Elementwise: ...
def rg_lru_update(
    state: T | None,
    x: T,
    input_gate: T,
    recurrent_gate: T,
    recurrent_param: T,
) -> tuple[T, T]: ...
def rms_norm(
    x: T,
    weight: T | None = ...,
    *,
    gate: T | None = ...,
    groups: int = ...,
    epsilon: float = ...,
    gate_first: bool = ...,
) -> T: ...
@overload
def rwkv4(
    k: T,
    v: T,
    log_decay: T,
    bonus: T,
    *,
    initial: Any | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: Literal[False] = False,
    chunk: int = ...,
) -> T: ...
@overload
def rwkv4(
    k: T,
    v: T,
    log_decay: T,
    bonus: T,
    *,
    initial: Any | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: Literal[True],
    chunk: int = ...,
) -> tuple[T, Any]: ...
@overload
def rwkv4(
    k: T,
    v: T,
    log_decay: T,
    bonus: T,
    *,
    initial: Any | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: bool = ...,
    chunk: int = ...,
) -> T | tuple[T, Any]: ...
def rwkv4_summary(
    k: T,
    v: T,
    log_decay: T,
    *,
    reset: T | None = ...,
    lengths: T | None = ...,
    chunk: int = ...,
) -> Weighted: ...
def rwkv4_update(
    state: Any,
    k: T,
    v: T,
    log_decay: T,
    bonus: T,
) -> tuple[T, Any]: ...
def save(
    layer: Layer,
    params: dict[str, Any],
    path: str | os.PathLike[str],
) -> None: ...
def save_pretrained(
    definition: LanguageModel,
    params: dict[str, Any],
    directory: str | os.PathLike[str],
) -> None: ...
def scan(
    system: _System[T],
    u: T,
    *,
    dt: Any = ...,
    method: str = ...,
    alpha: float | None = ...,
    initial: T | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    step_scale: T | None = ...,
    mode: str = ...,
    check_values: bool = ...,
) -> tuple[T, T]: ...
def scan_summary(
    system: _System[T],
    u: T,
    *,
    dt: Any = ...,
    method: str = ...,
    alpha: float | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    step_scale: T | None = ...,
    check_values: bool = ...,
) -> Elementwise | Matrix: ...
@overload
def selective_scan(
    u: T,
    dt: T,
    A: T,
    B: T,
    C: T,
    *,
    D: T | None = ...,
    z: T | None = ...,
    dt_bias: T | None = ...,
    dt_softplus: bool = ...,
    discretization: str = ...,
    initial: T | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: Literal[False] = False,
    chunk: int | None = ...,
) -> T: ...
@overload
def selective_scan(
    u: T,
    dt: T,
    A: T,
    B: T,
    C: T,
    *,
    D: T | None = ...,
    z: T | None = ...,
    dt_bias: T | None = ...,
    dt_softplus: bool = ...,
    discretization: str = ...,
    initial: T | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: Literal[True],
    chunk: int | None = ...,
) -> tuple[T, T]: ...
@overload
def selective_scan(
    u: T,
    dt: T,
    A: T,
    B: T,
    C: T,
    *,
    D: T | None = ...,
    z: T | None = ...,
    dt_bias: T | None = ...,
    dt_softplus: bool = ...,
    discretization: str = ...,
    initial: T | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: bool = ...,
    chunk: int | None = ...,
) -> T | tuple[T, T]: ...
def selective_state_update(
    state: T,
    x: T,
    dt: T,
    A: T,
    B: T,
    C: T,
    *,
    D: T | None = ...,
    z: T | None = ...,
    dt_bias: T | None = ...,
    dt_softplus: bool = ...,
) -> tuple[T, T]: ...
def selective_summary(
    u: T,
    dt: T,
    A: T,
    B: T,
    *,
    dt_bias: T | None = ...,
    dt_softplus: bool = ...,
    discretization: str = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    chunk: int | None = ...,
) -> Elementwise | Carried: ...
def show_backends() -> None: ...
@overload
def ssd(
    x: T,
    dt: T,
    A: T,
    B: T,
    C: T,
    *,
    D: T | None = ...,
    z: T | None = ...,
    dt_bias: T | None = ...,
    dt_softplus: bool = ...,
    dt_limit: tuple[float, float] = ...,
    initial: T | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: Literal[False] = False,
    chunk: int = ...,
) -> T: ...
@overload
def ssd(
    x: T,
    dt: T,
    A: T,
    B: T,
    C: T,
    *,
    D: T | None = ...,
    z: T | None = ...,
    dt_bias: T | None = ...,
    dt_softplus: bool = ...,
    dt_limit: tuple[float, float] = ...,
    initial: T | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: Literal[True],
    chunk: int = ...,
) -> tuple[T, T]: ...
@overload
def ssd(
    x: T,
    dt: T,
    A: T,
    B: T,
    C: T,
    *,
    D: T | None = ...,
    z: T | None = ...,
    dt_bias: T | None = ...,
    dt_softplus: bool = ...,
    dt_limit: tuple[float, float] = ...,
    initial: T | None = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    cu_seqlens: T | None = ...,
    return_state: bool = ...,
    chunk: int = ...,
) -> T | tuple[T, T]: ...
def ssd_summary(
    x: T,
    dt: T,
    A: T,
    B: T,
    *,
    dt_bias: T | None = ...,
    dt_softplus: bool = ...,
    dt_limit: tuple[float, float] = ...,
    reset: T | None = ...,
    lengths: T | None = ...,
    chunk: int = ...,
) -> Elementwise: ...
def step(
    system: _System[T],
    u_k: T,
    state: T,
    *,
    dt: Any = ...,
    method: str = ...,
    alpha: float | None = ...,
) -> tuple[T, T]: ...
def to_control(
    system: _System[T],
    *,
    dt: float | None = ...,
) -> Any: ...
def to_dense(
    system: _System[T],
) -> Dense[T]: ...
def to_diagonal(
    system: _System[T],
    *,
    max_condition: float = ...,
) -> tuple[Diagonal[T], T]: ...
def to_rational(
    system: _System[T],
    *,
    check_values: bool = ...,
) -> Rational[T]: ...
def to_scipy(
    system: _System[T],
    *,
    dt: float | None = ...,
) -> Any: ...
def use_backend(name: str) -> AbstractContextManager[None]: ...
