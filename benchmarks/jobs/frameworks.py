"""Gated layers in PyTorch beside the same ones in JAX with the same weights: batch 2, 1024 steps, 256 channels."""

from __future__ import annotations

from typing import Any

import numpy as np

import ssm_core

from .. import peers
from ..harness import Case, Job
from .common import close, in_jax, in_torch, passes

BATCH, L, D_MODEL = 2, 1024, 256
LAYERS = (
    "Mamba", "Mamba2", "Mamba3", "LinearAttention", "RetNet", "Lightning", "GLA", "HGRN", "HGRN2", "RWKV4", "RWKV5",
    "RWKV6", "RWKV7", "DeltaNet", "GatedDeltaNet", "GatedDeltaProduct", "KDA", "GDN2", "RGLRU", "MLSTM",
)  # fmt: skip


def layer_of(kind: str) -> tuple[Any, dict[str, np.ndarray], np.ndarray]:
    """A layer, its parameters, and an input; maps that begin at zero are drawn, to have results to compare."""
    layer, random = getattr(ssm_core.layers, kind)(D_MODEL), np.random.default_rng(0)
    params = {name: np.asarray(x) for name, x in layer.initial_parameters(0).items()}
    for name, x in params.items():
        if x.ndim == 2 and not x.any():
            params[name] = random.normal(0, x.shape[1] ** -0.5, x.shape).astype(x.dtype)
    return layer, params, random.standard_normal((BATCH, L, D_MODEL)).astype(np.float32)


def block(kind: str, backward: bool) -> Case:
    import torch

    layer, params, u = layer_of(kind)
    p = {name: torch.as_tensor(x).requires_grad_() for name, x in params.items()}
    signal = torch.as_tensor(u).requires_grad_()

    def in_other() -> Any:
        jnp = peers.package("jax", "jax.numpy")[0]
        arrays = {name: jnp.asarray(x) for name, x in params.items()}
        return lambda backward: in_jax(layer.apply, (arrays, jnp.asarray(u)), backward)

    found, missing = peers.those_here({"jax": in_other})
    others = {name: make(backward) for name, make in found.items()}

    def check() -> None:
        for make in found.values():
            close(layer.apply(p, signal), make(False)(), 1e-4)

    name, wanted = f"{kind} torch {passes(backward)}", "wanted: 0.77x to 1.3x"
    ours = in_torch(lambda: layer.apply(p, signal), backward)
    return Case(name, ours, others, check, wanted, repeats=5, missing=missing)


JOBS = {f"frameworks-{kind.lower()}": Job(lambda kind=kind: [block(kind, b) for b in (False, True)]) for kind in LAYERS}
