"""What the site is made of: docstrings as reStructuredText, formulas as LaTeX, the reference, and links that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import ssm_core
import versions
from check_links import broken
from sphinxext import docstrings, formulas, generated, reference
from ssm_core.layers import LAYERS

for package in ("torch", "flax"):
    pytest.importorskip(package, reason=f"the reference lists modules of {package}, which is not installed")


def test_docstring_becomes_fields_and_formulas():
    text = ssm_core.kernel.__doc__
    assert text is not None
    found = "\n".join(docstrings.restructured(text.replace("\n    ", "\n"), {"discretize": "ssm_core.discretize"}.get))
    assert ".. math::\n" in found
    assert ":param dt: a number, (...) as the batch axes" in found
    assert "as in :py:obj:`discretize <ssm_core.discretize>`" in found
    assert ":Returns: (..., L)" in found
    assert "\n:Raises: ShapeError, DTypeError, OptionError" in found
    assert ".. code-block:: pycon\n\n   >>> import numpy, ssm_core" in found


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("y = C x + D u", r"y = C \, x + D \, u"),
        ("exp(dt A)", r"\operatorname{exp} (\mathit{dt} \, A)"),
        ("sqrt(1 - a^2)", r"\sqrt{ 1 - a^2}"),
        ("V^-1 B", r"V^{-1} \, B"),
        ("log_dt", r"\mathtt{log\_dt}"),
        ("dt phi1(z) B", r"\mathit{dt} \, \phi_1 (z) \, B"),
    ],
)
def test_formula(written: str, expected: str):
    assert formulas.latex(written) == expected


def test_tables_of_names_are_none_of_equations():
    assert docstrings.table("a    one\nbcd  two\n     more") == [("a", "one"), ("bcd", "two more")]
    assert docstrings.table("x = a,   y = b\nz = c,   w = d") == []


def test_reference_lists_everything_once():
    listed = [f"{module}.{name}" for _, module, names in reference.pages().values() for name in names]
    assert len(listed) == len(set(listed))
    assert {"ssm_core.kernel", "ssm_core.layers.S4D", "ssm_core.adapters.torch.S4D", "ssm_core.special.phi1"} <= {
        *listed
    }
    assert {f"ssm_core.{name}" for name in reference.documented(ssm_core)} <= {*listed}
    assert reference.full_names()["kernel"] == "ssm_core.kernel"


def test_pages_say_what_is_documented():
    page = reference.page_of("ssm_core", "kernel")
    assert page.startswith("kernel\n======\n\n.. currentmodule:: ssm_core\n\n.. autofunction:: kernel\n\n")
    assert ".. minigallery:: ssm_core.kernel\n" in page
    assert ".. autoexception:: ShapeError\n\n" in reference.page_of("ssm_core", "ShapeError")
    assert ".. autoclass:: S4D\n   :members:\n" in reference.page_of("ssm_core.layers", "S4D")


def test_pages_are_those_that_are_listed(tmp_path: Path):
    (tmp_path / "generated").mkdir()
    (tmp_path / "generated" / "ssm_core.gone.rst").touch()
    reference.write(tmp_path)
    assert {path.stem for path in (tmp_path / "generated").iterdir()} == set(reference.full_names().values())


def test_layers_and_models_have_headings():
    parts = reference.sections("ssm_core.adapters.torch", ("Mamba", "MambaLM", "S4D", "load"))
    assert list(parts) == [*reference.HEADINGS.values(), reference.OTHERS]
    assert reference.sections("ssm_core.layers", ("S4D", "Layer"))["For layers of your own"] == ["Layer"]
    assert len(reference.sections("ssm_core", ("kernel", "scan"))) == 1


def test_every_layer_stands_in_the_table_of_layers():
    page = Path(__file__).with_name("family.md")
    table = page.read_text(encoding="utf-8").partition("Where to begin")[0]
    layers = {name for name, made in LAYERS.items() if ".layers." in made.__module__}
    assert layers <= set(re.findall(r"`(\w+)`", table))
    readme = (page.parents[1] / "README.md").read_text(encoding="utf-8")
    assert f"[{len(layers)} layers](docs/family.md)" in readme


def test_markers_are_filled():
    text = generated.filled("before\n*words* <!-- generated: support table -->\nafter")
    assert text.startswith("before\n| function |")
    assert '<span class="support fused">fused</span>' in text
    assert generated.with_formulas("| `euler`  | 1 + z | dt B  |") == r"| `euler` | $1 + z$ | $\mathit{dt} \, B$ |"
    assert generated.numbers().count("grid-item-card") == len(generated.NUMBERS)


def test_broken_links_are_found(tmp_path: Path):
    (tmp_path / "a.html").write_text('<a href="b.html#here">x</a><a href="b.html#no">x</a><img src="no.png">')
    (tmp_path / "b.html").write_text('<p id="here"></p><a href="a.html">x</a><a href="https://elsewhere">x</a>')
    assert list(broken(tmp_path)) == ["a.html: b.html#no", "a.html: no.png"]


def test_versions_of_a_site(tmp_path: Path):
    for name in ("dev", "0.9.1", "0.10.0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.html").touch()
    versions.write(tmp_path, "https://example.org/ssm_core/")
    found = json.loads((tmp_path / "switcher.json").read_text())
    assert [(entry["version"], entry["preferred"]) for entry in found] == [
        ("0.10.0", True), ("0.9.1", False), ("dev", False),
    ]  # fmt: skip
    assert found[0]["url"] == "https://example.org/ssm_core/0.10.0/"
    assert "url=0.10.0/" in (tmp_path / "index.html").read_text()
