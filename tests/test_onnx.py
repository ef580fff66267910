"""Steps and sequences exported to ONNX and run by onnxruntime, as on a device without PyTorch. Runs where both are
installed: `nox -s onnx`."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: nox -s onnx runs these tests")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: nox -s onnx runs these tests")

import onnx
import onnxruntime
import torch
from small import NAMES, options_of

from ssm_core import adapters, models
from ssm_core.adapters.torch.real_arithmetic import RealProgram

MODULES: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "S4D": ("S4D", (4,), {"d_state": 8}),
    "S4D_real": ("S4D", (4,), {"d_state": 4, "real": True, "init": "real"}),
    "S4": ("S4", (4,), {"d_state": 8}),
    "S5": ("S5", (4,), {"d_state": 8}),
    "LRU": ("LRU", (4,), {"d_state": 8}),
    "LinOSS": ("LinOSS", (4,), {"d_state": 4}),
    "Mamba": ("Mamba", (8,), {"d_state": 4}),
    "Falcon": ("Mamba", (8,), {"d_state": 4, "norm_epsilon": 1e-5}),
    "Mamba2": ("Mamba2", (8,), {"d_state": 4, "head_dim": 4, "n_groups": 2, "dt_limit": (0.01, 0.5)}),
    "Mamba3": ("Mamba3", (8,), {"d_state": 4, "head_dim": 4}),
    "SequenceModel": ("SequenceModel", (3, 2), {"d_model": 4, "n_layers": 2, "layer_options": {"d_state": 8}}),
    "MambaLM": ("MambaLM", (11, 8, 2), {"layer_options": {"d_state": 4}}),
    "Mamba2LM": ("Mamba2LM", (11, 8, 2), {"layer_options": {"d_state": 4, "head_dim": 4}, "tied": False}),
}
MODULES |= {name: (name, (4,), options_of(name)) for name in NAMES if name not in MODULES}
WHOLE: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {  # without steps, or with other ones
    "Hyena": ("Hyena", (4,), {"l_max": 256, "filter_order": 8}),
    "S4ND": ("S4ND", (4,), {"d_state": 4}),
    "S4D both ways": ("S4D", (4,), {"d_state": 4, "bidirectional": True}),
    "S4 both ways": ("S4", (4,), {"d_state": 4, "bidirectional": True}),
    "S5 both ways": ("S5", (4,), {"d_state": 4, "bidirectional": True}),
    "SaShiMi": ("SaShiMi", (11, 4, 1), {"layer_options": {"d_state": 4}}),
}
MODELS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "RWKV4LM": ("RWKV4LM", (11, 8, 1), {}),
    "RWKV7LM": ("RWKV7LM", (11, 8, 2), {"layer_options": {"head_dim": 4}}),
    "HGRN2LM": ("HGRN2LM", (11, 8, 1), {"layer_options": {"heads": 2}}),
    "XLSTMLM": ("XLSTMLM", (11, 8, 1), {"layer_options": {"heads": 2}}),
    "RecurrentGemmaLM": ("RecurrentGemmaLM", (11, 8, 3), {"attention_options": {"heads": 2, "window": 4}}),
    "model of GLA": (
        "LanguageModel",
        (11, 8, 1),
        {
            "layer": "GLA",
            "layer_options": {"heads": 2, "kv_heads": 1, "feature_map": "relu", "lower_bound": -0.5},
            "channel_mix": "gated_mlp",
        },
    ),
}
EVERY = MODULES | WHOLE | MODELS
STEPS = 20


def made(name: str) -> Any:
    """A module as if after some training, so that every parameter counts."""
    kind, sizes, options = EVERY[name]
    torch.manual_seed(0)
    module = getattr(adapters.torch, kind)(*sizes, **options)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.empty_like(p).uniform_(-0.2, 0.2))
    return module


def sequence(name: str, batch: int, length: int) -> Any:
    """Inputs (batch, length, ...): tokens for a language model."""
    kind, sizes, _ = EVERY[name]
    if issubclass(getattr(models, kind, object), models.LanguageModel) or name == "SaShiMi":
        return torch.randint(0, 11, (batch, length))
    return torch.randn(batch, length, *(7,) * (name == "S4ND"), sizes[0])


def signal(name: str, batch: int) -> Any:
    """For so many steps."""
    return sequence(name, batch, STEPS)


def exported(stepper: Any, u: Any, path: Path, **options: Any) -> onnxruntime.InferenceSession:
    """The program of a step, checked, and read again from its file."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own parts
        program = torch.onnx.export(stepper, (u, *stepper.initial_state(u.shape[0])), verbose=False, **options)
    program.save(path)
    onnx.checker.check_model(path)
    return onnxruntime.InferenceSession(path)


def run(session: onnxruntime.InferenceSession, *arrays: Any) -> list[np.ndarray]:
    names = [x.name for x in session.get_inputs()]
    return list(session.run(None, dict(zip(names, (np.asarray(x) for x in arrays), strict=True))))


@pytest.mark.parametrize("name", [*MODULES, *MODELS])
def test_steps_in_onnx(name: str, tmp_path: Path):
    """Twenty steps, equal to PyTorch's, and with real numbers alone."""
    module, u = made(name), signal(name, 2)
    stepper = adapters.torch.real_stepper(module)
    session = exported(stepper, u[:, 0], tmp_path / "step.onnx")
    assert {x.type for x in session.get_outputs()} == {"tensor(float)"}
    step, before, state = module.stepper(), module.initial_state(2), stepper.initial_state(2)
    with torch.no_grad():
        for k in range(STEPS):
            wanted, before = step(u[:, k], before)
            y, *state = run(session, u[:, k], *state)
            np.testing.assert_allclose(y, wanted.numpy(), rtol=1e-5, atol=1e-5)
        for x, z in zip(state, stepper.from_module(before), strict=True):
            np.testing.assert_allclose(x, z.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["S4D", "Mamba2LM", "RecurrentGemmaLM"])
def test_after_a_prompt(name: str, tmp_path: Path):
    """PyTorch runs the prompt at once, onnxruntime goes on, and PyTorch takes over again."""
    module, u = made(name), signal(name, 1)
    stepper = adapters.torch.real_stepper(module)
    session = exported(stepper, u[:, 0], tmp_path / "step.onnx")
    with torch.no_grad():
        wanted = module(u)
        _, state = module(u[:, :8], return_state=True)
        flat: Any = stepper.from_module(state)
        for k in range(8, 14):
            y, *flat = run(session, u[:, k], *flat)
            np.testing.assert_allclose(y, wanted[:, k].numpy(), rtol=1e-4, atol=1e-4)
        back = stepper.to_module(*map(torch.from_numpy, flat))
        np.testing.assert_allclose(module(u[:, 14:], state=back).numpy(), wanted[:, 14:].numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["S4D", "Mamba"])
def test_batches_of_any_size(name: str, tmp_path: Path):
    module = made(name)
    stepper = adapters.torch.real_stepper(module)
    u, batch = signal(name, 2), torch.export.Dim("batch")
    shapes = ({0: batch}, tuple({0: batch} for _ in stepper.initial_state(2)))
    session = exported(stepper, u[:, 0], tmp_path / "step.onnx", dynamic_shapes=shapes)
    for size in (1, 2, 5):
        u = signal(name, size)
        y, *_ = run(session, u[:, 0], *stepper.initial_state(size))
        with torch.no_grad():
            wanted, _ = module.step(u[:, 0], module.initial_state(size))
        np.testing.assert_allclose(y, wanted.numpy(), rtol=1e-5, atol=1e-5)


def test_a_language_model_writes_on(tmp_path: Path):
    """Greedy generation by onnxruntime alone."""
    module = made("MambaLM")
    stepper = adapters.torch.real_stepper(module)
    token = torch.tensor([3, 5])
    session = exported(stepper, token, tmp_path / "step.onnx")
    wanted = module.generate(token[:, None], 12).numpy()
    ids, state, found = token.numpy(), stepper.initial_state(2), []
    for _ in range(12):
        logits, *state = run(session, ids, *state)
        ids = logits.argmax(-1)
        found.append(ids)
    np.testing.assert_array_equal(np.stack(found, axis=1), wanted)


def whole(name: str, path: Path, fixed: bool = False, **options: Any) -> Any:
    """The program of a module for sequences of any batch and length, its file, and both run by onnxruntime."""
    module = made(name).eval()
    sizes = {0: torch.export.Dim("B", min=1, max=64), 1: torch.export.Dim("L", min=2, max=4096)}
    shapes = None if fixed else (sizes,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own parts
        program = adapters.torch.onnx_program(module, sequence(name, 2, 70), dynamic_shapes=shapes, **options)
    program.save(path)
    onnx.checker.check_model(path)
    session = onnxruntime.InferenceSession(path)
    for length in (70,) if fixed else (2, 64, 133):  # shorter than a chunk, and longer
        u = sequence(name, 2 if fixed else 3, length)
        with torch.no_grad():
            wanted = module(u)
        np.testing.assert_allclose(run(session, u)[0], wanted.numpy(), rtol=1e-4, atol=1e-5)
    return program


@pytest.mark.parametrize("name", [*NAMES, *sorted(WHOLE.keys() - {"SaShiMi"}), *MODELS, "SequenceModel", "MambaLM"])
def test_whole_sequences(name: str, tmp_path: Path):
    """In real arithmetic, and by operators that every runtime has."""
    whole(name, tmp_path / "layer.onnx")


@pytest.mark.parametrize("name", ["S4D", "S4D both ways", "SaShiMi"])
def test_fixed_lengths(name: str, tmp_path: Path):
    """By FFTs, two a layer: the spectra of kernels are computed at the export. Lengths of pools are whole steps."""
    program = whole(name, tmp_path / "layer.onnx", fixed=True)
    layers = 3 if name == "SaShiMi" else 1
    assert [node.op_type for node in program.model.graph].count("DFT") == 2 * layers


def test_complex_numbers_of_a_head_of_ones_own():
    """Arithmetic, sums, and arrays of other shapes, as a module around a layer may write them."""

    class Head(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = torch.complex(x, 1 - x)
            z = (2 - z) / (z + 3) + (z - 1) / 2 - (-z).conj()
            z = torch.cat([torch.stack([torch.exp(z * 1j), z], -1), z[..., None].expand(*z.shape, 2)], 0)
            z = z.reshape(z.shape[0], -1).view(z.shape[0], 2, -1).permute(0, 2, 1).transpose(0, 1).mT.contiguous()
            z = z.flip(0).flatten(1).unflatten(1, (2, -1)).sum(-1).unsqueeze(-1).squeeze(-1)
            z = torch.where(z.real > 0, z, 0 * z) @ z.mT
            return z.abs() + z.real - z.imag + torch.view_as_real(z).sum(-1)

    x = torch.linspace(0, 1, 12).reshape(3, 4)
    program = torch.export.export(Head(), (x,))
    torch.testing.assert_close(RealProgram(program)(x), Head()(x), rtol=1e-4, atol=1e-4)


def test_what_has_no_real_form():
    class Solved(torch.nn.Module):
        def forward(self, u: torch.Tensor) -> torch.Tensor:
            return torch.linalg.solve(torch.complex(u, u), u + 0j).real

    with pytest.raises(NotImplementedError, match=r"linalg_solve.* real numbers, such as torch.view_as_real"):
        adapters.torch.onnx_program(Solved(), torch.eye(3))


GATED, DELTA, TAPS = "LinearAttention gated", "LinearAttention gated_delta", "CausalConvWithState"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("RetNet", [GATED]),
        ("HGRN2", [GATED]),
        ("MLSTM", [GATED]),
        ("Mamba2", [TAPS, GATED]),
        ("DeltaNet", [TAPS] * 3 + [DELTA]),
        ("KDA", [TAPS] * 3 + [DELTA]),
        ("GDN2", [TAPS] * 3),
        ("RWKV6", []),
        ("model of GLA", [GATED]),
    ],
)
def test_operators_of_recurrences(name: str, wanted: list[str], tmp_path: Path):
    """From opset 27 on, where they fit: not for an erase gate, nor for a bonus."""
    program = whole(name, tmp_path / "layer.onnx", opset_version=27)
    found = [
        " ".join([node.op_type, *(a.value for a in node.attributes.values() if a.name == "update_rule")])
        for node in program.model.graph
        if node.op_type in ("LinearAttention", "CausalConvWithState")
    ]
    assert found == wanted
