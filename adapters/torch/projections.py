"""The linear maps of layers as PyTorch's tools look for them, and the weights of what those put in their place."""

from __future__ import annotations

import copy
import weakref
from collections import UserDict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ssm_core._arrays.errors import OptionError

NATIVE = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm)  # whose parameters say what they compute
WRAPPERS = ("_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_orig_mod", "token_adapter")  # of the same values
TRAINED = {"modules_to_save": "original_module", "ln_tuning_layers": "base_layer"}  # by peft, beside the part itself


class _Parameters(UserDict[str, Any]):
    """The parameters of a map as tools look them up: its weight is among them, but in no walk, as it is the layer's."""

    def __init__(self, own: dict[str, Any], layer: nn.Module | None, name: str) -> None:
        self.data, self._of, self._name = own, layer, name

    def __contains__(self, name: object) -> bool:
        return name in self.data or (name == "weight" and self._name in getattr(self._of, "_parameters", ()))

    def __getitem__(self, name: str) -> Any:
        return self._holder(name)[self._named(name)]

    def __delitem__(self, name: str) -> None:
        del self._holder(name)[self._named(name)]

    def _holder(self, name: str) -> Any:
        return getattr(self._of, "_parameters", self.data) if name == "weight" else self.data

    def _named(self, name: str) -> str:
        return self._name if name == "weight" else name


class Projection(nn.Linear):
    """W x, with the W of a layer: `layer.in_proj` around the parameter `layer.in_proj_weight`.

    It has no parameter of its own, so that names and files are those of the layer. What is put in its place, such as
    peft's low-rank adapters, is the map that the layer computes with; the layer adds its bias itself. Who asks the map
    alone for its parameters, to freeze or to shard them, gets that weight. Pruned or normalized, the map has its
    weight to itself, as any `nn.Linear`, and gives it back to the layer when that is undone.
    """

    def __init__(self, layer: nn.Module, name: str, n_out: int, n_in: int) -> None:
        nn.Module.__init__(self)
        self.name, self.out_features, self.in_features = f"{name}_weight", n_out, n_in
        self.belong(layer)

    def belong(self, layer: nn.Module) -> None:
        """Take the weights of this layer: known weakly, as it holds this map."""
        self._layer: weakref.ref[nn.Module] | None = weakref.ref(layer)

    @property
    def layer(self) -> nn.Module | None:
        """The layer whose map it is; None in a copy until the layer's copy takes it."""
        return None if self._layer is None else self._layer()

    @property
    def weight(self) -> Any:
        return vars(self)["_masked"] if "_masked" in vars(self) else getattr(self.layer, self.name)

    @property
    def bias(self) -> Any:
        return None

    @property
    def _parameters(self) -> Any:
        return _Parameters(vars(self)["_parameters"], self.layer, self.name)

    @_parameters.setter
    def _parameters(self, own: dict[str, Any]) -> None:
        self.__dict__["_parameters"] = own

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "weight" or type(self).weight is not Projection.weight:  # a parametrization has its own
            if name != "bias" or value is not None:
                super().__setattr__(name, value)
        elif isinstance(value, nn.Parameter) or hasattr(self.layer, self.name):
            self.__dict__.pop("_masked", None)
            setattr(self.layer, self.name, value)
        else:
            self.__dict__["_masked"] = value  # computed of parameters that a tool has put here

    def __delattr__(self, name: str) -> None:
        if name != "weight":
            super().__delattr__(name)
        elif "_masked" in vars(self):
            del self.__dict__["_masked"]
        else:
            delattr(self.layer, self.name)

    def used_weight(self) -> Any:
        """The weight as it is now, after the hooks of tools that compute it."""
        like = _like(self)
        self(torch.empty(0, self.in_features, dtype=like.dtype, device=like.device))
        return self.weight

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """The weight of the layer; none among this module's own, which a walk over all modules would count twice."""
        if recurse and self._parameters.get("weight") is not None:
            yield f"{prefix}.weight" if prefix else "weight", self.weight
        yield from super().named_parameters(prefix, recurse, remove_duplicate)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Give the weight to the layer."""
        if name == "weight":
            given: Any = self
            given.weight = param
        else:
            super().register_parameter(name, param)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_layer": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """With its layer, a map of the layer's copy; alone, a map of its own."""
        if id(self.layer) not in memo and "weight" in self._parameters:
            alone = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
            alone.weight = copy.deepcopy(self.weight, memo)
            return alone
        replica = memo[id(self)] = self.__new__(type(self))
        replica.__dict__ = copy.deepcopy(Projection.__getstate__(self), memo)
        return replica

    def _replicate_for_data_parallel(self) -> Any:
        replica = super()._replicate_for_data_parallel()
        replica._layer = None
        return replica

    def reset_parameters(self) -> None:
        """Leave the weight: the layer draws it."""


def projections(part: nn.Module) -> Iterable[Projection]:
    """Those in a module, those inside of what replaced them too."""
    return (found for found in part.modules() if isinstance(found, Projection))


def away(part: Any) -> bool:
    """Whether accelerate keeps the parameters of a part elsewhere between its calls; its hooks bring them to each."""
    return hasattr(part, "_hf_hook") and any(p is not None and p.is_meta for p in vars(part)["_parameters"].values())


@contextmanager
def brought(part: Any) -> Iterator[None]:
    """As in a call of a part whose parameters are `away`."""
    part._hf_hook.pre_forward(part)
    try:
        yield
    finally:
        part._hf_hook.post_forward(part, None)


def held(part: Any, name: str) -> Tensor:
    """A parameter of a part, all of it; raises where FSDP1 has freed it, which to read would crash."""
    if away(part):
        with brought(part):
            return held(part, name)
    x: Any = getattr(part, name)
    view = vars(part).get(name)  # FSDP1 sets tensors in place of parameters, and frees them between forwards
    if isinstance(view, Tensor) and view.numel() and not view.untyped_storage().size():
        raise OptionError(
            f"{name} is in shards between forwards. Step, save and ask for kernels within "
            "`with FullyShardedDataParallel.summon_full_params(model):`."
        )
    return whole(x)


def whole(x: Tensor) -> Tensor:
    """x, or of a shard of it (FSDP2's parameters between forwards) all of it; gradients are the mean of all ranks'."""
    if not hasattr(x, "full_tensor"):
        return x
    from torch.distributed.tensor import Partial

    return x.full_tensor(grad_placements=[Partial("avg")] * x.device_mesh.ndim)


def sharded(module: nn.Module) -> bool:
    """Whether parameters of a module are shards (FSDP2), which operations do not take beside tensors."""
    return any(hasattr(p, "full_tensor") for p in module.parameters())


def settled(module: Any) -> dict[str, Tensor]:
    """The arrays of a module for a file: without dropout, that of adapters too, and apart from what FSDP frees."""
    with evaluating(module), torch.no_grad():
        arrays: dict[str, Tensor] = module.arrays()
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    # A file is written of NumPy's views, and memory that has one cannot be freed by FSDP.
    return {name: x.clone() for name, x in arrays.items()} if distributed else arrays


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    training = [part for part in module.modules() if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True


def replaced_map(
    part: nn.Module, name: str, n_in: int, like: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The weight (out, in) and the bias (out,) of the linear map in a projection's place, around the layer's bias."""
    if not hasattr(innermost(part), "in_features"):
        raise _not_linear(name, part)
    if bias is None and any(_has_bias(inner) for inner in part.modules()):
        raise OptionError(
            f"{name}: {type(part).__name__} adds a bias, but the layer has none there. Use a map without, such as "
            "nn.Linear(n_in, n_out, bias=False)."
        )
    if isinstance(part, Projection):
        return part.used_weight(), bias
    weight, more = _map(part, n_in, _like(part) if like is None else like)
    if bias is None:
        return weight.T, None
    return (weight - more).T, bias + more


def part_at(model: nn.Module, path: str) -> nn.Module | None:
    """The part of a model at a path of names; None where something else was put on the way."""
    part: Any = model
    for name in path.split("."):
        part = getattr(part, name, None)
    return part


def arrays_of(part: nn.Module | None, shapes: dict[str, tuple[int, ...]], name: str) -> dict[str, Tensor]:
    """The parameters that make the same function as a part of a model, whatever a tool has made of it."""
    if part is None:
        raise OptionError(
            f"{name}: there is no module, but the definition has {', '.join(shapes)} there. Save it by "
            "torch.save(model.state_dict(), path), or put a module of the kind that was there in its place."
        )
    if hasattr(part, "arrays"):
        return _complete(part.arrays(), shapes, name, part)
    own, inner = unwrapped(part), innermost(part)
    if hasattr(inner, "arrays"):
        with adapted(part):
            return _complete(inner.arrays(), shapes, name, inner)
    if isinstance(own, NATIVE) and all(getattr(own, leaf, None) is not None for leaf in shapes):
        return {leaf: held(own, leaf) for leaf in shapes}
    if "weight" not in shapes:  # a layer's place
        raise _not_linear(name, part)
    if hasattr(inner, "num_embeddings") and "bias" not in shapes:
        like = _like(part)
        return {"weight": part(torch.arange(shapes["weight"][0], device=like.device))}
    if not hasattr(inner, "in_features"):
        raise _not_linear(name, part)
    weight, bias = _map(part, shapes["weight"][1], _like(part))
    return {"weight": (weight - bias).T, "bias": bias} if "bias" in shapes else {"weight": weight.T}


def _complete(
    found: dict[str, Tensor], shapes: dict[str, tuple[int, ...]], name: str, part: nn.Module
) -> dict[str, Tensor]:
    """The parameters of a part; raises where the definition has more there, as of a layer that stood elsewhere."""
    if missing := [leaf for leaf in shapes if leaf not in found]:
        raise OptionError(
            f"{name}: a module {type(part).__name__} has no {', '.join(missing)}, which the definition has there. Put "
            "a module of the kind that was there in its place."
        )
    return dict(found)


def unwrapped(part: Any) -> Any:
    """What is inside of PyTorch's own wrappers, and what peft trains in place of a part."""
    while inner := _inside(part):
        part = inner
    return part


def _inside(part: Any) -> Any:
    modules = vars(part)["_modules"]
    for trained, plain in TRAINED.items():
        if trained in modules and plain in modules:
            chosen = [] if part.disable_adapters or getattr(part, "merged", False) else part.active_adapters
            return next((modules[trained][name] for name in chosen if name in modules[trained]), modules[plain])
    return next((modules[name] for name in WRAPPERS if name in modules), None)


def innermost(part: Any) -> Any:
    """What is inside of wrappers and of peft's layers."""
    part = unwrapped(part)
    while "base_layer" in part._modules:
        part = unwrapped(part.base_layer)
    return part


@contextmanager
def adapted(part: Any) -> Iterator[Any]:
    """What is `innermost` in a part, with the parameters that peft's adapters of parameters make in calls of it."""
    with ExitStack() as stack:
        part = unwrapped(part)
        while "base_layer" in part._modules:
            if hasattr(part, "_activate_lora"):
                chosen = [] if part.disable_adapters or part.merged else part.active_adapters
                stack.enter_context(part._activate_lora(chosen))
            part = unwrapped(part.base_layer)
        yield part


def _map(part: nn.Module, n_in: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """(W^T + b, b) of x -> W x + b: what it makes of the identity and of zero."""
    rows = part(torch.eye(n_in + 1, n_in, dtype=like.dtype, device=like.device))
    return rows[:-1], rows[-1]


def _like(part: nn.Module) -> Tensor:
    """A tensor of the dtype and on the device of a part; quantized parts, without parameters, take float32."""
    return next((whole(placed(p, part)) for p in part.parameters() if p.is_floating_point()), torch.empty(0))


def placed(x: Tensor, part: nn.Module) -> Tensor:
    """x; of a parameter that accelerate keeps elsewhere, an empty tensor where its hooks bring it."""
    if not x.is_meta:
        return x
    found = [getattr(module, "_hf_hook", None) for module in part.modules()]
    places = (getattr(hook, "execution_device", None) for one in found for hook in getattr(one, "hooks", (one,)))
    device = next((place for place in places if place is not None), "meta")
    return torch.empty(0, dtype=x.dtype, device=device)


def _has_bias(part: nn.Module) -> bool:
    bias = getattr(part, "bias", None)
    return (bias() if callable(bias) else bias) is not None


def _not_linear(name: str, part: nn.Module) -> OptionError:
    return OptionError(
        f"{name}: no parameters of the definition describe a module {type(unwrapped(part)).__name__}. Save it by "
        "torch.save(model.state_dict(), path), or put a module of the kind that was there in its place."
    )
