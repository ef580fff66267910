"""One token of whole gated layers beside transformers' modules with their caches: batch 1, 512 channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import ssm_core

from .. import peers
from ..harness import Case, Job
from .common import close, in_torch

D_MODEL, HEADS, HEAD_DIM = 512, 8, 64
COMPARED = 4  # tokens

Step = Callable[[Any, int], Any]  # u_t (1, 1, H) and its place
Made = tuple[Any, dict[str, Any], Step]


def module_of(model: str, name: str, options: dict[str, Any], *arguments: Any) -> tuple[Any, Any, Any]:
    """A module of transformers with weights drawn anew, its configuration, and the file it is from."""
    import torch

    library, file = peers.package("transformers", "transformers", f"transformers.models.{model}.modeling_{model}")
    config = getattr(library, name)(**options)
    torch.manual_seed(0)
    return file, config, library


def redrawn(module: Any) -> dict[str, np.ndarray]:
    """The parameters of a module anew, by their names there."""
    import torch

    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.empty_like(p).uniform_(-0.05, 0.05))
    return {name: p.detach().numpy() for name, p in module.eval().named_parameters()}


def by_names(layer: Any, held: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    named = {name.replace(".", "_"): x for name, x in held.items()}
    return {p.name: named[p.name].reshape(p.shape) for p in layer.parameters()}


def delta_rule(model: str, config: str, block: str, options: dict[str, Any], imported: str) -> Made:
    from conformance import originals

    file, config, library = module_of(model, config, options | {"hidden_size": D_MODEL, "num_hidden_layers": 1})
    config.layer_types = ["linear_attention"]
    module = getattr(file, block)(config, layer_idx=0)
    layer, params = getattr(originals, imported)(redrawn(module), options | {"hidden_size": D_MODEL})
    cache = library.DynamicCache(config=config)

    def step(u: Any, _: int) -> Any:
        found = module(u, cache_params=cache)
        return found[0] if isinstance(found, tuple) else found

    return layer, params, step


def gated_delta_net() -> Made:
    options = {
        "linear_num_key_heads": HEADS, "linear_num_value_heads": HEADS, "linear_key_head_dim": HEAD_DIM,
        "linear_value_head_dim": HEAD_DIM, "linear_conv_kernel_dim": 4, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    return delta_rule("qwen3_next", "Qwen3NextConfig", "Qwen3NextGatedDeltaNet", options, "gated_delta_net")


def kda() -> Made:
    options = {
        "linear_num_heads": HEADS, "linear_head_dim": HEAD_DIM, "linear_conv_kernel_dim": 4, "rms_norm_eps": 1e-6
    }  # fmt: skip
    return delta_rule("kimi_linear", "KimiLinearConfig", "KimiLinearDeltaAttention", options, "kda")


def mlstm() -> Made:
    options = {"hidden_size": D_MODEL, "embedding_dim": D_MODEL, "num_heads": HEADS, "num_blocks": 1}
    file, config, _ = module_of("xlstm", "xLSTMConfig", options)
    module, layer = file.xLSTMLayer(config), ssm_core.layers.MLSTM(D_MODEL, heads=HEADS)
    params, held = by_names(layer, redrawn(module)), [None]

    def step(u: Any, _: int) -> Any:
        y, held[0] = module(u, held[0])
        return y

    return layer, params, step


def rg_lru() -> Made:
    import torch

    options = {
        "hidden_size": D_MODEL, "lru_width": D_MODEL, "num_attention_heads": HEADS,
        "hidden_activation": "gelu_pytorch_tanh",
    }  # fmt: skip
    file, config, _ = module_of("recurrent_gemma", "RecurrentGemmaConfig", options)
    module, layer = file.RecurrentGemmaRecurrentBlock(config, 0), ssm_core.layers.RGLRU(D_MODEL, heads=HEADS)
    params, places = by_names(layer, redrawn(module)), [torch.tensor([[t]]) for t in range(COMPARED)]
    return layer, params, lambda u, t: module(u, places[t], None)[0]


def rwkv4() -> Made:
    import torch

    file, config, _ = module_of("rwkv", "RwkvConfig", {"hidden_size": D_MODEL, "num_hidden_layers": 1})
    module, layer = file.RwkvSelfAttention(config, 0), ssm_core.layers.RWKV4(D_MODEL)
    params, state = by_names(layer, redrawn(module)), [torch.zeros(1, D_MODEL, 1) for _ in range(5)]
    state[4] -= 1e30
    return layer, params, lambda u, _: module(u, state, use_cache=True)[0]


def lightning() -> Made:
    options = {
        "hidden_size": D_MODEL, "num_attention_heads": HEADS, "head_dim": HEAD_DIM, "num_hidden_layers": 4,
    }  # fmt: skip
    file, config, _ = module_of("minimax", "MiniMaxConfig", options)
    module, cache = file.MiniMaxLightningAttention(config, layer_idx=0), file.MiniMaxCache()
    layer = ssm_core.layers.Lightning(D_MODEL, heads=HEADS, head_dim=HEAD_DIM, layer_idx=0, num_layers=4)
    params = by_names(layer, redrawn(module))
    return layer, params, lambda u, _: module(u, (None, None), None, past_key_values=cache)[0]


LAYERS: dict[str, Callable[[], Made]] = {
    "GatedDeltaNet": gated_delta_net, "KDA": kda, "MLSTM": mlstm, "RGLRU": rg_lru, "RWKV4": rwkv4,
    "Lightning": lightning,
}  # fmt: skip


def token(kind: str) -> Case:
    """The held stepper; where transformers is not there the layer has weights of its own."""
    import torch

    found, missing = peers.those_here({"transformers, cached": LAYERS[kind]})
    layer, params, theirs = next(iter(found.values()), (getattr(ssm_core.layers, kind)(D_MODEL), None, None))
    params = layer.initial_parameters() if params is None else params
    params = {name: torch.as_tensor(np.array(x)).clone() for name, x in params.items()}  # aligned as a module's are
    step, held = layer.stepper(params), [layer.initial_state(params, 1)]
    tokens = torch.randn(COMPARED, 1, 1, D_MODEL)

    def ours() -> Any:
        y, held[0] = step(tokens[-1, 0], held[0])
        return y

    def check() -> None:
        with torch.no_grad():
            for t in range(COMPARED if theirs else 0):
                y, held[0] = step(tokens[t, 0], held[0])
                close(y, theirs(tokens[t], t)[0], 1e-3)

    others = {name: in_torch(lambda: theirs(tokens[-1], COMPARED - 1), False) for name in found}
    return Case(f"{kind} stepper torch", in_torch(ours, False), others, check, "wanted: 1x", inner=50, missing=missing)


JOBS = {f"stepper-{kind.lower()}-torch": Job(lambda kind=kind: token(kind)) for kind in LAYERS}
