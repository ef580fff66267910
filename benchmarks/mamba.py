"""The jobs of Mamba's family: the selective scan against mamba.py, blocks and generation against transformers.

Peers that are not installed are left out. Batch 2, 1024 steps, 256 channels (512 inner ones), 16 states.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import ssm_core

from .harness import Case

BATCH, L, D_MODEL, INNER, N = 2, 1024, 256, 512, 16


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def scan_inputs() -> tuple[Any, ...]:
    import torch

    torch.manual_seed(0)
    u, dt = torch.randn(BATCH, INNER, L), 0.1 * torch.rand(BATCH, INNER, L)
    A, B, C = -0.5 - torch.rand(INNER, N), torch.randn(BATCH, N, L), torch.randn(BATCH, N, L)
    return tuple(x.requires_grad_() for x in (u, dt, A, B, C))


def parallel_scan(u: Any, dt: Any, A: Any, B: Any, C: Any) -> Any:
    """What mamba.py computes around its parallel scan."""
    import torch
    from mambapy.pscan import pscan

    steps, rows = dt.transpose(1, 2)[..., None], B.transpose(1, 2)[:, :, None]
    states = pscan(torch.exp(steps * A), steps * rows * u.transpose(1, 2)[..., None])
    return (states @ C.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)


def loop(u: Any, dt: Any, A: Any, B: Any, C: Any) -> Any:
    """The reference: one step after another under autograd."""
    import torch

    gates = torch.exp(torch.einsum("bdl,dn->bdln", dt, A))
    drives = torch.einsum("bdl,bnl,bdl->bdln", dt, B, u)
    x, outputs = torch.zeros(BATCH, INNER, N), []
    for k in range(L):
        x = gates[:, :, k] * x + drives[:, :, k]
        outputs.append(torch.einsum("bdn,bn->bd", x, C[:, :, k]))
    return torch.stack(outputs, dim=2)


def selective_scan_torch(reference: Callable[..., Any], name: str, wanted: str, repeats: int) -> Case:
    """selective_scan forward and backward."""
    from .jobs import close

    inputs = scan_inputs()

    def check() -> None:
        close(ssm_core.selective_scan(*inputs).detach().numpy(), reference(*inputs).detach().numpy(), 1e-4)

    others = {name: lambda: reference(*inputs).sum().backward()}
    return Case("selective_scan fwd+bwd", ours_of(inputs), others, check, wanted, repeats=repeats)


def with_parallel_scan() -> Case:
    if installed("mambapy"):
        return selective_scan_torch(parallel_scan, "mamba.py, parallel scan", "wanted: 3x", 5)
    return Case("selective_scan fwd+bwd", ours_of(scan_inputs()), {}, repeats=5)


def ours_of(inputs: tuple[Any, ...]) -> Callable[[], Any]:
    return lambda: ssm_core.selective_scan(*inputs).sum().backward()


def block(kind: str, backward: bool, repeats: int, wanted: str) -> Case:
    """A whole block, hidden size 256."""
    import torch

    from .jobs import close

    torch.manual_seed(0)
    ours: Any = getattr(ssm_core.adapters.torch, kind)(D_MODEL)
    u = torch.randn(BATCH, L, D_MODEL, requires_grad=True)
    theirs = published(ours) if installed("transformers") else None

    def run(layer: Any) -> Callable[[], Any]:
        if backward:
            return lambda: layer(u).sum().backward()
        return torch.no_grad()(lambda: layer(u))

    def check() -> None:
        close(ours(u).detach().numpy(), theirs(u).detach().numpy(), 1e-4)

    others = {} if theirs is None else {"transformers": run(theirs)}
    name = f"{kind} block {'fwd+bwd' if backward else 'fwd'}"
    return Case(name, run(ours), others, None if theirs is None else check, wanted, repeats=repeats)


def published(layer: Any) -> Any:
    """The block of transformers with the same weights."""
    from transformers import Mamba2Config, MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    from ssm_core.pretrained import their_name

    d = layer.definition
    common = {"hidden_size": d.d_model, "state_size": d.d_state, "expand": d.expand}
    if d.name == "Mamba":
        theirs: Any = MambaMixer(MambaConfig(**common, time_step_rank=d.rank), 0)
    else:
        config = Mamba2Config(**common, num_heads=d.heads, head_dim=d.head_dim, n_groups=d.n_groups)
        theirs = Mamba2Mixer(config, 0)
    weights = {their_name(f"block.mixer.{name}").removeprefix("block.mixer."): p for name, p in layer.arrays().items()}
    weights["conv1d.weight"] = weights["conv1d.weight"][:, None]
    theirs.load_state_dict(weights)
    return theirs


def generation(kind: str, layers: int = 4, tokens: int = 32) -> Case:
    """Tokens after a prompt, one by one, batch 1: the whole model, whose blocks are most of the work."""
    import tempfile

    import torch

    torch.manual_seed(0)
    ours: Any = getattr(ssm_core.adapters.torch, f"{kind}LM")(256, D_MODEL, layers)
    prompt = torch.randint(0, 256, (1, 16))
    others: dict[str, Callable[[], Any]] = {}
    if installed("transformers"):
        from transformers import AutoModelForCausalLM

        with tempfile.TemporaryDirectory() as folder:
            ours.save_pretrained(folder)
            theirs: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        options = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
        others["transformers, cached"] = torch.no_grad()(lambda: theirs.generate(prompt, **options))
    return Case(
        f"{kind}LM, {tokens} tokens", lambda: ours.generate(prompt, tokens), others, None, "wanted: 1x", repeats=5
    )


JOBS: dict[str, Callable[[], Case]] = {
    "selective-scan": with_parallel_scan,
    "selective-scan-loop": lambda: selective_scan_torch(loop, "loop under autograd", "wanted: 50x", 1),
    "mamba-forward": lambda: block("Mamba", False, 3, "wanted: 1x"),
    "mamba-backward": lambda: block("Mamba", True, 1, "wanted: 50x"),
    "mamba2-forward": lambda: block("Mamba2", False, 5, "wanted: 1x"),
    "mamba2-backward": lambda: block("Mamba2", True, 5, "wanted: 1x"),
    "generate-mamba": lambda: generation("Mamba"),
    "generate-mamba2": lambda: generation("Mamba2"),
}
MEMORY = ("selective-scan", "mamba2-backward")
