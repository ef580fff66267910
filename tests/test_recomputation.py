"""Layers with input-dependent steps by pieces that the backward computes again: the same function in less memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import layers, models

LAYERS = {
    "Mamba": layers.Mamba(4, d_state=3),
    "Mamba2": layers.Mamba2(4, d_state=3, head_dim=2, chunk=4),
    "Mamba3": layers.Mamba3(4, d_state=4, head_dim=4, chunk=4),
    "RGLRU": layers.RGLRU(4, heads=2),
    "RWKV4": layers.RWKV4(4, chunk=4),
}
B, L = 2, 11
PIECES = (1, 4, 11, 50)  # single steps, pieces with a rest, all at once, and more than there are


def case(name: str) -> tuple[Any, Any, np.ndarray, np.random.Generator]:
    layer, rng = LAYERS[name], np.random.default_rng(0)
    params = {k: p.astype(np.float64) for k, p in layer.initial_parameters(0).items()}
    return layer, params, rng.standard_normal((B, L, 4)), rng


def options(name: str, rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    state = tuple(0.1 * rng.standard_normal(shape) for shape in LAYERS[name].state_shapes(B).values())
    return {
        "plain": {},
        "state": {"state": state},
        "lengths": {"lengths": np.asarray([0, 6])},
        "reset": {"reset": rng.random((B, L)) < 0.3},
        "step_scale": {"step_scale": rng.uniform(0.5, 2.0, (B, L)), "rate": 1.5},
    }


RUNS = [(name, what) for name in LAYERS for what in ("plain", "state", "lengths", "reset", "step_scale")]
RUNS = [(name, what) for name, what in RUNS if what != "step_scale" or LAYERS[name].timed]


@pytest.mark.parametrize(("name", "what"), RUNS)
def test_pieces_are_the_whole(name: str, what: str):
    layer, params, u, rng = case(name)
    given = options(name, rng)[what]
    y, state = layer.apply(params, u, return_state=True, **given)
    until = given["lengths"] if what == "lengths" else np.full(B, L)
    for steps in PIECES:
        found, last = layer.apply(params, u, return_state=True, recompute=steps, **given)
        for b in range(B):  # outputs beyond the length are unspecified
            np.testing.assert_allclose(found[b, : until[b]], y[b, : until[b]], rtol=1e-9, atol=1e-11)
        for x, wanted in zip(last, state, strict=True):
            np.testing.assert_allclose(x, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", LAYERS)
def test_packed_sequences(name: str):
    layer, params, u, _ = case(name)
    packed = {"cu_seqlens": np.asarray([0, 3, 11]), "return_state": True}
    y, state = layer.apply(params, u[:1], **packed)
    found, last = layer.apply(params, u[:1], recompute=4, **packed)
    np.testing.assert_allclose(found, y, rtol=1e-9, atol=1e-11)
    for x, wanted in zip(last, state, strict=True):
        np.testing.assert_allclose(x, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_in_torch(name: str):
    torch = pytest.importorskip("torch")
    layer, params, u, _ = case(name)

    def gradients(**given: Any) -> list[Any]:
        leaves = {k: torch.from_numpy(p).requires_grad_() for k, p in params.items()}
        x = torch.from_numpy(u).requires_grad_()
        y, state = layer.apply(leaves, x, return_state=True, **given)
        ((y**2).sum() + sum(s.sum() for s in state)).backward()
        return [x.grad, *(p.grad for p in leaves.values())]

    for found, wanted in zip(gradients(recompute=4), gradients(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_in_jax(name: str):
    jax = pytest.importorskip("jax")
    layer, params, u, _ = case(name)

    def loss(p: Any, x: Any, steps: int | None) -> Any:
        return (layer.apply(p, x, recompute=steps) ** 2).sum()

    with jax.enable_x64(True):
        given = jax.tree.map(jax.numpy.asarray, (params, u))
        found, wanted = (jax.jit(jax.grad(loss, (0, 1)), static_argnums=2)(*given, steps) for steps in (4, None))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-11), found, wanted)


@pytest.mark.parametrize("name", LAYERS)
def test_less_is_kept_for_the_backward(name: str):
    torch = pytest.importorskip("torch")
    layer = getattr(ssm_core.adapters.torch, name)(64)
    u = torch.randn(1, 1024, 64, requires_grad=True)

    def kept(**given: Any) -> int:
        storages: dict[int, Any] = {}

        def pack(x: Any) -> Any:
            storages[x.untyped_storage().data_ptr()] = x
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            y = layer(u, **given)
        assert y.requires_grad
        return sum(x.untyped_storage().nbytes() for x in storages.values())

    assert kept(recompute=128) < 0.5 * kept()


def test_language_model():
    model = models.MambaLM(vocab_size=10, d_model=4, n_layers=2)
    params, ids = model.initial_parameters(0), np.arange(10)[None]
    np.testing.assert_allclose(model.apply(params, ids, recompute=3), model.apply(params, ids), rtol=1e-4, atol=1e-6)
    torch = pytest.importorskip("torch")
    module = ssm_core.adapters.torch.MambaLM(vocab_size=10, d_model=4, n_layers=2)
    given = torch.from_numpy(ids)
    torch.testing.assert_close(module(given, recompute=3), module(given), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("steps", [0, -1, 2.0, True])
def test_refused(steps: Any):
    layer, params, u, _ = case("Mamba")
    with pytest.raises(ssm_core.OptionError, match=r"recompute = .* must be a whole number of at least 1"):
        layer.apply(params, u, recompute=steps)


def test_models_without_it_say_so():
    model = ssm_core.models.SequenceModel(3, 2, d_model=4, n_layers=1)
    u = np.zeros((1, 5, 3), np.float32)
    with pytest.raises(ssm_core.OptionError, match=r"SequenceModel: recompute = 2, but S4D has none"):
        model.apply(model.initial_parameters(), u, recompute=2)
