"""HGRN2, as fla-hub/hgrn2-1.3B-100B and its siblings are published."""

from __future__ import annotations

from typing import Any

from ..._arrays.errors import OptionError
from ...models import HGRN2LM, LanguageModel
from . import fla
from .architecture import Config, is_size, registered


def made(c: Config, **options: Any) -> HGRN2LM:
    """Its blocks share their bounds; there are as many gates as channels."""
    options.pop("layer")
    return HGRN2LM(**options, lower_bounds=c.get("use_lower_bound", True))


def with_heads(c: Config) -> Config:
    """expand_ratio, the gates of a head, says how many heads there are."""
    ratio, hidden = c.get("expand_ratio", 128), c["hidden_size"]
    if ratio is None:
        return c if c.get("num_heads") is not None else c | {"num_heads": c["num_heads"]}
    if not is_size(ratio) or hidden % ratio:
        raise OptionError(f"expand_ratio = {ratio!r} must divide hidden_size = {hidden}.")
    return c | {"num_heads": hidden // ratio}


def said(model: LanguageModel) -> Config:
    """The gates of a head, and whether they have bounds."""
    block: Any = model.block()
    bounded = getattr(model, "lower_bounds", False)
    if not bounded and block.lower_bound != 0:
        raise OptionError(f"the format knows no lower_bound {block.lower_bound!r} of single blocks.")
    return {"expand_ratio": block.key_dim, "use_lower_bound": bounded}


HGRN2 = registered(
    fla.architecture(
        "hgrn2",
        "HGRN2",
        "HGRN2",
        {"num_heads": ("heads", None)},
        only={"expand_k": 1, "epsilon": 1e-5},
        fixed={"elementwise_affine": (True,), "use_short_conv": (False,)},
        entries=("conv_size", "use_lower_bound"),
        sizes=(),
        optional=("num_heads", "expand_ratio"),
        epsilon=False,
        made=made,
        given=with_heads,
        said=said,
        called="`HGRN2LM`",
    )
)
