"""Mamba-2, as mistralai/Mamba-Codestral-7B-v0.1 is published."""

from __future__ import annotations

import math
from typing import Any

from ..._arrays.errors import OptionError
from ...models import LanguageModel, Mamba2LM
from . import mamba
from .architecture import Architecture, Config, registered


def definition(c: Config, tied: bool) -> Mamba2LM:
    """The model of config.json."""
    hidden, epsilon = c["hidden_size"], c.get("layer_norm_epsilon", 1e-5)
    limit = c.get("time_step_limit", (0.0, math.inf))
    options = mamba.layer_options(c, d_state=128) | {
        "head_dim": c["head_dim"],
        "n_groups": c.get("n_groups", 8),
        "epsilon": epsilon,
        "dt_limit": [_number(d) for d in limit] if isinstance(limit, list) else limit,
    }
    options |= {"chunk": c["chunk_size"]} if "chunk_size" in c else {}
    inner = options["expand"] * hidden
    if c.get("num_heads", inner // options["head_dim"]) * options["head_dim"] != inner:
        raise OptionError(
            f"num_heads * head_dim = {c['num_heads']} * {options['head_dim']} is not expand * hidden_size = {inner}."
        )
    return Mamba2LM(c["vocab_size"], hidden, c["num_hidden_layers"], options, tied, epsilon)


def config(model: LanguageModel) -> Config:
    """The inverse of `definition`."""
    block: Any = model.block()
    if block.epsilon != model.epsilon:
        raise OptionError(
            f"the format has one epsilon for all norms, but the model has {model.epsilon} and its blocks have "
            f"{block.epsilon}."
        )
    found = mamba.layer_entries(model) | {
        "architectures": ["Mamba2ForCausalLM"],
        "num_heads": block.heads,
        "head_dim": block.head_dim,
        "n_groups": block.n_groups,
        "chunk_size": block.chunk,
        "time_step_rank": math.ceil(model.d_model / 16),
    }
    return found if block.dt_limit == (0.0, math.inf) else found | {"time_step_limit": list(block.dt_limit)}


def _number(x: Any) -> Any:
    """A number of config.json; newer versions write infinity as {"__float__": "Infinity"}."""
    return math.inf if x == {"__float__": "Infinity"} or (isinstance(x, int) and x > 2**53) else x


MAMBA2 = registered(
    Architecture(
        model_type="mamba2",
        model="`Mamba2LM`",
        definition=definition,
        describes=lambda model: model.layer == "Mamba2",
        config=config,
        their_name=mamba.their_name,
        their_shape=mamba.their_shape,
        sizes=(*mamba.SIZES, "head_dim", "num_heads", "n_groups", "chunk_size"),
        numbers=mamba.NUMBERS,
        flags=mamba.FLAGS,
        unsaid=("A_min", "A_max"),
        other_names=mamba.OTHER_NAMES,
        entries=(*mamba.ENTRIES, "time_step_limit"),
        passed=mamba.PASSED,
    )
)
