"""What is unusual and works, or is refused by value: devices, NaN, lengths, layouts of memory, nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import array_api_strict
import numpy as np
import pytest
from wrong import (
    BOTH,
    BOTH_PARAMS,
    ENDS,
    LAYER,
    MODEL,
    MODEL_PARAMS,
    PARAMS,
    STATE,
    U,
    Z,
    dense,
    discrete,
    eye,
    ten,
    two,
)

import ssm_core
from ssm_core import (
    Dense,
    Diagonal,
    DomainError,
    SSMError,
    chunk_summary,
    convolve,
    diagonal_scan,
    discretize,
    expm,
    frequency_response,
    kernel,
    linear_scan,
    poles,
    scan,
    step,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_values_of_device_arrays_are_checked_on_request():
    torch = pytest.importorskip("torch")
    bad, good = torch.tensor([-1.0, float("nan")]), torch.ones(2)
    system = Diagonal(bad, good, good)
    assert torch.isnan(kernel(system, 4, dt=0.1)).all()
    for call in (
        lambda: discretize(system, 0.1, check_values=True),
        lambda: kernel(system, 4, dt=0.1, check_values=True),
        lambda: scan(system, good, dt=0.1, check_values=True),
        lambda: scan(Diagonal(-good, good, good), bad, dt=0.1, check_values=True),
    ):
        with pytest.raises(DomainError, match=r"(poles|u) holds NaN"):
            call()
    for call in (
        lambda: discretize(Diagonal(-good, good), torch.tensor(-0.1), check_values=True),
        lambda: kernel(Diagonal(-good, good, good), 4, dt=torch.tensor(0.0), check_values=True),
    ):
        with pytest.raises(DomainError, match=r"dt \(shape \(\)\) must be positive"):
            call()


def test_what_is_not_finite_is_refused_on_the_host_by_functions():
    """NumPy's arrays are read; those of other libraries, which may be of a device, pass, and layers read nothing."""
    x, matrix = np.asarray([1.0, np.nan, 1.0]), np.full((2, 2), np.nan)
    calls: dict[str, Callable[[], Any]] = {
        "linear_scan": lambda: linear_scan(0.5, x, axis=0),
        "chunk_summary": lambda: ssm_core.chunk_summary(x, np.ones(3), axis=0),
        "convolve": lambda: convolve(np.ones(3), x),
        "diagonal_scan": lambda: diagonal_scan(x, two / 2, two, two),
        "expm": lambda: expm(matrix),
        "eigenvector_condition": lambda: ssm_core.eigenvector_condition(matrix),
        "to_dense": lambda: ssm_core.to_dense(Diagonal(two, two * np.inf)),
        "to_diagonal": lambda: ssm_core.to_diagonal((matrix, two)),
        "poles": lambda: ssm_core.poles(ssm_core.Rational(two, np.asarray([1.0, np.nan]))),
        "hippo_project": lambda: ssm_core.hippo_project(np.ones(3), "legs", 2, start=np.nan),
    }
    for name, call in calls.items():
        with pytest.raises(DomainError, match=f"{name}: .* holds NaN or inf"):
            call()
    y = linear_scan(0.5, array_api_strict.asarray(x), axis=0)
    np.testing.assert_array_equal(np.isnan(np.asarray(y)), [False, True, True])
    assert np.isnan(LAYER.apply(PARAMS, np.full((1, 6, 4), np.nan, np.float32))).all()


@pytest.mark.parametrize("mode", ["auto", "conv", "chunk", "scan"])
@pytest.mark.parametrize("wrong", [-3, -1, 7, 100])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_lengths_outside_the_sequence(library: str, wrong: int, mode: str):
    """Layers check no values. Either the length is refused or it counts as the nearest possible one."""
    xp = pytest.importorskip(library)
    params = {name: xp.asarray(p) for name, p in PARAMS.items()}
    u = xp.asarray(np.random.default_rng(0).normal(size=U.shape).astype(np.float32))
    nearest = xp.asarray([4, min(max(wrong, 0), 6)])
    _, wanted = LAYER.apply(params, u, lengths=nearest, return_state=True, mode=mode)
    try:
        _, state = LAYER.apply(params, u, lengths=xp.asarray([4, wrong]), return_state=True, mode=mode)
    except SSMError:
        return
    np.testing.assert_allclose(np.asarray(state), np.asarray(wanted), rtol=1e-5, atol=1e-6)


# -------------------------------------------------------------------------------------------------------- what works

# A function of one array, and an array; any memory layout of it gives the same, and leaves it as it was.
M = np.random.default_rng(0).uniform(0.1, 0.9, (6, 6))
WORKING: dict[str, Callable[[np.ndarray], Any]] = {
    "linear_scan": lambda x: linear_scan(x, x, axis=0, initial=x[0]),
    "linear_scan along time last": lambda x: linear_scan(x, x, axis=1),
    "linear_scan in reverse": lambda x: linear_scan(x, x, axis=0, reverse=True),
    "chunk_summary": lambda x: chunk_summary(x, x, axis=1),
    "convolve": lambda x: convolve(x, x, kernel_reverse=x),
    "diagonal_scan": lambda x: diagonal_scan(x, x, x, x, initial=x, reset=x > 0.8),
    "expm": expm,
    "discretize": lambda x: [discretize(Diagonal(-x, x), x).B, discretize(Dense(-x, x[0]), 0.1).A],
    "kernel": lambda x: [kernel(Diagonal(-x, x, x), 9, dt=x[0]), kernel(Dense(x / 9, x, x), 9, dt=0.1)],
    "scan in conv mode": lambda x: scan(Diagonal(-x, x, x), x, dt=0.1, initial=x, mode="conv"),
    "scan in chunk mode": lambda x: scan(Diagonal(-x, x, x), x, dt=0.1, initial=x, reset=x > 0.8, mode="chunk"),
    "scan in scan mode": lambda x: scan(Diagonal(-x, x, x), x, dt=0.1, step_scale=x, mode="scan"),
    "scan of a dense system": lambda x: scan(Dense(x / 9, x, x, x, discrete=True), x, initial=x[0]),
    "step": lambda x: step(Diagonal(x, x, x, x[0], discrete=True), x[0], x),
    "frequency_response": lambda x: [
        frequency_response(Diagonal(-x, x, x), x[0]),
        frequency_response(Dense(-x, x[0], x[1]), x[2]),
    ],
    "poles": lambda x: poles(Diagonal(-x, x)),
    "S4D": lambda x: LAYER.apply(PARAMS, x[None, :, :4], state=x[None, :4, :4]),
    "S4D.step": lambda x: LAYER.step(PARAMS, x[:1, :4], x[None, :4, :4] + 0j),
    "SequenceModel": lambda x: MODEL.apply(MODEL_PARAMS, x[None, :, :3]),
    "save": lambda x: save_and_load(x[:1, :4]),
}
VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "read-only": lambda x: x.copy(),
    "Fortran": np.asfortranarray,
    "transposed": lambda x: x.T.copy().T,
    "strided": lambda x: np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)[::2, ::3],
    "reversed": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
}


def save_and_load(D: np.ndarray) -> np.ndarray:
    import tempfile

    pytest.importorskip("safetensors")
    with tempfile.TemporaryDirectory() as folder:
        ssm_core.save(LAYER, {**PARAMS, "D": D}, Path(folder, "weights"))
        return ssm_core.load(Path(folder, "weights"))[1]["D"]


def flat(x: Any) -> list[np.ndarray]:
    return [y for part in x for y in flat(part)] if isinstance(x, tuple | list) else [np.asarray(x)]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", WORKING)
def test_any_memory_layout(name: str, view: str):
    given = VIEWS[view](M)
    given.flags.writeable = False
    np.testing.assert_array_equal(given, M)
    for found, wanted in zip(flat(WORKING[name](given)), flat(WORKING[name](M.copy())), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(given, M)


def empty(*shape: int) -> np.ndarray:
    return np.ones(shape)


NOTHING: dict[str, tuple[Callable[[], Any], list[tuple[int, ...]]]] = {
    "linear_scan of no steps": (lambda: linear_scan(0.5, empty(3, 0), axis=1), [(3, 0)]),
    "linear_scan of no sequences": (lambda: linear_scan(0.5, empty(0, 3), axis=1, initial=empty(0)), [(0, 3)]),
    "chunk_summary of no sequences": (lambda: chunk_summary(0.5, empty(0, 3), axis=1), [(0,), (0,)]),
    "convolve of no steps": (lambda: convolve(empty(3, 0), two), [(3, 0)]),
    "convolve of no sequences": (lambda: convolve(empty(0, 3), two, kernel_reverse=two), [(0, 3)]),
    "convolve with no taps": (lambda: convolve(empty(3), empty(0)), [(3,)]),
    "diagonal_scan of no sequences": (lambda: diagonal_scan(empty(0, 5), two, two, two), [(0, 5), (0, 2)]),
    "diagonal_scan of no steps": (lambda: diagonal_scan(empty(3, 0), two, two, two), [(3, 0), (3, 2)]),
    "diagonal_scan of no states": (lambda: diagonal_scan(empty(3, 5), *[empty(0)] * 3), [(3, 5), (3, 0)]),
    "expm of no matrices": (lambda: expm(empty(0, 2, 2)), [(0, 2, 2)]),
    "expm of empty matrices": (lambda: expm(empty(2, 0, 0)), [(2, 0, 0)]),
    "discretize of no states": (lambda: discretize(Diagonal(empty(0), empty(0)), 0.1).B, [(0,)]),
    "discretize of no dense states": (lambda: discretize(Dense(empty(0, 0), empty(0)), 0.1).B, [(0,)]),
    "discretize of no systems": (lambda: discretize(Diagonal(empty(0, 2), empty(0, 2)), empty(0)).B, [(0, 2)]),
    "discretize of no dense systems": (lambda: discretize(Dense(empty(0, 2, 2), empty(0, 2)), 0.1).A, [(0, 2, 2)]),
    "bilinear of no dense states": (lambda: discretize(Dense(empty(0, 0), empty(0)), 0.1, "bilinear").B, [(0,)]),
    "kernel of no states": (lambda: kernel(Diagonal(empty(0), empty(0), empty(0)), 4, dt=0.1), [(4,)]),
    "kernel of no systems": (lambda: kernel(Diagonal(empty(0, 2), empty(0, 2), empty(0, 2)), 4, dt=0.1), [(0, 4)]),
    "kernel of no inputs": (lambda: kernel(Diagonal(two, empty(2, 0), two), 4, dt=0.1), [(0, 4)]),
    "kernel of no outputs": (lambda: kernel(Diagonal(two, two, empty(0, 2)), 4, dt=0.1), [(0, 4)]),
    "kernel of no dense states": (lambda: kernel(Dense(empty(0, 0), empty(0), empty(0)), 4, dt=0.1), [(4,)]),
    "kernel of no dense systems": (
        lambda: kernel(Dense(empty(0, 2, 2), empty(0, 2), empty(0, 2)), 4, dt=0.1),
        [(0, 4)],
    ),
    "step of no sequences": (lambda: step(discrete, empty(0), empty(0, 2)), [(0,), (0, 2)]),
    "step of no states": (lambda: step(Diagonal(*[empty(0)] * 3, discrete=True), two, empty(2, 0)), [(2,), (2, 0)]),
    "frequency_response of no frequencies": (lambda: frequency_response(dense, empty(0)), [(0,)]),
    "frequency_response of no states": (lambda: frequency_response(Diagonal(*[empty(0)] * 3), two), [(2,)]),
    "frequency_response of no systems": (lambda: frequency_response(Diagonal(*[empty(0, 2)] * 3), ten), [(0, 10)]),
    "poles of no states": (lambda: poles(Diagonal(empty(0), empty(0), conj_pairs=True)), [(0,)]),
    "poles of no dense systems": (lambda: poles(Dense(empty(0, 2, 2), empty(0, 2))), [(0, 2)]),
    "initial_state of no sequences": (lambda: LAYER.initial_state(PARAMS, 0), [(0, 4, 4)]),
    "S4D of no sequences": (lambda: LAYER.apply(PARAMS, U[:0], return_state=True), [(0, 6, 4), (0, 4, 4)]),
    "S4D of no steps": (lambda: LAYER.apply(PARAMS, U[:, :0], return_state=True), [(2, 0, 4), (2, 4, 4)]),
    "S4D both ways of no sequences": (lambda: BOTH.apply(BOTH_PARAMS, U[:0]), [(0, 6, 4)]),
    "S4D both ways of no steps": (lambda: BOTH.apply(BOTH_PARAMS, U[:, :0]), [(2, 0, 4)]),
    "S4D.step of no sequences": (lambda: LAYER.step(PARAMS, U[:0, 0], STATE[:0]), [(0, 4), (0, 4, 4)]),
    "SequenceModel of no sequences": (lambda: MODEL.apply(MODEL_PARAMS, Z[:0]), [(0, 2)]),
}
for _mode in ("conv", "chunk", "scan"):
    for _name, _system in {"diagonal": discrete, "dense": Dense(eye / 2, two, two, discrete=True)}.items():
        NOTHING[f"scan of no sequences, {_mode}, {_name}"] = (
            lambda m=_mode, s=_system: scan(s, empty(0, 5), mode=m, lengths=np.zeros(0, int)),
            [(0, 5), (0, 2)],
        )
        NOTHING[f"scan of no steps, {_mode}, {_name}"] = (
            lambda m=_mode, s=_system: scan(s, empty(3, 0), mode=m),
            [(3, 0), (3, 2)],
        )
        NOTHING[f"S4D of no sequences, {_mode}"] = (
            lambda m=_mode: LAYER.apply(PARAMS, U[:0], mode=m, lengths=ENDS[:0]),
            [(0, 6, 4)],
        )


@pytest.mark.parametrize("name", NOTHING)
def test_nothing_gives_nothing(name: str):
    call, shapes = NOTHING[name]
    assert [x.shape for x in flat(call())] == shapes
