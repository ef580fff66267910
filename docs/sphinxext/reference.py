"""The reference: pages of every subject, whose tables list all public functions and classes, and a page for each."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from functools import cache, reduce
from pathlib import Path
from typing import Any

import ssm_core
from ssm_core.layers import LAYERS

# The modules of the reference, by the names that users write.
MODULES = (
    "ssm_core",
    "ssm_core.layers",
    "ssm_core.models",
    "ssm_core.adapters.torch",
    "ssm_core.adapters.flax",
    "ssm_core.adapters.equinox",
    "ssm_core.importers",
    "ssm_core.special",
    "ssm_core.plot",
)

# Folder of `ssm_core` that defines a function of the first module: its page.
SUBJECTS = {
    "measures": "HiPPO and initializations",
    "systems": "Systems and discretization",
    "time_invariant": "Kernels, scans and steps",
    "recurrences": "Linear recurrences",
    "gated": "Gated and selective recurrences",
    "functions": "Convolutions, norms and matrices",
    "files": "Weight files",
    "_arrays": "Backends and errors",
}
TITLES = {
    "ssm_core.layers": "Layers",
    "ssm_core.models": "Models",
    "ssm_core.adapters.torch": "Modules for PyTorch",
    "ssm_core.adapters.flax": "Modules for Flax",
    "ssm_core.adapters.equinox": "Modules for Equinox",
    "ssm_core.importers": "Weights of other implementations",
    "ssm_core.special": "Functions that array libraries lack",
    "ssm_core.plot": "Plots",
}
# Headings of pages that list layers and models, by the folder of their definitions; what has none comes last.
HEADINGS = {
    "models": "Models",
    "layers.time_invariant": "Time-invariant layers",
    "layers.gated": "Gated and selective layers",
}
REST = {"ssm_core.layers": "For layers of your own", "ssm_core.models": "For models of your own"}
OTHERS = "Functions and base classes"

# The page of a function or class. Autosummary would write the same, after a look at all members of every class.
PAGE = """\
{name}
{line}

.. currentmodule:: {module}

.. auto{kind}:: {name}
{options}
.. minigallery:: {module}.{name}
   :add-heading: Examples
   :heading-level: -
"""
MEMBERS = "   :members:\n   :show-inheritance:\n"


@cache
def module_of(name: str) -> Any:
    return reduce(getattr, name.split(".")[1:], ssm_core)


def documented(module: Any) -> Iterator[str]:
    """The public functions and classes of a module: those of __all__, else those it defines."""
    for name in getattr(module, "__all__", None) or vars(module):
        value = getattr(module, name)
        own = hasattr(module, "__all__") or getattr(value, "__module__", None) == module.__name__
        if own and not name.startswith("_") and (inspect.isfunction(value) or inspect.isclass(value)):
            yield name


@cache
def pages() -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """Every page of the reference: title, module, and the names in it."""
    found: dict[str, list[str]] = {subject: [] for subject in SUBJECTS}
    for name in documented(ssm_core):
        found[getattr(ssm_core, name).__module__.split(".")[1]].append(name)
    subjects = {
        subject: (SUBJECTS[subject], "ssm_core", tuple(sorted(names, key=str.lower)))
        for subject, names in found.items()
        if names
    }
    rest = {
        module.removeprefix("ssm_core.").replace("adapters.", ""): (
            TITLES[module],
            module,
            tuple(sorted(documented(module_of(module)), key=str.lower)),
        )
        for module in MODULES[1:]
    }
    return subjects | rest


def sections(module: str, names: tuple[str, ...]) -> dict[str, list[str]]:
    """The names of a page under their headings: layers and models by what their definitions are."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(heading(module, name), []).append(name)
    order = [*HEADINGS.values(), REST.get(module, OTHERS)]
    return {title: found[title] for title in order if title in found}


def heading(module: str, name: str) -> str:
    if name not in LAYERS:
        return REST.get(module, OTHERS)
    file = LAYERS[name].__module__.removeprefix("ssm_core.")
    return next(title for folder, title in HEADINGS.items() if file.startswith(f"{folder}."))


@cache
def full_names() -> dict[str, str]:
    """name -> full name: of functions and layers first, of modules last; and every full name itself."""
    names: dict[str, str] = {}
    for _, module, members in pages().values():
        for member in members:
            names.setdefault(member, f"{module}.{member}")
            names[f"{module}.{member}"] = f"{module}.{member}"
            names.setdefault(f"{module}.{member}".removeprefix("ssm_core."), f"{module}.{member}")
    return names


def navigation(page: str) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Every subject with its page and title, and where `page` is the subject's or lies in it, its names with theirs.

    >>> [(own, name) for _, _, names in navigation("api/systems") for own, name in names][0]
    ('api/generated/ssm_core.Dense', 'Dense')
    """
    found = []
    for subject, (title, module, members) in pages().items():
        own = [(f"api/generated/{module}.{member}", member) for member in members]
        inside = page == f"api/{subject}" or page in dict(own)
        found.append((f"api/{subject}", title, own if inside else []))
    return found


def write(folder: Path) -> None:
    """The pages' sources; those that stay the same are left alone, so that Sphinx does not read them again."""
    own = folder / "generated"
    own.mkdir(parents=True, exist_ok=True)
    for path in {*own.iterdir()} - {own / f"{name}.rst" for name in full_names().values()}:
        path.unlink()
    for page, (title, module, members) in pages().items():
        about = (inspect.getdoc(importlib.import_module(module_of(module).__name__)) or "").partition("\n")[0]
        lines = [
            title,
            "=" * len(title),
            "",
            *([about.replace("`", "``"), ""] if module != "ssm_core" else []),
            f".. currentmodule:: {module}",
            "",
        ]
        parts = sections(module, members)
        for part, listed in parts.items():
            lines += [part, "-" * len(part), ""] if len(parts) > 1 else []
            lines += [".. autosummary::", "   :toctree: generated", "   :nosignatures:", ""]
            lines += [*(f"   {member}" for member in listed), ""]
        settled(folder / f"{page}.rst", "\n".join(lines))
        for member in members:
            settled(own / f"{module}.{member}.rst", page_of(module, member))


def page_of(module: str, name: str) -> str:
    value = getattr(module_of(module), name)
    kind = "function" if inspect.isfunction(value) else "exception" if issubclass(value, Exception) else "class"
    options = MEMBERS if kind == "class" else ""
    return PAGE.format(name=name, line="=" * len(name), module=module, kind=kind, options=options)


def settled(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def toctree() -> str:
    return "\n".join(["```{toctree}", ":maxdepth: 2", "", *(f"api/{page}" for page in pages()), "```", ""])
