"""SaShiMi of state-spaces/s4."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ..._arrays.errors import DTypeError, OptionError
from ...models import SaShiMi
from ...models.language_model import HEAD, HEAD_BIAS, NORM, TABLE
from ..weights import check_parameters
from .s4 import from_s4
from .tensors import Original, several, split, wide

Weights = dict[str, np.ndarray]

_NAME = re.compile(r"(.*\.)?(d_layers|c_layers|u_layers)\.(\d+)\.(?:(\d+)\.)?(\D.*)")
_POOL, _NORM = ("linear.weight", "linear.bias"), ("norm.weight", "norm.bias")
_MIX = {"layer.ff.0.0.weight": "up.weight", "layer.ff.0.0.bias": "up.bias"}
_MIX |= {"layer.ff.2.weight": "down.weight", "layer.ff.2.bias": "down.bias"}
_AXES = {name: (2, 3) if name.endswith("weight") else (1,) for name in (*_POOL, *_MIX)} | dict.fromkeys(_NORM, (1,))


def from_sashimi(
    tensors: dict[str, Any],
    *,
    embedding: Any = None,
    head: tuple[Any, Any] | None = None,
    vocab_size: int = 256,
    seed: Any = 0,
    **options: Any,
) -> tuple[SaShiMi, Weights]:
    """A `SaShiMi` of S4 or S4D from the state dict of the standalone Sashimi of state-spaces/s4.

    Its pools join features as (H s) and ours as (s H): rows and columns of their maps change places.

    tensors     d_layers.0.linear.weight, c_layers.0.layer.layer.kernel.C and so on, under any prefix
    embedding   (V, H), which their backbone leaves to what is around it; first values if None
    head        (V, H) and (V,) of the linear map behind it, likewise
    vocab_size  V
    seed        of first values
    options     of the layers, those of `from_s4`: discretization, activation, bidirectional, length, ...
    returns     the model, and its parameters in the precision of the tensors

    Raises OptionError (missing or surplus entries, blocks that are no Sashimi), ShapeError and DTypeError.
    """
    sections, last = _sections(tensors)
    parts = [part for section in ("d_layers", "c_layers", "u_layers") for part in sections[section]]
    pools, mixes, mixers = (_of_kind(parts, kind) for kind in ("pool", "mix", "mixer"))
    n, H = len(_of_kind(sections["c_layers"], "mixer")), len(last["norm.weight"])
    params: Weights = {f"{NORM}{name.removeprefix('norm.')}": last[name] for name in _NORM}
    layers: list[Any] = []
    for i, part in enumerate(mixers):
        layer, own = from_s4({name: x for name, x in part.items() if name not in _NORM}, **options)
        norm = _checked({name: part[name] for name in _NORM if name in part}, _NORM)
        params |= {f"backbone.layers.{i}.mixer.{name}": x for name, x in own.items()}
        params |= {f"backbone.layers.{i}.{name}": norm[name] for name in _NORM}
        layers.append(layer)
    for i, part in enumerate(mixes):
        mix = _checked(part, (*_MIX, *_NORM))
        params |= {f"backbone.layers.{i}.channel_{name}": mix[name] for name in _NORM}
        params |= {f"backbone.layers.{i}.channel_mix.{ours}": _flat(mix[theirs]) for theirs, ours in _MIX.items()}
    sizes, expand = [], 1
    width = H
    for i, (down, up) in enumerate(zip(pools[: len(pools) // 2], reversed(pools[len(pools) // 2 :]), strict=False)):
        falling, rising = _checked(down, _POOL), _checked(up, _POOL)
        W, V = _flat(falling["linear.weight"]), _flat(rising["linear.weight"])
        s, expand = W.shape[1] // width, len(W) // width
        if s < 1 or expand < 1 or V.size != W.size or W.shape != (expand * width, s * width):
            raise OptionError(f"from_sashimi: no pools of {width} features are {W.shape} and {V.shape}.")
        params |= {
            f"backbone.down_{i}.weight": np.swapaxes(W.reshape(-1, width, s), 1, 2).reshape(W.shape),
            f"backbone.down_{i}.bias": falling["linear.bias"],
            f"backbone.up_{i}.weight": np.swapaxes(V.reshape(width, s, -1), 0, 1).reshape(V.shape),
            f"backbone.up_{i}.bias": np.swapaxes(rising["linear.bias"].reshape(width, s), 0, 1).reshape(-1),
        }
        sizes.append(s)
        width *= expand
    own_options = _options(layers)
    if n < 1 or any(found != own_options[0] for found in own_options[1:]):
        raise OptionError("from_sashimi: the tensors are not those of a Sashimi whose blocks are alike.")
    model = SaShiMi(
        vocab_size, H, n, layers[0].name, own_options[0], channel_mix="mlp" if mixes else None, pool=tuple(sizes),
        expand=expand, ff=len(params["backbone.layers.0.channel_mix.up.weight"]) // layers[0].d_model if mixes else 2,
        unet=bool(_of_kind(sections["d_layers"], "mixer")),
    )  # fmt: skip
    around = {TABLE: embedding, HEAD: None if head is None else head[0], HEAD_BIAS: None if head is None else head[1]}
    first = model.initial_parameters(seed)
    like = params[f"{NORM}weight"].dtype
    params |= {name: np.asarray(first[name], like) if x is None else wide(x) for name, x in around.items()}
    check_parameters("from_sashimi", model, params)
    return model, {p.name: np.ascontiguousarray(params[p.name]) for p in model.parameters()}


def _sections(tensors: Any) -> tuple[dict[str, list[dict[str, Any]]], Original]:
    """The tensors of every part by their own names, in their order in a section, and the last norm."""
    if not isinstance(tensors, dict):
        raise DTypeError(f"from_sashimi: tensors is a {type(tensors).__name__}, not a dict of arrays by name.")
    found: dict[tuple[str, int, int], dict[str, Any]] = {}
    rest: dict[str, Any] = {}
    prefixes = set()
    for name, x in tensors.items():
        place = _NAME.fullmatch(str(name))
        if place is None:
            prefix, last = split(str(name), _NORM)
            prefixes |= {prefix} if last else set()
            rest[str(name)] = x
        else:
            prefix, section, i, j, own = place.groups(default="")
            prefixes.add(prefix)
            found.setdefault((section, int(i), int(j or 0)), {})[own] = x
    if len(prefixes) > 1:
        raise several("from_sashimi", *sorted(prefixes)[:2])
    sections: dict[str, list[dict[str, Any]]] = {"d_layers": [], "c_layers": [], "u_layers": []}
    for key in sorted(found):
        sections[key[0]].append(found[key])
    return sections, _checked(rest, _NORM)


def _options(layers: list[Any]) -> list[dict[str, Any]]:
    """The options of every layer but its width; as many copies of a system as channels are the default."""
    found = [layer.options() for layer in layers]
    default = {"n_ssm": None} if all(own["n_ssm"] == own["d_model"] for own in found) else {}
    return [{name: x for name, x in (own | default).items() if name != "d_model"} for own in found]


def _of_kind(parts: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Those that are pools, mixers or mixes."""
    return [p for p in parts if kind == ("pool" if _POOL[0] in p else "mix" if next(iter(_MIX)) in p else "mixer")]


def _checked(part: dict[str, Any], names: tuple[str, ...]) -> Original:
    """The tensors as arrays of NumPy; raises unless they are these."""
    t = Original("from_sashimi", part, _AXES)
    t.check_names(names)
    return t


def _flat(weight: np.ndarray) -> np.ndarray:
    """The weight (out, in) of a linear map, which may be a convolution over one step."""
    return weight.reshape(weight.shape[:2])
