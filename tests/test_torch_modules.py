"""Modules of PyTorch, with the habits of PyTorch."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modules import B, Framework, H, L, signal
from small import NAMES, options_of

from ssm_core import adapters

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.mark.parametrize("kind", ["s4d", "model"])
def test_copies_and_pickles(kind: str, torch: Any):
    module = getattr(Framework("torch"), kind)()
    u = torch.from_numpy(signal(H if kind == "s4d" else 3))
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(other(u), module(u))
        assert other.definition == module.definition
        with torch.no_grad():
            next(other.parameters()).add_(1.0)
        assert not torch.equal(next(other.parameters()), next(module.parameters()))


@pytest.mark.parametrize("rate", [2, np.float64(2.0)], ids=repr)
def test_rates_that_are_numbers(rate: Any, torch: Any):
    module, u = Framework("torch").s4d(), torch.from_numpy(signal())
    torch.testing.assert_close(module(u, rate=rate), module(u, rate=2.0))
    torch.testing.assert_close(module.kernel(L, rate=rate), module.kernel(L, rate=2.0))
    y, _ = module.step(u[:, 0], module.initial_state(B), rate=rate)
    torch.testing.assert_close(y, module(u, rate=2.0)[:, 0])


def test_state_dict_and_strict_loading(torch: Any):
    module, other = (Framework("torch").model(seed=seed) for seed in (0, 1))
    other.load_state_dict(module.state_dict())
    u = torch.from_numpy(signal(3))
    torch.testing.assert_close(other(u), module(u))
    assert set(module.state_dict()) == set(module.arrays())


@pytest.mark.parametrize("kind", ["s4d", "model"])
def test_meta_device(kind: str, torch: Any):
    module = getattr(Framework("torch"), kind)(device="meta")
    assert {p.device.type for p in module.parameters()} == {"meta"}
    assert module(torch.empty(B, L, H if kind == "s4d" else 3, device="meta")).device.type == "meta"
    module.to_empty(device="cpu")
    for part in module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    assert all(torch.isfinite(p).all() for p in module.parameters())
    assert torch.isfinite(module(torch.from_numpy(signal(H if kind == "s4d" else 3)))).all()


def test_device_context(torch: Any):
    with torch.device("meta"):
        module = Framework("torch").s4d()
    assert module.log_dt.device.type == "meta"


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_dtypes(dtype: str, torch: Any):
    module = Framework("torch").s4d(dtype=getattr(torch, dtype))
    assert {p.dtype for p in module.parameters()} == {getattr(torch, dtype)}
    u = torch.from_numpy(signal()).to(getattr(torch, dtype))
    y, state = module(u, return_state=True)
    assert y.dtype == u.dtype
    assert state.dtype == (torch.complex128 if dtype == "float64" else torch.complex64)


@pytest.mark.parametrize("kind", ["s4d", "model"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_inputs_under_autocast(dtype: str, kind: str, torch: Any):
    module = getattr(Framework("torch"), kind)()
    u = torch.from_numpy(signal(H if kind == "s4d" else 3))
    wanted = module(u)
    with torch.autocast("cpu", dtype=getattr(torch, dtype)):
        y = module(u)
        step, _ = module.step(u[:, 0], module.initial_state(B))
    assert torch.isfinite(y).all()
    torch.testing.assert_close(y.float(), wanted, rtol=0.1, atol=0.05)
    assert torch.isfinite(step).all()
    y.float().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())


@pytest.mark.parametrize("parameters", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_in_sequences_and_steps(name: str, parameters: str, torch: Any):
    """Of inputs under autocast, or of parameters: outputs have the input's dtype, states are kept in float32."""
    module = getattr(adapters.torch, name)(4, **options_of(name), dtype=getattr(torch, parameters))
    torch.manual_seed(0)
    u = torch.randn(2, 6, 4).bfloat16()
    wanted = copy.deepcopy(module).float()(u.float())
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=parameters == "float32"):
        y, last = module(u, return_state=True)
        y.float().sum().backward()
        for step in (module.step, module.stepper()):
            state, steps = module.initial_state(2), []
            for k in range(u.shape[1]):
                y_t, state = step(u[:, k], state)
                steps.append(y_t)
            torch.testing.assert_close(torch.stack(steps, dim=1), y, rtol=0.02, atol=0.01)
            torch.testing.assert_close(state, last, rtol=1e-3, atol=1e-3)
    assert y.dtype == torch.bfloat16
    assert {x.dtype for x in torch.utils._pytree.tree_leaves(last)} <= {torch.float32, torch.complex64}
    torch.testing.assert_close(y.float(), wanted, rtol=0.05, atol=0.02)
    assert all(
        p.grad.dtype == p.dtype and torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None
    )


def test_gradients_flow_through_the_state(torch: Any):
    module, u = Framework("torch").s4d(), torch.from_numpy(signal())

    def slopes(split: bool) -> list[Any]:
        module.zero_grad()
        if split:
            head, state = module(u[:, :7], return_state=True)
            y = torch.cat([head, module(u[:, 7:], state=state)], dim=1)
        else:
            y = module(u)
        (y**2).sum().backward()
        return [p.grad.clone() for p in module.parameters()]

    for x, y in zip(slopes(False), slopes(True), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-3)


def test_functional_call_and_vmap_over_models(torch: Any):
    module, u = Framework("torch").s4d(), torch.from_numpy(signal())
    params = {name: torch.stack([p.detach(), p.detach() + 0.1]) for name, p in module.named_parameters()}
    found = torch.func.vmap(lambda p: torch.func.functional_call(module, p, (u,)))(params)
    for i in range(2):
        alone = torch.func.functional_call(module, {n: p[i] for n, p in params.items()}, (u,))
        torch.testing.assert_close(found[i], alone, rtol=1e-4, atol=1e-5)


def layer_of(module: Any) -> Any:
    return module if hasattr(module, "log_dt") else module.blocks[0].layer


@pytest.mark.parametrize("kind", ["s4d", "model"])
def test_normalized_weights(kind: str, torch: Any):
    """Under weight_norm the parameters are a length and a direction, and the weight is computed of both."""
    module, u = getattr(Framework("torch"), kind)(), torch.from_numpy(signal(H if kind == "s4d" else 3))
    wanted, layer = module(u), layer_of(module)
    torch.nn.utils.parametrizations.weight_norm(layer, "output_weight")
    torch.testing.assert_close(module(u), wanted)
    length, direction = (getattr(layer.parametrizations.output_weight, f"original{i}") for i in range(2))
    module(u).sum().backward()
    assert length.grad.abs().max() > 0
    assert direction.grad.abs().max() > 0
    with torch.no_grad():
        length.mul_(2.0)
    assert_runs_like(module, u, doubled := {n: x.detach().clone() for n, x in module.arrays().items()})
    torch.nn.utils.parametrize.remove_parametrizations(layer, "output_weight")
    assert_runs_like(module, u, doubled)


def assert_runs_like(module: Any, u: Any, params: Any) -> None:
    """As the definition with these parameters, over sequences and in a step."""
    import torch

    definition = module.definition
    torch.testing.assert_close(module(u), definition.apply(params, u))
    y, _ = module.step(u[:, 0], module.initial_state(B))
    torch.testing.assert_close(y, definition.apply(params, u[:, :1]).reshape(y.shape))


@pytest.mark.parametrize("kind", ["s4d", "model"])
def test_pruned_weights(kind: str, torch: Any, tmp_path: Path):
    from torch.nn.utils import prune

    module, u = getattr(Framework("torch"), kind)(), torch.from_numpy(signal(H if kind == "s4d" else 3))
    layer = layer_of(module)
    prune.l1_unstructured(layer, "output_weight", amount=0.5)
    assert int((layer.output_weight == 0).sum()) == layer.output_weight.numel() // 2
    params = {name: x.detach() for name, x in module.arrays().items()}
    assert {name: x.shape for name, x in params.items()} == {p.name: p.shape for p in module.definition.parameters()}
    assert_runs_like(module, u, params)
    adapters.torch.save(module, tmp_path / "pruned")
    torch.testing.assert_close(adapters.torch.load(tmp_path / "pruned")(u), module(u))
    prune.remove(layer, "output_weight")
    assert_runs_like(module, u, params)


def test_shared_parameters(torch: Any, tmp_path: Path):
    """A layer of two blocks, and one parameter of two layers: every name is there, and the gradients add up."""
    module = Framework("torch").module("SequenceModel", 3, 2, d_model=H, n_layers=3, layer_options={"d_state": 8})
    first, second, _ = (block.layer for block in module.blocks)
    second.output_weight = first.output_weight
    module.blocks[2].layer = first
    u = torch.from_numpy(signal(3))
    params = {name: x.detach().clone() for name, x in module.arrays().items()}
    assert params.keys() == {p.name for p in module.definition.parameters()}
    assert_runs_like(module, u, params)
    module(u).sum().backward()
    alone = {name: x.requires_grad_() for name, x in params.items()}
    module.definition.apply(alone, u).sum().backward()
    summed = sum(alone[f"blocks.{i}.layer.output_weight"].grad for i in range(3))
    torch.testing.assert_close(first.output_weight.grad, summed, rtol=1e-4, atol=1e-5)
    adapters.torch.save(module, tmp_path / "shared")
    torch.testing.assert_close(adapters.torch.load(tmp_path / "shared")(u), module(u))


def replica(module: Any) -> Any:
    """What DataParallel runs on a device: the parameters are copies, plain attributes that are no leaves."""
    copies = {id(p): p * 1 for p in module.parameters()}
    made = {id(part): part._replicate_for_data_parallel() for part in module.modules()}
    for part in module.modules():
        for name, child in part._modules.items():
            setattr(made[id(part)], name, None if child is None else made[id(child)])
        for name, p in part._parameters.items():
            setattr(made[id(part)], name, copies[id(p)])
    return made[id(module)]


@pytest.mark.parametrize("kind", ["s4d", "model"])
def test_replicas(kind: str, torch: Any):
    module = getattr(Framework("torch"), kind)()
    u, copy_of = torch.from_numpy(signal(H if kind == "s4d" else 3)), replica(module)
    assert not list(copy_of.parameters())
    assert_runs_like(copy_of, u, module.arrays())
    copy_of(u).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_parameter_groups(torch: Any):
    model = Framework("torch").model()
    model.head.bias.requires_grad_(False)
    regular, special = adapters.torch.param_groups(model, lr=0.1, weight_decay=0.5, ssm_lr=0.01)
    names = {id(p): name for name, p in model.named_parameters()}
    assert (regular["lr"], regular["weight_decay"]) == (0.1, 0.5)
    assert (special["lr"], special["weight_decay"]) == (0.01, 0.0)
    ssm = {"log_dt", "log_A_re", "A_im", "B_re", "B_im"}
    found = {names[id(p)] for p in special["params"]}
    assert found == {n for n in names.values() if n.rsplit(".")[-1] in ssm}
    assert {names[id(p)] for p in regular["params"]} == set(names.values()) - found - {"head.bias"}


def test_parameter_groups_of_reparametrized_modules(torch: Any):
    """What poles are computed of is as special as they are."""
    from torch.nn.utils import prune

    module = Framework("torch").s4d()
    torch.nn.utils.parametrizations.weight_norm(module, "log_A_re")
    torch.nn.utils.parametrizations.weight_norm(module, "output_weight")
    prune.identity(module, "B_re")
    prune.identity(module, "C_re")
    _, special = adapters.torch.param_groups(module, lr=0.1)
    names = {id(p): name for name, p in module.named_parameters()}
    poles = {f"parametrizations.log_A_re.original{i}" for i in range(2)}
    assert {names[id(p)] for p in special["params"]} == {"log_dt", "A_im", "B_re_orig", "B_im"} | poles


def test_dropout_is_for_training_only(torch: Any):
    model, u = Framework("torch").model(dropout=0.5), torch.from_numpy(signal(3))
    assert not torch.equal(model(u), model(u))
    model.eval()
    torch.testing.assert_close(model(u), model(u))


def test_modules_describe_themselves():
    text = repr(Framework("torch").s4d())
    assert text.startswith("S4D(d_model=4, d_state=8,")
    assert "SequenceModel(" in repr(Framework("torch").model())


def test_loads_into_a_dtype(torch: Any, tmp_path: Path):
    module, path = Framework("torch").s4d(), tmp_path / "weights"
    adapters.torch.save(module, path)
    loaded = adapters.torch.load(path, dtype=torch.float64)
    assert loaded.log_dt.dtype == torch.float64
    torch.testing.assert_close(loaded.log_dt.float(), module.log_dt)


def test_stacked_oscillators_under_vmap(torch: Any):
    modules = [adapters.torch.LinOSS(4, d_state=4) for _ in range(2)]
    params, _ = torch.func.stack_module_state(modules)
    u = torch.randn(2, 9, 4)
    y = torch.func.vmap(lambda p: torch.func.functional_call(modules[0], p, (u,)))(params)
    torch.testing.assert_close(y, torch.stack([m(u) for m in modules]), rtol=1e-4, atol=1e-5)
