"""Steps in real arithmetic: those of every layer, and what PyTorch makes of them for export."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ssm_core import DTypeError, OptionError, ShapeError, SSMError, adapters, layers, models
from ssm_core.layers.real_steps import layer_state, real_state, real_stepper

B, H = 3, 4
LAYERS: dict[str, layers.Layer] = {
    "S4D": layers.S4D(H, d_state=8),
    "S4D_copies_channels": layers.S4D(H, d_state=8, n_ssm=2, channels=2, trainable_B=False),
    "S4D_real": layers.S4D(H, d_state=4, real=True, init="real"),
    "S4": layers.S4(H, d_state=8),
    "S4_zoh": layers.S4(H, d_state=8, discretization="zoh", channels=2),
    "S4_euler": layers.S4(H, d_state=4, discretization="euler"),
    "DSS": layers.DSS(H, 20, d_state=8),
    "SSM": layers.SSM(H, d_state=4),
    "LMU": layers.LMU(H, d_state=4, theta=9),
    "S5": layers.S5(H, d_state=8),
    "S5_all_modes": layers.S5(H, d_state=8, conj_sym=False),
    "S5_liquid": layers.S5(H, d_state=8, liquid=True),
    "LRU": layers.LRU(H, d_state=6),
    "RTF": layers.RTF(H, d_state=4),
    "LinOSS": layers.LinOSS(H, d_state=4),
    "Mamba": layers.Mamba(H, d_state=4),
    "Mamba2": layers.Mamba2(H, d_state=4, head_dim=4),
    "Mamba3": layers.Mamba3(H, d_state=4, head_dim=4),
    "mean": models.SequenceModel(H, 2, d_model=4, n_layers=2, layer_options={"d_state": 8}),
    "last": models.SequenceModel(H, 2, d_model=4, n_layers=2, layer="S5", pool="last", layer_options={"d_state": 8}),
    "none": models.SequenceModel(H, 2, d_model=4, n_layers=1, layer="Mamba", pool=None),
    "MambaLM": models.MambaLM(9, 4, 2),
}
WITHOUT_RATE = ("LRU", "RTF", "LinOSS")
MODULES = ("S4D", "S4", "S5", "Mamba3", "mean", "MambaLM")


def flat(state: Any) -> list[Any]:
    return [x for part in state for x in flat(part)] if isinstance(state, tuple) else [state]


def inputs(name: str, k: int) -> np.ndarray:
    rng = np.random.default_rng(k)
    return rng.integers(0, 9, B) if name == "MambaLM" else rng.normal(size=(B, H))


def close(x: Any, y: Any, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", LAYERS)
def test_the_same_steps(name: str, xp: Any):
    layer = LAYERS[name]
    params = {n: xp.asarray(p.astype(np.float64)) for n, p in layer.initial_parameters().items()}
    rate = 1.0 if name in WITHOUT_RATE else 2.0
    step, real = layer.stepper(params, rate=rate), real_stepper(layer, params, rate=rate)
    state = layer.initial_state(params, B)
    mine = real_state(state)
    for k in range(6):
        u = xp.asarray(inputs(name, k))
        y, state = step(u, state)
        z, mine = real(u, mine)
        close(z, y)
    assert {str(x.dtype).rpartition(".")[2] for x in flat(mine)} <= {"float64"}
    for x, y in zip(flat(layer_state(mine, state)), flat(state), strict=True):
        assert x.dtype == y.dtype
        close(x, y)
    for x, y in zip(flat(real_state(state)), flat(mine), strict=True):
        close(x, y)


def test_half_precision_and_empty_batches():
    layer = LAYERS["S4D"]
    params = layer.initial_parameters()
    step, state = real_stepper(layer, params), real_state(layer.initial_state(params, B))
    y, state = step(np.ones((B, H), np.float16), state)
    assert (y.dtype, state.dtype) == (np.float16, np.float32)
    y, state = step(np.ones((0, H), np.float32), state[:0])
    assert (y.shape, state.shape) == ((0, H), (0, H, 8))


S4D, LRU = LAYERS["S4D"], LAYERS["LRU"]
PARAMS = S4D.initial_parameters()
STATE = S4D.initial_state(PARAMS, B)
U = np.ones((B, H), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: real_stepper(None, PARAMS), DTypeError, "^real_stepper: None is no layer"),
        (lambda: real_stepper(layers.S4D, PARAMS), DTypeError, "^real_stepper: .* is no layer"),
        (lambda: real_stepper(S4D, {}), OptionError, "^S4D: parameters are missing"),
        (lambda: real_stepper(S4D, PARAMS, rate=-1), SSMError, "^S4D: rate = -1"),
        (
            lambda: real_stepper(LAYERS["LRU"], LAYERS["LRU"].initial_parameters(), rate=2.0),
            OptionError,
            "^LRU: .*rate",
        ),
        (lambda: real_stepper(layers.S4D(4, bidirectional=True), PARAMS), OptionError, "^S4D: a bidirectional layer"),
        (lambda: real_stepper(S4D, PARAMS)(U, STATE), ShapeError, r"^S4D\.step: state must be real \(3, 4, 8\)"),
        (lambda: real_stepper(S4D, PARAMS)(U, real_state(STATE)[..., 1:]), ShapeError, r"state must be real \(3, 4, 8"),
        (
            lambda: real_stepper(S4D, PARAMS)(U[:, 1:], real_state(STATE)),
            ShapeError,
            r"S4D\.step: u_t must be \(B, 4",
        ),
        (lambda: real_stepper(S4D, PARAMS)(None, real_state(STATE)), DTypeError, r"^S4D\.step: u_t is a NoneType"),
        (lambda: real_stepper(S4D, PARAMS)(U[:1], real_state(STATE)), ShapeError, r"state must be real \(1, 4, 8\)"),
        (lambda: real_stepper(S4D, PARAMS)(U, None), DTypeError, r"^S4D\.step: state is a NoneType"),
        (lambda: real_state(None), DTypeError, "^real_state: a NoneType in the state is no array"),
        (lambda: real_state((STATE, "x")), DTypeError, "^real_state: a str in the state is no array"),
        (lambda: layer_state((STATE,), (STATE, STATE)), ShapeError, "^layer_state: the state must have 2 parts"),
    ],
)
def test_refused(call: Any, error: type, message: str):
    with pytest.raises(error, match=f"(?s){message}"):
        call()


# PyTorch -------------------------------------------------------------------------------------------------------------


def module_of(name: str) -> Any:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    return adapters.torch.module(LAYERS[name])


@pytest.mark.parametrize("name", MODULES)
def test_torch_modules_step_on_flat_real_states(name: str):
    torch, module = pytest.importorskip("torch"), module_of(name)
    stepper = adapters.torch.real_stepper(module, rate=1.0)
    step, state, mine = module.stepper(), module.initial_state(B), stepper.initial_state(B)
    assert all(isinstance(x, torch.Tensor) and x.dtype == torch.float32 and x.shape[0] == B for x in mine)
    for k in range(5):
        u = torch.from_numpy(inputs(name, k))
        u = u.float() if u.is_floating_point() else u
        y, state = step(u, state)
        z, *mine = stepper(u, *mine)
        close(z, y.detach(), 1e-5)
        assert not z.requires_grad
    for x, y in zip(flat(stepper.to_module(*mine)), flat(state), strict=True):
        assert x.dtype == y.dtype
        close(x, y.detach(), 1e-5)
    for x, y in zip(stepper.from_module(state), mine, strict=True):
        close(x.detach(), y, 1e-5)
    assert [x.shape[0] for x in stepper.initial_state(0)] == [0] * len(mine)


def test_torch_steppers_hold_the_weights_of_their_making():
    torch, module = pytest.importorskip("torch"), module_of("S4D")
    stepper = adapters.torch.real_stepper(module, rate=0.5)
    u, state = torch.ones(B, H), stepper.initial_state(B)
    with torch.no_grad():
        wanted = module.step(u, module.initial_state(B), rate=0.5)[0]
        for p in module.parameters():
            p.add_(1.0)
    close(stepper(u, *state)[0], wanted, 1e-6)


def test_torch_refuses():
    torch, module = pytest.importorskip("torch"), module_of("Mamba3")
    for given in (None, S4D, torch.nn.Linear(2, 2), adapters.torch.S4D):
        with pytest.raises(DTypeError, match=r"^real_stepper: a .* is no module of ssm_core"):
            adapters.torch.real_stepper(given)
    stepper = adapters.torch.real_stepper(module)
    with pytest.raises(ShapeError, match=r"^real_stepper: 1 tensors of a state of [2-9]"):
        stepper(torch.ones(B, H), stepper.initial_state(B)[0])
    with pytest.raises(SSMError, match="a bidirectional layer"):
        adapters.torch.real_stepper(adapters.torch.S4D(4, bidirectional=True))
