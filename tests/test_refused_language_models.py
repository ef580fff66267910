"""What users get wrong with language models: tokens, states, masks, prompts and options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_strict
import numpy as np
import pytest
from wrong import check_refused, rows

from ssm_core import DomainError, DTypeError, MixedArraysError, OptionError, ShapeError, SSMError, adapters
from ssm_core.models import RWKV4LM, Mamba2LM, Mamba3LM, MambaLM

MODEL = MambaLM(11, 8, 2, {"d_state": 4})
PARAMS = MODEL.initial_parameters()
IDS = np.asarray([[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 0, 0]])
STATE = MODEL.initial_state(PARAMS, 2)
STRICT = array_api_strict.asarray(IDS)
ENDS, RESET, CUTS = np.asarray([6, 4]), np.zeros((2, 6), bool), np.asarray([0, 2, 6])
TABLE = "backbone.embeddings.weight"


def apply(ids: Any = IDS, params: Any = PARAMS, **options: Any) -> Callable[[], Any]:
    return lambda: MODEL.apply(params, ids, **options)


def prefill(ids: Any = IDS, **options: Any) -> Callable[[], Any]:
    return lambda: MODEL.prefill(PARAMS, ids, **options)


def generate(ids: Any = IDS, n: Any = 3, **options: Any) -> Callable[[], Any]:
    return lambda: MODEL.generate(PARAMS, ids, n, **options)


def step(ids: Any = IDS[:, 0], state: Any = STATE) -> Callable[[], Any]:
    return lambda: MODEL.step(PARAMS, ids, state)


def later(ids: Any) -> Callable[[], Any]:
    """A step that others like it went before."""

    def call() -> Any:
        advance = MODEL.stepper(PARAMS)
        _, state = advance(IDS[:, 0], STATE)
        return advance(ids, state)

    return call


MODELS = {
    "RWKV4LM": [(lambda: RWKV4LM(256, 8, 2, epsilon=None), OptionError, r"epsilon = None must lie in \(0, 1\)")],
    "MambaLM": [
        (lambda: MambaLM(0), OptionError, "vocab_size = 0"),
        (lambda: MambaLM("256"), OptionError, "vocab_size = '256'"),
        (lambda: MambaLM(256.0), OptionError, "vocab_size = 256.0"),
        (lambda: MambaLM(256, -8), OptionError, "d_model = -8"),
        (lambda: MambaLM(256, 8, 0), OptionError, "n_layers = 0"),
        (lambda: MambaLM(256, 8, True), OptionError, "n_layers = True"),
        (lambda: MambaLM(256, 8, 2, [4]), OptionError, r"layer_options = \[4\] must be a dict"),
        (lambda: MambaLM(256, 8, 2, {"d_model": 4}), OptionError, "d_model is an option of the model"),
        (lambda: MambaLM(256, 8, 2, {}, 1), OptionError, "tied = 1 must be True or False"),
        (lambda: MambaLM(256, 8, 2, {}, True, 0), OptionError, r"epsilon = 0 must lie in \(0, 1\)"),
    ],
    "Mamba": [(lambda: MambaLM(256, 8, 2, {"d_state": 0}), OptionError, "d_state = 0")],
    "Mamba2": [(lambda: Mamba2LM(256, 8, 2), OptionError, "head_dim = 64 must divide expand . d_model = 16")],
    "Mamba3": [(lambda: Mamba3LM(256, 8, 2), OptionError, "head_dim = 64 must divide expand . d_model = 16")],
    r"layers\.make": [(lambda: MambaLM(256, 8, 2, {"invented": 1}), OptionError, "Mamba .*'invented'")],
}

CALLS = {
    "MambaLM": [
        (apply(None), DTypeError, "ids is a NoneType, not an array"),
        (apply([[1, 2]]), DTypeError, "ids is a list, not an array"),
        (apply("text"), DTypeError, "ids is a str, not an array"),
        (apply(IDS * 1.0), DTypeError, "ids has dtype float64, but tokens are integers"),
        (apply(IDS > 3), DTypeError, "ids has dtype bool, but tokens are integers"),
        (apply(IDS + 0j), DTypeError, "ids has dtype complex128, but tokens are integers"),
        (apply(np.asarray([["a"]])), DTypeError, "ids has dtype <?U1, but tokens are integers"),
        (apply(IDS[0]), ShapeError, r"ids must be \(B, L\) \(ids: \(6,\)\)"),
        (apply(IDS[..., None]), ShapeError, r"ids must be \(B, L\) \(ids: \(2, 6, 1\)\)"),
        (apply(IDS + 1), DomainError, r"tokens must lie in \[0, 11\) \(smallest: 1, largest: 11\)"),
        (apply(IDS - 1), DomainError, r"tokens must lie in \[0, 11\) \(smallest: -1, largest: 9\)"),
        (apply(STRICT), MixedArraysError, "several libraries .*ids: array_api_strict"),
        (apply(IDS, None), DTypeError, "params is a NoneType, not a dict"),
        (apply(IDS, {}), OptionError, "parameters are missing: .*backbone.embeddings.weight"),
        (apply(IDS, PARAMS | {TABLE: PARAMS[TABLE][:5]}), ShapeError, rf"{TABLE} is \(5, 8\), but must be \(11, 8\)"),
        (apply(IDS, PARAMS | {TABLE: PARAMS[TABLE].astype(int)}), DTypeError, f"{TABLE} has dtype int64"),
        (apply(state=0.0), ShapeError, "state must be a tuple of 2 layer states, not float of 0"),
        (apply(state=()), ShapeError, "state must be a tuple of 2 layer states, not tuple of 0"),
        (apply(state=(*STATE, *STATE)), ShapeError, "state must be a tuple of 2 layer states, not tuple of 4"),
        (apply(state=STATE[0][0]), ShapeError, "state must be a tuple of 2 layer states, not ndarray of 2"),
        (apply(state=(STATE[0], None)), ShapeError, "state must be a tuple of 2 layer states"),
        (apply(lengths=[6, 4]), DTypeError, "lengths is a list"),
        (apply(lengths=ENDS * 1.0), DTypeError, "lengths has dtype float64, but must be integer"),
        (apply(lengths=ENDS[:1]), ShapeError, r"lengths must be \(2,\)"),
        (apply(lengths=ENDS + 1), DomainError, r"lengths must lie in \[0, 6\]"),
        (apply(lengths=ENDS - 5), DomainError, r"lengths must lie in \[0, 6\]"),
        (apply(reset=[True]), DTypeError, "reset is a list"),
        (apply(reset=RESET * 1), DTypeError, "reset has dtype int64, but must be bool"),
        (apply(reset=RESET[:, :5]), ShapeError, r"reset must be \(2, 6\)"),
        (apply(cu_seqlens=CUTS), ShapeError, "cu_seqlens must be .* packed into a batch of 1"),
        (apply(IDS[:1], cu_seqlens=[0, 6]), DTypeError, "cu_seqlens is a list"),
        (apply(IDS[:1], cu_seqlens=CUTS * 1.0), DTypeError, "cu_seqlens has dtype float64"),
        (apply(IDS[:1], cu_seqlens=CUTS[1:]), DomainError, "cu_seqlens must begin with 0"),
        (apply(IDS[:1], cu_seqlens=CUTS[:2]), DomainError, "end with the 6 steps"),
        (apply(IDS[:1], cu_seqlens=CUTS, lengths=ENDS[:1]), OptionError, "leave out lengths"),
        (apply(IDS[:1], cu_seqlens=CUTS, reset=RESET[:1]), OptionError, "leave out reset"),
        (lambda: MODEL.initial_state(PARAMS, -1), OptionError, "batch = -1"),
        (lambda: MODEL.initial_state(PARAMS, 2.0), OptionError, "batch = 2.0"),
        (lambda: MODEL.stepper({}), OptionError, "parameters are missing"),
        (prefill(None), DTypeError, "ids is a NoneType"),
        (prefill(IDS * 1.0), DTypeError, "ids has dtype float64"),
        (prefill(lengths=ENDS * 1.0), DTypeError, "lengths has dtype float64"),
        (prefill(lengths=ENDS[:1]), ShapeError, r"lengths must be \(2,\)"),
        (prefill(state=0.0), ShapeError, "state must be a tuple"),
        (generate(IDS + 1), DomainError, "tokens must lie in"),
    ],
    "Mamba": [
        (apply(mode="chunk"), OptionError, "unknown mode 'chunk'. Known: 'auto', 'scan'"),
        (apply(IDS[:1], state=STATE), ShapeError, r"inputs of the state must be \(1, 16, 3\)"),
        (apply(state=(STATE[0], STATE[0][:1])), ShapeError, "state must be a tuple of 2 arrays"),
        (apply(state=STATE[0]), ShapeError, "state must be a tuple of 2 arrays"),
        (lambda: MODEL.stepper(PARAMS, rate=-1), OptionError, "rate = -1"),
    ],
    r"Mamba\.step": [
        (step(state=MODEL.initial_state(PARAMS, 1)), ShapeError, r"inputs of the state must be \(2, 16, 3\)"),
        (step(state=(STATE[0], (STATE[1][0], None))), DTypeError, "x is a NoneType"),
    ],
    r"MambaLM\.step": [
        (step(None), DTypeError, "ids is a NoneType"),
        (step(3), DTypeError, "ids is a int"),
        (step(IDS[:, 0] * 1.0), DTypeError, "ids has dtype float64, but tokens are integers"),
        (step(IDS), ShapeError, r"ids must be \(B,\) \(ids: \(2, 6\)\)"),
        (step(IDS[:, 0] + 5), DomainError, r"tokens must lie in \[0, 11\) \(smallest: 6, largest: 12\)"),
        (step(-IDS[:, 0]), DomainError, r"tokens must lie in \[0, 11\) \(smallest: -7, largest: -1\)"),
        (later(IDS[:, 0] + 5), DomainError, r"tokens must lie in \[0, 11\) \(smallest: 6, largest: 12\)"),
        (later(-IDS[:, 0]), DomainError, r"tokens must lie in \[0, 11\) \(smallest: -7, largest: -1\)"),
        (step(state=None), ShapeError, "state must be a tuple of 2 layer states, not NoneType of 0"),
        (step(state=STATE[:1]), ShapeError, "state must be a tuple of 2 layer states, not tuple of 1"),
    ],
    r"MambaLM\.prefill": [
        (prefill(IDS[:, :0]), ShapeError, r"a prompt needs at least one token \(ids: \(2, 0\)\)"),
        (generate(IDS[:, :0]), ShapeError, r"a prompt needs at least one token \(ids: \(2, 0\)\)"),
        (prefill(lengths=np.asarray([6, 0])), DomainError, r"every prompt needs at least one token \(lengths: \[6 0\]"),
        (prefill(lengths=np.asarray([6, 0]), padding="left"), DomainError, "every prompt needs at least one token"),
        (prefill(padding="middle"), OptionError, "unknown padding 'middle'. Known: 'right', 'left'"),
        (prefill(padding=None), OptionError, "unknown padding None"),
        (prefill(padding=["left"]), OptionError, r"unknown padding \['left'\]"),
    ],
    "generate": [
        (generate(n=-1), OptionError, "n_tokens = -1"),
        (generate(None, n=1.0), OptionError, "n_tokens = 1.0"),
        (generate(temperature=-1), OptionError, "temperature = -1"),
        (generate(top_k=3), OptionError, "need a temperature above 0"),
        (generate(temperature=1.0, top_k=12), OptionError, r"top_k = 12 must lie in \[1, 11\]"),
        (generate(temperature=1.0, top_p=0.0), OptionError, r"top_p = 0.0 must lie in \(0, 1\]"),
        (generate(eos=11), OptionError, r"eos = 11 must be a token in \[0, 11\)"),
        (generate(seed="x"), OptionError, "seed = 'x' seeds no generator"),
    ],
}


@pytest.mark.parametrize(("operation", "call", "error", "message"), rows(MODELS))
def test_refused_models(operation: str, call: Callable[[], Any], error: type, message: str):
    check_refused(operation, call, error, message)


@pytest.mark.parametrize(("operation", "call", "error", "message"), rows(CALLS))
def test_refused_calls(operation: str, call: Callable[[], Any], error: type, message: str):
    check_refused(operation, call, error, message)


# Modules -------------------------------------------------------------------------------------------------------------


class Framework:
    """A small model of one framework, and its arrays."""

    def __init__(self, name: str) -> None:
        if name == "torch":
            self.xp: Any = pytest.importorskip("torch")
            self.model: Any = adapters.torch.MambaLM(11, 8, 2, layer_options={"d_state": 4})
        else:
            self.xp, nnx = pytest.importorskip("jax.numpy"), pytest.importorskip("flax.nnx")
            self.model = adapters.flax.MambaLM(11, 8, 2, layer_options={"d_state": 4}, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module", params=["torch", "flax"])
def framework(request: pytest.FixtureRequest, quick_compilation: None) -> Framework:
    return Framework(request.param)


OF_MODULES: list[tuple[Callable[[Any, Any, Any], Any], type, str]] = [
    (lambda m, ids, xp: m(None), DTypeError, "^MambaLM: "),
    (lambda m, ids, xp: m([[1]]), DTypeError, "^MambaLM: ids is a list"),
    (lambda m, ids, xp: m(STRICT), MixedArraysError, "^MambaLM: .*ids: array_api_strict"),
    (lambda m, ids, xp: m(ids * 1.0), DTypeError, "^MambaLM: ids has dtype float32, but tokens are integers"),
    (lambda m, ids, xp: m(ids > 3), DTypeError, "^MambaLM: ids has dtype bool, but tokens are integers"),
    (lambda m, ids, xp: m(ids[0]), ShapeError, r"^MambaLM: ids must be \(B, L\)"),
    (lambda m, ids, xp: m(ids, state=()), ShapeError, "^MambaLM: state must be a tuple of 2 layer states"),
    (lambda m, ids, xp: m(ids, reset=ids), DTypeError, "^MambaLM: reset has dtype .*int.*, but must be bool"),
    (lambda m, ids, xp: m(ids, mode="fft"), OptionError, "unknown mode 'fft'"),
    (lambda m, ids, xp: m.step(ids, m.initial_state(2)), ShapeError, r"^MambaLM\.step: ids must be \(B,\)"),
    (lambda m, ids, xp: m.step(ids[:, 0] * 1.0, m.initial_state(2)), DTypeError, r"^MambaLM\.step: ids has dtype"),
    (lambda m, ids, xp: m.step(ids[:, 0], None), ShapeError, r"^MambaLM\.step: state must be a tuple"),
    (lambda m, ids, xp: m.step(ids[:, 0], m.initial_state(1)), ShapeError, "of the state must be"),
    (lambda m, ids, xp: m.initial_state(-1), OptionError, "^MambaLM: batch = -1"),
    (lambda m, ids, xp: m.generate(ids[:, :0], 3), ShapeError, "a prompt needs at least one token"),
    (lambda m, ids, xp: m.generate(ids * 1.0, 3), DTypeError, "tokens are integers"),
    (lambda m, ids, xp: m.generate(None, 3), DTypeError, "^MambaLM: "),
    (lambda m, ids, xp: m.generate([[1, 2]], 3), DTypeError, "^MambaLM: "),
    (lambda m, ids, xp: m.generate(ids, -1), OptionError, "^generate: n_tokens = -1"),
    (lambda m, ids, xp: m.generate(ids, 3, temperature=-1), OptionError, "^generate: temperature = -1"),
    (lambda m, ids, xp: m.generate(ids, 3, top_k=3), OptionError, "^generate: .*need a temperature"),
    (lambda m, ids, xp: m.generate(ids, 3, eos=11), OptionError, "^generate: eos = 11"),
    (lambda m, ids, xp: m.generate(ids, 3, seed="x"), OptionError, "^generate: seed = 'x'"),
    (lambda m, ids, xp: m.generate(ids, 3, padding="middle"), OptionError, "unknown padding 'middle'"),
    (lambda m, ids, xp: m.generate(ids, 3, lengths=[6, 4]), DTypeError, "lengths is a list"),
    (lambda m, ids, xp: m.generate(ids, 3, state=()), ShapeError, "state must be a tuple"),
    (lambda m, ids, xp: m.generate(ids, 3, beams=4), TypeError, "beams"),
]


OF_TORCH = [  # which, other than JAX, does not take NumPy's arrays for its own
    (lambda m, ids, xp: m(IDS), MixedArraysError, "^MambaLM: .*ids: numpy"),
    (lambda m, ids, xp: m(ids, state=STATE), MixedArraysError, "^Mamba: .*inputs: numpy"),
    (lambda m, ids, xp: m(ids, lengths=ENDS), MixedArraysError, "lengths: numpy"),
    (lambda m, ids, xp: m(ids, reset=RESET), MixedArraysError, "reset: numpy"),
    (lambda m, ids, xp: m.step(ids[:, 0], STATE), MixedArraysError, "numpy"),
    (lambda m, ids, xp: m.step(IDS[:, 0], m.initial_state(2)), MixedArraysError, "numpy"),
    (lambda m, ids, xp: m.generate(IDS, 3), MixedArraysError, "^MambaLM: .*ids: numpy"),
]


@pytest.mark.parametrize("row", range(len(OF_TORCH)), ids=lambda i: f"{i}-{OF_TORCH[i][2][:40]}")
def test_refused_by_modules_of_torch(row: int):
    framework, (call, error, message) = Framework("torch"), OF_TORCH[row]
    with pytest.raises(error, match=f"(?s){message}"):
        call(framework.model, framework.xp.asarray(IDS), framework.xp)


@pytest.mark.parametrize("row", range(len(OF_MODULES)), ids=lambda i: f"{i}-{OF_MODULES[i][2][:40]}")
def test_refused_by_modules(row: int, framework: Framework):
    call, error, message = OF_MODULES[row]
    with pytest.raises(error, match=f"(?s){message}") as caught:
        call(framework.model, framework.xp.asarray(IDS), framework.xp)
    assert isinstance(caught.value, SSMError) or error is TypeError


def test_tokens_out_of_range_in_torch():
    """On a CPU values are at hand, and are refused as NumPy's are."""
    framework = Framework("torch")
    for shift in (-1, 1):
        with pytest.raises(DomainError, match="tokens must lie"):
            framework.model(framework.xp.asarray(IDS + shift))
