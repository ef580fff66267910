"""What the models of flash-linear-attention share: their names of tensors and their entries of config.json.

Every file beside this one that is called like a model type there has the layer of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..._arrays.errors import OptionError
from ...models import LanguageModel
from ..stored import Stored
from .architecture import Architecture, Config, as_they_are

# Ours, and theirs, outside of the mixers.
_RENAMED = {
    "backbone.layers.": "model.layers.",
    "backbone.norm_f.": "model.norm.",
    "backbone.": "model.",
    ".mixer.": ".attn.",
    ".channel_mix.": ".mlp.",
    ".channel_norm.": ".mlp_norm.",
    ".norm.": ".attn_norm.",
}
PASSED = (
    *("attn_mode", "fuse_swiglu", "fuse_cross_entropy", "fuse_linear_cross_entropy", "use_l2warp"),
    "safe_gate",
)
FIXED: dict[str, tuple[Any, ...]] = {"attn": (None,), "attnres_block_size": (None,)}
SWISH = ("swish", "silu")
SHARED = {"num_kv_heads": ("kv_heads", None), "feature_map": ("feature_map", None)}
FEATURE_MAPS = (None, "relu", *SWISH)


def their_name(name: str, maps: Mapping[str, str]) -> str:
    """The name of one of our parameters in a checkpoint; maps are those of the mixer that have other names.

    >>> from ssm_core.files.pretrained.fla import their_name
    >>> their_name("backbone.layers.0.mixer.f_a_proj_weight", {"f_a_proj": "f_proj.0"})
    'model.layers.0.attn.f_proj.0.weight'
    >>> their_name("backbone.layers.0.channel_mix.up.weight", {})
    'model.layers.0.mlp.up_proj.weight'
    """
    place, mixer, own = name.rpartition(".mixer.")
    for end in ("_weight", "_bias"):
        part = own.removesuffix(end)
        if mixer and part != own and own != "dt_bias":
            own = f"{maps.get(part, part)}.{end[1:]}"
    if ".channel_mix." in name:
        place, _, own = name.rpartition(".channel_mix.")
        mixer, own = ".channel_mix.", own.replace(".weight", "_proj.weight")
    name = f"{place}{mixer}{own}"
    if name.startswith("backbone.norm_f."):
        return name.replace("backbone.norm_f.", "model.norm.")
    for ours, theirs in _RENAMED.items():
        name = name.replace(ours, theirs)
    return name


def their_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The taps of a convolution have an axis of one input."""
    return (shape[0], 1, *shape[1:]) if name.endswith("conv1d.weight") else shape


def width(c: Config, ratio: float, part: float, multiple: int) -> int:
    """Hidden features of a channel mix: as they are given, or a part of the ratio, rounded up to a multiple."""
    if c.get("intermediate_size") is not None:
        return int(c["intermediate_size"])
    given = c.get("hidden_ratio")
    given = ratio if given is None else given
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < 1e4:
        raise OptionError(f"hidden_ratio = {given!r} must be a positive number.")
    return -(-int(c["hidden_size"] * given * part) // multiple) * multiple


def one_norm(c: Config, tensors: dict[str, Stored]) -> tuple[Config, dict[str, Stored]]:
    """The norm of what is read, which has another name where fuse_norm joins it with the gate."""
    return c, {name.replace(".g_norm_swish_gate.", ".g_norm."): x for name, x in tensors.items()}


def mapped(c: Config) -> Config:
    """The feature map by its name here."""
    return c | {"feature_map": "silu"} if c.get("feature_map") == "swish" else c


def map_said(model: LanguageModel) -> Config:
    """The feature map, which the format may not know."""
    block: Any = model.block()
    if block.feature_map not in FEATURE_MAPS:
        raise OptionError(f"the format knows no feature_map {block.feature_map!r}: it has None, 'relu' and 'silu'.")
    return {}


def checked_block(model: LanguageModel, **options: Any) -> Any:
    """The layer of a model whose options the format has in one way only, and a gated channel mix."""
    block: Any = model.block()
    if model.channel_mix != "gated_mlp":
        raise OptionError(f"the format knows no channel_mix {model.channel_mix!r}: it has 'gated_mlp'.")
    for name, wanted in options.items():
        if getattr(block, name) != wanted:
            raise OptionError(f"the format knows no {name} {getattr(block, name)!r}: it has {wanted!r}.")
    return block


def architecture(
    model_type: str,
    title: str,
    layer: str,
    options: Mapping[str, tuple[str, Any]],
    *,
    maps: Mapping[str, str] | None = None,
    ratio: float = 4,
    only: Mapping[str, Any] | None = None,
    fixed: Mapping[str, tuple[Any, ...]] | None = None,
    unsaid: tuple[str, ...] = ("chunk",),
    sizes: tuple[str, ...] = ("num_heads",),
    optional: tuple[str, ...] = (),
    entries: tuple[str, ...] = (),
    epsilon: bool = True,
    always: Mapping[str, Any] | None = None,
    made: Callable[..., LanguageModel] = lambda c, **options: LanguageModel(**options),
    given: Callable[[Config], Config] = lambda c: c,
    said: Callable[[LanguageModel], Config] = lambda model: {},
    fused: bool = False,
    called: str = "",
) -> Architecture:
    """The architecture of a layer.

    options  theirs -> (ours, what it is where it is not given)
    maps     ours -> theirs, of the mixer's maps that have another name
    ratio    of the channel mix, where it is not given
    only     options of the layer that the format has in one way
    fixed    entries that the layer has in some ways only
    epsilon  whether the layer has that of the norms
    always   options of the layer that the format does not say
    made     (config, options of a language model) -> the model
    given    config.json with what follows from other entries
    said     entries that are no options of the layer
    fused    whether the name of a norm depends on fuse_norm; it is saved by the one without
    called   what the model is here, where it has a class of its own
    """

    def definition(c: Config, tied: bool) -> LanguageModel:
        c = given(c)
        found = {ours: c.get(theirs, default) for theirs, (ours, default) in options.items()}
        eps = c.get("norm_eps", 1e-6)
        found |= {"epsilon": eps} if epsilon else {}
        found |= dict(always or {})
        sizes = {"vocab_size": c["vocab_size"], "d_model": c["hidden_size"], "n_layers": c["num_hidden_layers"]}
        mix = {"channel_mix": "gated_mlp", "mix_width": width(c, ratio, 2 / 3, 256)}
        return made(c, **sizes, layer=layer, layer_options=found, tied=tied, epsilon=eps, **mix)

    def config(model: LanguageModel) -> Config:
        block = checked_block(model, **(only or {}))
        if epsilon and block.epsilon != model.epsilon:
            raise OptionError(
                f"the format has one epsilon for all norms, but the model has {model.epsilon} and its blocks have "
                f"{block.epsilon}."
            )
        mix: Any = model.repeated().mix()
        return {
            "architectures": [f"{title}ForCausalLM"],
            "hidden_act": "swish",
            "norm_eps": model.epsilon,
            "intermediate_size": mix.maps()["up"][1],
            **{theirs: getattr(block, ours) for theirs, (ours, _) in options.items()},
            **({"fuse_norm": False} if fused else {}),
            **said(model),
        }

    return Architecture(
        model_type=model_type,
        model=called or f"`LanguageModel` of `{layer}`",
        definition=definition,
        describes=lambda model: model.layer == layer,
        config=config,
        their_name=partial(their_name, maps=maps or {}),
        their_shape=their_shape,
        sizes=sizes,
        numbers=("norm_eps",),
        flags=("fuse_norm",),
        unsaid=unsaid,
        optional=("intermediate_size", *optional),
        entries=(*options, "hidden_ratio", *entries),
        fixed=FIXED | {"hidden_act": SWISH} | dict(fixed or {}),
        passed=PASSED,
        prepared=one_norm if fused else as_they_are,
    )
