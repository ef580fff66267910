"""What is written from the definitions: the modules of every framework, and the lists of layers and modules."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from modules import FRAMEWORKS, Framework, close, host, signal

from ssm_core import layers, models
from ssm_core.adapters import generate
from ssm_core.layers.parameters import Parameter, constant, normal, uniform
from ssm_core.systems import records

FILES = generate.files()


@dataclass(frozen=True)
class Averages(layers.TimeInvariant):
    """Moving averages, written here as a user would.

    >>> import numpy
    >>> layer = Averages(4, scales=2)
    >>> layer.apply(layer.initial_parameters(), numpy.zeros((2, 5, 4))).shape
    (2, 5, 4)
    """

    d_model: int
    scales: int = 3
    limits: tuple[float, ...] = (0.5, float("inf"))
    notes: dict[str, Any] = field(default_factory=dict)
    channels: int = 1
    bidirectional: bool = False
    activation: str | None = None
    output: str | None = None
    skip: bool = True

    discretization: ClassVar[str] = "zoh"  # type: ignore[misc]

    n_states = property(lambda self: self.scales)
    real_states = property(lambda self: True)

    def parameters(self) -> tuple[Parameter, ...]:
        shape = (self.d_model, self.scales)
        draws = uniform("log_decay", shape, -3.0, 0.0, no_weight_decay=True), normal("C", (self.rows(), *shape))
        return (*draws, *self.outer_parameters())

    def system(self, params: Any, xp: Any) -> Any:
        poles = -xp.exp(params["log_decay"])
        return records.Diagonal(poles, xp.ones_like(poles), params["C"]), xp.ones_like(poles[:, 0])


@dataclass(frozen=True)
class Gain(layers.Layer):
    """A layer of no kind but the contract's."""

    d_model: int

    def parameters(self) -> tuple[Parameter, ...]:
        return (constant("gain", (self.d_model,), lambda: 2.0),)

    def apply(self, params: Any, u: Any, **options: Any) -> Any:
        return (params["gain"] * u, ()) if options["return_state"] else params["gain"] * u

    def initial_state(self, params: Any, batch: int) -> Any:
        return ()

    def stepper(self, params: Any, *, rate: Any = 1.0) -> Any:
        return lambda u_t, state: (params["gain"] * u_t, state)


@dataclass(frozen=True)
class Doubled(models.SequenceModel):
    """A model of users."""


@pytest.fixture
def user_layers() -> Iterator[None]:
    """Definitions of users, registered; and nothing left of them afterwards."""
    own = (Averages, Gain, Doubled)
    layers.LAYERS.update({cls.__name__: cls for cls in own})
    yield
    for cls in own:
        del layers.LAYERS[cls.__name__]


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> Framework:
    return Framework(request.param)


def build(framework: Framework, definition: Any) -> Any:
    if framework.name == "torch":
        return framework.adapter.module(definition)
    if framework.name == "equinox":
        import jax

        return framework.adapter.module(definition, key=jax.random.key(0))
    from flax import nnx

    return framework.adapter.module(definition, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.parts[-3:]))
def test_committed_files_are_what_is_written(path: Path):
    assert path.read_text(encoding="utf-8") == FILES[path], "run `python adapters/generate.py`"


def test_every_definition_of_the_library_has_its_module():
    found = generate.definitions()
    assert {cls.__name__ for cls in found} == set(layers.LAYERS)
    assert {cls.__name__ for cls in found if "layers" in cls.__module__} < set(layers.__all__)
    for name in FRAMEWORKS:
        for cls in found:
            text = generate.class_source(name, cls)
            assert f"class {cls.__name__}(" in text
            assert ").shape\n" in text, "its docstring has no example of `apply`"
        adapter = Framework(name).adapter
        assert set(adapter.MODULES) == set(layers.LAYERS) < set(adapter.__all__)


@pytest.mark.parametrize("folder", ["root", "elsewhere"])
def test_the_program_compares_and_loads_no_framework(folder: str, tmp_path: Path):
    """Beside it lie folders named as frameworks, which are not these."""
    program = generate.HERE / "generate.py"
    cwd = program.parents[1] if folder == "root" else tmp_path
    run = [sys.executable, "-X", "importtime", str(program), "--check"]
    done = subprocess.run(run, cwd=cwd, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "ssm_core" in loaded
    assert not loaded & {"torch", "jax", "flax", "equinox", "cupy", "adapters"}


def test_a_stale_file_is_found_and_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any):
    path = tmp_path / "modules.py"
    monkeypatch.setattr(generate, "files", lambda: {path: "new = 1\n"})
    for given, wanted in ((["--check"], (1, False)), ([], (0, True)), (["--check"], (0, True))):
        monkeypatch.setattr(sys, "argv", ["generate.py", *given])
        assert (generate.main(), path.exists()) == wanted
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == ["stale", "written"]


def test_the_file_of_a_definition_that_is_no_more_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any):
    (tmp_path / "torch" / "modules").mkdir(parents=True)
    path = tmp_path / "torch" / "modules" / "gone.py"
    path.write_text("old = 1\n")
    for name in FRAMEWORKS:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "__init__.py").write_text((generate.HERE / name / "__init__.py").read_text())
    monkeypatch.setattr(generate, "HERE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["generate.py"])
    assert (generate.main(), path.exists()) == (0, False)
    assert f"removed: {path}\n" in capsys.readouterr().out
    assert (generate.main(), capsys.readouterr().out) == (0, "")


def test_a_package_keeps_what_is_written_by_hand(tmp_path: Path):
    path = tmp_path / "__init__.py"
    path.write_text(
        '"""Text."""\n\nfrom .base import (\n    Any,\n    B2,\n)\n\n__all__ = [\n    "Any",\n]\n\n\nx = 1\n'
    )
    found = generate.package_source(path, {"base10": {"load"}, "base9": {"B10"}})
    assert found.splitlines() == [
        *('"""Text."""', "", "from .base import B2, Any", "from .base9 import B10", "from .base10 import load", ""),
        *("__all__ = [", '    "B2",', '    "B10",', '    "Any",', '    "load",', "]", "", "", "x = 1"),
    ]


@pytest.mark.usefixtures("user_layers")
def test_a_layer_of_a_user_gets_its_class(framework: Framework):
    """Signature, example and all; loaded, it is what `module` builds."""
    text = generate.modules_source(framework.name, [Averages])
    assert "    limits: tuple[float, ...] = (0.5, math.inf),\n" in text
    assert "    notes: dict[str, Any] | None = None,\n" in text
    assert "\nfrom ssm_core import layers\n" in text
    assert ">>> layer = Averages(4, scales=2" in text
    scope: dict[str, Any] = {"__name__": "of_a_user"}
    try:
        exec(compile(text, "of_a_user.py", "exec"), scope)
        module = build(framework, Averages(4, scales=2))
        assert type(module) is scope["Averages"]
        assert module.definition == Averages(4, scales=2)
        assert scope["Averages"].__doc__.startswith("Moving averages, written here as a user would.\n")
        runs_as_defined(framework, module)
    finally:
        framework.adapter.MODULES.pop("Averages", None)


def runs_as_defined(framework: Framework, module: Any) -> None:
    d, params, u = module.definition, host(module), signal()
    close(framework.run(lambda m, u: m(u), module, framework.asarray(u)), d.apply(params, u, return_state=False))
    y, _ = framework.run(lambda m, u: m.step(u, m.initial_state(2)), module, framework.asarray(u[:, 0]))
    close(y, params["gain"] * u[:, 0] if "gain" in params else d.step(params, u[:, 0], d.initial_state(params, 2))[0])


@pytest.mark.usefixtures("user_layers")
@pytest.mark.parametrize(("definition", "base"), [(Averages(4), "TimeInvariantModule"), (Gain(4), "SSMModule")])
def test_a_layer_without_a_class_is_one_of_its_kind(definition: Any, base: str, framework: Framework):
    module = build(framework, definition)
    assert type(module).__name__ == base
    assert host(module).keys() == {p.name for p in definition.parameters()}
    runs_as_defined(framework, module)
    if base == "TimeInvariantModule":
        close(module.kernel(7), definition.kernel(host(module), 7), 1e-4)


@pytest.mark.usefixtures("user_layers")
def test_models_take_layers_of_users(framework: Framework):
    module = build(framework, Doubled(4, 3, 4, 1, layer="Averages", pool=None))
    assert type(module).__name__ == "SequenceModule"
    u = signal()
    y = framework.run(lambda m, u: m(u), module, framework.asarray(u))
    close(y, module.definition.apply(host(module), u))
    assert np.asarray(y.shape).tolist() == [2, 20, 3]
