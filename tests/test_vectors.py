"""HGRN, RG-LRU and RWKV-4: gates and keys of any size, long sequences, and where sequences begin."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import DomainError, ShapeError, layers

L, W = 12, 3


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def vectors(name: str, batch: int = 2, length: int = L) -> dict[str, Any]:
    """Inputs by name."""
    r = np.random.default_rng(1)
    signal = (batch, length, W)
    if name == "hgrn":
        return {"x": r.normal(size=signal), "log_decay": -r.uniform(0, 2, signal)}
    if name == "rg_lru":
        gates = {n: r.normal(size=signal) for n in ("x", "input_gate", "recurrent_gate")}
        return gates | {"recurrent_param": r.normal(size=W)}
    constants = {"log_decay": -r.uniform(0, 2, W), "bonus": r.normal(size=W)}
    return {"k": 3 * r.normal(size=signal), "v": r.normal(size=signal)} | constants


def first_state(name: str, batch: int = 2) -> Any:
    h = normal(batch, W, seed=5)
    return (h, 1 + h**2, h - 1) if name == "rwkv4" else h


def parts(v: dict[str, Any], where: Any) -> dict[str, Any]:
    return {n: x[:, where] if x.ndim == 3 else x for n, x in v.items()}


def same(found: Any, wanted: Any, tolerance: float = 1e-12) -> None:
    if isinstance(wanted, tuple):
        for f, w in zip(found, wanted, strict=True):
            same(f, w, tolerance)
        return
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * max(1, np.abs(wanted).max(initial=0)))


each = pytest.mark.parametrize("name", ["hgrn", "rg_lru", "rwkv4"])


@each
@pytest.mark.parametrize("states", [False, True])
def test_parts_and_steps_are_the_whole(name: str, states: bool):
    run, update = getattr(ssm_core, name), getattr(ssm_core, f"{name}_update")
    v, state = vectors(name), first_state(name) if states else None
    y, last = run(**v, initial=state, return_state=True)
    for cut in (1, 5, L):
        head, between = run(**parts(v, slice(0, cut)), initial=state, return_state=True)
        tail, end = run(**parts(v, slice(cut, L)), initial=between, return_state=True)
        same((np.concatenate([head, tail], axis=1), end), (y, last))
    now = state
    if now is None and name != "rg_lru":  # which takes None for a sequence that begins
        zero = np.zeros((2, W))
        now = (zero, zero, zero) if name == "rwkv4" else zero
    for k in range(L):
        step, now = update(now, **parts(v, k))
        same(step, y[:, k])
    same(now, last)


@each
def test_chunks_change_nothing_and_summaries_compose(name: str):
    run, summary = getattr(ssm_core, name), getattr(ssm_core, f"{name}_summary")
    v, state = vectors(name), first_state(name)
    wanted = run(**v, initial=state, return_state=True)
    for chunk in (1, 5, 100) if name == "rwkv4" else ():
        same(ssm_core.rwkv4(**v, initial=state, return_state=True, chunk=chunk), wanted)
    held = {n: x for n, x in v.items() if n != "bonus"}
    first, second, third = (summary(**parts(held, s)) for s in (slice(0, 4), slice(4, 5), slice(5, L)))
    same(first.then(second).then(third).after(state), wanted[1])
    same(first.then(second.then(third)).after(state), wanted[1])
    reset = np.zeros((2, L), bool)
    reset[:, 3] = True
    forgetful = summary(**held, reset=reset)
    wanted = run(**v, reset=reset, return_state=True)[1]
    same(forgetful.after(state), wanted)


@each
def test_resets_lengths_and_packing_are_sequences_apart(name: str):
    """NaN before a reset, beyond a length and in a neighbor too."""
    run = getattr(ssm_core, name)
    v = vectors(name, batch=1)
    apart = [run(**parts(v, s), return_state=True) for s in (slice(0, 5), slice(5, L))]
    y, wanted = np.concatenate([a[0] for a in apart], axis=1), tuple(a[1] for a in apart)
    reset = (np.arange(L) == 5)[None]
    same(run(**v, reset=reset), y)
    ends = np.asarray([0, 5, L])
    same(run(**v, cu_seqlens=ends), y)
    packed, states = run(**v, cu_seqlens=ends, return_state=True)
    same(packed, y)
    rows = zip(*wanted, strict=True) if name == "rwkv4" else [wanted]
    joined = [np.concatenate(part) for part in rows]
    same(states, tuple(joined) if name == "rwkv4" else joined[0])
    broken = {n: np.where(np.arange(L)[:, None] < 5, np.nan, x) if x.ndim == 3 else x for n, x in v.items()}
    same(run(**broken, reset=reset)[:, 5:], y[:, 5:])
    broken = {n: np.where(np.arange(L)[:, None] < 5, x, np.nan) if x.ndim == 3 else x for n, x in v.items()}
    found, last = run(**broken, lengths=np.asarray([5]), return_state=True)
    same((found[:, :5], last), (y[:, :5], wanted[0]))


@each
def test_no_steps_leave_the_state_alone(name: str):
    run, v, state = getattr(ssm_core, name), vectors(name), first_state(name)
    y, last = run(**parts(v, slice(0, 0)), initial=state, return_state=True)
    assert y.shape == (2, 0, W)
    same(last, state)
    same(run(**v, initial=state, lengths=np.asarray([0, 0]), return_state=True)[1], state)


@each
def test_hundred_thousand_steps(name: str):
    """Slow and fast decays; float32 against float64."""
    v = vectors(name, batch=1, length=100_000)
    decays = np.asarray([-1e-4, -1.0, -20.0])
    if name == "rg_lru":
        v["recurrent_param"] = np.asarray([-12.0, 0.0, 4.0])
    else:
        v["log_decay"] = np.broadcast_to(decays, v["log_decay"].shape).copy()
    wanted = getattr(ssm_core, name)(**v)
    found = getattr(ssm_core, name)(**{n: x.astype(np.float32) for n, x in v.items()})
    assert np.isfinite(wanted).all()
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_a_beginning_takes_the_input_in_whole():
    v = vectors("rg_lru")
    y = ssm_core.rg_lru(**v, reset=np.asarray([[False] * 4 + [True] + [False] * (L - 5)] * 2))
    entering = v["x"] / (1 + np.exp(-v["input_gate"]))
    same(y[:, [0, 4]], entering[:, [0, 4]])
    zero = np.zeros((2, W))
    assert np.abs(ssm_core.rg_lru(**v, initial=zero)[:, 0]).max() < np.abs(entering[:, 0]).max()


@pytest.mark.parametrize("gate", [-1e4, -200.0, -60.0, -20.0, 0.0, 20.0, 200.0, 1e4])
@pytest.mark.parametrize("Lambda", [-30.0, 0.0, 30.0])
def test_shut_and_open_gates_have_exact_derivatives(gate: float, Lambda: float):
    """log sqrt(1 - a^2) has the derivative -log a (1 - r) a^2 / (1 - a^2), (1 - r) / 2 where gates are shut."""
    torch = pytest.importorskip("torch")
    r = torch.full((1, 1, 1), gate, requires_grad=True)
    param = torch.full((1,), Lambda, requires_grad=True)
    one = torch.ones(1, 1, 1)
    y = ssm_core.rg_lru(one, 1e4 * one, r, param, initial=torch.zeros(1, 1))
    y.sum().backward()
    sigmoid = 1 / (1 + np.exp(-np.clip(gate, -700, 700)))
    log_a = -8 * sigmoid * np.logaddexp(0, Lambda)
    wanted = np.sqrt(-np.expm1(2 * log_a))
    slope = -log_a / (1 + np.exp(np.clip(gate, -700, 700))) * np.exp(2 * log_a) / max(wanted, 1e-300)
    np.testing.assert_allclose(y.item(), wanted, rtol=2e-6, atol=1e-20)
    np.testing.assert_allclose(r.grad.item(), slope, rtol=1e-5, atol=1e-7 * wanted + 1e-19)  # open ones round to 1
    assert torch.isfinite(param.grad).all()


@pytest.mark.parametrize("offset", [-1e4, -300.0, 0.0, 300.0, 1e4])
def test_means_do_not_depend_on_the_level_of_the_keys(offset: float):
    v = vectors("rwkv4", length=70)
    wanted, state = ssm_core.rwkv4(**v, return_state=True)
    found, (num, den, top) = ssm_core.rwkv4(**v | {"k": v["k"] + offset}, return_state=True)
    same(found, wanted, 1e-9)
    same((num, den, top - offset), state, 1e-9)


def test_keys_far_apart():
    """A key that outweighs all others is forgotten by decays alone; one that weighs nothing is read in its own step."""
    k = np.asarray([0.0, 500.0, -500.0, 0.0, 500.0])[None, :, None].astype(np.float32)
    v = np.arange(1, 6, dtype=np.float32)[None, :, None]
    w, u = np.asarray([-400.0], np.float32), np.zeros(1, np.float32)
    found = ssm_core.rwkv4(k, v, w, u)[0, :, 0]
    np.testing.assert_allclose(found, [1, 2, 2, (2 * np.exp(100.0) + 4) / (np.exp(100.0) + 1), 5])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda v: ssm_core.hgrn(v["x"][0], v["x"]), ShapeError, r"hgrn: x must be \(batch, L, W\)"),
        (lambda v: ssm_core.hgrn(v["x"], v["x"][:, :5]), ShapeError, r"hgrn: log_decay must be \(2, 12, 3\)"),
        (lambda v: ssm_core.hgrn(v["x"], 99 + 0 * v["x"]), DomainError, "hgrn: the state overflows: log_decay > 0"),
        (lambda v: ssm_core.hgrn(v["x"] * np.nan, v["x"]), DomainError, "hgrn: x holds NaN"),
        (lambda v: ssm_core.hgrn_summary(v["x"][0], v["x"]), ShapeError, "hgrn_summary: x must be"),
        (lambda v: ssm_core.hgrn_update(v["x"], *[v["x"]] * 2), ShapeError, r"hgrn_update: x must be \(batch, W\)"),
        (lambda v: ssm_core.rg_lru(*[v["x"]] * 3, np.ones(2)), ShapeError, r"rg_lru: recurrent_param must be \(3,\)"),
        (lambda v: ssm_core.rg_lru(*[v["x"]] * 3, np.ones(3), initial=np.ones(3)), ShapeError, r"must be \(2, 3\)"),
        (lambda v: ssm_core.rwkv4(v["x"], v["x"], *np.ones((2, 3)), initial=np.ones((2, 3))), ShapeError, "tuple of 3"),
        (lambda v: ssm_core.rwkv4_update(None, *np.ones((2, 2, 3)), *np.ones((2, 3))), ShapeError, "_update: state"),
        (lambda v: ssm_core.rwkv4_summary(v["x"], v["x"], np.ones(2)), ShapeError, r"rwkv4_summary: log_decay must be"),
    ],
)  # fmt: skip
def test_refused(call: Any, error: type, message: str):
    with pytest.raises(error, match=message):
        call(vectors("hgrn"))


def test_a_bound_keeps_the_gates_of_hgrn_away_from_zero():
    """And its gates are exact where they are shut or open wide: nothing is lost of 1 - a or of log a."""
    layer = layers.HGRN(W, lower_bound=0.5)
    params = layer.initial_parameters(dtype=np.float64)
    params["f_proj_weight"] = 1e3 * np.eye(W)
    u = np.ones((1, 30, W)) * np.asarray([-1.0, 0.0, 1.0])
    x, log_a = layer._signals(params, u, np)
    same(log_a[0, 0], np.log([0.5, 0.75, 1.0]))
    assert (np.abs(x[0, 0, 2]), log_a[0, 0, 2]) == (0.0, 0.0)


@pytest.mark.parametrize("masks", ["", "reset", "lengths", "both"])
@pytest.mark.parametrize("top", [None, -3.0, 3.0])
@pytest.mark.parametrize("spread", [1.0, 30.0])
@pytest.mark.parametrize("states", [False, True])
def test_pieces_of_rwkv4_in_pytorch_and_their_adjoint(
    masks: str, top: float | None, spread: float, states: bool, monkeypatch: pytest.MonkeyPatch
):
    """Pieces of 5 steps against the generic body: keys near each other and far apart, gradients of the state too, whose
    largest exponent may be from before them all."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr("ssm_core.backends.torch.means.PIECE", 5 * 2 * W)
    v = vectors("rwkv4", length=23)
    v = {n: torch.from_numpy(x).requires_grad_() for n, x in (v | {"k": spread * v["k"]}).items()}
    cuts: dict[str, Any] = {}
    if masks in ("reset", "both"):
        cuts["reset"] = torch.from_numpy(np.random.default_rng(2).random((2, 23)) < 0.2)
    if masks in ("lengths", "both"):
        cuts["lengths"] = torch.asarray([0, 17])
    h = normal(2, W, seed=5)
    state = [] if top is None else [torch.from_numpy(x).requires_grad_() for x in (h, 1 + h**2, h + top)]
    steps = torch.arange(23)[:, None] < cuts.get("lengths", torch.asarray([23, 23]))[:, None, None]
    leaves, results = [*v.values(), *state], []
    slopes = [torch.from_numpy(normal(*shape, seed=6)) for shape in ((2, 23, W), *((2, W),) * 3)]
    for backend in ("auto", "generic"):
        with ssm_core.use_backend(backend):
            y, last = ssm_core.rwkv4(**v, **cuts, initial=tuple(state) or None, return_state=True)
            outputs = [y * steps, *last]
            n = len(outputs) if states else 1
            results.append([*outputs, *torch.autograd.grad(outputs[:n], leaves, slopes[:n])])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("decay", [-np.inf, -1e30, 0.0, 2.0])
def test_means_of_rwkv4_in_pytorch_at_extreme_decays(decay: float):
    """Growing ones too, whose sums leave the range of numbers over one exponent."""
    torch = pytest.importorskip("torch")
    v = {n: torch.from_numpy(x) for n, x in vectors("rwkv4", length=600).items()}
    v["log_decay"] = torch.full((W,), decay, dtype=torch.float64)
    found = ssm_core.rwkv4(**v, return_state=True)
    with ssm_core.use_backend("generic"):
        wanted = ssm_core.rwkv4(**v, return_state=True)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    assert all(x.isfinite().all() for x in (found[0], *found[1]))


def test_gradients_of_gradients_of_rwkv4():
    """Which the generic body gives."""
    torch = pytest.importorskip("torch")
    leaves = [torch.from_numpy(x).requires_grad_() for x in vectors("rwkv4", batch=1, length=4).values()]
    assert torch.autograd.gradcheck(ssm_core.rwkv4, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(ssm_core.rwkv4, leaves, fast_mode=True)
