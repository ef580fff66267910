"""The jobs of Mamba's family: the selective scan against mamba.py, blocks and generation against transformers.

Peers that are not installed are left out. Batch 2, 1024 steps, 256 channels (512 inner ones), 16 states.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ssm_core

from .. import peers
from ..harness import Case, Job
from .common import close, in_torch, passes

BATCH, L, D_MODEL, INNER, N = 2, 1024, 256, 512, 16


def scan_inputs() -> tuple[Any, ...]:
    import torch

    torch.manual_seed(0)
    u, dt = torch.randn(BATCH, INNER, L), 0.1 * torch.rand(BATCH, INNER, L)
    A, B, C = -0.5 - torch.rand(INNER, N), torch.randn(BATCH, N, L), torch.randn(BATCH, N, L)
    return tuple(x.requires_grad_() for x in (u, dt, A, B, C))


def parallel_scan() -> Callable[..., Any]:
    """What mamba.py computes around its parallel scan."""
    import torch

    pscan = peers.package("mambapy", "mambapy.pscan")[0].pscan

    def run(u: Any, dt: Any, A: Any, B: Any, C: Any) -> Any:
        steps, rows = dt.transpose(1, 2)[..., None], B.transpose(1, 2)[:, :, None]
        states = pscan(torch.exp(steps * A), steps * rows * u.transpose(1, 2)[..., None])
        return (states @ C.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)

    return run


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


def selective_scan_torch(name: str, make: Callable[[], Any], wanted: str, repeats: int) -> Case:
    """selective_scan forward and backward."""
    inputs = scan_inputs()
    references, missing = peers.those_here({name: make})

    def run(scan: Callable[..., Any]) -> Callable[[], Any]:
        return in_torch(lambda: scan(*inputs), True)

    def check() -> None:
        for reference in references.values():
            close(ssm_core.selective_scan(*inputs), reference(*inputs), 1e-4)

    others = {name: run(reference) for name, reference in references.items()}
    ours = run(ssm_core.selective_scan)
    return Case("selective_scan fwd+bwd", ours, others, check, wanted, repeats=repeats, missing=missing)


def block(kind: str, backward: bool, repeats: int, wanted: str) -> Case:
    """A whole block, hidden size 256."""
    import torch

    torch.manual_seed(0)
    ours: Any = getattr(ssm_core.adapters.torch, kind)(D_MODEL)
    u = torch.randn(BATCH, L, D_MODEL, requires_grad=True)
    theirs, missing = peers.those_here({"transformers": lambda: published(ours)})

    def run(layer: Any) -> Callable[[], Any]:
        return in_torch(lambda: layer(u), backward)

    def check() -> None:
        for layer in theirs.values():
            close(ours(u), layer(u), 1e-4)

    others = {name: run(layer) for name, layer in theirs.items()}
    name = f"{kind} block torch {passes(backward)}"
    return Case(name, run(ours), others, check, wanted, repeats=repeats, missing=missing)


def published(layer: Any) -> Any:
    """The block of transformers with the same weights."""
    transformers, mamba, mamba2 = peers.package(
        "transformers",
        "transformers",
        "transformers.models.mamba.modeling_mamba",
        "transformers.models.mamba2.modeling_mamba2",
    )

    from ssm_core.files.pretrained.mamba import their_name

    d = layer.definition
    common = {"hidden_size": d.d_model, "state_size": d.d_state, "expand": d.expand}
    if d.name == "Mamba":
        theirs: Any = mamba.MambaMixer(transformers.MambaConfig(**common, time_step_rank=d.rank), 0)
    else:
        config = transformers.Mamba2Config(**common, num_heads=d.heads, head_dim=d.head_dim, n_groups=d.n_groups)
        theirs = mamba2.Mamba2Mixer(config, 0)
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

    def transformers() -> Callable[[], Any]:
        library = peers.package("transformers")
        with tempfile.TemporaryDirectory() as folder:
            ours.save_pretrained(folder)
            theirs = library.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        options = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
        return torch.no_grad()(lambda: theirs.generate(prompt, **options))

    others, missing = peers.those_here({"transformers, cached": transformers})
    name, wanted = f"{kind}LM, {tokens} tokens", "wanted: 1x"
    return Case(name, lambda: ours.generate(prompt, tokens), others, None, wanted, repeats=5, missing=missing)


JOBS = {
    "selective-scan": Job(lambda: selective_scan_torch("mamba.py", parallel_scan, "wanted: 3x", 5), memory=True),
    "selective-scan-loop": Job(lambda: selective_scan_torch("loop under autograd", lambda: loop, "wanted: 50x", 1)),
    "mamba-torch": Job(lambda: block("Mamba", False, 3, "wanted: 1x"), memory=True),
    "mamba-torch-backward": Job(lambda: block("Mamba", True, 1, "wanted: 50x")),
    "mamba2-torch": Job(lambda: block("Mamba2", False, 5, "wanted: 1x"), memory=True),
    "mamba2-torch-backward": Job(lambda: block("Mamba2", True, 5, "wanted: 1x"), memory=True),
    "generate-mamba": Job(lambda: generation("Mamba")),
    "generate-mamba2": Job(lambda: generation("Mamba2")),
}
