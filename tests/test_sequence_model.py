"""The residual sequence model around a layer: its parts, pools, states and options."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import adapters, layers
from ssm_core.models import SequenceModel
from ssm_core.models.pooling import first_state, pooled

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


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_means_of_half_precision_count_and_sum_on(dtype: str):
    """Counts stick at 256 in bfloat16 and sums overflow beyond 65504 in float16: both are kept in single precision."""
    torch = pytest.importorskip("torch")
    x = torch.full((1, 600, 1), 300.0, dtype=getattr(torch, dtype))
    whole, _ = pooled("pool", "mean", x, None)
    state = first_state("mean", 1, 1, x)
    for k in range(x.shape[1]):
        mean, state = pooled("pool", "mean", x[:, k : k + 1], state)
    assert whole.dtype == mean.dtype == x.dtype
    assert float(whole) == float(mean) == float(x[0, 0, 0])


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


@pytest.mark.parametrize(
    ("name", "postnorm", "output"),
    [
        ("s5_layer_fullglu_prenorm_H4_P4_L16", False, "glu"),
        ("s5_layer_gelu_post_H3_P5_L15", True, None),
        ("s5_layer_halfglu1_post_bidir_H4_P8_L20", True, "half_glu"),
    ],
)
@pytest.mark.parametrize("framework", ["numpy", "torch", "flax"])
def test_blocks_of_the_original_s5(
    name: str, postnorm: bool, output: str | None, framework: str, golden: Any, tmp_path: Path
):
    """Its norm before or behind the residual, with its epsilon: a model of one block between identities."""
    pytest.importorskip(framework)
    numbers = golden(name)
    t = {n.rpartition("params.")[2].removeprefix("seq."): x for n, x in numbers.items() if n.startswith("params.")}
    inner, weights = ssm_core.importers.from_s5(
        {n: x for n, x in t.items() if "." not in n}, conj_sym=True, bidirectional="bidir" in name,
        discretization="bilinear" if "gelu_post" in name else "zoh",
    )  # fmt: skip
    H, norm = inner.d_model, "norm" if "norm.scale" in t else "normalization"
    options = inner.options() | {"activation": "gelu_tanh", "output": output}
    options.pop("d_model")
    model = SequenceModel(
        H, H, H, 1, "S5", options, pool=None, postnorm=postnorm, epsilon=1e-6
    )  # fmt: skip
    maps = {"glu": ("out1", "out2"), "half_glu": ("out2",)}.get(output or "", ())
    if maps:
        weights["output_weight"] = np.concatenate([t[f"{m}.kernel"].T for m in maps])
        weights["output_bias"] = np.concatenate([t[f"{m}.bias"] for m in maps])
    params = {f"blocks.0.layer.{n}": x for n, x in weights.items()}
    params |= {"blocks.0.norm.weight": t[f"{norm}.scale"], "blocks.0.norm.bias": t[f"{norm}.bias"]}
    params |= {f"{end}.weight": np.eye(H) for end in ("encoder", "head")}
    params |= {f"{end}.bias": np.zeros(H) for end in ("encoder", "head")}
    u, wanted = numbers["u"][None], numbers["y"][None]
    if framework == "numpy":
        found, allowed = model.apply(params, u), 1e-9
        if not inner.bidirectional:
            step, state = model.stepper(params), model.initial_state(params, 1)
            for k in range(u.shape[1]):
                y, state = step(u[:, k], state)
                np.testing.assert_allclose(y, wanted[:, k], atol=1e-9 * np.abs(wanted).max())
    else:
        adapter = getattr(adapters, framework)
        path = tmp_path / "s5.safetensors"
        ssm_core.save(model, {n: x.astype(np.float32) for n, x in params.items()}, path)
        convert = importlib.import_module({"torch": "torch", "flax": "jax.numpy"}[framework]).asarray
        y = adapter.load(path)(convert(u.astype(np.float32)))
        found, allowed = np.asarray(y.detach() if framework == "torch" else y), 1e-5
    np.testing.assert_allclose(found, wanted, atol=allowed * np.abs(wanted).max())


def test_norms_behind_every_residual():
    """The channel mix has one too; wrong options are refused."""
    model = SequenceModel(3, 2, 4, 1, "S4D", {"d_state": 4}, pool=None, channel_mix="mlp", postnorm=True, epsilon=1e-3)
    params, u = model.initial_parameters(), np.random.default_rng(0).normal(size=(2, 7, 3)).astype(np.float32)
    step, state = model.stepper(params), model.initial_state(params, 2)
    for k in range(7):
        y, state = step(u[:, k], state)
        np.testing.assert_allclose(y, model.apply(params, u)[:, k], atol=1e-5)
    x = model.apply(params | {"head.weight": np.eye(2, 4, dtype=np.float32), "head.bias": np.zeros(2, np.float32)}, u)
    assert np.abs(x).max() < 2  # normalized
    for wrong in ({"postnorm": 1}, {"epsilon": 0.0}, {"epsilon": "1e-5"}):
        with pytest.raises(ssm_core.OptionError, match=next(iter(wrong))):
            SequenceModel(3, 2, **wrong)
