"""The jobs of the other layers: S5 against the scan of its paper, S4 against the original, RTF against S4."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import numpy as np

import ssm_core

from .harness import Case

H, D_STATE = 256, 64
ORIGINAL = "S4_ORIGINAL"  # environment variable: the file models/s4/s4.py of a checkout of state-spaces/s4


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
    layer = ssm_core.adapters.torch.S4(H, d_state=D_STATE)
    others = {}
    path = os.environ.get(ORIGINAL)
    if path:
        spec: Any = importlib.util.spec_from_file_location("original_s4", path)
        original = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(original)
        block = original.S4Block(H, l_max=2048, mode="dplr", init="legs", d_state=D_STATE, transposed=False)
        others["S4Block of the original"] = lambda: block(u)[0].sum().backward()
    diagonal = ssm_core.adapters.torch.S4D(H, d_state=D_STATE)
    others["S4D"] = lambda: diagonal(u).sum().backward()
    return Case(
        "S4 torch fwd+bwd", lambda: layer(u).sum().backward(), others, None, "wanted: 5x the original", repeats=5
    )


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
    "rtf-torch": lambda: rtf_torch(16),
    "rtf-torch-64": lambda: rtf_torch(D_STATE),
}
MEMORY = ("s5-jax",)
