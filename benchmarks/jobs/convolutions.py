"""Long convolutions, and the modes beside each other: where the FFT begins to win over chunks."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import ssm_core

from .. import peers
from ..harness import Case, Job, Work
from .common import BATCH, D_STATE, H, close, in_jax, in_torch, passes

LENGTH, ROWS = 4096, 256
LENGTHS = (4, 8, 16, 32, 64, 128, 512, 2048)


def signals() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    draw = rng.standard_normal((ROWS, LENGTH)), rng.standard_normal((ROWS, LENGTH))
    return draw[0].astype(np.float32), draw[1].astype(np.float32)


def torch_convolution(backward: bool) -> Case:
    """Against a plain FFT of twice the length under autograd, and a direct convolution."""
    import torch

    u, k = (torch.as_tensor(x, device=torch.get_default_device()).requires_grad_() for x in signals())

    def plain() -> Any:
        n = 2 * LENGTH
        return torch.fft.irfft(torch.fft.rfft(u, n) * torch.fft.rfft(k, n), n)[..., :LENGTH]

    def direct() -> Any:
        padded = torch.nn.functional.pad(u, (LENGTH - 1, 0))
        return torch.nn.functional.conv1d(padded[None], k.flip(-1)[:, None], groups=ROWS)[0]

    def ours() -> Any:
        return ssm_core.convolve(u, k)

    others = {"plain FFT": in_torch(plain, backward)}
    if not backward:
        others["conv1d"] = in_torch(direct, False)
    check = lambda: close(ours(), plain(), 1e-4)  # noqa: E731
    return Case(f"convolve torch {passes(backward)}", in_torch(ours, backward), others, check, "")


def numpy_convolution() -> Case:
    """Against scipy.signal.oaconvolve, by blocks, and fftconvolve."""
    u, k = signals()

    def of_scipy(name: str) -> Any:
        function = getattr(peers.package("scipy.signal"), name)
        return lambda: function(u, k, axes=-1)[..., :LENGTH]

    names = ("oaconvolve", "fftconvolve")
    others, missing = peers.those_here({f"scipy.signal.{n}": (lambda n=n: of_scipy(n)) for n in names})

    def check() -> None:
        for other in others.values():
            close(ssm_core.convolve(u, k), other(), 1e-4)

    return Case("convolve numpy", lambda: ssm_core.convolve(u, k), others, check, "", missing=missing)


def jax_convolution(backward: bool) -> Case:
    """Against a plain FFT of twice the length."""
    import jax.numpy as jnp

    u, k = (jnp.asarray(x) for x in signals())

    def plain(u: Any, k: Any) -> Any:
        n = 2 * LENGTH
        return jnp.fft.irfft(jnp.fft.rfft(u, n) * jnp.fft.rfft(k, n), n)[..., :LENGTH]

    return Case(
        f"convolve jax {passes(backward)}",
        in_jax(ssm_core.convolve, (u, k), backward),
        {"plain FFT": in_jax(plain, (u, k), backward)},
        lambda: close(ssm_core.convolve(u, k), plain(u, k), 1e-4),
    )


def modes(framework: str) -> list[Case]:
    """An S4D layer in every mode over the length, backward too where there is one: what mode "auto" chooses by."""
    layer = ssm_core.layers.S4D(H, d_state=D_STATE)
    params = layer.initial_parameters(0, xp=framework)
    cases = []
    for length in LENGTHS:
        u = np.random.default_rng(0).standard_normal((BATCH, length, H)).astype(np.float32)
        run = partial(_RUNS[framework], layer, params, u)
        others = {mode: run(mode) for mode in ("conv", "chunk", "scan")}
        cases.append(Case(f"S4D modes {framework} L={length}", run("auto"), others, repeats=5))
    return cases


def _numpy_run(layer: Any, params: Any, u: Any, mode: str) -> Work:
    return lambda: layer.apply(params, u, mode=mode)


def _torch_run(layer: Any, params: Any, u: Any, mode: str) -> Work:
    import torch

    signal = torch.as_tensor(u, device=torch.get_default_device())
    leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
    return in_torch(lambda: layer.apply(leaves, signal, mode=mode), True)


def _jax_run(layer: Any, params: Any, u: Any, mode: str) -> Work:
    import jax.numpy as jnp

    return in_jax(lambda p, u: layer.apply(p, u, mode=mode), (params, jnp.asarray(u)), True)


_RUNS = {"numpy": _numpy_run, "torch": _torch_run, "jax": _jax_run}

JOBS = {
    "convolve-numpy": Job(numpy_convolution, "numpy"),
    "convolve-torch": Job(lambda: torch_convolution(False), memory=True),
    "convolve-torch-backward": Job(lambda: torch_convolution(True), memory=True),
    "convolve-jax": Job(lambda: jax_convolution(False), "jax"),
    "convolve-jax-backward": Job(lambda: jax_convolution(True), "jax"),
    "modes-numpy": Job(lambda: modes("numpy"), "numpy"),
    "modes-torch": Job(lambda: modes("torch")),
    "modes-jax": Job(lambda: modes("jax"), "jax"),
}
