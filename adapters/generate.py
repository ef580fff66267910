"""Writes what follows from the definitions: the modules of every framework, the lists of layers and modules, and the
types of the public functions (`stub`).

`python adapters/generate.py` writes, with `--check` it compares. A definition is a registered class in a file of
`ssm_core/layers/time_invariant`, `ssm_core/layers/gated` or `ssm_core/models`; its fields make the signature of its
modules, its docstring their first line and their example. What is written is in the format of Ruff.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import math
import pkgutil
import re
import sys
from collections.abc import Iterable
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from textwrap import indent
from typing import Any

if __name__ == "__main__":
    sys.path.remove(sys.path[0])  # this folder, in which `torch` and `flax` are the adapters
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ssm_core import layers, models
from ssm_core.adapters import stub

HERE = Path(__file__).resolve().parent
FOLDERS = ("ssm_core.layers.time_invariant", "ssm_core.layers.gated", "ssm_core.models")
Definition = type[Any]  # a frozen dataclass derived from layers.Layer

BASES = {  # of classes, by the kind of definition
    layers.Layer: "SSMModule",
    layers.TimeInvariant: "TimeInvariantModule",
    layers.InputDependent: "InputDependentModule",
    models.SequenceModel: "SequenceModule",
    models.LanguageModel: "LanguageModule",
}
STANDARD = {  # where the words of annotations and defaults come from
    r"\bmath\.": "import math",
    r"\bMapping\[": "from collections.abc import Mapping",
    r"\bAny\b": "from typing import Any",
}
CLASS = '''class {name}({base}):
    """{summary}

    Options as `ssm_core.{public}`{calls}.
{example}    """

    definition: {public}{static}

    def __init__(
        self,
{signature}    ) -> None:
        definition = {public}(
{handed_on}        )
        super().__init__(definition, {options})
'''
EXAMPLE = (  # `layer = ...Definition(options)` and, further on, `layer.apply(params, numpy.zeros(...)).shape`
    r">>> (\w+) = \S*\b{name}\((.*)\)\n(?s:.*?)"
    r"\.apply\(.*, numpy\.(\w+)\((.+?)(?:, numpy\.\w+)?\)\)\.shape\n\((.*)\)"
)
WRITTEN = "one class a definition; written by `adapters/generate.py`"
IMPORT = r"^from \.([\w.]+) import (?:\(([^)]*)\)|(.*))$"


@dataclass(frozen=True)
class Framework:
    """What modules of one framework have of their own.

    title, imports  of its files
    options         names and declarations of what every module takes
    example         of a definition, with its options, signal and shape
    static          behind the annotation of the definition, where that says what is a parameter
    models          the file of the bases of models
    """

    title: str
    imports: tuple[str, ...]
    options: dict[str, str]
    example: str
    static: str = ""
    models: str = "blocks"


FRAMEWORKS = {
    "torch": Framework(
        "PyTorch",
        ("import torch",),
        {"device": "Any = None", "dtype": "torch.dtype | None = None"},
        ">>> {0} = {1}({2})\n>>> {0}(torch.{3}({4})).shape\ntorch.Size([{5}])\n",
    ),
    "flax": Framework(
        "Flax NNX",
        ("import jax.numpy as jnp", "from flax import nnx"),
        {"rngs": "nnx.Rngs", "param_dtype": "Any = jnp.float32"},
        ">>> import jax\n>>> {0} = {1}({2}, rngs=nnx.Rngs(0))\n>>> jax.jit({0})(jnp.{3}({4})).shape\n({5})\n",
    ),
    "equinox": Framework(
        "Equinox",
        ("import equinox", "import jax", "import jax.numpy as jnp"),
        {"key": "jax.Array", "dtype": "Any = jnp.float32"},
        ">>> key = jax.random.key(0)\n>>> {0} = {1}({2}, key=key)\n"
        ">>> equinox.filter_jit({0})(jnp.{3}({4})).shape\n({5})\n",
        static=" = equinox.field(static=True)",
        models="models",
    ),
}


def definitions() -> list[Definition]:
    """The registered classes of these folders, in the order of their files."""
    for folder in FOLDERS:
        for file in pkgutil.iter_modules(importlib.import_module(folder).__path__, f"{folder}."):
            importlib.import_module(file.name)
    found = (cls for cls in layers.LAYERS.values() if cls.__module__.rpartition(".")[0] in FOLDERS)
    return sorted(found, key=lambda cls: cls.__module__)


def class_source(framework: str, definition: Definition) -> str:
    """The class of a definition's modules."""
    options, given = FRAMEWORKS[framework].options, [f for f in fields(definition) if f.init]
    signature = [_declared(f) for f in given]
    signature.insert(definition.positional, "*")
    signature += [f"{name}: {declared}" for name, declared in options.items()]
    return CLASS.format(
        name=definition.__name__,
        base=_base(framework, definition)[1],
        summary=indent((inspect.getdoc(definition) or "").split("\n\n")[0], "    ").lstrip(),
        public=_public(definition),
        calls="" if issubclass(definition, models.Model) else ", calls and steps as `SSMModule`",
        static=FRAMEWORKS[framework].static,
        example=indent(_example(framework, definition), "    ", lambda line: line != "\n"),
        signature="".join(f"        {declared},\n" for declared in signature),
        handed_on="".join(f"            {f.name}={_handed_on(f)},\n" for f in given),
        options=", ".join(options),
    )


def modules_source(framework: str, definitions: Iterable[Definition]) -> str:
    """A file with the modules of these definitions; loaded, `adapters.<framework>.module` builds them."""
    definitions = list(definitions)
    classes = "\n\n".join(class_source(framework, definition) for definition in definitions)
    own = {"ssm_core": {_public(d).partition(".")[0] for d in definitions}}
    for file, name in [("base", "MODULES"), *(_base(framework, d) for d in definitions)]:
        own.setdefault(f"ssm_core.adapters.{framework}.{file}", set()).add(name)
    entries = "".join(f"    {d.__name__}={d.__name__},\n" for d in definitions)
    parts = (
        f'"""Modules of {FRAMEWORKS[framework].title}, {WRITTEN}."""',
        "from __future__ import annotations",
        "\n".join(line for word, line in STANDARD.items() if re.search(word, classes)),
        "\n".join(FRAMEWORKS[framework].imports),
        _imports(own),
    )
    return "\n\n".join(parts) + f"\n\n\n{classes}\n\nMODULES.update(\n{entries})\n"


def package_source(path: Path, made: dict[str, set[str]]) -> str:
    """A package's `__init__.py` as it is, but with these names of these of its files in its imports and `__all__`."""
    text = path.read_text(encoding="utf-8")
    start, end = text.index("from ."), text.index("\n]\n", text.index("__all__ = [")) + 3
    found = re.findall(IMPORT, text[start:end], re.MULTILINE)
    names = {file: set(re.findall(r"\w+", several or few)) for file, several, few in found} | made
    return f"{text[:start]}{_exports(names)}{text[end:]}"


def files() -> dict[Path, str | None]:
    """Every file that is written, and its text; None for one of a definition that is no more."""
    rooms: dict[str, list[Definition]] = {}
    for definition in definitions():
        rooms.setdefault(definition.__module__.removeprefix("ssm_core."), []).append(definition)
    made = {room: {definition.__name__ for definition in found} for room, found in rooms.items()}
    layer_files = {room.removeprefix("layers."): names for room, names in made.items() if room.startswith("layers.")}
    path = Path(layers.__file__)
    written: dict[Path, str | None] = {
        path: package_source(path, layer_files),
        stub.PATH: stub.source(_place_in_import),
    }
    for name, framework in FRAMEWORKS.items():
        folder, package = HERE / name / "modules", HERE / name / "__init__.py"
        written |= dict.fromkeys(sorted(folder.glob("*.py")))
        written |= {folder / f"{_file(room)}.py": modules_source(name, found) for room, found in rooms.items()}
        exported = _exports({_file(room): names for room, names in made.items()})
        written[folder / "__init__.py"] = f'"""Modules of {framework.title}, {WRITTEN}."""\n\n{exported}'
        written[package] = package_source(package, {"modules": set().union(*made.values())})
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, and fail where a file would change")
    check = parser.parse_args().check
    changed = {p: text for p, text in files().items() if not p.exists() or p.read_text(encoding="utf-8") != text}
    for path, text in changed.items():
        if text is None and not check:
            path.unlink()
        elif not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text or "", encoding="utf-8", newline="\n")
        print(f"{'stale' if check else 'written' if text else 'removed'}: {path}")
    return 1 if check and changed else 0


def _base(framework: str, definition: Definition) -> tuple[str, str]:
    """File and name of the base of a definition's class."""
    base = next(BASES[kind] for kind in definition.__mro__ if kind in BASES)
    return FRAMEWORKS[framework].models if issubclass(definition, models.Model) else "base", base


def _public(definition: Definition) -> str:
    """Where in `ssm_core` a definition is found; those of users are in `layers` once they are registered."""
    room = "models" if definition.__module__.startswith("ssm_core.models.") else "layers"
    return f"{room}.{definition.__name__}"


def _declared(f: Field[Any]) -> str:
    declared = f"{f.name}: {f.type if isinstance(f.type, str) else inspect.formatannotation(f.type)}"
    if f.default_factory is not MISSING:
        return f"{declared} | None = None"
    return declared if f.default is MISSING else f"{declared} = {_literal(f.default)}"


def _handed_on(f: Field[Any]) -> str:
    made = f.default_factory
    return f.name if made is MISSING else f"{_literal(made())} if {f.name} is None else {f.name}"


def _literal(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_literal, value)) + ("," if len(value) == 1 else "") + ")"
    named = {math.inf: "math.inf", math.tau: "math.tau"}
    if isinstance(value, float) and value in named:
        return named[value]
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _example(framework: str, definition: Definition) -> str:
    """The example of a definition as one of its modules."""
    name, f = definition.__name__, FRAMEWORKS[framework]
    found = re.search(EXAMPLE.replace("{name}", name), inspect.getdoc(definition) or "")
    if found is None:
        return ""
    it, *rest = found.groups()
    imports = (*f.imports, f"from ssm_core.adapters.{framework} import {name}")
    return "\n" + "".join(f">>> {line}\n" for line in imports) + f.example.format(it, name, *rest)


def _file(room: str) -> str:
    """Where the modules of the definitions in a file are: `layers.gated.mamba` in `mamba`."""
    return room.rpartition(".")[2]


def _exports(names: dict[str, set[str]]) -> str:
    """Imports from a package's files, and `__all__`."""
    listed = "".join(f'    "{name}",\n' for name in sorted(set().union(*names.values()), key=_place))
    imports = _imports({f".{file}": name for file, name in names.items()})
    return f"{imports}\n\n__all__ = [\n{listed}]\n"


def _imports(names: dict[str, set[str]]) -> str:
    """Import statements as Ruff sorts and breaks them."""
    lines = []
    for file in sorted(names, key=_natural):
        ordered = sorted(names[file], key=_place_in_import)
        line = f"from {file} import {', '.join(ordered)}"
        broken = f"from {file} import (\n" + "".join(f"    {name},\n" for name in ordered) + ")"
        lines.append(line if len(line) <= 120 else broken)
    return "\n".join(lines)


def _place(name: str) -> tuple[int, list[Any]]:
    """Constants, classes, functions; numbers in names by their size."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return kind, _natural(name)


def _place_in_import(name: str) -> tuple[int, list[Any]]:
    """The same, in which Ruff does not tell capitals apart."""
    return _place(name)[0], _natural(name.lower())


def _natural(name: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


if __name__ == "__main__":
    sys.exit(main())
