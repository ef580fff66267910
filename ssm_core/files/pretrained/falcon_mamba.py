"""Falcon Mamba, as tiiuae/falcon-mamba-7b is published: Mamba with root mean square norms of B, C and dt."""

from __future__ import annotations

from dataclasses import replace

from ...models import LanguageModel, MambaLM
from . import mamba
from .architecture import Config, registered


def definition(c: Config, tied: bool) -> MambaLM:
    """The model of config.json."""
    model = mamba.definition(c, tied)
    return replace(model, layer_options={**model.layer_options, "norm_epsilon": c.get("mixer_rms_eps", 1e-6)})


def config(model: LanguageModel) -> Config:
    """The inverse of `definition`."""
    own = {"architectures": ["FalconMambaForCausalLM"], "mixer_rms_eps": model.layer_options["norm_epsilon"]}
    return mamba.config(model) | own


FALCON_MAMBA = registered(
    replace(
        mamba.MAMBA,
        model_type="falcon_mamba",
        definition=definition,
        describes=lambda model: model.layer == "Mamba" and model.layer_options.get("norm_epsilon") is not None,
        config=config,
        numbers=(*mamba.NUMBERS, "mixer_rms_eps"),
    )
)
