"""Whole layers, forward and forward with backward: B = 8, L = 2048, H = 256, against the originals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import ssm_core

from .. import peers
from ..harness import Case, Job
from .common import BATCH, D_STATE, LENGTH, H, close, in_jax, in_torch, passes
from .kernels import EinsumKernel


def against(kind: str, theirs: dict[str, Callable[[], Any]], wanted: str, backward: bool, **options: Any) -> Case:
    """A layer of PyTorch and those of others, on the same input; makers give functions of it."""
    import torch

    torch.manual_seed(0)
    u = torch.randn(BATCH, LENGTH, H, requires_grad=True)
    layer = getattr(ssm_core.adapters.torch, kind)(H, **options)
    found, missing = peers.those_here(theirs)
    others = {name: in_torch(lambda f=function: f(u), backward) for name, function in found.items()}
    ours = in_torch(lambda: layer(u), backward)
    return Case(f"{kind} torch {passes(backward)}", ours, others, None, wanted, repeats=5, missing=missing)


def s4d(backward: bool) -> Case:
    """The minimal S4D of the original, and our own layer with the kernel by einsum."""
    import torch

    def minimal() -> Any:
        block = peers.repository("s4", "models.s4.s4d").S4D(H, d_state=D_STATE, transposed=False)
        return lambda u: block(u)[0]

    layer = ssm_core.adapters.torch.S4D(H, d_state=D_STATE)
    einsum, p = EinsumKernel(layer), layer.arrays()

    def with_einsum(u: Any) -> Any:
        x, n = u.transpose(1, 2), 2 * LENGTH
        v = torch.fft.irfft(torch.fft.rfft(x, n) * torch.fft.rfft(einsum(LENGTH), n), n)[..., :LENGTH].transpose(1, 2)
        v = torch.nn.functional.gelu(p["D"][0] * u + v)
        return torch.nn.functional.glu(torch.nn.functional.linear(v, p["output_weight"], p["output_bias"]), -1)

    def check() -> None:
        u = torch.randn(1, LENGTH, H)
        close(layer(u), with_einsum(u), 1e-4)

    theirs = {"minimal S4D": minimal, "kernel by einsum": lambda: with_einsum}
    return replace(against("S4D", theirs, "wanted: 3x", backward, d_state=D_STATE), check=check)


def s4(backward: bool) -> Case:
    """S4Block(mode="dplr") of the original."""

    def block() -> Any:
        made = peers.repository("s4", "models.s4.s4").S4Block(
            H, l_max=LENGTH, mode="dplr", init="legs", d_state=D_STATE, transposed=False
        )
        return lambda u: made(u)[0]

    return against("S4", {"S4Block": block}, "wanted: 5x", backward, d_state=D_STATE)


def s5(backward: bool) -> Case:
    """s5-pytorch, whose scan is a tree under vmap; the layer alone on both sides."""

    def theirs() -> Any:
        made = peers.repository("s5-pytorch", "s5.s5_model").S5(H, 2 * D_STATE)
        return lambda u: made(u)

    options = {"d_state": 2 * D_STATE, "activation": None, "output": None}
    return against("S5", {"s5-pytorch": theirs}, "", backward, **options)


def rtf(backward: bool) -> Case:
    """The original; the layer alone on both sides."""

    def theirs() -> Any:
        made = peers.repository("RTF", "rtf").RTF(H, 16, LENGTH, init="montel")
        return lambda u: made(u)

    options = {"d_state": 16, "init": "montel", "activation": None, "output": None}
    return against("RTF", {"original": theirs}, "", backward, **options)


def lru(backward: bool) -> Case:
    """Against a loop over time with the same matrices around it."""
    import torch

    def loop() -> Any:
        made = ssm_core.adapters.torch.LRU(H, d_state=2 * D_STATE, activation=None, output=None)
        xp = ssm_core._arrays.library.resolve("torch")

        def run(u: Any) -> Any:
            system, _ = made.definition.system(made.arrays(), xp)
            poles, B, C = system.poles, system.B, system.C[0]
            drive = torch.complex(u @ B.real.T, u @ B.imag.T)
            x, states = torch.zeros_like(drive[:, 0]), []
            for step in drive.unbind(1):
                x = poles * x + step
                states.append(x)
            X = torch.stack(states, dim=1)
            return 2 * (X.real @ C.real.T - X.imag @ C.imag.T)

        return run

    options = {"d_state": 2 * D_STATE, "activation": None, "output": None}
    return against("LRU", {"loop over unbind": loop}, "", backward, **options)


def s5_jax(backward: bool) -> Case:
    """S5 in JAX against a scan over broadcast (L, P) pairs, as its paper does."""
    import jax
    import jax.numpy as jnp

    layer = ssm_core.layers.S5(H, d_state=2 * D_STATE, activation=None, output=None)
    params = layer.initial_parameters(0, xp="jax")
    u = jnp.asarray(np.random.default_rng(0).standard_normal((BATCH, LENGTH, H)), jnp.float32)

    def paper(p: Any, u: Any) -> Any:
        poles, B = p["A_re"] + 1j * p["A_im"], p["B_re"] + 1j * p["B_im"]
        C, dt = p["C_re"][0] + 1j * p["C_im"][0], jnp.exp(p["log_dt"])
        Ab = jnp.exp(dt * poles)
        Bb = ((Ab - 1) / poles)[:, None] * B

        def one(u: Any) -> Any:
            gates = Ab * jnp.ones((u.shape[0], Ab.shape[0]))
            states = jax.lax.associative_scan(lambda i, j: (j[0] * i[0], j[0] * i[1] + j[1]), (gates, u @ Bb.T))[1]
            return 2 * (states @ C.T).real + p["D"][0] * u

        return jax.vmap(one)(u)

    return Case(
        f"S5 jax {passes(backward)}",
        in_jax(layer.apply, (params, u), backward),
        {"associative_scan": in_jax(paper, (params, u), backward)},
        lambda: close(jax.jit(layer.apply)(params, u), jax.jit(paper)(params, u), 1e-4),
        "wanted: 2x",
        repeats=5,
    )


def both(name: str, make: Callable[[bool], Case], framework: str = "torch") -> dict[str, Job]:
    """The layer forward, and forward with backward."""
    return {
        name: Job(lambda: make(False), framework, memory=True),
        f"{name}-backward": Job(lambda: make(True), framework, memory=True),
    }


JOBS = {
    **both("s4d-torch", s4d),
    **both("s4-torch", s4),
    **both("s5-torch", s5),
    **both("lru-torch", lru),
    **both("rtf-torch", rtf),
    **both("s5-jax", s5_jax, "jax"),
}
