"""Mamba, Mamba-2 and Mamba-3 on plain arrays: how they start, and how they are made of the public functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from conformance.cases.layers import GATED
from ssm_core import causal_conv1d, layers, mamba3_scan, rms_norm, selective_scan, ssd
from ssm_core.functions.special import silu, softplus
from ssm_core.layers import Mamba, Mamba2, Mamba3

B, L, H = 2, 23, 4
STEPS = {"dt_min": 0.05, "dt_max": 0.5}
SMALL: dict[str, Any] = {
    "Mamba": Mamba(H, d_state=3, **STEPS),
    "Mamba2": Mamba2(H, d_state=3, head_dim=2, n_groups=2, chunk=5, **STEPS),
    "Mamba3": Mamba3(H, d_state=4, head_dim=2, chunk=5, **STEPS),
    "Mamba3_rank": Mamba3(H, d_state=4, head_dim=4, rank=2, out_norm=True, chunk=5, **STEPS),
}
LAYERS = {instance.name: instance.layer for cases in GATED for instance in cases.all}
each_layer = pytest.mark.parametrize("name", LAYERS)
each_with_steps = pytest.mark.parametrize("name", [name for name, layer in LAYERS.items() if layer.timed])


def parameters(layer: layers.Layer, seed: int = 0) -> dict[str, np.ndarray]:
    """As if after some training: at first many of them are equal."""
    rng, first = np.random.default_rng(seed + 1), layer.initial_parameters(seed, dtype=np.float64)
    return {name: p + 0.1 * rng.normal(size=p.shape) for name, p in first.items()}


def signal(length: int = L, seed: int = 0, width: int = H) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(B, length, width))


def state_of(layer: Any, seed: int = 3) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    return tuple(rng.uniform(0.1, 2, size=shape) for shape in layer.state_shapes(B).values())


def close(x: Any, y: Any, tolerance: float = 1e-10) -> None:
    if isinstance(x, tuple):
        for a, b in zip(x, y, strict=True):
            close(a, b, tolerance)
        return
    np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=tolerance, atol=tolerance)


# Parameters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"bias": True}, {"in_proj_bias", "out_proj_bias"}),
        ({"conv_bias": False}, {"conv_bias"}),
        ({"bias": True, "conv_bias": False}, {"in_proj_bias", "out_proj_bias", "conv_bias"}),
    ],
)
@pytest.mark.parametrize("cls", [Mamba, Mamba2])
def test_names_follow_the_options(cls: Any, options: dict[str, Any], names: set[str]):
    plain, other = ({p.name for p in cls(32, **o).parameters()} for o in ({}, options))
    assert plain ^ other == names


def test_names_of_mamba3_follow_the_options():
    plain, ranked, normed = (
        {p.name for p in Mamba3(32, **o).parameters()} for o in ({}, {"rank": 2}, {"out_norm": 1 > 0})
    )
    assert ranked - plain == {"x_map", "z_map", "out_map"}
    assert normed - plain == {"norm_weight"}
    both = [p.name for p in SMALL["Mamba3_rank"].parameters()]
    assert both[-5:] == ["norm_weight", "x_map", "z_map", "out_map", "out_proj_weight"]


def test_sizes_of_defaults():
    assert [Mamba(d).rank for d in (1, 16, 17, 768)] == [1, 1, 2, 48]
    assert (Mamba(24).inner, Mamba(24, expand=3).inner, Mamba(24, dt_rank=5).rank) == (48, 72, 5)
    layer = Mamba2(256, d_state=64, n_groups=2)
    assert (layer.inner, layer.heads, layer.convolved) == (512, 8, 768)
    assert {p.name: p.shape for p in layer.parameters()}["in_proj_weight"] == (2 * 512 + 2 * 2 * 64 + 8, 256)
    assert [Mamba3(64, d_state=n, rope_fraction=f).turning for n, f in ((8, 0.5), (8, 1.0), (7, 1.0), (8, 0.0))] == [
        2, 4, 3, 0
    ]  # fmt: skip
    layer = Mamba3(256, n_groups=2, rank=4)
    assert {p.name: p.shape for p in layer.parameters()}["in_proj_weight"] == (1024 + 2 * 4 * 2 * 128 + 3 * 8 + 32, 256)


# How they start ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [Mamba, Mamba2, Mamba3])
def test_first_steps_are_log_uniform(cls: Any):
    options = {} if cls is Mamba else {"head_dim": 1}
    layer = cls(500, dt_min=0.002, dt_max=0.3, **options)
    params = layer.initial_parameters(dtype=np.float64)
    dt = softplus(params["dt_proj_bias" if cls is Mamba else "dt_bias"])
    assert dt.shape == (1000,)
    assert ((dt > 0.002 - 1e-12) & (dt < 0.3 + 1e-12)).all()
    assert abs(np.log(dt).mean() - (math.log(0.002) + math.log(0.3)) / 2) < 0.15
    floored = cls(500, dt_min=0.002, dt_max=0.3, dt_floor=0.1, **options).initial_parameters(dtype=np.float64)
    close(softplus(floored["dt_proj_bias" if cls is Mamba else "dt_bias"]), np.maximum(dt, 0.1))


def test_first_poles():
    params = Mamba(5, d_state=6).initial_parameters(dtype=np.float64)
    close(params["A_log"], np.broadcast_to(np.log(np.arange(1, 7)), (10, 6)))
    A = np.exp(Mamba2(500, head_dim=1, A_min=2.0, A_max=3.0).initial_parameters(dtype=np.float64)["A_log"])
    assert ((A >= 2) & (A <= 3)).all()
    assert abs(A.mean() - 2.5) < 0.05
    for layer in (Mamba(5), Mamba2(32), Mamba3(32)):
        assert (layer.initial_parameters()["D"] == 1).all()


# Made of the public functions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("discretization", ["mamba", "zoh"])
@pytest.mark.parametrize("norm_epsilon", [None, 1e-3])
def test_mamba_is_a_selective_scan_between_its_maps(discretization: str, norm_epsilon: float | None):
    layer = Mamba(H, d_state=3, dt_rank=2, bias=True, discretization=discretization, norm_epsilon=norm_epsilon, **STEPS)
    p, u = parameters(layer), signal()
    h, z = np.split(np.moveaxis(u @ p["in_proj_weight"].T + p["in_proj_bias"], 2, 1), 2, axis=1)
    h = silu(causal_conv1d(h, p["conv_weight"], p["conv_bias"]))
    parts = np.split(np.moveaxis(h, 1, 2) @ p["x_proj_weight"].T, [2, 5], axis=-1)
    parts = parts if norm_epsilon is None else [rms_norm(v, epsilon=norm_epsilon) for v in parts]
    r, rows_B, rows_C = (np.moveaxis(v, 2, 1) for v in parts)
    y = selective_scan(
        h, p["dt_proj_weight"] @ r, -np.exp(p["A_log"]), rows_B, rows_C, D=p["D"], z=z, dt_bias=p["dt_proj_bias"],
        dt_softplus=True, discretization=discretization,
    )  # fmt: skip
    close(layer.apply(p, u), np.moveaxis(y, 1, 2) @ p["out_proj_weight"].T + p["out_proj_bias"])


def test_mamba2_is_a_dual_between_its_maps():
    layer = Mamba2(H, d_state=3, head_dim=2, n_groups=2, dt_limit=(0.1, 0.4), **STEPS)
    p, u = parameters(layer), signal()
    z, v, r = np.split(u @ p["in_proj_weight"].T, [8, 28], axis=-1)
    v = silu(np.moveaxis(causal_conv1d(np.moveaxis(v, 2, 1), p["conv_weight"], p["conv_bias"]), 1, 2))
    x, rows_B, rows_C = np.split(v, [8, 14], axis=-1)
    rows_B, rows_C = (rows.reshape(B, L, 2, 3) for rows in (rows_B, rows_C))
    y = ssd(
        x.reshape(B, L, 4, 2), r, -np.exp(p["A_log"]), rows_B, rows_C, D=p["D"], dt_bias=p["dt_bias"],
        dt_softplus=True, dt_limit=(0.1, 0.4),
    )  # fmt: skip
    y = rms_norm(y.reshape(B, L, 8), p["norm_weight"], gate=z, groups=2)
    close(layer.apply(p, u), y @ p["out_proj_weight"].T)


def test_mamba3_is_its_scan_between_its_maps():
    layer = SMALL["Mamba3"]
    p, u = parameters(layer), signal()
    z, x, rows_B, rows_C, r, a, trap, angles = np.split(
        u @ p["in_proj_weight"].T, np.cumsum((8, 8, 4, 4, 4, 4, 4)), axis=-1
    )
    rows_B, rows_C = (
        rms_norm(rows, p[f"{name}_norm_weight"])[:, :, None] for name, rows in (("B", rows_B), ("C", rows_C))
    )
    y = mamba3_scan(
        x.reshape(B, L, 4, 2), softplus(r + p["dt_bias"]), -np.where(a >= 0, 1 + a, 1 / (1 + np.abs(a))), rows_B,
        rows_C, trap=trap, angles=angles[:, :, None], B_bias=p["B_bias"][:, 0], C_bias=p["C_bias"][:, 0], D=p["D"],
        z=z.reshape(B, L, 4, 2),
    )  # fmt: skip
    close(layer.apply(p, u), y.reshape(B, L, 8) @ p["out_proj_weight"].T)


def test_mamba3_of_rank_2_holds_that_of_rank_1():
    """Where the second input of every step is zero, and the second output is left out."""
    options = {"d_state": 4, "head_dim": 2, "n_groups": 2, **STEPS}
    one, two = Mamba3(H, **options), Mamba3(H, rank=2, **options)
    p, q = parameters(one), parameters(two)
    ends = np.cumsum((16, 8, 8, 8, 8))
    parts = np.split(q["in_proj_weight"], ends)  # z and x, both B, both C, the rest
    rest = np.split(p["in_proj_weight"], np.cumsum((16, 8, 8)))
    q["in_proj_weight"] = np.concatenate([rest[0], rest[1], parts[2], rest[2], parts[4], rest[3]])
    for name in ("x_map", "z_map", "out_map"):
        q[name] = np.stack([np.ones((4, 2)), np.full((4, 2), float(name == "z_map"))], axis=1)
    for name in ("B_bias", "C_bias"):
        q[name][:, 0] = p[name][:, 0]
    same = {n: p[n] for n in ("B_norm_weight", "C_norm_weight", "dt_bias", "D", "out_proj_weight")}
    close(two.apply(q | same, signal()), one.apply(p, signal()))


@pytest.mark.parametrize("name", ["Mamba2", "Mamba3", "Mamba3_rank"])
def test_neither_mode_nor_chunk_changes_the_function(name: str):
    layer, state = SMALL[name], state_of(SMALL[name])
    params, u = parameters(layer), signal()
    wanted = layer.apply(params, u, state=state, return_state=True, mode="scan")
    for chunk in (1, 4, 64):
        other = layers.make(layer.name, layer.options() | {"chunk": chunk})
        close(other.apply(params, u, state=state, return_state=True, mode="chunk"), wanted)


def test_steps_within_equal_limits_are_given():
    layer = Mamba2(H, d_state=3, head_dim=2, dt_limit=(0.2, 0.2))
    params = parameters(layer)
    other = params | {"dt_bias": params["dt_bias"] + 1}
    close(layer.apply(params, signal()), layer.apply(other, signal()))


# Sequences -----------------------------------------------------------------------------------------------------------


@each_with_steps
def test_a_rate_is_a_step_scale(name: str):
    layer, u = LAYERS[name], signal()
    params = parameters(layer)
    close(layer.apply(params, u, rate=2.0), layer.apply(params, u, step_scale=np.full((B, L), 2.0)))


@each_layer
def test_resets(name: str):
    layer, u = LAYERS[name], signal()
    params = parameters(layer)
    reset = np.zeros((B, L), bool)
    reset[:, 11] = True
    y, state = layer.apply(params, u, state=state_of(layer), reset=reset, return_state=True)
    close((y[:, 11:], state), layer.apply(params, u[:, 11:], return_state=True))


@each_with_steps
@pytest.mark.parametrize("rate", [2, np.float64(2.0)], ids=repr)
def test_rates_that_are_numbers(rate: Any, name: str, xp: Any):
    """Of whatever type: the results stay in single precision, for sequences and for steps."""
    layer = LAYERS[name]
    params = {n: xp.asarray(p) for n, p in layer.initial_parameters().items()}
    u, state = xp.asarray(signal(1).astype(np.float32)), layer.initial_state(params, B)
    wanted = layer.apply(params, u, state=state, return_state=True, rate=2.0)
    y, last = layer.step(params, u[:, 0, :], state, rate=rate)
    close((y, last), (wanted[0][:, 0, :], wanted[1]), 1e-6)
    for x in (y, *last, layer.apply(params, u, rate=rate)):
        assert x.dtype == xp.float32


@each_layer
def test_lengths_of_nothing_keep_the_state(name: str):
    layer, u = LAYERS[name], signal()
    params, first = parameters(layer), state_of(layer)
    _, state = layer.apply(params, u, state=first, lengths=np.asarray([0, L]), return_state=True)
    _, whole = layer.apply(params, u, state=first, return_state=True)
    for now, before, after in zip(state, first, whole, strict=True):
        close(now[0], before[0])
        close(now[1], after[1])


@each_layer
def test_packed_sequences_begin_anew(name: str):
    layer, u = LAYERS[name], signal()[:1]
    params, ends = parameters(layer), np.asarray([0, 9, 9, L])
    y, state = layer.apply(params, u, cu_seqlens=ends, return_state=True)
    close(y, layer.apply(params, u, cu_seqlens=ends))
    parts = [layer.apply(params, u[:, i:j], return_state=True) for i, j in ((0, 9), (9, 9), (9, L))]
    close(y, np.concatenate([part for part, _ in parts], axis=1))
    close(state, tuple(np.concatenate(s) for s in zip(*(last for _, last in parts), strict=True)))


@pytest.mark.parametrize(
    ("layer", "length"),
    [
        (Mamba(1, 1, expand=1), 10**6),
        (Mamba2(1, 1, expand=1, head_dim=1), 10**5),
        (Mamba3(1, 2, expand=1, head_dim=1), 10**5),
    ],
    ids=["Mamba", "Mamba2", "Mamba3"],
)
def test_long_sequences_stay_finite(layer: Any, length: int):
    """And as precise as short ones: the last steps are those of the end alone."""
    u = np.random.default_rng(0).normal(size=(1, length, 1)).astype(np.float32)
    params = layer.initial_parameters()
    y, state = layer.apply(params, u, return_state=True)
    assert y.shape == u.shape
    assert all(np.isfinite(x).all() for x in (y, *state))
    tail = layer.apply(params, u[:, -length // 5 :])
    np.testing.assert_allclose(y[:, -100:], tail[:, -100:], rtol=1e-3, atol=1e-5)


# Derivatives ---------------------------------------------------------------------------------------------------------

TINY = {
    "Mamba": Mamba(1, d_state=2, d_conv=2, **STEPS),
    "Mamba_zoh": Mamba(1, d_state=1, d_conv=2, norm_epsilon=0.1, discretization="zoh", **STEPS),
    "Mamba2": Mamba2(2, d_state=1, d_conv=2, expand=1, head_dim=1, n_groups=2, epsilon=0.1, chunk=2, **STEPS),
    "Mamba3": Mamba3(2, d_state=2, expand=1, head_dim=1, rope_fraction=1.0, epsilon=0.1, chunk=2, **STEPS),
    "Mamba3_rank": Mamba3(1, 4, head_dim=1, rank=2, out_norm=True, epsilon=0.1, chunk=2, **STEPS),
}


@pytest.mark.parametrize("name", TINY)
def test_torch_passes_gradcheck_twice(name: str):
    """Of outputs and states, with respect to parameters, inputs and first states, through several chunks."""
    torch = pytest.importorskip("torch")
    layer = TINY[name]
    first = state_of(layer)
    arrays = [signal(4, width=layer.d_model), *first, *parameters(layer).values()]
    leaves = [torch.tensor(x[:1] if i <= len(first) else x, requires_grad=True) for i, x in enumerate(arrays)]
    reset = torch.tensor([[False, False, False, True]])

    def f(u: Any, *rest: Any) -> Any:
        params = dict(zip((p.name for p in layer.parameters()), rest[len(first) :], strict=True))
        y, state = layer.apply(params, u, state=rest[: len(first)], return_state=True, reset=reset)
        return (y, *state)

    def energy(*leaves: Any) -> Any:
        return sum(y.sin().sum() for y in f(*leaves))

    assert torch.autograd.gradcheck(f, leaves, fast_mode=True, check_undefined_grad=False)
    assert torch.autograd.gradgradcheck(energy, leaves, fast_mode=True, check_undefined_grad=False, atol=1e-4)
