"""The jobs. H = 256 channels, 64 real states (32 conjugate pairs), float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import ssm_core

from . import family, mamba
from .harness import Case

H, D_STATE, L = 256, 64, 4096


def kernel_torch(backward: bool = False) -> Case:
    """The S4D kernel against the einsum over an (H, N, L) tensor of exponentials."""
    import torch

    torch.manual_seed(0)
    layer = ssm_core.adapters.torch.S4D(H, d_state=D_STATE)
    naive = NaiveKernelTorch(layer)

    def check() -> None:
        close(layer.kernel(L)[0].detach().numpy(), naive(L).detach().numpy(), 1e-4)

    def run(kernel: Callable[[], Any]) -> Callable[[], Any]:
        if backward:
            return lambda: kernel().sum().backward()
        return torch.no_grad()(kernel)

    name = "kernel torch fwd+bwd" if backward else "kernel torch fwd"
    wanted = "wanted: 8x" if backward else "wanted: 10x"
    return Case(name, run(lambda: layer.kernel(L)), {"einsum (H, N, L)": run(lambda: naive(L))}, check, wanted)


class NaiveKernelTorch:
    """2 Re sum_n C_n Bb_n exp(l dt A_n), with all exponentials at once."""

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


def kernel_jax(backward: bool = False) -> Case:
    """The same, jitted in JAX."""
    import jax
    import jax.numpy as jnp

    layer = ssm_core.layers.S4D(H, d_state=D_STATE)
    params = layer.initial_parameters(0, xp="jax")

    def ours(p: Any) -> Any:
        return layer.kernel(p, L)[0]

    def naive(p: Any) -> Any:
        A = -jnp.exp(p["log_A_re"]) + 1j * p["A_im"]
        dtA = A * jnp.exp(p["log_dt"])[:, None]
        C = (p["C_re"][0] + 1j * p["C_im"][0]) * (p["B_re"] + 1j * p["B_im"]) * (jnp.exp(dtA) - 1) / A
        return 2 * jnp.einsum("hn,hnl->hl", C, jnp.exp(dtA[..., None] * jnp.arange(L))).real

    def timed(kernel: Any) -> Callable[[], Any]:
        function = jax.jit(jax.grad(lambda p: kernel(p).sum()) if backward else kernel)
        return lambda: jax.block_until_ready(function(params))

    def check() -> None:
        close(ours(params), naive(params), 1e-4)

    name = "kernel jax fwd+bwd" if backward else "kernel jax fwd"
    return Case(name, timed(ours), {"einsum (H, N, L)": timed(naive)}, check, "wanted: 5x")


def scan_arrays() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    gate = rng.uniform(0.9, 1.0, (4096, 4096)).astype(np.float32)
    return gate, rng.standard_normal((4096, 4096)).astype(np.float32)


def scan_numpy() -> Case:
    """linear_scan along axis 0 against one addition of the same arrays."""
    a, b = scan_arrays()
    others = {"one np.add": lambda: np.add(a, b)}
    return Case("scan numpy", lambda: ssm_core.linear_scan(a, b, axis=0), others, wanted="wanted: at least 0.5x")


def scan_torch() -> Case:
    """Forward and backward against Python loops under autograd."""
    import torch

    a, b = (torch.from_numpy(x).requires_grad_() for x in scan_arrays())

    def loop(a: Any, b: Any) -> Any:
        x, states = torch.zeros_like(b[0]), []
        for gate, drive in zip(a.unbind(0), b.unbind(0), strict=True):
            x = gate * x + drive
            states.append(x)
        return torch.stack(states)

    def indexed(a: Any, b: Any, steps: int) -> Any:
        x, states = torch.zeros_like(b[0]), []
        for k in range(steps):
            x = a[k] * x + b[k]
            states.append(x)
        return torch.stack(states)

    def check() -> None:
        close(ssm_core.linear_scan(a, b, axis=0).detach().numpy(), loop(a, b).detach().numpy(), 1e-5)

    def backward(scan: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: scan().sum().backward()

    others = {
        "loop over unbind": backward(lambda: loop(a, b)),
        "indexing loop, 64 steps": backward(lambda: indexed(a, b, 64)),
    }
    ours = backward(lambda: ssm_core.linear_scan(a, b, axis=0))
    return Case("scan torch fwd+bwd", ours, others, check, "wanted: 3x", repeats=5)


def scan_jax() -> Case:
    """Forward and backward against jax.lax.associative_scan."""
    import jax
    import jax.numpy as jnp

    a, b = (jnp.asarray(x) for x in scan_arrays())

    def tree(a: Any, b: Any) -> Any:
        return jax.lax.associative_scan(lambda p, q: (p[0] * q[0], q[0] * p[1] + q[1]), (a, b), axis=0)[1]

    def ours(a: Any, b: Any) -> Any:
        return ssm_core.linear_scan(a, b, axis=0)

    def timed(scan: Any) -> Callable[[], Any]:
        function = jax.jit(jax.grad(lambda a, b: scan(a, b).sum(), (0, 1)))
        return lambda: jax.block_until_ready(function(a, b))

    def check() -> None:
        close(ours(a, b), tree(a, b), 1e-5)

    return Case("scan jax fwd+bwd", timed(ours), {"associative_scan": timed(tree)}, check, "wanted: more than 1x")


def layer_torch() -> Case:
    """A whole S4D layer, B = 8, L = 2048, forward and backward, against the same layer with the naive kernel."""
    import torch

    torch.manual_seed(0)
    layer = ssm_core.adapters.torch.S4D(H, d_state=D_STATE)
    naive, u = NaiveKernelTorch(layer), torch.randn(8, 2048, H, requires_grad=True)

    def with_naive_kernel() -> Any:
        p, length = layer.arrays(), u.shape[1]
        x = u.transpose(1, 2)
        n = 2 * length
        v = torch.fft.irfft(torch.fft.rfft(x, n) * torch.fft.rfft(naive(length), n), n)[..., :length].transpose(1, 2)
        v = torch.nn.functional.gelu(p["D"][0] * u + v)
        return torch.nn.functional.glu(torch.nn.functional.linear(v, p["output_weight"], p["output_bias"]), -1)

    def check() -> None:
        close(layer(u).detach().numpy(), with_naive_kernel().detach().numpy(), 1e-4)

    others = {"naive kernel": lambda: with_naive_kernel().sum().backward()}
    return Case("layer torch fwd+bwd", lambda: layer(u).sum().backward(), others, check, "wanted: 3x", repeats=5)


def stepper_numpy() -> Case:
    """One step of the layer, B = 1, in NumPy."""
    layer = ssm_core.layers.S4D(H, d_state=D_STATE)
    params = layer.initial_parameters(0)
    step, state = layer.stepper(params), layer.initial_state(params, 1)
    u = np.random.default_rng(0).standard_normal((1, H)).astype(np.float32)
    others = {"layer.step": lambda: layer.step(params, u, state)}
    return Case("stepper numpy", lambda: step(u, state), others, wanted="wanted: ours under 100 us", inner=300)


def stepper_torch() -> Case:
    """One step of the layer, B = 1, in PyTorch."""
    import torch

    layer, u = ssm_core.adapters.torch.S4D(H, d_state=D_STATE), torch.randn(1, H)
    with torch.no_grad():
        step, state = layer.stepper(), layer.initial_state(1)
    others = {"layer.step": torch.no_grad()(lambda: layer.step(u, state))}
    ours = torch.no_grad()(lambda: step(u, state))
    return Case("stepper torch", ours, others, wanted="wanted: ours under 100 us", inner=300)


def warm_up() -> None:
    """Small layers forward and backward, so that libraries have loaded what they load at first use."""
    import torch

    layer = ssm_core.adapters.torch.S4D(8, d_state=D_STATE)
    layer(torch.zeros(1, 256, 8)).sum().backward()
    ssm_core.adapters.torch.Mamba(256)(torch.zeros(2, 64, 256)).sum().backward()
    NaiveKernelTorch(layer)(256).sum().backward()


def accuracy() -> dict[str, float]:
    """Float32 against float64 from the same float32 parameters at 2^20 steps, relative to the largest value."""
    errors = {}
    for init in ("lin", "inv", "inv2", "legs", "quad", "real"):
        layer = ssm_core.layers.S4D(4, init=init, real=init == "real")
        params = layer.initial_parameters(0)
        exact = {name: p.astype(np.float64) for name, p in params.items()}
        u = np.random.default_rng(1).standard_normal((1, 2**20, 4)).astype(np.float32)
        errors[f"kernel {init}"] = error(layer.kernel(params, 2**20), layer.kernel(exact, 2**20))
        errors[f"layer {init}"] = error(layer.apply(params, u), layer.apply(exact, u.astype(np.float64)))
    return errors


def error(actual: Any, expected: Any) -> float:
    actual, expected = np.asarray(actual), np.asarray(expected)
    return float(np.max(np.abs(actual - expected)) / np.max(np.abs(expected)))


def close(actual: Any, expected: Any, tolerance: float) -> None:
    found = error(actual, expected)
    if not found < tolerance:
        raise AssertionError(f"the results differ by {found:.1e} of the largest value; nothing was timed")


JOBS: dict[str, Callable[[], Case]] = {
    "kernel-torch": kernel_torch,
    "kernel-torch-backward": lambda: kernel_torch(backward=True),
    "kernel-jax": kernel_jax,
    "kernel-jax-backward": lambda: kernel_jax(backward=True),
    "scan-numpy": scan_numpy,
    "scan-torch": scan_torch,
    "scan-jax": scan_jax,
    "layer-torch": layer_torch,
    "stepper-numpy": stepper_numpy,
    "stepper-torch": stepper_torch,
    **family.JOBS,
    **mamba.JOBS,
}
MEMORY = (
    "kernel-torch",
    "kernel-torch-backward",
    "layer-torch",
    *family.MEMORY,
    *mamba.MEMORY,
)  # measured in a fresh process too
