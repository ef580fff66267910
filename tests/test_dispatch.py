"""Which framework an array is of, and when its fused implementation is called."""

from __future__ import annotations

import runpy
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import array_api_strict
import numpy as np
import pytest

import ssm_core
from ssm_core._arrays import dispatch as _dispatch
from ssm_core._arrays.dispatch import dispatched, framework
from ssm_core.backends import numpy as numpy_backend

ROOT = Path(__file__).parents[1]


class OwnArray(np.ndarray):
    """A user's subclass."""


class OwnerOfAShape:
    shape = (1,)


def test_numpy_its_scalars_and_subclasses():
    assert framework(np.ones(1)) == framework(np.float32(1)) == framework(np.ones(1).view(OwnArray)) == "numpy"
    assert framework(np.ma.ones(1)) == "numpy"


def test_torch_its_parameters_and_subclasses():
    torch = pytest.importorskip("torch")

    class Own(torch.Tensor):
        pass

    x = torch.ones(1)
    assert framework(x) == framework(torch.nn.Parameter(x)) == framework(x.as_subclass(Own)) == "torch"


def test_jax_its_tracers_and_flax_parameters():
    jax, nnx = pytest.importorskip("jax"), pytest.importorskip("flax.nnx")
    seen = []
    jax.jit(lambda x: seen.append((framework(x), _dispatch.is_traced(x))) or x)(jax.numpy.ones(1))
    assert seen == [("jax", True)]
    assert framework(jax.numpy.ones(1)) == framework(nnx.Param(jax.numpy.ones(1))) == "jax"
    assert not _dispatch.is_traced(jax.numpy.ones(1))


def test_flax_parameters_can_be_computed_with():
    jnp, nnx = pytest.importorskip("jax.numpy"), pytest.importorskip("flax.nnx")
    x = ssm_core.linear_scan(nnx.Param(jnp.full(3, 0.5)), nnx.Param(jnp.ones(3)), axis=0)
    np.testing.assert_allclose(np.asarray(x), [1.0, 1.5, 1.75])


@pytest.mark.parametrize(
    "x",
    [1.0, 1j, True, None, "numpy", [1.0], OwnerOfAShape(), array_api_strict.ones(1)],
    ids=lambda x: type(x).__name__,
)
def test_no_framework(x: object):
    assert framework(x) is None


def test_recognition_imports_nothing():
    code = (
        "import sys, ssm_core\n"
        "from ssm_core._arrays.dispatch import framework\n"
        "Tensor = type('Tensor', (), {'shape': (1,), '__module__': 'torch.somewhere'})\n"
        "assert framework(Tensor()) == 'torch'\n"
        "assert not {'torch', 'jax', 'flax', 'cupy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_layers_of_pytorch_import_no_compiler():
    """It takes as long as PyTorch itself, and whoever streams on a small machine needs none."""
    pytest.importorskip("torch")
    code = (
        "import sys, torch\n"
        "from ssm_core.adapters.torch import S4D, Mamba\n"
        "u = torch.zeros(1, 20, 8)\n"
        "S4D(8)(u).sum().backward()\n"
        "torch.set_grad_enabled(False)\n"
        "layer = Mamba(8)\n"
        "layer.step(u[:, 0], layer.initial_state(1))\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.fixture
def doubled(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A dispatched function whose generic body doubles, and whose fused NumPy one triples positive arrays."""

    @dispatched
    def _times(x: Any) -> Any:
        """The generic body."""
        return 2 * x

    def times(x: Any) -> Any:
        return 3 * x if (x > 0).all() else NotImplemented

    monkeypatch.setattr(numpy_backend, "times", times, raising=False)
    return _times


def test_the_fused_one_is_preferred(doubled: Any):
    assert doubled(np.ones(1)) == 3
    assert doubled.__doc__ == "The generic body."


def test_a_fused_one_may_decline(doubled: Any):
    assert doubled(-np.ones(1)) == -2


def test_an_array_library_without_a_backend_runs_the_generic_body(doubled: Any):
    assert float(doubled(array_api_strict.ones(()))) == 2
    assert doubled(1.0) == 2


def test_backend_of_one_call(doubled: Any):
    assert doubled(np.ones(1), backend="generic") == 2
    assert doubled(np.ones(1), backend="auto") == doubled(np.ones(1), backend=None) == 3
    with pytest.raises(ssm_core.OptionError, match=r"^times: unknown backend 'numpy'\. Known: 'generic', 'auto'\."):
        doubled(np.ones(1), backend="numpy")


def test_use_backend_nests_and_restores(doubled: Any):
    with ssm_core.use_backend("generic"):
        assert doubled(np.ones(1)) == 2
        assert doubled(np.ones(1), backend="auto") == 3
        with ssm_core.use_backend("auto"):
            assert doubled(np.ones(1)) == 3
        assert doubled(np.ones(1)) == 2
    assert doubled(np.ones(1)) == 3


def test_use_backend_restores_after_an_error(doubled: Any):
    with pytest.raises(KeyError), ssm_core.use_backend("generic"):
        raise KeyError
    assert doubled(np.ones(1)) == 3


def test_the_first_array_decides_also_inside_a_tuple(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(numpy_backend, "nested", lambda *args: "fused", raising=False)

    @dispatched
    def _nested(*args: Any) -> str:
        return "generic"

    assert _nested(None, (1.0, np.ones(1))) == "fused"
    assert _nested(None, (array_api_strict.ones(1),)) == "generic"


def test_import_errors_inside_a_backend_propagate():
    pytest.importorskip("torch")
    code = (
        "import sys, numpy, ssm_core\n"
        "sys.modules['array_api_compat.torch'] = None  # an import of it raises\n"
        "class Tensor(numpy.ndarray): __module__ = 'torch'\n"
        "x = numpy.ones(2).view(Tensor)\n"
        "try: ssm_core.linear_scan(x, x, axis=0)\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "array_api_compat" in done.stdout


@pytest.mark.parametrize("function", ["linear_scan", "convolve"])
def test_generic_and_fast_agree(function: str, xp: Any):
    a, b = xp.asarray([0.5, 0.25, 2.0]), xp.asarray([1.0, -1.0, 3.0])
    call = {"linear_scan": lambda: ssm_core.linear_scan(a, b, axis=0), "convolve": lambda: ssm_core.convolve(a, b)}
    fast = call[function]()
    with ssm_core.use_backend("generic"):
        np.testing.assert_allclose(np.asarray(call[function]()), np.asarray(fast))


def test_traced_generic_loops_are_refused_beyond_a_limit():
    jax = pytest.importorskip("jax")
    x = jax.numpy.ones(65)
    short = jax.jit(lambda b: ssm_core.linear_scan(0.5, b, axis=0, backend="generic"))
    assert short(x[:8]).shape == (8,)
    with pytest.raises(ssm_core.OptionError, match=r"^linear_scan: .* 65 steps.*limit 64.* leave out backend="):
        short(x)


@pytest.mark.parametrize("name", _dispatch.FRAMEWORKS)
def test_functions_named_are_there(name: str):
    pytest.importorskip(name)
    module = _dispatch.load(name)
    assert module.FUSED
    assert all(callable(getattr(module, name)) for name in module.FUSED)
    assert isinstance(module.NAMESPACE, types.ModuleType)


def test_show_backends(capsys: pytest.CaptureFixture[str]):
    ssm_core.show_backends()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["framework", "version", "fused", "functions", "devices"]
    rows = {line.split()[0]: line for line in lines[1:]}
    assert set(_dispatch.FRAMEWORKS) < rows.keys()
    assert np.__version__ in rows["numpy"]
    assert "linear_scan" in rows["numpy"]
    assert rows["numpy"].endswith("cpu")
    assert lines[-1] == "Every other array-API library runs the generic bodies."


@pytest.mark.parametrize("name", ["torch", "jax", "cupy"])
def test_show_backends_gives_the_reason_of_absence(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def absent(wanted: str) -> Any:
        if wanted == name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        raise ImportError("libsomething.so: cannot open shared object file")

    monkeypatch.setattr("ssm_core._arrays.report.load", absent)
    ssm_core.show_backends()
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert rows[name].endswith("not installed")
    assert rows["numpy"].endswith("not active: libsomething.so: cannot open shared object file")


def test_the_package_runs_as_a_program(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["ssm_core"])
    runpy.run_module("ssm_core", run_name="__main__")
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:5]] == list(_dispatch.FRAMEWORKS)
