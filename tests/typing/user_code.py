"""Code of users, as type checkers see it: `nox -s typecheck` runs mypy and pyright on it. It is never imported."""

from __future__ import annotations

from typing import Any, assert_type

import jax
import numpy as np
import torch
from flax import nnx

import ssm_core
from ssm_core import adapters

Signal = np.ndarray[Any, np.dtype[np.float64]]


def kernels(A: torch.Tensor, B: torch.Tensor, C: torch.Tensor) -> None:
    system = ssm_core.Diagonal(A, B, C, conj_pairs=True)
    assert_type(system, ssm_core.Diagonal[torch.Tensor])
    assert_type(ssm_core.kernel(system, 64, dt=0.1), torch.Tensor)
    assert_type(ssm_core.kernel((A, B, C), 64, dt=0.1), torch.Tensor)
    assert_type(ssm_core.poles(system), torch.Tensor)
    assert_type(ssm_core.kernel(system, 64, dt=0.1, xp=np), Any)


def signals(u: Signal, k: Signal, system: ssm_core.Rational[Signal]) -> None:
    assert_type(ssm_core.convolve(u, k), Signal)
    assert_type(ssm_core.scan(system, u), tuple[Signal, Signal])
    assert_type(ssm_core.expm(u), Signal)
    assert_type(ssm_core.linear_scan(k, u, axis=0), Signal)


def gated(q: torch.Tensor, log_decay: torch.Tensor, keep: bool) -> None:
    assert_type(ssm_core.gated_linear_attention(q, q, q, log_decay), torch.Tensor)
    assert_type(
        ssm_core.gated_delta(q, q, q, log_decay, log_decay, return_state=True), tuple[torch.Tensor, torch.Tensor]
    )
    y = ssm_core.selective_scan(q, q, q, q, q, return_state=keep)
    assert_type(y, torch.Tensor | tuple[torch.Tensor, torch.Tensor])


def layers(u: Signal) -> None:
    definition = ssm_core.layers.S4D(8, d_state=4)
    params = definition.initial_parameters(seed=0)
    definition.apply(params, u, return_state=True)
    module: torch.nn.Module = adapters.torch.S4D(8, d_state=4)
    module.eval()


def calls(u: torch.Tensor, x: jax.Array, signal: Signal, keep: bool) -> None:
    layer = adapters.torch.S4D(8, d_state=4)
    assert_type(layer(u), torch.Tensor)
    assert_type(adapters.torch.Mamba2(8)(u, return_state=True, lengths=u)[0], torch.Tensor)
    assert_type(layer(u, return_state=keep), torch.Tensor | tuple[torch.Tensor, Any])
    assert_type(layer.step(u, None)[0], torch.Tensor)
    assert_type(layer.kernel(8), torch.Tensor)
    assert_type(torch.nn.functional.relu(adapters.torch.MambaLM(10)(u)), torch.Tensor)

    in_flax = adapters.flax.S4D(8, rngs=nnx.Rngs(0))
    assert_type(in_flax(x), jax.Array)
    assert_type(in_flax(signal, return_state=True), tuple[jax.Array, Any])
    assert_type(adapters.flax.SequenceModel(1, 2, rngs=nnx.Rngs(0))(x), jax.Array)
    in_equinox = adapters.equinox.Mamba(8, key=jax.random.key(0))
    assert_type(in_equinox(x), jax.Array)
    assert_type(adapters.equinox.SequenceModel(1, 2, key=x)(x, key=x), jax.Array)

    definition = ssm_core.layers.S4D(8, d_state=4)
    params = definition.initial_parameters(seed=0)
    assert_type(definition.apply(params, signal), Signal)
    assert_type(definition.apply(params, x, return_state=True), tuple[jax.Array, Any])
    assert_type(definition.step(params, x, None)[0], jax.Array)
    assert_type(ssm_core.models.MambaLM(10).apply(params, u, recompute=64), torch.Tensor)


def families(u: torch.Tensor, x: jax.Array, gates: Signal) -> None:
    assert_type(adapters.torch.H3(8, head_dim=2)(u), torch.Tensor)
    assert_type(adapters.torch.Hyena(8, l_max=64)(u), torch.Tensor)
    assert_type(adapters.torch.S4ND(8)(u), torch.Tensor)
    assert_type(adapters.torch.RWKV7(8, head_dim=4)(u, return_state=True), tuple[torch.Tensor, Any])
    assert_type(adapters.flax.GatedDeltaNet(8, heads=2, rngs=nnx.Rngs(0))(x), jax.Array)
    assert_type(adapters.equinox.RGLRU(8, key=x)(x, return_state=True), tuple[jax.Array, Any])
    assert_type(ssm_core.layers.KDA(8, heads=2).apply({}, gates), Signal)
    assert_type(ssm_core.hgrn(gates, gates), Signal)
    assert_type(ssm_core.hgrn_update(x, x, x), tuple[jax.Array, jax.Array])
    assert_type(ssm_core.ssd(u, u, u, u, u), torch.Tensor)
    assert_type(ssm_core.causal_conv1d(u, u, return_state=True), tuple[torch.Tensor, torch.Tensor])


def models(ids: torch.Tensor, x: jax.Array, keep: bool) -> None:
    assert_type(adapters.torch.SaShiMi(8)(ids), torch.Tensor)
    assert_type(adapters.torch.RWKV7LM(10)(ids, return_state=True), tuple[torch.Tensor, Any])
    assert_type(adapters.flax.RecurrentGemmaLM(10, rngs=nnx.Rngs(0))(x), jax.Array)
    assert_type(adapters.equinox.XLSTMLM(10, key=x)(x), jax.Array)
    model = adapters.torch.LanguageModel(10, layer="GLA", layer_options={"heads": 2})
    tokens: torch.Tensor = model.generate(ids, 4)
    assert_type(model(tokens, return_state=keep), torch.Tensor | tuple[torch.Tensor, Any])
    assert_type(adapters.torch.from_pretrained("directory")(ids), torch.Tensor)
    definition, params = ssm_core.from_pretrained("directory")
    assert_type(definition.apply(params, ids), torch.Tensor)
    assert_type(ssm_core.layers.make("GLA", {"d_model": 8}), ssm_core.layers.Layer)
