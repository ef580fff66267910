"""The recipe for conda says what pyproject.toml says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import ssm_core

ROOT = Path(__file__).resolve().parents[1]


def test_the_recipe_has_the_version_and_the_floors_of_the_project():
    recipe = (ROOT / ".github" / "conda" / "recipe.yaml").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f'version: "{ssm_core.__version__}"' in recipe
    floors = dict(re.findall(r"^ +- ([\w-]+) >=([\d.]+)$", recipe, re.MULTILINE))
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *(r for e in ("torch", "flax", "equinox") for r in extras[e])]
    wanted = dict(requirement.split(">=") for requirement in declared) | {"python": project["requires-python"][2:]}
    for name, floor in floors.items():
        assert floor == ("1.27" if name == "hatchling" else wanted[{"pytorch": "torch"}.get(name, name)]), name
