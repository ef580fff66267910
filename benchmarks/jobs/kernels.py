"""Convolution kernels: ours against a tensor of all exponentials or all powers, and against the originals."""

from __future__ import annotations

from typing import Any

import ssm_core

from .. import peers
from ..harness import Case, Job
from .common import D_STATE, LENGTH, H, close, in_jax, in_torch, passes

TAPS = 4096


class EinsumKernel:
    """2 Re sum_n C_n Bb_n exp(l dt A_n), with all exponentials in one (H, N, L) tensor, by PyTorch."""

    def __init__(self, layer: Any) -> None:
        self.p = layer.arrays()

    def __call__(self, length: int) -> Any:
        import torch

        p = self.p
        A = -torch.exp(p["log_A_re"]) + 1j * p["A_im"]
        dtA = A * torch.exp(p["log_dt"])[:, None]
        C = (p["C_re"][0] + 1j * p["C_im"][0]) * (p["B_re"] + 1j * p["B_im"]) * (torch.exp(dtA) - 1) / A
        powers = torch.exp(dtA[..., None] * torch.arange(length))
        return 2 * torch.einsum("hn,hnl->hl", C, powers).real


def s4d_torch(backward: bool) -> Case:
    """The S4D kernel."""
    import torch

    torch.manual_seed(0)
    layer = ssm_core.adapters.torch.S4D(H, d_state=D_STATE)
    einsum = EinsumKernel(layer)
    return Case(
        f"S4D kernel torch {passes(backward)}",
        in_torch(lambda: layer.kernel(TAPS), backward),
        {"einsum (H, N, L)": in_torch(lambda: einsum(TAPS), backward)},
        lambda: close(layer.kernel(TAPS)[0], einsum(TAPS), 1e-4),
        "wanted: 10x",
    )


def s4d_jax(backward: bool) -> Case:
    """The same, compiled in JAX."""
    import jax.numpy as jnp

    layer = ssm_core.layers.S4D(H, d_state=D_STATE)
    params = layer.initial_parameters(0, xp="jax")

    def ours(p: Any) -> Any:
        return layer.kernel(p, TAPS)[0]

    def einsum(p: Any) -> Any:
        A = -jnp.exp(p["log_A_re"]) + 1j * p["A_im"]
        dtA = A * jnp.exp(p["log_dt"])[:, None]
        C = (p["C_re"][0] + 1j * p["C_im"][0]) * (p["B_re"] + 1j * p["B_im"]) * (jnp.exp(dtA) - 1) / A
        return 2 * jnp.einsum("hn,hnl->hl", C, jnp.exp(dtA[..., None] * jnp.arange(TAPS))).real

    return Case(
        f"S4D kernel jax {passes(backward)}",
        in_jax(ours, (params,), backward),
        {"einsum (H, N, L)": in_jax(einsum, (params,), backward)},
        lambda: close(ours(params), einsum(params), 1e-4),
        "wanted: 5x",
    )


def annotated_jax(kind: str) -> Case:
    """A kernel of H channels in JAX and the gradients of all its parameters, against annotated-s4, compiled too."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    layer: Any = getattr(ssm_core.layers, kind)(H, d_state=D_STATE)
    params = layer.initial_parameters(0, xp="jax")
    rng = np.random.default_rng(0)
    poles = jnp.asarray(-0.5 + 1j * np.pi * np.tile(np.arange(D_STATE), (H, 1)), jnp.complex64)
    C = jnp.asarray(rng.standard_normal((H, D_STATE)) + 1j * rng.standard_normal((H, D_STATE)), jnp.complex64)
    step = jnp.asarray(rng.uniform(1e-3, 1e-1, H), jnp.float32)

    def theirs() -> Any:
        if kind == "S4D":
            kernel = peers.repository("annotated-s4", "s4.s4d").s4d_kernel_zoh
            run, given = jax.vmap(lambda C, A, step: kernel(C, A, LENGTH, step)), (C, poles, step)
        else:
            kernel = peers.repository("annotated-s4", "s4.s4").kernel_DPLR
            run = jax.vmap(lambda C, A, step, P, B: kernel(A, P, P, B, C, step, LENGTH))
            given = (C, poles, step, *(jnp.full_like(C, 0.1) for _ in range(2)))
        return in_jax(lambda p: run(*p) ** 2, (given,), True)

    others, missing = peers.those_here({"annotated-s4": theirs})
    ours = in_jax(lambda p: layer.kernel(p, LENGTH) ** 2, (params,), True)
    name = f"{kind} kernel jax fwd+bwd, L={LENGTH}"
    return Case(name, ours, others, None, "wanted: 2x", repeats=5, missing=missing)


def s4_torch() -> Case:
    """The kernel of S4 (DPLR), forward and backward, against the original's on its CPU path."""
    import torch

    torch.manual_seed(0)
    layer = ssm_core.adapters.torch.S4(H, d_state=D_STATE)

    def original() -> Any:
        module = peers.repository("s4", "models.s4.s4")
        block = module.S4Block(H, l_max=LENGTH, mode="dplr", init="legs", d_state=D_STATE, transposed=False)
        kernel = block.layer.kernel
        kernel(L=LENGTH)  # its first call changes C once for the length
        return in_torch(lambda: kernel(L=LENGTH)[0], True)

    others, missing = peers.those_here({"kernel of the original": original})
    ours = in_torch(lambda: layer.kernel(LENGTH), True)
    return Case(f"S4 kernel torch fwd+bwd, L={LENGTH}", ours, others, None, "", repeats=5, missing=missing)


def dense_torch(backward: bool) -> Case:
    """The kernel of a dense system (HiPPO-LegS, one a channel), against one step of powers after another."""
    import torch

    torch.manual_seed(0)
    A, B = ssm_core.hippo("legs", D_STATE, xp="torch", dtype=torch.float32)
    dt = torch.logspace(-3, -1, H)[:, None]
    C = (torch.randn(H, D_STATE) / D_STATE).requires_grad_()
    continuous = ssm_core.Dense(A.expand(H, -1, -1), B.expand(H, -1), None)
    discrete = ssm_core.discretize(continuous, dt[:, 0], method="bilinear")
    Ab, Bb = discrete.A.clone().requires_grad_(), discrete.B.clone().requires_grad_()

    def ours() -> Any:
        return ssm_core.kernel(ssm_core.Dense(Ab, Bb, C, discrete=True), LENGTH)

    def powers() -> Any:
        x, taps = Bb[..., None], []
        for _ in range(LENGTH):
            taps.append((C[:, None] @ x)[:, 0, 0])
            x = Ab @ x
        return torch.stack(taps, dim=-1)

    return Case(
        f"dense kernel torch {passes(backward)}, L={LENGTH}",
        in_torch(ours, backward),
        {"power after power": in_torch(powers, backward)},
        lambda: close(ours(), powers(), 1e-4),
        "",
        repeats=3,
    )


def rtf_torch(order: int) -> Case:
    """The kernel of RTF at L = 16384, forward and backward, against that of S4 and the original's (aliased) one."""
    import torch

    torch.manual_seed(0)
    length = 16384
    rtf = ssm_core.adapters.torch.RTF(H, d_state=order, init="montel")
    s4 = ssm_core.adapters.torch.S4(H, d_state=D_STATE)

    def original() -> Any:
        theirs = peers.repository("RTF", "rtf").RTF(H, order, length, init="montel")
        return in_torch(lambda: theirs.get_k(length), True)

    others, missing = peers.those_here({"aliased, of the original": original})
    others["S4 kernel"] = in_torch(lambda: s4.kernel(length), True)
    ours = in_torch(lambda: rtf.kernel(length), True)
    return Case(f"RTF kernel torch N={order}, L={length}", ours, others, None, "", repeats=5, missing=missing)


JOBS = {
    "s4d-kernel-torch": Job(lambda: s4d_torch(False), memory=True),
    "s4d-kernel-torch-backward": Job(lambda: s4d_torch(True), memory=True),
    "s4d-kernel-jax": Job(lambda: s4d_jax(False), "jax"),
    "s4d-kernel-jax-backward": Job(lambda: s4d_jax(True), "jax"),
    "s4d-kernel-annotated": Job(lambda: annotated_jax("S4D"), "jax"),
    "s4-kernel-annotated": Job(lambda: annotated_jax("S4"), "jax"),
    "s4-kernel-torch": Job(s4_torch, memory=True),
    "dense-kernel-torch": Job(lambda: dense_torch(False), memory=True),
    "dense-kernel-torch-backward": Job(lambda: dense_torch(True), memory=True),
    "rtf-kernel-torch": Job(lambda: rtf_torch(16)),
    "rtf-kernel-torch-64": Job(lambda: rtf_torch(D_STATE)),
}
