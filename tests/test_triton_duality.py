"""The Triton kernels of the state space dual against the generic body, through the public function."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("no GPU: run `nox -s triton`, which uses Triton's interpreter", allow_module_level=True)

import ssm_core  # noqa: E402
from ssm_core.adapters.torch import Mamba2  # noqa: E402
from ssm_core.backends.torch import gpu_kernels  # noqa: E402
from ssm_core.backends.torch.duality import triton_kernels as triton_duality  # noqa: E402
from ssm_core.recurrences.segments import Segments  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIGNALS = ("x", "dt", "A", "B", "C", "initial")
Tensors = dict[str, Any]

# PyTorch compiles the formulas of forward mode by means that it deprecates.
deprecated_by_torch = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")


def inputs(
    L: int, batch: int = 1, H: int = 2, G: int = 1, P: int = 5, N: int = 3, each_step: bool = False, **more: Any
) -> Tensors:
    generator = torch.Generator().manual_seed(L)

    def draw(*shape: int) -> Any:
        return torch.randn(shape, generator=generator)

    v = {"x": draw(batch, L, H, P), "dt": draw(batch, L, H).exp() / 4, "A": -draw(H).exp()}
    v |= {"B": draw(batch, L, G, N), "C": draw(batch, L, G, N), "initial": draw(batch, H, P, N)}
    v |= {"A": -draw(batch, L, H).exp()} if each_step else {}
    return {name: value.to(DEVICE) for name, value in (v | more).items() if value is not None}


def at(L: int, *steps: int) -> Any:
    return torch.isin(torch.arange(L), torch.tensor(steps))[None]


def packed(*ends: int) -> Any:
    return torch.tensor(ends, device=DEVICE)


def generic(v: Tensors) -> Tensors:
    """In double precision, which the kernels leave to the generic body."""
    return {name: x.double() if name in SIGNALS else x for name, x in v.items()}


def outputs(v: Tensors) -> tuple[Any, Any]:
    """y, with zeros beyond the lengths, and the last state."""
    y, state = ssm_core.ssd(**v, return_state=True)
    if "lengths" in v:
        beyond = torch.arange(y.shape[1], device=DEVICE) >= v["lengths"][:, None]
        y = y.masked_fill(beyond[..., None, None], 0)
    return y, state


def gradients(v: Tensors, wanted: tuple[str, ...] = SIGNALS, run: Callable[..., Any] = outputs) -> tuple[Any, ...]:
    """The outputs, and the gradients of a sum in which every one of them has its weight."""
    v = {name: x.clone().requires_grad_() if name in wanted else x for name, x in v.items()}
    found = run(v)
    cost = sum(
        (x * torch.linspace(1, 2, x.numel(), device=DEVICE, dtype=x.dtype).reshape(x.shape)).sum() for x in found
    )
    return (*found, *torch.autograd.grad(cost, [v[name] for name in wanted if name in v]))


def close(found: Any, wanted: Any, tolerance: float = 4e-6) -> None:
    """Relative to the largest number of each."""
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == torch.float32
        scale = max(1.0, float(b.detach().abs().max()))
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * scale, check_dtype=False)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that ran."""
    found: list[str] = []

    def watched(name: str, function: Any) -> Any:
        return lambda *arguments: found.append(name) or function(*arguments)

    gpu_kernels.kernels("duality", DEVICE)  # its probe calls them too
    for name in ("forward", "backward"):
        monkeypatch.setattr(triton_duality, name, watched(name, getattr(triton_duality, name)))
    return found


def test_probe():
    assert gpu_kernels.disagreement(triton_duality.probe, DEVICE) is None


CASES = {
    "one step": inputs(1),
    "a step less than a chunk": inputs(63),
    "three more than a chunk": inputs(67, batch=2, initial=None),
    "several chunks": inputs(131, H=1),
    "blocks of features": inputs(66, H=1, P=70, N=20),
    "blocks of states": inputs(66, H=1, P=20, N=70),
    "groups": inputs(66, H=4, G=2),
    "a group a head": inputs(5, H=2, G=2),
    "A of every step": inputs(66, each_step=True),
    "reset at the first step": inputs(66, reset=at(66, 0)),
    "resets at chunks": inputs(131, H=1, reset=at(131, 64, 127, 128)),
    "resets in a chunk": inputs(20, batch=2, reset=torch.cat([at(20, 3, 4, 19), at(20, 0, 10)])),
    "lengths": inputs(70, batch=4, H=1, lengths=torch.tensor([0, 3, 64, 70])),
    "lengths and resets": inputs(70, batch=2, H=1, lengths=torch.tensor([5, 66]), reset=at(70, 2, 65, 68).repeat(2, 1)),
    "packed with states": inputs(70, H=1, cu_seqlens=packed(0, 3, 3, 70), initial=torch.ones(3, 1, 5, 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_is_the_generic_body(name: str, calls: list[str]):
    v = CASES[name]
    found = gradients(v)
    batches = len(calls) // 2  # of packed sequences with states; else one
    assert calls == ["forward"] * batches + ["backward"] * batches
    assert batches == (2 if name == "packed with states" else 1)
    close(found, gradients(generic(v)))


def test_heads_of_a_group_in_one_program(monkeypatch: pytest.MonkeyPatch):
    """Six heads by twos, whose three sums are added."""
    monkeypatch.setattr(triton_duality, "PROGRAMS", 1)
    v = inputs(70, H=6)
    close(gradients(v), gradients(generic(v)))


def test_packed_without_states(calls: list[str]):
    v = inputs(70, cu_seqlens=packed(0, 3, 3, 70), initial=None)

    def run(v: Tensors) -> tuple[Any]:
        return (ssm_core.ssd(**v),)

    close(gradients(v, run=run), gradients(generic(v), run=run))
    assert calls == ["forward", "backward"]


def test_padding_may_hold_anything():
    lengths = torch.tensor([0, 3, 65])
    v = inputs(70, batch=3, H=1, each_step=True, lengths=lengths)
    beyond = torch.arange(70, device=DEVICE) >= v["lengths"][:, None]
    bad = dict(v)
    for name in ("x", "dt", "A", "B", "C"):
        bad[name] = v[name].masked_fill(beyond.reshape(3, 70, *[1] * (v[name].ndim - 2)), torch.nan)

    def valid(found: tuple[Any, ...]) -> list[Any]:
        return [x[~beyond] if x.shape[:2] == beyond.shape else x for x in found]

    close(valid(gradients(bad)), valid(gradients(generic(v))))


def test_any_strides():
    v = inputs(66, G=2)
    other = {name: x if x.ndim < 3 else x.transpose(1, 2).contiguous().transpose(1, 2) for name, x in v.items()}
    close(gradients(other), gradients(v))
    expanded = v | {"B": v["B"][:, :, :1].expand(v["B"].shape)}
    close(outputs(expanded), outputs(generic(expanded)))


@pytest.mark.parametrize("large", [50.0, 200.0, 1e30])
def test_small_gates_keep_their_digits_beside_large_ones(large: float):
    v = inputs(70, H=1)
    steps = torch.where(torch.arange(70, device=DEVICE) % 7 == 3, large, 1e-4)[None, :, None]
    v |= {"dt": steps, "A": -torch.ones(1, device=DEVICE), "x": v["x"] / steps[..., None]}  # so that all inputs count
    close(gradients(v, ("B", "C", "initial")), gradients(generic(v), ("B", "C", "initial")), 2e-6)
    found, wanted = (gradients(w, ("dt",))[2][steps < 1] for w in (v, generic(v)))
    close([found], [wanted])


def test_gradients_of_what_a_strong_decay_leaves_keep_their_digits():
    """Each that of its gate alone: far below the differences of the others' sums."""
    L = 20
    g = torch.full((1, L, 1), -0.1)
    g[0, 10] = -20.0
    x, B, C, first = (inputs(L, H=1)[name] for name in ("x", "B", "C", "initial"))
    arrays = [v.to(DEVICE) for v in (x, g, B, C, first)]
    leaves = [v.double().requires_grad_() for v in arrays]
    y, state = ssm_core.gated.ssd._ssd(*leaves, segments=Segments(leaves[0].shape[1]), chunk=4, backend="generic")
    wanted = torch.autograd.grad(y.sum() + state.sum(), leaves[1])[0][0, 10, 0]
    ones = torch.ones_like(arrays[0]), torch.ones_like(first)
    found = triton_duality.backward(*arrays, None, None, *ones)[1][0, 10, 0]
    assert 0 < abs(wanted) < 1e-7
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=0)


def test_gradients_of_some_inputs():
    v = inputs(20)
    for name in SIGNALS:
        close(gradients(v, (name,))[2:], gradients(generic(v), (name,))[2:])


def test_derivatives_of_derivatives(calls: list[str]):
    v = inputs(66, batch=2, lengths=torch.tensor([66, 9]), reset=at(66, 4, 65).repeat(2, 1))

    def curvature(v: Tensors) -> tuple[Any, ...]:
        return gradients(v, run=lambda v: [x**2 for x in slopes(v)])[6:]

    def slopes(v: Tensors) -> tuple[Any, ...]:
        found = outputs(v)
        return torch.autograd.grad(sum((x**3).sum() for x in found), [v[n] for n in SIGNALS], create_graph=True)

    close(curvature(v), curvature(generic(v)), 1e-4)
    assert calls == ["forward", "backward"]  # of the cubes; the slopes are those of the generic body


def test_inputs_that_depend_on_each_other():
    """No gradient is counted twice where derivatives are differentiated again."""
    x = inputs(9, H=1, P=3, N=3)["x"].requires_grad_()

    def slope(x: Any) -> Any:
        rows = 2 * x
        dt = torch.full((1, 9, 1), 0.3, device=DEVICE, dtype=x.dtype)
        y = ssm_core.ssd(x, dt, -torch.ones_like(x[0, 0, :, 0]), rows, rows)
        return torch.autograd.grad((y**2).sum(), x, create_graph=True)[0]

    close([slope(x)], [slope(x.detach().double().requires_grad_())], 1e-5)


@deprecated_by_torch
def test_transforms_take_the_generic_body(calls: list[str]):
    v = inputs(9, H=1)

    def run(x: Any, dt: Any) -> Any:
        return ssm_core.ssd(**v | {"x": x, "dt": dt})

    def cost(x: Any, dt: Any) -> Any:
        return (run(x, dt) ** 2).sum()

    x, dt = v["x"], v["dt"]
    with ssm_core.use_backend("generic"):
        leaves = x.clone().requires_grad_(), dt.clone().requires_grad_()
        wanted = torch.autograd.grad(cost(*leaves), leaves)
        y = run(x, dt)
        moved = (run(x, dt + 1e-3) - run(x, dt - 1e-3)) / 2e-3
    close(torch.func.grad(cost, (0, 1))(x, dt), wanted)
    close([torch.func.vmap(run)(x[None], dt[None])[0]], [y])
    close([torch.func.jvp(run, (x, dt), (torch.zeros_like(x), torch.ones_like(dt)))[1]], [moved], 1e-3)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(dt, torch.ones_like(dt))
        close([torch.autograd.forward_ad.unpack_dual(run(x, dual)).tangent], [moved], 1e-3)
    assert calls == []


def test_batches_of_gradients():
    v = inputs(9, H=1)
    leaf = v["x"].requires_grad_()
    ways = torch.stack([torch.ones_like(leaf), leaf.detach()])

    def slopes() -> Any:
        return torch.autograd.grad(ssm_core.ssd(**v), leaf, ways, is_grads_batched=True)

    found = slopes()
    with ssm_core.use_backend("generic"):
        close(found, slopes())


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # PyTorch's own
@pytest.mark.parametrize("masks", [{}, {"lengths": torch.tensor([66, 9]), "reset": at(66, 4).repeat(2, 1)}])
def test_torch_compile(masks: Tensors, calls: list[str]):
    torch.compiler.reset()
    v = inputs(66, batch=2, **masks)
    found = gradients(v, run=torch.compile(outputs, fullgraph=True, backend="aot_eager"))
    close(found, gradients(v))
    assert calls == ["forward", "backward"] * 2


def test_results_are_the_same_on_every_run():
    v = inputs(70, H=2)
    for one, other in zip(gradients(v), gradients(v), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("given", [{"dtype": torch.float64}, {"N": 257}, {"P": 257}, {"L": 0}])
def test_what_is_left_to_the_generic_body(given: dict[str, Any], calls: list[str]):
    dtype = given.pop("dtype", torch.float32)
    v = {name: x.to(dtype) for name, x in inputs(**{"L": 2} | given).items()}
    assert outputs(v)[0].shape == v["x"].shape
    assert calls == []


def test_the_layer(calls: list[str]):
    torch.manual_seed(0)
    layer = Mamba2(8, d_state=4, head_dim=4).to(DEVICE)
    u = inputs(66, P=8, H=1)["x"][:, :, 0]

    def run() -> tuple[Any, ...]:
        layer.zero_grad()
        y = layer(u)
        (y**2).sum().backward()
        return (y, *(p.grad for p in layer.parameters()))

    found = run()
    assert calls == ["forward", "backward"]
    with ssm_core.use_backend("generic"):
        close(found, run(), 1e-5)
    assert len(calls) == 2
