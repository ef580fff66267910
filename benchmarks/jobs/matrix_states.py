"""The jobs of layers with matrix states: operators against transformers' chunked forms and a plain loop, and a block.

Batch 1, 2048 steps, 8 heads with keys and values of 64. Peers that are not installed are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ssm_core

from .. import peers
from ..harness import Case, Job
from .common import close, in_jax, in_torch, passes
from .memory import at_most

BATCH, L, HEADS, SIZE = 1, 2048, 8, 64
MEMORY_LENGTH = 16384
CHUNK = 64  # steps between the states that are kept

Arrays = dict[str, Any]


def signals(kind: str, length: int = L) -> Arrays:
    """Inputs as a model gives them: keys of length one, decays of the kind's range."""
    import torch

    torch.manual_seed(0)
    shape = (BATCH, length, HEADS, SIZE)
    q, k, v, x = (torch.randn(shape) for _ in range(4))
    k = k / k.norm(dim=-1, keepdim=True)
    heads = torch.randn(shape[:3])
    made = {
        "gated delta": {"log_decay": -0.2 * heads.sigmoid(), "beta": heads.flip(1).sigmoid()},
        "KDA": {"log_decay": -5 * x.sigmoid(), "beta": heads.sigmoid()},
        "RWKV-7": {"log_decay": -0.6065 * x.sigmoid(), "a": -k, "b": k * x.flip(1).sigmoid()},
        "GLA": {"log_decay": torch.nn.functional.logsigmoid(x) / 16},
        "RWKV-6": {"log_decay": -(x - 1).exp(), "bonus": torch.rand(HEADS, SIZE)},
        "mLSTM": {"log_decay": torch.nn.functional.logsigmoid(heads + 3), "log_input": heads.flip(1)},
        "retention": {"log_decay": -(2.0 ** -torch.arange(5.0, 5.0 + HEADS))},
        "delta": {"beta": heads.sigmoid()},
        "GDN-2": {"log_decay": -0.2 * x.sigmoid(), "erase": x.flip(1).sigmoid(), "write": x.flip(2).sigmoid()},
    }[kind]
    if kind == "RWKV-7":
        k = x
    return {name: a.requires_grad_() for name, a in {"q": q, "k": k, "v": v, **made}.items()}


OPTIONS: dict[str, Arrays] = {"RWKV-6": {"exclusive": True}, "mLSTM": {"normalize": "max"}}
DELTA = ("gated delta", "KDA", "RWKV-7", "delta", "GDN-2")


def ours(kind: str, **given: Any) -> Any:
    operator = ssm_core.gated_delta if kind in DELTA else ssm_core.gated_linear_attention
    return operator(**given, **OPTIONS.get(kind, {}))


def loop(kind: str, **given: Any) -> Any:
    """One step after another: decay, the term of rank one, the new product, and the read."""
    import torch

    g = given["log_decay"] if given["log_decay"].ndim == 4 else given["log_decay"][..., None]
    q, k, v = given["q"] * SIZE**-0.5, given["k"], given["v"]
    S, outputs = torch.zeros(BATCH, HEADS, SIZE, SIZE), []
    for t in range(v.shape[1]):
        old, S = S, g[:, t].exp()[..., None] * S
        value = v[:, t]
        if "beta" in given:
            value = given["beta"][:, t, :, None] * (value - torch.einsum("bhk,bhkv->bhv", k[:, t], S))
        if "a" in given:
            S = S + given["b"][:, t, ..., None] * torch.einsum("bhk,bhkv->bhv", given["a"][:, t], old)[:, :, None]
        new = k[:, t, ..., None] * value[:, :, None]
        read = old + given["bonus"][..., None] * new if "bonus" in given else S + new
        S = S + new
        outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, t], read))
    return torch.stack(outputs, dim=1)


def transformers_gated_delta() -> Callable[..., Any]:
    module = peers.package("transformers", "transformers.models.qwen3_next.modeling_qwen3_next")[0]
    run = module.torch_chunk_gated_delta_rule
    return lambda q, k, v, log_decay, beta: run(q, k, v, log_decay, beta)[0]


def transformers_kda() -> Callable[..., Any]:
    module = peers.package("transformers", "transformers.models.kimi_linear.modeling_kimi_linear")[0]
    return lambda q, k, v, log_decay, beta: module.chunk_kimi_delta_attention(q, k, v, log_decay, beta)[0]


def transformers_mlstm() -> Callable[..., Any]:
    module = peers.package("transformers", "transformers.models.xlstm.modeling_xlstm")[0]
    native = module.mlstm_chunkwise_native_autograd

    def run(q: Any, k: Any, v: Any, log_decay: Any, log_input: Any) -> Any:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        # their gate is before its logsigmoid
        forget = log_decay.detach().exp().logit().transpose(1, 2)
        return native(q, k, v, log_input.transpose(1, 2), forget, chunk_size=64, eps=1e-6).transpose(1, 2)

    return run


PEERS: dict[str, tuple[str, Callable[[], Callable[..., Any]]]] = {
    "gated delta": ("transformers, chunked", transformers_gated_delta),
    "KDA": ("transformers, chunked", transformers_kda),
    "mLSTM": ("transformers, native", transformers_mlstm),
}


def operator_torch(kind: str, backward: bool, wanted: str, repeats: int = 5) -> Case:
    """One operator beside its peer in transformers, or beside the loop."""
    given = signals(kind)
    name, make = PEERS.get(kind, ("a loop of steps", lambda: lambda **x: loop(kind, **x)))
    theirs, missing = peers.those_here({name: make})

    def check() -> None:
        for run in theirs.values():
            close(ours(kind, **given), run(**given), 1e-4)

    others = {n: in_torch(lambda run=run: run(**given), backward) for n, run in theirs.items()}
    title = f"{kind} torch {passes(backward)}"
    return Case(title, in_torch(lambda: ours(kind, **given), backward), others, check, wanted, repeats, missing=missing)


def long_operator(kind: str) -> Case:
    """Forward and backward of a long sequence: its memory, beside that of inputs and outputs."""
    given = signals(kind, MEMORY_LENGTH)
    states = BATCH * HEADS * MEMORY_LENGTH // CHUNK * SIZE * SIZE
    wanted = at_most(sum(x.numel() for x in given.values()), given["v"].numel(), states)
    run = in_torch(lambda: ours(kind, **given), True)
    return Case(f"{kind} torch fwd+bwd, L {MEMORY_LENGTH}", run, {}, None, wanted, repeats=0)


def operator_jax(kind: str, backward: bool, wanted: str, repeats: int = 3) -> Case:
    """The compiled operator beside a compiled scan of its plain step."""
    import jax
    import jax.numpy as jnp

    given = {name: jnp.asarray(x.detach().numpy()) for name, x in signals(kind).items()}
    names, arrays = tuple(given), tuple(given.values())

    def run(*arrays: Any) -> Any:
        return ours(kind, **dict(zip(names, arrays, strict=True)))

    def steps(*arrays: Any) -> Any:
        x = dict(zip(names, arrays, strict=True))
        bonus = {"bonus": x.pop("bonus")} if "bonus" in x else {}
        update = ssm_core.gated_delta_update if kind in DELTA else ssm_core.gated_linear_attention_update
        options = OPTIONS.get(kind, {}) | bonus

        def step(state: Any, at: Arrays) -> tuple[Any, Any]:
            y, state = update(state, **at, **options)
            return state, y

        S = jnp.zeros((BATCH, HEADS, SIZE, SIZE))
        first = (S, S[..., 0], S[..., 0, 0]) if kind == "mLSTM" else S
        at = {name: jnp.moveaxis(a, 1, 0) for name, a in x.items()}
        return jnp.moveaxis(jax.lax.scan(step, first, at)[1], 0, 1)

    def check() -> None:
        close(run(*arrays), steps(*arrays), 1e-4)

    others = {"lax.scan of steps": in_jax(steps, arrays, backward)}
    title = f"{kind} jax {passes(backward)}"
    return Case(title, in_jax(run, arrays, backward), others, check, wanted, repeats=repeats)


JOBS = {
    "gated-delta-torch": Job(lambda: operator_torch("gated delta", False, "wanted: 1x"), memory=True),
    "gated-delta-torch-backward": Job(lambda: operator_torch("gated delta", True, "wanted: 1.6x"), memory=True),
    "kda-torch": Job(lambda: operator_torch("KDA", False, "wanted: 20x", 3)),
    "kda-torch-backward": Job(lambda: operator_torch("KDA", True, "wanted: 30x", 1)),
    "rwkv7-torch": Job(lambda: operator_torch("RWKV-7", False, "wanted: 3x", 3)),
    "rwkv7-torch-backward": Job(lambda: operator_torch("RWKV-7", True, "wanted: 3x", 3)),
    "gla-torch": Job(lambda: operator_torch("GLA", False, "wanted: 3x", 3)),
    "gla-torch-backward": Job(lambda: operator_torch("GLA", True, "wanted: 3x", 3)),
    "rwkv6-torch": Job(lambda: operator_torch("RWKV-6", False, "wanted: 3x", 3)),
    "mlstm-torch": Job(lambda: operator_torch("mLSTM", False, "wanted: 1x")),
    **{
        f"{kind.lower().replace(' ', '-')}-jax{tail}": Job(
            lambda kind=kind, backward=backward: operator_jax(kind, backward, "wanted: 1x"), "jax"
        )
        for kind in ("gated delta", "KDA", "RWKV-7", "GLA", "RWKV-6", "mLSTM")
        for tail, backward in (("", False), ("-backward", True))
    },
    **{
        f"memory-{kind.lower().replace(' ', '-')}": Job(lambda kind=kind: long_operator(kind), memory=True)
        for kind in ("gated delta", "KDA", "RWKV-7", "GLA", "RWKV-6", "mLSTM", "retention", "delta", "GDN-2")
    },
}
