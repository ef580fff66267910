"""Programs of PyTorch for lengths, batches and rates that change: compiled, exported, loaded without this package."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from directories import FAMILIES
from small import NAMES, options_of

import ssm_core
from ssm_core import adapters

WIDTH = 4
RECURRENCES = (
    "S4D",
    "LinOSS",
    "RTF",
    "Mamba",
    "Mamba2",
    "GLA",
    "KDA",
    "MLSTM",
    "RWKV4",
    "LocalAttention",
)  # the others run the same code

pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    # Of PyTorch's tracer, about what it does itself.
    pytest.mark.filterwarnings(
        "ignore:.*should not be instantiated",
        "ignore:The .grad attribute of a Tensor",
        "ignore:Dynamo detected a call",
        "ignore:.torch.jit.* is deprecated",
    ),
]


RECORDED = ("S4D", "Mamba2", "Mamba", "hgrn2")  # forms of chunks, and a loop: with what their gradients need


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="torch is not installed")


@pytest.fixture
def unrecorded(request: pytest.FixtureRequest, torch: Any) -> Iterator[None]:
    """Without gradients, but for RECORDED: PyTorch derives a loop while it traces it, which takes twice as long."""
    with torch.set_grad_enabled(request.node.callspec.params.get("name") in RECORDED):
        yield


def layer(name: str) -> Any:
    return getattr(adapters.torch, name)(WIDTH, **options_of(name))


def export(torch: Any, module: Any, example: Any) -> Any:
    sizes = {0: torch.export.Dim("B", min=1, max=64), 1: torch.export.Dim("L", min=2, max=4096)}
    return torch.export.export(module, (example,), dynamic_shapes=(sizes,))


def counted(torch: Any, module: Any, dynamic: bool | None = None) -> tuple[Callable[..., Any], list[Any]]:
    """The module compiled in one graph, which PyTorch runs as it is, and a list of the programs that come of it."""
    programs: list[Any] = []

    def keep(graph: Any, _: Any) -> Any:
        programs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    return torch.compile(module, backend=keep, fullgraph=True, dynamic=dynamic), programs


@pytest.mark.usefixtures("unrecorded")
@pytest.mark.parametrize("name", RECURRENCES)
def test_one_program_for_many_lengths(name: str, torch: Any):
    """Compiled once for lengths that are not known, in whole chunks and in parts of one."""
    module = layer(name)
    run, programs = counted(torch, module, dynamic=True)
    for length in (30, 31, 133):
        u = torch.randn(2, length, WIDTH)
        found, right = (f(u, return_state=True) for f in (run, module))  # the state is that of the last step
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)
    assert len(programs) <= 2  # short sequences are chunks of fewer steps


LANGUAGE_MODELS = ("hgrn2", "rwkv7 bare", "rwkv", "xlstm biases", "recurrent_gemma")


@pytest.mark.usefixtures("unrecorded")
@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_one_program_for_prompts_of_many_lengths(name: str, torch: Any):
    """Blocks, and what they share, are made before a program is traced, however its numbers are taken."""
    definition = replace(FAMILIES[name], n_layers=1)
    module = getattr(adapters.torch, definition.name)(**definition.options())
    torch._dynamo.reset()
    run = torch.compile(module, backend="eager", fullgraph=True, dynamic=True)
    for length in (7, 133):
        ids = torch.randint(0, definition.vocab_size, (2, length))
        torch.testing.assert_close(run(ids), module(ids), rtol=1e-4, atol=1e-5)


def test_loops_of_an_unknown_length_are_compiled_to_code(torch: Any):
    """By Inductor, which makes room for their results; numbers that are taken for variables are no hindrance."""
    bonus = torch.zeros(2)

    def means(u: Any) -> Any:
        return ssm_core.rwkv4(u, u, bonus - 0.1, bonus, return_state=True)

    torch._dynamo.reset()
    run = torch.compile(means, fullgraph=True, dynamic=True)
    for length in (30, 133):
        u = torch.randn(2, length, 2)
        torch.testing.assert_close(run(u), means(u), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["S4D", "Mamba2"])
def test_few_programs_for_lengths_and_rates(name: str, torch: Any):
    """Compiled as it comes: the second length or rate makes the program for all others."""
    module = layer(name)
    run, programs = counted(torch, module)
    for length in range(40, 100, 2):
        run(torch.randn(2, length, WIDTH))
    for rate in (2.0, 0.5, 0.25):
        u = torch.randn(2, 50, WIDTH)
        torch.testing.assert_close(run(u, rate=rate), module(u, rate=rate), rtol=1e-4, atol=1e-5)
    assert len(programs) <= 6
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"OptionError.*a positive number"):
        run(torch.randn(2, 50, WIDTH), rate=-1.0)


@pytest.mark.parametrize("name", NAMES)
def test_exported_for_any_batch_and_length(name: str, torch: Any):
    """In PyTorch's own operators, so that the program needs nothing of this package.

    Run without gradients, for which PyTorch would derive the loops of the program anew in every call.
    """
    module = layer(name)
    program = export(torch, module, torch.randn(2, 70, WIDTH))
    assert not any("ssm_core" in str(node.target) for node in program.graph.nodes)
    run = program.module()
    for length in (2, 64, 133):
        u = torch.randn(3, length, WIDTH)
        with torch.no_grad():
            torch.testing.assert_close(run(u), module(u), rtol=1e-4, atol=1e-5)


MODELS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "MambaLM": ((16, 8, 1), {}),
    "SequenceModel": ((4, 4, 8, 1), {}),
    "SaShiMi": ((16, 4, 1), {"layer_options": {"d_state": 4}, "unet": True}),  # of levels of other lengths
}


def model(name: str, torch: Any) -> tuple[Any, Any]:
    """A module, and what it runs on."""
    sizes, options = MODELS[name]
    made = getattr(adapters.torch, name)(*sizes, **options)
    return made, torch.randn(3, 133, 4) if name == "SequenceModel" else torch.randint(0, 16, (3, 133))


@pytest.mark.parametrize("name", MODELS)
def test_exported_models(name: str, torch: Any):
    module, x = model(name, torch)
    program = export(torch, module, x[:2, :70].clone())  # of strides that are its own
    torch.testing.assert_close(program.module()(x), module(x), rtol=1e-4, atol=1e-5)


def test_one_program_for_pools_of_any_length(torch: Any):
    module = adapters.torch.SaShiMi(16, 4, 1, layer_options={"d_state": 4}, pool=(2, 3)).requires_grad_(False)
    run, programs = counted(torch, module, dynamic=True)
    for length in (7, 12, 133):
        ids = torch.randint(0, 16, (2, length))
        for ends in ([length, length], [5, length]):
            options = {} if ends[0] == length else {"lengths": torch.tensor(ends)}
            (y, found), (z, right) = (f(ids, return_state=True, **options) for f in (run, module))
            torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)
            for row, end in enumerate(ends):
                torch.testing.assert_close(y[row, :end], z[row, :end], rtol=1e-4, atol=1e-4)
    assert len(programs) <= 4


def test_one_program_for_lengths_within_any_length(torch: Any):
    model = adapters.torch.SequenceModel(4, 2, 4, 1, layer_options={"d_state": 4})
    torch._dynamo.reset()
    run = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    for length in (9, 133):
        u, lengths = torch.randn(2, length, 4), torch.tensor([4, length])
        torch.testing.assert_close(run(u, lengths=lengths), model(u, lengths=lengths), rtol=1e-4, atol=1e-5)


ALONE = """
import sys
sys.modules["ssm_core"] = None
import torch
for name in sys.argv[1:]:
    run, (u, y) = torch.export.load(f"{name}.pt2").module(), torch.load(f"{name}.pt")
    torch.testing.assert_close(run(u), y, rtol=1e-4, atol=1e-5)
"""


def test_exported_files_run_without_this_package(torch: Any, tmp_path: Path):
    """All in one process, whose import of PyTorch takes longest."""
    names = ("S4D", "Mamba")
    for name in names:
        module, u = layer(name), torch.randn(3, 133, 4)
        torch.export.save(export(torch, module, torch.randn(2, 70, WIDTH)), tmp_path / f"{name}.pt2")
        torch.save((u, module(u).detach()), tmp_path / f"{name}.pt")
    command = [sys.executable, "-c", ALONE, *names]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_scan_of_unknown_length_ends_in_its_last_state(torch: Any):
    """Not in that of the zeros which fill the last chunk."""
    a, ones = torch.tensor([0.5, 0.9]), torch.ones(2)
    torch._dynamo.reset()
    run = torch.compile(ssm_core.diagonal_scan, backend="eager", fullgraph=True, dynamic=True)
    for length in (30, 31, 133):
        u = torch.randn(length)
        for found, right in zip(run(u, a, ones, ones), ssm_core.diagonal_scan(u, a, ones, ones), strict=True):
            torch.testing.assert_close(found, right)


def test_two_directions_of_a_rational_layer(torch: Any):
    """Exported for lengths below and above the number of its coefficients."""
    module = adapters.torch.RTF(WIDTH, d_state=4, bidirectional=True)
    program = export(torch, module, torch.randn(2, 70, WIDTH)).module()
    for length in (3, 133):
        u = torch.randn(3, length, WIDTH)
        torch.testing.assert_close(program(u), module(u), rtol=1e-4, atol=1e-5)
