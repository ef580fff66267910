"""The jobs of the other layers: S5 against the scan of its paper, S4 against the original, RTF against S4."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import ssm_core

from . import peers
from .harness import Case

H, D_STATE = 256, 64


def s5_jax(backward: bool = True) -> Case:
    """S5, P = 64 poles, B = 8, L = 2048: against a scan over broadcast (L, P) pairs, as its paper does."""
    import jax
    import jax.numpy as jnp

    layer = ssm_core.layers.S5(H, d_state=2 * D_STATE, activation=None, output=None)
    params = layer.initial_parameters(0, xp="jax")
    u = jnp.asarray(np.random.default_rng(0).standard_normal((8, 2048, H)), jnp.float32)

    def ours(params: Any, u: Any) -> Any:
        return layer.apply(params, u)

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

    def timed(f: Any) -> Callable[[], Any]:
        function = jax.jit(jax.grad(lambda p, u: (f(p, u) ** 2).sum(), (0, 1))) if backward else jax.jit(f)
        return lambda: jax.block_until_ready(function(params, u))

    def check() -> None:
        from .jobs import close

        close(jax.jit(ours)(params, u), jax.jit(paper)(params, u), 1e-4)

    return Case("S5 jax fwd+bwd", timed(ours), {"associative_scan": timed(paper)}, check, "wanted: 2x", repeats=5)


def s4_torch() -> Case:
    """The S4 layer, B = 8, L = 2048, forward and backward, against S4Block(mode="dplr") of the original."""
    import torch

    torch.manual_seed(0)
    u = torch.randn(8, 2048, H, requires_grad=True)
    layer, diagonal = (ssm_core.adapters.torch.S4(H, d_state=D_STATE), ssm_core.adapters.torch.S4D(H, d_state=D_STATE))

    def original() -> Callable[[], Any]:
        block = peers.repository("s4", "models.s4.s4").S4Block(
            H, l_max=2048, mode="dplr", init="legs", d_state=D_STATE, transposed=False
        )
        return lambda: block(u)[0].sum().backward()

    others, missing = peers.those_here({"S4Block of the original": original})
    others["S4D"] = lambda: diagonal(u).sum().backward()
    ours = lambda: layer(u).sum().backward()  # noqa: E731
    return Case("S4 torch fwd+bwd", ours, others, None, "wanted: 5x the original", repeats=5, missing=missing)


def s4d_torch() -> Case:
    """The S4D layer, B = 8, L = 2048, forward and backward, against the minimal S4D of the original."""
    import torch

    torch.manual_seed(0)
    u = torch.randn(8, 2048, H, requires_grad=True)
    layer = ssm_core.adapters.torch.S4D(H, d_state=D_STATE)

    def original() -> Callable[[], Any]:
        block = peers.repository("s4", "models.s4.s4d").S4D(H, d_state=D_STATE, transposed=False)
        return lambda: block(u)[0].sum().backward()

    others, missing = peers.those_here({"minimal S4D": original})
    ours = lambda: layer(u).sum().backward()  # noqa: E731
    return Case("S4D torch fwd+bwd", ours, others, None, "wanted: 3x", repeats=5, missing=missing)


def annotated_jax(kind: str) -> Case:
    """A kernel of H channels in JAX, L = 2048, forward and backward, against the jitted one of annotated-s4."""
    import jax
    import jax.numpy as jnp

    L, n = 2048, D_STATE
    layer: Any = getattr(ssm_core.layers, kind)(H, d_state=n)
    params = layer.initial_parameters(0, xp="jax")
    timed = jax.jit(jax.grad(lambda p: (layer.kernel(p, L) ** 2).sum()))
    rng = np.random.default_rng(0)
    poles = jnp.asarray(-0.5 + 1j * np.pi * np.tile(np.arange(n), (H, 1)), jnp.complex64)
    C = jnp.asarray(rng.standard_normal((H, n)) + 1j * rng.standard_normal((H, n)), jnp.complex64)
    step = jnp.asarray(rng.uniform(1e-3, 1e-1, H), jnp.float32)

    def theirs() -> Callable[[], Any]:
        if kind == "S4D":
            kernel = peers.repository("annotated-s4", "s4.s4d").s4d_kernel_zoh
            run = jax.vmap(lambda C, A, step: kernel(C, A, L, step))
        else:
            kernel = peers.repository("annotated-s4", "s4.s4").kernel_DPLR
            P = jnp.full((n,), 0.1, jnp.complex64)
            run = jax.vmap(lambda C, A, step: kernel(A, P, P, P, C, step, L))
        function = jax.jit(jax.grad(lambda C: (run(C, poles, step) ** 2).sum().real))
        return lambda: jax.block_until_ready(function(C))

    others, missing = peers.those_here({"annotated-s4": theirs})
    name = f"{kind} kernel jax fwd+bwd"
    ours = lambda: jax.block_until_ready(timed(params))  # noqa: E731
    return Case(name, ours, others, None, "wanted: 2x", repeats=5, missing=missing)


def rtf_torch(order: int) -> Case:
    """The kernel of RTF at L = 16384, forward and backward, against that of S4."""
    import torch

    torch.manual_seed(0)
    rtf = ssm_core.adapters.torch.RTF(H, d_state=order, init="montel")
    s4 = ssm_core.adapters.torch.S4(H, d_state=D_STATE)

    def run(layer: Any) -> Callable[[], Any]:
        return lambda: layer.kernel(16384).sum().backward()

    others = {"S4 kernel": run(s4)}
    return Case(f"RTF kernel torch N={order}", run(rtf), others, None, "wanted: faster than S4", repeats=5)


JOBS: dict[str, Callable[[], Case]] = {
    "s5-jax": s5_jax,
    "s4-torch": s4_torch,
    "s4d-torch": s4d_torch,
    "s4d-annotated": lambda: annotated_jax("S4D"),
    "s4-annotated": lambda: annotated_jax("S4"),
    "rtf-torch": lambda: rtf_torch(16),
    "rtf-torch-64": lambda: rtf_torch(D_STATE),
}
MEMORY = ("s5-jax",)
