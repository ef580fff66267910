"""Good arguments of every public function and layer, which `fuzzing` makes strange one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
from small import NAMES, options_of, small

import ssm_core as s
from ssm_core import layers, models

Values = dict[str, Any]
L, N, B, H = 6, 4, 2, 4


@dataclass(frozen=True)
class Call:
    """An operation of named arguments, and good ones of NumPy.

    random    results are drawn, so that libraries differ
    infinite  numbers may give what is not finite
    allowed   errors of Python that are an answer too, such as of a name that no signature has
    """

    call: Callable[..., Any]
    arguments: Callable[[], Values]
    random: bool = False
    infinite: bool = False
    allowed: tuple[type[Exception], ...] = ()

    def passes(self, error: Exception) -> bool:
        return isinstance(error, self.allowed)


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed + len(shape)).normal(size=shape)


def positive(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).uniform(0.1, 0.5, shape)


CALLS: dict[str, Call] = {}


def entry(operation: str, call: Callable[..., Any], /, infinite: bool = False, **values: Any) -> None:
    CALLS[operation] = Call(call, lambda: dict(values), infinite=infinite)


RESET = np.arange(B * L).reshape(B, L) % 5 == 2
LENGTHS = np.asarray([3, L])
MASKS: Values = {"reset": RESET, "lengths": LENGTHS}
CUTS = np.asarray([0, 2, L])

# Functions -----------------------------------------------------------------------------------------------------------

entry("linear_scan", s.linear_scan, a=positive(B, L), b=drawn(B, L), axis=1, initial=drawn(B), reverse=False)
entry("chunk_summary", s.chunk_summary, a=positive(B, L), b=drawn(B, L), axis=1)
entry("convolve", s.convolve, u=drawn(B, L), k=drawn(B, L), kernel_reverse=drawn(L))
entry("quantize", s.quantize, x=drawn(B, L), levels=16, law="mu_law", minmax=False)
entry("dequantize", s.dequantize, q=np.arange(B * L).reshape(B, L), levels=16, law="mu_law")
entry("expm", s.expm, A=drawn(B, 3, 3))
for _name in ("phi1", "erf", "sigmoid", "softplus", "gelu", "silu"):
    entry(
        f"special.{_name}", getattr(s.special, _name), infinite=True, **{"z" if _name == "phi1" else "x": drawn(B, L)}
    )
entry(
    "rms_norm", s.rms_norm, x=drawn(B, 6), weight=drawn(6), gate=drawn(B, 6, seed=1), groups=2, epsilon=1e-5,
    gate_first=True,
)  # fmt: skip
entry(
    "diagonal_scan", s.diagonal_scan, u=drawn(B, L), Ab=positive(B, N), Bb=drawn(B, N), C=drawn(B, N, seed=1),
    initial=drawn(B, N, seed=2), reset=RESET, conj_pairs=False, per_step=False, chunk=3,
)  # fmt: skip
entry("diagonal_summary", s.diagonal_summary, u=drawn(L), Ab=positive(N), Bb=drawn(N), per_step=False, chunk=3)
entry(
    "causal_conv1d", s.causal_conv1d, u=drawn(B, 3, L), weight=drawn(3, 4), bias=drawn(3), initial=drawn(B, 3, 3),
    return_state=True, **MASKS,
)  # fmt: skip
entry(
    "selective_scan", s.selective_scan, u=drawn(B, 3, L), dt=positive(B, 3, L), A=-positive(3, N), B=drawn(B, N, L),
    C=drawn(B, N, L, seed=1), D=drawn(3), z=drawn(B, 3, L, seed=2), dt_bias=positive(3), dt_softplus=True,
    initial=drawn(B, 3, N), discretization="mamba", return_state=True, chunk=2, **MASKS,
)  # fmt: skip
entry(
    "selective_summary", s.selective_summary, u=drawn(B, 3, L), dt=positive(B, 3, L), A=-positive(3, N),
    B=drawn(B, N, L), dt_softplus=False, discretization="zoh", chunk=2, reset=RESET,
)  # fmt: skip
entry(
    "selective_state_update", s.selective_state_update, state=drawn(B, 2, 3, N), x=drawn(B, 2, 3), dt=positive(B, 2, 3),
    A=-positive(2, 3, N), B=drawn(B, 1, N), C=drawn(B, 1, N, seed=1), D=drawn(2), dt_softplus=False,
)  # fmt: skip
entry(
    "ssd", s.ssd, x=drawn(B, L, 2, 3), dt=positive(B, L, 2), A=-positive(2), B=drawn(B, L, 1, N),
    C=drawn(B, L, 1, N, seed=1), D=drawn(2), z=drawn(B, L, 2, 3, seed=2), dt_bias=positive(2), dt_softplus=True,
    dt_limit=(0.0, 1.0), initial=drawn(B, 2, 3, N), return_state=True, chunk=4, **MASKS,
)  # fmt: skip
entry(
    "mamba3_scan", s.mamba3_scan, x=drawn(B, L, 2, 3), dt=positive(B, L, 2), A=-positive(2), B=drawn(B, L, 1, N),
    C=drawn(B, L, 1, N, seed=1), trap=drawn(B, L, 2), angles=drawn(B, L, 2, 1), D=drawn(2), B_bias=drawn(2, N),
    z=drawn(B, L, 2, 3, seed=2), return_state=True, chunk=4, **MASKS,
)  # fmt: skip

# One group of keys for two heads of values, K = 3, V = 2.
_QKV = {"q": drawn(B, L, 1, 3), "k": drawn(B, L, 1, 3, seed=1) / 2, "v": drawn(B, L, 2, 2, seed=2)}
_KV = {name: _QKV[name] for name in ("k", "v")}
_HEADS = {"log_decay": -positive(B, L, 2), "log_input": 0.2 * drawn(B, L, 2)}
_STATES = {  # of gated linear attention, by its normalizer
    None: drawn(B, 2, 3, 2),
    "sum": (drawn(B, 2, 3, 2), positive(B, 2, 3)),
    "max": (drawn(B, 2, 3, 2), positive(B, 2, 3), drawn(B, 2)),
}


def newest(values: Values) -> Values:
    """Those of one step of signals (batch, L, ...)."""
    return {name: x[:, 0] for name, x in values.items()}


for _rule, _state in _STATES.items():
    _of = f"gated_linear_attention{'' if _rule is None else f' {_rule}'}"
    entry(
        _of, s.gated_linear_attention, infinite=_rule == "sum", **_QKV, **_HEADS, **MASKS, normalize=_rule,
        epsilon=1e-3, scale=0.5, initial=_state, return_state=True, chunk=4,
    )  # fmt: skip
    entry(
        f"{_of} update", s.gated_linear_attention_update, infinite=_rule == "sum", state=_state, **newest(_QKV),
        **newest(_HEADS), normalize=_rule, epsilon=1e-3, scale=0.5,
    )  # fmt: skip
    entry(
        f"{_of} summary",
        s.gated_linear_attention_summary,
        infinite=_rule is not None,
        **_KV,
        **_HEADS,
        **MASKS,
        normalize=_rule,
        chunk=4,
    )
entry(
    "gated_linear_attention bonus", s.gated_linear_attention, **_QKV, log_decay=-positive(B, L, 2, 3),
    bonus=drawn(2, 3), exclusive=True, cu_seqlens=None, **MASKS, return_state=True, chunk=4,
)  # fmt: skip
_GATES = {"log_decay": -positive(B, L, 2), "beta": positive(B, L, 2)}
_KEYS = {"a": -positive(B, L, 1, 3), "b": positive(B, L, 1, 3)}
for _of, _gates in (
    ("gated_delta", _GATES | {"erase": positive(B, L, 1, 3), "write": positive(B, L, 2, 2)}),
    ("gated_delta keys", _GATES | _KEYS),
    ("gated_delta channels", {"log_decay": -positive(B, L, 2, 3), "beta": positive(B, L, 2)}),
):
    entry(
        _of, s.gated_delta, **_QKV, **_gates, **MASKS, scale=0.5, initial=drawn(B, 2, 3, 2), return_state=True, chunk=4,
    )  # fmt: skip
    entry(f"{_of} update", s.gated_delta_update, state=drawn(B, 2, 3, 2), **newest(_QKV), **newest(_gates), scale=0.5)
    entry(f"{_of} summary", s.gated_delta_summary, **_KV, **_gates, **MASKS, chunk=4)
_VECTORS = {"x": drawn(B, L, 3), "log_decay": -positive(B, L, 3)}
_UNIT = {"x": drawn(B, L, 3), "input_gate": drawn(B, L, 3, seed=1), "recurrent_gate": drawn(B, L, 3, seed=2)}
_MEANS = {"k": drawn(B, L, 3), "v": drawn(B, L, 3, seed=1)}
_MEAN = (drawn(B, 3), positive(B, 3), drawn(B, 3, seed=1))
for _of, _signals, _constants, _state in (
    ("hgrn", _VECTORS, {}, drawn(B, 3)),
    ("rg_lru", _UNIT, {"recurrent_param": drawn(3)}, drawn(B, 3)),
    ("rwkv4", _MEANS, {"log_decay": -positive(3), "bonus": drawn(3)}, _MEAN),
):
    _step, _summary = getattr(s, f"{_of}_update"), getattr(s, f"{_of}_summary")
    _more = {"chunk": 4} if _of == "rwkv4" else {}
    entry(_of, getattr(s, _of), **_signals, **_constants, initial=_state, **MASKS, **_more, return_state=True)
    entry(f"{_of} packed", getattr(s, _of), **{n: x[:1] for n, x in _signals.items()}, **_constants, cu_seqlens=CUTS)
    entry(f"{_of}_update", _step, state=_state, **newest(_signals), **_constants)
    _constants = {name: x for name, x in _constants.items() if name != "bonus"}
    entry(f"{_of}_summary", _summary, **_signals, **_constants, **MASKS, **_more)
entry(
    "ssd_summary", s.ssd_summary, x=drawn(B, L, 2, 3), dt=positive(B, L, 2), A=-positive(2), B=drawn(B, L, 1, N),
    dt_bias=positive(2), dt_softplus=True, dt_limit=(0.0, 1.0), chunk=4, **MASKS,
)  # fmt: skip
entry(
    "mamba3_summary", s.mamba3_summary, x=drawn(B, L, 2, 3), dt=positive(B, L, 2), A=-positive(2), B=drawn(B, L, 1, N),
    trap=drawn(B, L, 2), angles=drawn(B, L, 2, 1), B_bias=drawn(2, N), chunk=4, **MASKS,
)  # fmt: skip

# Systems -------------------------------------------------------------------------------------------------------------


def of_system(cls: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    """A call whose arguments are the fields of the system, and others."""
    names = {f.name for f in fields(cls)}

    def run(**values: Any) -> Any:
        return call(
            cls(**{n: x for n, x in values.items() if n in names}),
            **{n: x for n, x in values.items() if n not in names},
        )

    return run


def _host(call: Callable[..., Any]) -> Callable[..., Any]:
    """Eigenvectors have no scale: what is compared is their number."""
    return lambda system, **options: np.asarray(call(system, **options)[1].shape)


POLES = -positive(N) + 1j * np.arange(1, N + 1)
KINDS: dict[Any, tuple[Values, Values]] = {  # continuous ones, and discrete ones
    s.Dense: (
        {"A": -np.eye(N) + 0.1 * drawn(N, N), "B": drawn(N), "C": drawn(N, seed=1), "D": 0.5},
        {"A": 0.2 * drawn(N, N), "B": drawn(N, 2), "C": drawn(3, N), "D": drawn(3, 2), "discrete": True},
    ),
    s.Diagonal: (
        {"poles": POLES, "B": drawn(N), "C": drawn(N, seed=1), "D": drawn(1)[0], "conj_pairs": True},
        {"poles": positive(N), "B": drawn(N), "C": drawn(N), "conj_pairs": False, "discrete": True},
    ),
    s.DPLR: (
        {"poles": POLES, "P": positive(1, N), "Q": positive(1, N), "B": drawn(N), "C": drawn(N), "conj_pairs": True},
        {
            "poles": positive(N),
            "P": 0.1 * drawn(1, N),
            "Q": drawn(1, N),
            "B": drawn(N),
            "C": drawn(N),
            "discrete": True,
        },
    ),
    s.Rational: ({}, {"numerator": drawn(3), "denominator": np.asarray([1.0, -0.5, 0.1]), "D": 0.5}),
}
for _cls, (_continuous, _discrete) in KINDS.items():
    several = _cls is s.Dense
    u = drawn(B, 2, L) if several else drawn(B, L)
    for _when, _fields in (("", _continuous), (" discrete", _discrete)):
        if not _fields:
            continue
        _kind, _clock = f"{_cls.__name__}{_when}", {} if _when else {"dt": 0.1, "method": "zoh", "alpha": None}
        _signal = drawn(B, 2, L) if several and _when else drawn(B, L)
        _of = partial(of_system, _cls)
        if not _when:
            entry(f"discretize {_kind}", _of(s.discretize), **_fields, **_clock, check_values=False)
        entry(f"kernel {_kind}", _of(s.kernel), **_fields, **_clock, length=5, algorithm=None, check_values=False)
        entry(
            f"scan {_kind}", _of(s.scan), **_fields, **_clock, u=_signal, mode="auto", **MASKS, check_values=False,
        )  # fmt: skip
        entry(f"scan_summary {_kind}", _of(s.scan_summary), **_fields, **_clock, u=_signal)
        if _cls is not s.Rational:
            _state = drawn(B, N) + 0j if np.iscomplexobj(next(iter(_fields.values()))) else drawn(B, N)
            entry(f"step {_kind}", _of(s.step), **_fields, **_clock, u_k=_signal[..., 0], state=_state)
        entry(f"frequency_response {_kind}", _of(s.frequency_response), infinite=True, **_fields, omega=drawn(3))
        entry(f"poles {_kind}", _of(lambda x: np.asarray(s.poles(x).shape)), **_fields)
        entry(f"to_dense {_kind}", _of(s.to_dense), **_fields)
        entry(f"to_diagonal {_kind}", _of(_host(s.to_diagonal)), **_fields, max_condition=1e8)
        entry(f"to_rational {_kind}", _of(s.to_rational), **_fields)
        entry(f"to_scipy {_kind}", _of(s.to_scipy), **_fields)
entry("eigenvector_condition", s.eigenvector_condition, infinite=True, A=drawn(3, 3))
entry(
    "tuple as a system",
    lambda A, B, C, D: s.kernel((A, B, C, D), 4),
    A=0.2 * drawn(3, 3),
    B=drawn(3),
    C=drawn(3),
    D=1.0,
)

# Memory --------------------------------------------------------------------------------------------------------------

entry("hippo", s.hippo, measure="legs", N=4, alpha=None, beta=None)
entry("nplr", lambda **v: s.nplr(**v)[0], measure="legs", N=4, rank=None)
entry(
    "diagonal_init", s.diagonal_init, name="lin", N=4, real_scale=1.0, imag_scale=1.0, normalize=False, conj_pairs=True
)
for _measure in ("legs", "legt"):
    entry(
        f"hippo_project {_measure}", s.hippo_project, u=drawn(B, L), measure=_measure, N=4, dt=0.1, method="bilinear",
        window=None, initial=drawn(B, 4), start=0.3, check_values=False,
    )  # fmt: skip
entry(
    "hippo_project at times", s.hippo_project, u=drawn(B, L), measure="legs", N=4, times=np.arange(1.0, L + 1),
    method="zoh", start=0.0,
)  # fmt: skip
entry(
    "hippo_reconstruct", s.hippo_reconstruct, coefficients=drawn(B, 4), measure="legs", points=positive(3), window=2.0
)

# Layers --------------------------------------------------------------------------------------------------------------


def like(params: Values, x: Any) -> Values:
    """The parameters in the library of x, if it has one."""
    if type(x).__module__.startswith("torch"):
        import torch

        return {name: torch.from_numpy(p) for name, p in params.items()}
    if type(x).__module__.startswith("jax"):
        import jax.numpy as jnp

        return {name: jnp.asarray(p) for name, p in params.items()}
    return params


def applied(layer: Any, params: Values, signal: str, **values: Any) -> Any:
    return layer.apply(like(params, values[signal]), values.pop(signal), **values)


def stepped(layer: Any, params: Values, u_t: Any, n: int, rate: Any) -> Any:
    params = like(params, u_t)
    return layer.step(params, u_t, layer.initial_state(params, n), rate=rate)


def made(cls: Any, **options: Any) -> Any:
    layer = cls(**options)
    hash(layer)
    return layer.apply(layer.initial_parameters(), np.zeros((1, 3, layer.d_model), np.float32))


for _name in NAMES:
    _cls = layers.LAYERS[_name]
    _layer = small(_name, H)
    _params = _layer.initial_parameters()
    _u = drawn(B, L, H).astype(np.float32)
    entry(
        f"{_name}.apply", partial(applied, _layer, _params, "u"), u=_u, reset=RESET, lengths=LENGTHS, rate=1.0,
        return_state=True, mode="auto",
    )  # fmt: skip
    entry(
        f"{_name}.apply packed",
        partial(applied, _layer, _params, "u"),
        u=_u[:1],
        cu_seqlens=CUTS,
        rate=1.0,
    )
    if _layer.timed and _name not in ("SSM", "LMU", "S4"):
        entry(
            f"{_name}.apply in steps",
            partial(applied, _layer, _params, "u"),
            u=_u,
            step_scale=positive(B, L),
            mode="scan",
        )
    entry(f"{_name}.step", partial(stepped, _layer, _params), u_t=_u[:, 0], n=B, rate=1.0)
    if isinstance(_layer, layers.TimeInvariant):
        entry(f"{_name}.kernel", partial(_layer.kernel, _params), length=5, rate=1.0)
    _options = {f.name: getattr(_layer, f.name) for f in fields(_cls)}
    CALLS[f"{_name}()"] = Call(partial(made, _cls), lambda o=_options: dict(o), random=True)

for _cls, _shape, _options, _masks in (
    (layers.Hyena, (B, L, H), {"l_max": 8, "filter_order": 4}, {"lengths": LENGTHS}),
    (layers.S4ND, (B, L, 3, H), {"d_state": 4}, {"lengths": np.asarray([[3, 2], [L, 3]]), "rate": 1.0}),
):
    _layer = _cls(H, **_options)
    entry(
        f"{_cls.__name__}.apply", partial(applied, _layer, _layer.initial_parameters(), "u"),
        u=drawn(*_shape).astype(np.float32), mode="auto", **_masks,
    )  # fmt: skip
    _options = {f.name: getattr(_layer, f.name) for f in fields(_cls)}
    CALLS[f"{_cls.__name__}()"] = Call(
        lambda cls=_cls, **options: hash(cls(**options)), lambda o=_options: dict(o), random=True
    )

_MODEL = models.SequenceModel(3, 2, d_model=4, n_layers=1, layer_options={"d_state": 4})
entry(
    "SequenceModel.apply", partial(applied, _MODEL, _MODEL.initial_parameters(), "u"), rate=1.0, return_state=True,
    u=drawn(B, L, 3).astype(np.float32), lengths=LENGTHS,
)  # fmt: skip
_LM = models.MambaLM(7, 4, 1, {"d_state": 2})
_IDS = np.arange(B * L).reshape(B, L) % 7
_LMS = {"MambaLM": _LM} | {
    f"LanguageModel of {name}": models.LanguageModel(7, 4, 1, layer=name, layer_options=options_of(name))
    for name in ("GatedDeltaNet", "MLSTM", "RGLRU", "RWKV4", "RWKV6")
}
_LMS["SaShiMi"] = models.SaShiMi(7, 4, 1, layer_options={"d_state": 4}, pool=(2,))
for _name, _lm in _LMS.items():
    _params, _masks = (
        _lm.initial_parameters(),
        {"lengths": LENGTHS} if _name == "SaShiMi" else MASKS,
    )  # pools: no resets
    entry(f"{_name}.apply", partial(applied, _lm, _params, "ids"), ids=_IDS, **_masks)
    entry(f"{_name}.step", partial(stepped, _lm, _params), u_t=_IDS[:, 0], n=B, rate=1.0)


def generated(**values: Any) -> Any:
    return _LM.generate(like(_LM.initial_parameters(), values["ids"]), **values)


entry(
    "MambaLM.generate", generated, ids=_IDS, n_tokens=3, lengths=LENGTHS, padding="right", return_state=False,
    temperature=1.0, top_k=3, top_p=0.9, min_p=0.1, repetition_penalty=1.2, eos=6, seed=0,
)  # fmt: skip
for _cls, _options in (
    (models.MambaLM, {"vocab_size": 7, "d_model": 4, "n_layers": 1, "tied": True, "epsilon": 1e-5, "mix_width": None}),
    (models.SequenceModel, {"d_input": 3, "d_output": 2, "d_model": 4, "n_layers": 1, "layer": "S4D", "pool": "mean"}),
):
    _more = {"dropout": 0.0} if _cls is models.SequenceModel else {}
    _options = {"channel_mix": None, **_options, **_more}
    CALLS[f"{_cls.__name__}()"] = Call(
        lambda cls=_cls, **options: hash(cls(**options)), lambda o=_options: dict(o), random=True
    )
