"""What is said where an optional package, or a file, is not there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ssm_core
from ssm_core import SSMError

ABSENT = """
import sys
sys.modules.update(dict.fromkeys({packages!r}))
import ssm_core
from ssm_core import adapters
assert not hasattr(adapters, {name!r})
def said(code, *errors):
    try:
        exec(code)
    except errors as error:
        assert isinstance(error, ssm_core.SSMError) and "pip install 'ssm-core[{name}]'" in str(error), error
    else:
        raise AssertionError(code)
said("adapters.{name}", AttributeError)
said("adapters.{name}.S4D", AttributeError)
said("from ssm_core.adapters import {name}", ImportError)
said("import ssm_core.adapters.{name}", ssm_core.MissingPackageError)
said("from ssm_core.adapters.{name} import S4D", ssm_core.MissingPackageError)
"""


PACKAGES = [("torch", "torch"), ("flax", "jax"), ("flax", "flax"), ("equinox", "jax"), ("equinox", "equinox")]


@pytest.mark.parametrize(("name", "absent"), PACKAGES)
def test_adapters_without_their_framework(name: str, absent: str):
    code = ABSENT.format(name=name, packages=[absent])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.parametrize("absent", ["transformers", "torch"])
def test_accelerate_without_transformers(absent: str):
    pytest.importorskip("transformers" if absent == "torch" else "torch", reason="one of both is not installed")
    code = ABSENT.format(name="transformers", packages=[absent]).replace("S4D", "accelerate")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]


def test_backends_without_their_framework():
    """Which lacks CuPy where there is no GPU."""
    code = "import sys; sys.modules['cupy'] = None; import ssm_core; assert not hasattr(ssm_core.backends, 'cupy')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]


def test_files_that_are_not_there(tmp_path: Path):
    pytest.importorskip("safetensors")
    layer = ssm_core.layers.S4D(2, d_state=2)
    with pytest.raises(FileNotFoundError, match=r"load: the file '.*no\.safetensors' is not there") as caught:
        ssm_core.load(tmp_path / "no.safetensors")
    assert isinstance(caught.value, SSMError)
    with pytest.raises(SSMError, match="is a folder, which from_pretrained reads"):
        ssm_core.load(tmp_path)
    with pytest.raises(SSMError, match=r"save: the folder .* is not there.*os\.makedirs"):
        ssm_core.save(layer, layer.initial_parameters(), tmp_path / "no" / "x.safetensors")


@pytest.mark.parametrize(("option", "text"), [("--help", "which array libraries"), ("--version", ssm_core.__version__)])
def test_the_program_says_what_it_is(option: str, text: str):
    done = subprocess.run([sys.executable, "-m", "ssm_core", option], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert text in done.stdout


def test_a_checkout_without_links_says_what_to_do(tmp_path: Path):
    """Git on Windows leaves files that hold the address of the link."""
    package = Path(ssm_core.__file__).parent
    shutil.copytree(
        package, tmp_path / "ssm_core", ignore=shutil.ignore_patterns("adapters", "backends", "__pycache__")
    )
    for name in ("adapters", "backends"):
        (tmp_path / "ssm_core" / name).write_text(f"../{name}", encoding="utf-8")
    code = "import sys; sys.path.insert(0, '.'); import ssm_core"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "ImportError: ssm_core: adapters is a file in this checkout" in done.stderr
    assert "git config core.symlinks true" in done.stderr
