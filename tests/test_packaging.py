"""What is installed, under which names, and what `import ssm_core` loads."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: object, cwd: Path = ROOT) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python(*lines: str) -> str:
    return run(sys.executable, "-c", "\n".join(lines))


def test_import_loads_no_framework():
    loaded, seconds = python(
        "import sys, time",
        "start = time.perf_counter()",
        "import ssm_core",
        "seconds = time.perf_counter() - start",
        "import ssm_core.adapters, ssm_core.backends",
        "loaded = {'torch', 'jax', 'flax', 'cupy'} & sys.modules.keys()",
        "print(sorted(loaded), seconds, sep='|')",
    ).split("|")
    print(f"import ssm_core: {float(seconds):.2f} s")
    assert loaded == "[]"


@pytest.mark.parametrize("bare_first", [True, False])
@pytest.mark.parametrize("module", ["adapters.torch", "adapters.flax", "backends.numpy"])
def test_bare_name_is_the_same_module(module: str, bare_first: bool):
    folder, framework = module.split(".")
    pytest.importorskip(framework)
    first, second = (module, f"ssm_core.{module}") if bare_first else (f"ssm_core.{module}", module)
    python(
        f"import {first}, {second}, importlib",
        f"from {folder} import {framework} as named",
        f"assert {module} is ssm_core.{module} is named",
        f"assert importlib.import_module('{module}').__name__ == 'ssm_core.{module}'",
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the sdist, as an installer without wheels would."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.packaging
def test_wheel_holds_one_package(wheel: Path):
    files = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]
    packages = {file.parts[0] for file in files if not file.parts[0].endswith(".dist-info")}
    assert packages == {"ssm_core"}

    source = ROOT / "ssm_core"
    folders = (source, source / "adapters", source / "backends")  # rglob does not follow the two links
    modules = {file.relative_to(ROOT) for folder in folders for file in folder.rglob("*.py")}
    assert modules <= set(files)
    assert Path("ssm_core/py.typed") in files


@pytest.mark.packaging
def test_wheel_imports_in_a_fresh_environment(wheel: Path, tmp_path: Path):
    venv.create(tmp_path / "env", with_pip=False, symlinks=sys.platform != "win32")
    paths = {"base": str(tmp_path / "env"), "platbase": str(tmp_path / "env")}
    fresh = Path(sysconfig.get_path("scripts", "venv", paths)) / "python"
    site = Path(sysconfig.get_path("purelib", "venv", paths))
    run(sys.executable, "-m", "pip", "--python", fresh, "install", "--no-deps", "--no-index", wheel)
    # The dependencies are lent by this environment; its own ssm_core stays behind the wheel's.
    homes = {str(Path(find_spec(name).origin).parents[1]) for name in ("numpy", "array_api_compat")}
    (site / "dependencies.pth").write_text("\n".join(homes))

    code = (
        "import importlib.metadata, importlib.util, ssm_core, ssm_core.backends.numpy\n"
        "from ssm_core import adapters, backends\n"
        "assert importlib.metadata.version('ssm-core') == ssm_core.__version__\n"
        "assert not any(map(importlib.util.find_spec, ('adapters', 'backends')))\n"
        "for module in (ssm_core, adapters, backends, backends.numpy): print(module.__file__)"
    )
    for file in run(fresh, "-I", "-c", code, cwd=tmp_path).splitlines():
        assert site in Path(file).parents
