"""The Triton kernels of the selective scan against the generic body, on a GPU or through Triton's interpreter."""

from __future__ import annotations

import os
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("no GPU: run `nox -s triton`, which uses Triton's interpreter", allow_module_level=True)

import ssm_core  # noqa: E402
from ssm_core import selective_scan  # noqa: E402
from ssm_core.backends.torch import gpu_kernels  # noqa: E402
from ssm_core.backends.torch.selective import body as selective  # noqa: E402
from ssm_core.backends.torch.selective import triton_kernels as triton_selective  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
T, H, N, L = 4, 5, 3, 6  # of a small tile, and of the inputs

# The interpreter meets NaN, and PyTorch's own forward mode and compiler do what PyTorch advises against.
pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning"),
]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4 steps and 2 channels: the interpreter is slow."""

    def tile(states: int, channels: int) -> tuple[int, int, int, int]:
        _, D, N, warps = chosen(states, channels)
        return T, min(2, D), N, warps

    chosen = selective.tile
    for module in (selective, triton_selective):
        monkeypatch.setattr(module, "tile", tile)


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that were called."""
    found: list[str] = []

    def counted(name: str) -> Any:
        run = getattr(triton_selective, name)
        return lambda *arguments: found.append(name) or run(*arguments)

    for dtype in (torch.float32, torch.float64):  # the probe of each calls them too
        assert gpu_kernels.kernels("selective", DEVICE, dtype) is triton_selective
    for name in ("forward", "backward"):
        monkeypatch.setattr(triton_selective, name, counted(name))
    return found


def draw(
    *, B: Any = None, C: Any = None, batch: int = 1, H: int = H, N: int = N, L: int = L, initial: bool = True,
    dtype: torch.dtype = torch.float64,
) -> dict[str, torch.Tensor]:  # fmt: skip
    """Inputs. B and C have a number of groups, or are "constant", or are shared by all channels."""
    generator = torch.Generator().manual_seed(L)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(DEVICE, dtype)

    def rows(kind: Any) -> torch.Tensor:
        return normal(H, N) if kind == "constant" else normal(batch, *(() if kind is None else (kind,)), N, L)

    found = {"u": normal(batch, H, L), "dt": normal(batch, H, L).sigmoid(), "A": -normal(H, N).exp()}
    return found | {"B": rows(B), "C": rows(C)} | ({"initial": normal(batch, H, N)} if initial else {})


def weights(*arrays: torch.Tensor) -> list[torch.Tensor]:
    return [torch.linspace(-1, 2, x.numel(), dtype=x.dtype, device=x.device).reshape(x.shape) for x in arrays]


def run(v: dict[str, torch.Tensor], needed: str = "", within: Any = 1.0, **options: Any) -> list[torch.Tensor]:
    """y, the last state, and the gradients of all inputs, or of those named."""
    names = needed.split() or list(v)
    leaves = {n: x.detach().requires_grad_(n in names) for n, x in v.items()}
    y, state = selective_scan(**leaves, return_state=True, **options)
    y = y * within
    weight = weights(y, state)
    grads = torch.autograd.grad((weight[0] * y).sum() + (weight[1] * state).sum(), [leaves[n] for n in names])
    return [y.detach(), state.detach(), *grads]


def agree(found: Any, wanted: Any, **tolerance: float) -> None:
    for x, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(x, right, **tolerance or {"rtol": 1e-9, "atol": 1e-9})


def close(v: dict[str, torch.Tensor], calls: list[str], needed: str = "", **options: Any) -> None:
    """The kernels run, and find what the generic body does."""
    calls.clear()
    found = run(v, needed, **options)
    assert calls == ["forward", "backward"]
    with ssm_core.use_backend("generic"):
        agree(found, run(v, needed, **options))


@pytest.mark.parametrize("length", [1, T - 1, T, T + 3, 3 * T + 1])
def test_lengths_around_the_tile(length: int, calls: list[str]):
    close(draw(L=length), calls)
    close(draw(L=length, N=2, initial=False, batch=2), calls)


ROWS = [("constant", "constant"), ("constant", 2), (3, "constant"), (2, 3), (6, None), (1, 2)]


@pytest.mark.parametrize(("B", "C"), ROWS)
def test_rows_of_groups(B: Any, C: Any, calls: list[str]):
    close(draw(B=B, C=C, H=6, batch=2), calls)


@pytest.mark.parametrize("rows", ["constant", None])
def test_resets(rows: Any, calls: list[str]):
    """At the first step, at both sides of the border of a tile, and at the last step."""
    reset = torch.zeros(3, L, dtype=torch.bool, device=DEVICE)
    reset[0, 0] = reset[0, T] = reset[1, T - 1] = reset[1, L - 1] = True
    close(draw(B=rows, C=rows, batch=3, H=2), calls, reset=reset)


@pytest.mark.parametrize("rows", ["constant", None])
def test_lengths_and_what_stands_beyond(rows: Any, calls: list[str]):
    """NaN beyond the lengths touches nothing, and gets gradients of zero."""
    lengths = torch.tensor([0, 2, T, L], device=DEVICE)
    inside = (torch.arange(L, device=DEVICE) < lengths[:, None])[:, None, :]
    reset = torch.zeros(4, L, dtype=torch.bool, device=DEVICE)
    reset[:, T] = True
    clean = draw(B=rows, C=rows, batch=4, H=2)
    dirty = {n: x.where(inside, torch.nan) if x.shape[-1] == L else x for n, x in clean.items()}
    options = {"lengths": lengths, "reset": reset, "within": inside}
    found = run(dirty, **options)
    assert calls == ["forward", "backward"]
    with ssm_core.use_backend("generic"):
        agree(found, run(clean, **options))


def test_packed_sequences_with_states(calls: list[str]):
    v = draw(B="constant", initial=False, L=9)
    v["initial"] = draw(batch=3)["initial"]
    close(v, calls, cu_seqlens=torch.tensor([0, 2, 2, 9], device=DEVICE))


def test_any_strides(calls: list[str]):
    """Memory with time first, parts of wider arrays, and steps that are all the same."""
    v = draw(B=2, C=2, H=6, batch=2)
    v["u"] = v["u"].mT.contiguous().mT
    v["dt"] = v["dt"][:, :, :1].expand(-1, -1, L)
    for name in "BC":
        v[name] = torch.cat([v[name]] * 2, dim=2).movedim(-1, 1).contiguous().movedim(1, -1)[:, :, :N]
    v["A"], v["initial"] = (torch.cat([x, x], dim=-1)[..., ::2][..., :N] for x in (v["A"], v["initial"]))
    close(v, calls)
    y = selective_scan(**v)
    assert y.stride() == v["u"].stride()
    negative = v | {"u": torch.view_as_complex(torch.stack([v["u"]] * 2, dim=-1)).conj().imag}
    agree([selective_scan(**negative)], [selective_scan(**v | {"u": -v["u"]})])


def test_gradients_that_are_asked_for(calls: list[str]):
    v = draw(B=1, C="constant")
    for needed in ("u", "C", "dt A", "B initial"):
        close(v, calls, needed)
    calls.clear()
    selective_scan(**v)
    assert calls == ["forward"]


def test_gradients_of_one_of_the_results():
    v = draw()
    for which in (0, 1):
        both = []
        for backend in ("auto", "generic"):
            leaves = [x.detach().requires_grad_() for x in v.values()]
            with ssm_core.use_backend(backend):
                found = selective_scan(**dict(zip(v, leaves, strict=True)), return_state=True)[which]
            both.append(torch.autograd.grad(found.sum(), leaves, materialize_grads=True))
        agree(*both)


def test_single_precision_and_half(calls: list[str]):
    v = draw(batch=2, L=21, dtype=torch.float32)
    close_to = {"rtol": 2e-5, "atol": 2e-5}
    with ssm_core.use_backend("generic"):
        wanted = run({n: x.double() for n, x in v.items()})
    found = run(v)
    assert {x.dtype for x in found} == {torch.float32}
    agree([x.double() for x in found], wanted, **close_to)
    half = {n: x.bfloat16() for n, x in v.items()}
    calls.clear()
    y = selective_scan(**half)
    assert (calls, y.dtype) == (["forward"], torch.bfloat16)
    assert torch.equal(y, selective_scan(**{n: x.float() for n, x in half.items()}).bfloat16())


def test_results_are_the_same_on_every_run():
    v = draw(batch=2, dtype=torch.float32)
    assert all(torch.equal(x, y) for x, y in zip(run(v), run(v), strict=True))


def twice(v: dict[str, torch.Tensor], **options: Any) -> Any:
    """Gradients of a function of the gradients."""
    leaves = [x.detach().requires_grad_() for x in v.values()]
    y, state = selective_scan(**dict(zip(v, leaves, strict=True)), return_state=True, **options)
    first = torch.autograd.grad((y**2).sum() + state.sum(), leaves, create_graph=True)
    weight = weights(*first)
    return torch.autograd.grad(sum((w * x).sum() for w, x in zip(weight, first, strict=True)), leaves)


@pytest.mark.parametrize("chunk", [None, 3])
def test_second_derivatives(chunk: int | None, calls: list[str]):
    v = draw(B=1, C="constant", H=2, N=2)
    found = twice(v, chunk=chunk)
    assert calls[:1] == ["forward"]
    with ssm_core.use_backend("generic"):
        agree(found, twice(v, chunk=chunk))


def test_second_derivatives_where_inputs_depend_on_each_other():
    """And where one is another."""

    def found() -> Any:
        u = draw(H=N)["u"].sigmoid().requires_grad_()
        A = -draw(H=N)["A"].exp()
        first = torch.autograd.grad(selective_scan(u, u, A, u, u * u).sum(), u, create_graph=True)[0]
        return first.detach(), *torch.autograd.grad((first**2).sum(), u)

    once = found()
    with ssm_core.use_backend("generic"):
        agree(once, found())


def test_transforms_of_torch_func_take_the_generic_body(calls: list[str]):
    v, func = draw(H=2, N=2), torch.func
    names = list(v)

    def loss(*arrays: torch.Tensor) -> Any:
        y, state = selective_scan(**dict(zip(names, arrays, strict=True)), return_state=True)
        return (y**2).sum() + state.sum()

    given, all_of_them = tuple(v.values()), tuple(range(len(v)))
    transforms = (
        lambda: func.grad(loss, all_of_them)(*given),
        lambda: func.jvp(loss, given, given),
        lambda: func.vmap(func.grad(loss, all_of_them))(*(torch.stack([x, x / 2]) for x in given)),
    )
    for transform in transforms:
        found = transform()
        with ssm_core.use_backend("generic"):
            agree(found, transform())
    with torch.autograd.forward_ad.dual_level():
        duals = [torch.autograd.forward_ad.make_dual(x, x) for x in given]
        slope = torch.autograd.forward_ad.unpack_dual(loss(*duals)).tangent
    torch.testing.assert_close(slope, func.jvp(loss, given, given)[1])
    assert calls == []


def test_a_compiled_vmap_takes_the_generic_body(calls: list[str]):
    torch.compiler.reset()
    v = {n: torch.stack([x, x / 2]) for n, x in draw(H=2, N=2).items()}
    mapped = torch.vmap(lambda v: selective_scan(**v))
    agree([torch.compile(mapped, fullgraph=True, backend="eager")(v)], [mapped(v)])
    assert calls == []


def test_batches_of_gradients(calls: list[str]):
    v = draw(H=2, N=2)
    leaves = [x.requires_grad_() for x in v.values()]
    y = selective_scan(**v)
    several = torch.stack(weights(y, y)) * torch.tensor([1.0, 3.0], device=DEVICE).reshape(2, 1, 1, 1)
    found = torch.autograd.grad(y, leaves, several, is_grads_batched=True, retain_graph=True)
    one = torch.autograd.grad(y, leaves, several[1])
    assert calls == ["forward", "backward"]
    agree([x[1] for x in found], one)


def test_compiled(calls: list[str]):
    """Forward and backward in one graph each, for a length that varies too."""
    torch.compiler.reset()
    options = {"reset": torch.zeros(2, 9, dtype=torch.bool, device=DEVICE), "dt_softplus": True, "return_state": True}

    def scan(v: dict[str, torch.Tensor], reset: torch.Tensor) -> Any:
        return selective_scan(**v, **options | {"reset": reset})

    compiled = torch.compile(scan, fullgraph=True, backend="aot_eager")
    for length in (9, 7, 5):
        results = []
        for f in (compiled, scan):
            calls.clear()
            leaves = {n: x.requires_grad_() for n, x in draw(B=1, C="constant", H=2, batch=2, L=length).items()}
            y, state = f(leaves, options["reset"][:, :length])
            weight = weights(y, state)
            loss = (weight[0] * y).sum() + (weight[1] * state).sum()
            results.append([y, state, *torch.autograd.grad(loss, list(leaves.values()))])
            assert calls == ["forward", "backward"]
        agree(*results)


class Whole(torch.nn.Module):
    def forward(self, v: dict[str, torch.Tensor]) -> Any:
        return selective_scan(**v, return_state=True)


def test_exported(calls: list[str]):
    """A program that another process may load without this package: no kernels, and no operators of its own."""
    v = draw(H=2)
    with torch.no_grad():
        wanted = Whole()(v)
        for strict in (True, False):
            program = torch.export.export(Whole(), (v,), strict=strict)
            assert not [node for node in program.graph.nodes if "ssm_core" in str(node.target)]
            calls.clear()
            agree(program.module()(v), wanted)
            assert calls == []


@pytest.mark.parametrize("around", ["inference", "checkpoint"])
def test_the_first_use_may_be_anywhere(around: str, calls: list[str]):
    """The probe runs then."""
    gpu_kernels._checked.cache_clear()
    calls.clear()
    v = draw(H=2, N=2, L=1)
    if around == "inference":
        with torch.inference_mode():
            selective_scan(**v)
    else:
        leaves = {n: x.requires_grad_() for n, x in v.items()}
        torch.utils.checkpoint.checkpoint(Whole(), leaves, use_reentrant=False)[0].sum().backward()
    for dtype in (torch.float32, torch.float64):  # the probe of each calls them too
        assert gpu_kernels.kernels("selective", DEVICE, dtype) is triton_selective
    assert len(calls) > 4


def test_what_the_kernels_do_not_take(calls: list[str]):
    v = draw(H=2, N=2)
    for option in ({"discretization": "zoh"}, {"discretization": "trapezoidal", "initial": None}):
        selective_scan(**v | option)
    selective_scan(**v | {"A": v["A"] + 1j})
    wide = draw(H=1, N=selective.STATES + 1, L=1)
    selective_scan(**wide)
    assert calls == []


def test_no_steps(calls: list[str]):
    y, state = selective_scan(**draw(L=0), return_state=True)
    assert y.shape == (1, H, 0)
    assert torch.equal(state, draw(L=0)["initial"])


def test_the_layer_takes_the_kernels(calls: list[str]):
    layer = ssm_core.layers.Mamba(d_model=2, d_state=3, expand=1)
    u = torch.randn(2, L, 2, device=DEVICE)
    params = {n: torch.as_tensor(x).to(DEVICE).requires_grad_() for n, x in layer.initial_parameters(seed=0).items()}
    grads = []
    for backend in ("auto", "generic"):
        with ssm_core.use_backend(backend):
            grads.append(torch.autograd.grad(layer.apply(params, u).sum(), list(params.values())))
    assert calls == ["forward", "backward"]
    agree(*grads, rtol=1e-4, atol=1e-5)


def test_probe(monkeypatch: pytest.MonkeyPatch):
    """With tiles as large as on a GPU."""
    monkeypatch.undo()
    assert gpu_kernels.disagreement(triton_selective.probe, DEVICE) is None


@pytest.mark.parametrize("channels", [1, 3, 16, 2048])
def test_tiles(channels: int, monkeypatch: pytest.MonkeyPatch):
    """16 numbers a thread, no more channels than there are, and states between tiles at most 8 times the size of u."""
    monkeypatch.undo()
    for states in range(1, selective.STATES + 1):
        T, D, N, warps = selective.tile(states, channels)
        assert N // 2 < states <= N <= 8 * T
        assert channels > D // 2
        assert T * D * N // warps <= 16 * 32
