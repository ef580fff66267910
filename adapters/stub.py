"""Writes `ssm_core/__init__.pyi`: the public functions as type checkers read them, arrays in and the same arrays out.

Their signatures say `Array`, which is anything: no type of Python's spans libraries. Here it is one unknown type T, so
that the kernel of a system of tensors is a tensor. A function that takes no array, but the library to make them of,
gives anything; one that returns its state when it is asked to has an overload for either answer.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import ssm_core

PATH = Path(ssm_core.__file__).with_suffix(".pyi")
HEAD = '''"""The public names, written by `adapters/generate.py`: T is any one library's arrays."""

import os
from contextlib import AbstractContextManager
from typing import Any, Literal, TypeAlias, TypeVar, overload

'''
SYSTEM = (
    'T = TypeVar("T")\n_System: TypeAlias = Dense[T] | Diagonal[T] | DPLR[T] | Rational[T] | tuple[T, ...]\n\n'
    "__version__: str\n"
)
WORDS = {"str", "int", "float", "bool", "tuple", "dict", "None", "Any", "os", "PathLike", "T", "Literal", "_System"}
GENERIC = {"Dense", "Diagonal", "DPLR", "Rational"}


def source(place: Callable[[str], Any]) -> str:
    """The text of the file; place sorts the names of an import."""
    public: dict[str, Any] = {name: getattr(ssm_core, name) for name in ssm_core.__all__}
    functions = {name: f for name, f in public.items() if inspect.isfunction(f)}
    names = {name: _home(value) for name, value in public.items() if name not in functions}
    texts = [_function(name, f, names) for name, f in functions.items() if name != "use_backend"]
    texts.append("def use_backend(name: str) -> AbstractContextManager[None]: ...\n")
    found = sorted(names, key=lambda name: (names[name], place(name)))
    imports = [f"from {names[name]} import {name} as {name}\n" for name in found]
    listed = "".join(f'    "{name}",\n' for name in ssm_core.__all__)
    return "".join([HEAD, *imports, "\n", SYSTEM, f"__all__ = [\n{listed}]\n\n", *texts])


def _home(value: Any) -> str:
    """Where a name is imported from."""
    room = value.__name__.rpartition(".")[0] if isinstance(value, ModuleType) else value.__module__
    return "." + room.removeprefix("ssm_core").removeprefix(".")


def _function(name: str, f: Callable[..., Any], names: dict[str, str]) -> str:
    signature = inspect.signature(f)
    given = list(signature.parameters.values())
    typed = any(re.search(r"\bArray\b", p.annotation) or p.name == "system" for p in given)
    returns = _typed(signature.return_annotation, f, names, generic=typed)
    whole = _split(returns)
    if "return_state" in signature.parameters and len(whole) > 1:
        asked = {"Literal[False] = False": whole[0], "Literal[True]": whole[1], "bool = ...": returns}
        return "".join(_overload(name, given, f, names, r, return_state=flag) for flag, r in asked.items())
    if typed and "xp" in signature.parameters:
        converted = re.sub(r"\bT\b", "Any", returns)
        return "".join(
            _overload(name, given, f, names, r, xp=xp) for xp, r in (("None = None", returns), ("Any", converted))
        )
    return _declared(name, given, f, names, returns)


def _overload(name: str, given: list[Any], f: Any, names: dict[str, str], returns: str, **fixed: str) -> str:
    return "@overload\n" + _declared(name, given, f, names, returns, **fixed)


def _declared(name: str, given: list[Any], f: Any, names: dict[str, str], returns: str, **fixed: str) -> str:
    """One signature, with these parameters declared otherwise."""
    listed, keywords = [], False
    for p in given:
        if p.kind is p.KEYWORD_ONLY and not keywords:
            listed.append("*")
            keywords = True
        annotation = "_System[T]" if p.name == "system" else _typed(p.annotation, f, names, generic=True)
        default = "" if p.default is p.empty else " = ..."
        listed.append(f"{p.name}: {fixed.get(p.name) or annotation + default}")
    lines = "".join(f"    {line},\n" for line in listed)
    return f"def {name}({chr(10) * bool(listed)}{lines}) -> {returns}: ...\n"


def _typed(annotation: str, f: Any, names: dict[str, str], *, generic: bool) -> str:
    """An annotation of the source with T, or anything, for arrays; its own names are imported."""
    array = "T" if generic else "Any"
    text = re.sub(r"\bArray\b", array, annotation)
    text = re.sub(r"\bParameters\b", "dict[str, Any]", text)
    for word in set(re.findall(r"\w+", text)) - WORDS:
        value = f.__globals__.get(word)
        if word in GENERIC:
            text = re.sub(rf"\b{word}\b", f"{word}[{array}]", text)
        elif word == "System":
            text = re.sub(r"\bSystem\b", "Dense[T] | Diagonal[T] | DPLR[T] | Rational[T]", text)
        elif inspect.isclass(value):
            names.setdefault(word, _home(value))
        else:
            text = re.sub(rf"\b{word}\b", "Any", text)
    return text


def _split(annotation: str) -> list[str]:
    """The members of a union that stand outside of brackets."""
    found, depth = [""], 0
    for character in annotation:
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == "|" and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return [member.strip() for member in found]
