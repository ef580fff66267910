"""The residual sequence model around a layer: its parts, pools, states and options."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ssm_core import layers
from ssm_core.models import SequenceModel

B, L, H = 2, 37, 4
MODES = ("conv", "chunk", "scan", "auto")


def double(params: dict[str, Any]) -> dict[str, Any]:
    return {name: p.astype(np.float64) for name, p in params.items()}


def parameters(definition: layers.Layer) -> dict[str, Any]:
    """As if after some training: at first all copies have the same poles."""
    rng = np.random.default_rng(1)
    return {name: p + rng.uniform(-0.2, 0.2, p.shape) for name, p in double(definition.initial_parameters()).items()}


def signal(width: int = H, length: int = L, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(B, length, width))


def close(x: Any, y: Any, tolerance: float = 1e-10) -> None:
    np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=tolerance, atol=tolerance)


POOLS = ("mean", "last", None)


def model(pool: str | None = "mean", **options: Any) -> SequenceModel:
    inner = {"d_state": 8, "dt_max": 0.5, **options}
    return SequenceModel(3, 2, d_model=H, n_layers=2, layer_options=inner, pool=pool)


def by_its_parts(definition: SequenceModel, params: Any, u: np.ndarray, lengths: Any = None) -> np.ndarray:
    """Encoder, residual blocks, pooling, head, written out."""
    x = u @ params["encoder.weight"].T + params["encoder.bias"]
    for i in range(definition.n_layers):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        z = (x - mean) / np.sqrt(var + 1e-5) * params[f"blocks.{i}.norm.weight"] + params[f"blocks.{i}.norm.bias"]
        x = x + definition.block().apply(definition.block_parameters(params, i), z, lengths=lengths)
    if definition.pool is not None:
        ends = [x.shape[1]] * len(x) if lengths is None else lengths
        pool = {"mean": lambda row: row.mean(0), "last": lambda row: row[-1]}[definition.pool]
        x = np.stack([pool(row[:n]) for row, n in zip(x, ends, strict=True)])
    return x @ params["head.weight"].T + params["head.bias"]


@pytest.mark.parametrize("pool", POOLS)
def test_model_is_the_sum_of_its_parts(pool: str | None):
    definition, u = model(pool), signal(3)
    params = parameters(definition)
    close(definition.apply(params, u), by_its_parts(definition, params, u))


@pytest.mark.parametrize("pool", ["mean", "last"])
def test_pooling_minds_the_lengths(pool: str):
    definition, u, lengths = model(pool), signal(3), np.asarray([4, L])
    params = parameters(definition)
    y = definition.apply(params, u, lengths=lengths)
    close(y, by_its_parts(definition, params, u, lengths))
    close(y[:1], definition.apply(params, u[:1, :4]))


@pytest.mark.parametrize("pool", POOLS)
def test_model_in_chunks_and_steps(pool: str | None, xp: Any):
    definition = model(pool)
    params = {k: xp.asarray(p) for k, p in parameters(definition).items()}
    u = xp.asarray(signal(3, 7))
    wanted, last = definition.apply(params, u, return_state=True)
    head, state = definition.apply(params, u[:, :5, :], return_state=True)
    tail, end = definition.apply(params, u[:, 5:, :], state=state, return_state=True)
    close(np.concatenate([np.asarray(head), np.asarray(tail)], axis=1) if pool is None else tail, wanted)
    step, state = definition.stepper(params), definition.initial_state(params, B)
    for k in range(7):
        y, state = step(u[:, k, :], state)
        close(y, wanted[:, k, :] if pool is None else definition.apply(params, u[:, : k + 1, :]))
    for found in (end, state):
        for x, z in zip(found[:-1], last[:-1], strict=True):
            close(x, z)
        for x, z in zip(found[-1], last[-1], strict=True):
            close(x, z)


@pytest.mark.parametrize("pool", ["mean", "last"])
def test_the_pool_over_lengths_streams(pool: str):
    definition, u = model(pool), signal(3, 10)
    params = parameters(definition)
    wanted = definition.apply(params, u, lengths=np.asarray([4, 10]))
    _, state = definition.apply(params, u[:, :6], lengths=np.asarray([4, 6]), return_state=True)
    y, _ = definition.apply(params, u[:, 6:], state=state, lengths=np.asarray([0, 4]), return_state=True)
    close(y, wanted)


@pytest.mark.parametrize("pool", ["mean", "last"])
def test_a_sequence_of_no_steps_pools_to_zero(pool: str):
    definition, u = model(pool), signal(3, 10)
    params = parameters(definition)
    y = definition.apply(params, u, lengths=np.asarray([0, 10]))
    close(y[0], params["head.bias"])
    close(y[1], definition.apply(params, u)[1])
    _, state = definition.apply(params, u, return_state=True)
    again, _ = definition.apply(params, u[:, :0], state=state, return_state=True)
    close(again, definition.apply(params, u))


def test_model_options_reach_the_layers():
    definition, u = model(None), signal(3)
    params = parameters(definition)
    wanted = definition.apply(params, u)
    for mode in MODES:
        close(definition.apply(params, u, mode=mode), wanted)
    scaled = {k: p + np.log(2.0) if k.endswith("log_dt") else p for k, p in params.items()}
    close(definition.apply(params, u, rate=2.0), definition.apply(scaled, u))
    close(definition.apply(params, u, step_scale=np.full((B, L), 2.0)), definition.apply(scaled, u))
    reset = np.zeros((B, L), bool)
    reset[:, 20] = True
    close(definition.apply(params, u, reset=reset)[:, 20:], definition.apply(params, u[:, 20:]))


def test_model_of_bidirectional_layers():
    definition, u = model(bidirectional=True), signal(3)
    params = parameters(definition)
    close(definition.apply(params, u), by_its_parts(definition, params, u))


def test_model_parameters():
    definition = model()
    names = [p.name for p in definition.parameters()]
    assert names[:2] == ["encoder.weight", "encoder.bias"]
    assert names[-2:] == ["head.weight", "head.bias"]
    assert "blocks.1.layer.log_dt" in names
    assert len(set(names)) == len(names)
    params = definition.initial_parameters()
    assert {p.dtype for p in params.values()} == {np.dtype(np.float32)}
    bound = 1 / math.sqrt(3)
    assert np.abs(params["encoder.weight"]).max() <= bound
    assert (params["blocks.0.norm.weight"] == 1).all()
    special = {p.name for p in definition.parameters() if p.no_weight_decay}
    assert special == {n for n in names if n.rsplit(".")[-1] in ("log_dt", "log_A_re", "A_im", "B_re", "B_im")}


@pytest.mark.parametrize("pool", POOLS)
def test_model_of_half_precision_and_empty_batches(pool: str | None):
    definition = model(pool)
    params = definition.initial_parameters()
    y = definition.apply(params, signal(3).astype(np.float16))
    assert y.dtype == np.float16
    assert definition.apply(params, np.ones((0, 5, 3), np.float32)).shape == ((0, 5, 2) if pool is None else (0, 2))
    y, _ = definition.step(params, np.ones((B, 3), np.float16), definition.initial_state(params, B))
    assert y.dtype == np.float16
