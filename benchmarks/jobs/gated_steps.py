"""One token of the gated recurrences beside transformers' cached step: batch 1, 8 heads with keys and values of 64.

The recurrence alone on both sides, and the whole block of Griffin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ssm_core

from .. import peers
from ..harness import Case, Job
from .common import close, in_torch, passes
from .matrix_states import DELTA, HEADS, OPTIONS, SIZE, signals

D_MODEL = 256

Step = Callable[[Any, Any], Any]


def qwen3_next() -> Step:
    module = peers.package("transformers", "transformers.models.qwen3_next.modeling_qwen3_next")[0]
    run = module.torch_recurrent_gated_delta_rule
    return lambda x, S: run(x["q"], x["k"], x["v"], x["log_decay"], x["beta"], S, True)[0]


def kimi_linear() -> Step:
    module = peers.package("transformers", "transformers.models.kimi_linear.modeling_kimi_linear")[0]
    run = module.recurrent_kimi_delta_attention
    return lambda x, S: run(x["q"], x["k"], x["v"], x["log_decay"], x["beta"], S, True)[0]


PEERS: dict[str, tuple[str, Callable[[], Step]]] = {
    "gated delta": ("transformers, cached", qwen3_next),
    "KDA": ("transformers, cached", kimi_linear),
}


def token(kind: str) -> Case:
    """The update of the state and the read."""
    import torch

    one = {name: x.detach() if x.ndim < 3 else x[:, :1].detach() for name, x in signals(kind, 2).items()}
    at = {name: x if x.ndim < 3 else x[:, 0] for name, x in one.items()}
    S = torch.randn(1, HEADS, SIZE, SIZE)
    first = (S, S[..., 0], S[..., 0, 0]) if OPTIONS.get(kind, {}).get("normalize") == "max" else S
    update = ssm_core.gated_delta_update if kind in DELTA else ssm_core.gated_linear_attention_update
    name, make = PEERS.get(kind, ("transformers, cached", None))
    theirs, missing = peers.those_here({} if make is None else {name: make})

    def check() -> None:
        for run in theirs.values():
            close(update(S, **at)[0], run(one, S)[:, 0], 1e-4)

    ours = in_torch(lambda: update(first, **at, **OPTIONS.get(kind, {})), False)
    others = {n: in_torch(lambda run=run: run(one, S), False) for n, run in theirs.items()}
    return Case(f"{kind} step torch", ours, others, check, "wanted: 1x", inner=200, missing=missing)


def griffin(layer: Any) -> Any:
    """The recurrent block of transformers with the same weights."""
    library, module = peers.package(
        "transformers", "transformers", "transformers.models.recurrent_gemma.modeling_recurrent_gemma"
    )
    d = layer.definition
    config = library.RecurrentGemmaConfig(
        hidden_size=d.d_model, lru_width=d.width, num_attention_heads=d.heads, conv1d_width=d.d_conv,
        hidden_activation="gelu_pytorch_tanh",
    )  # fmt: skip
    theirs, arrays = module.RecurrentGemmaRecurrentBlock(config, 0), layer.arrays()
    there = theirs.state_dict()
    theirs.load_state_dict({name: arrays[name.replace(".", "_")].reshape(x.shape) for name, x in there.items()})
    return theirs


def rg_lru(backward: bool) -> Case:
    import torch

    torch.manual_seed(0)
    layer: Any = ssm_core.adapters.torch.RGLRU(D_MODEL)
    u = torch.randn(2, 1024, D_MODEL, requires_grad=True)
    positions = torch.arange(1024)[None].expand(2, -1)

    def published() -> Callable[[], Any]:
        theirs = griffin(layer)
        return lambda: theirs(u, positions, None, use_cache=False)[0]

    theirs, missing = peers.those_here({"transformers": published})

    def check() -> None:
        for run in theirs.values():
            close(layer(u), run(), 1e-4)

    others = {name: in_torch(run, backward) for name, run in theirs.items()}
    name = f"RGLRU block torch {passes(backward)}"
    ours = in_torch(lambda: layer(u), backward)
    return Case(name, ours, others, check, "wanted: 2x", repeats=3, missing=missing)


JOBS = {
    **{
        f"step-{kind.lower().replace(' ', '-')}-torch": Job(lambda kind=kind: token(kind))
        for kind in ("gated delta", "KDA", "RWKV-7", "GLA", "RWKV-6", "mLSTM")
    },
    "rg-lru-torch": Job(lambda: rg_lru(False)),
    "rg-lru-torch-backward": Job(lambda: rg_lru(True)),
}
