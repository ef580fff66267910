"""Docstrings of this package as reStructuredText.

A docstring is a sentence and blocks between empty lines. A block is an example (`>>>`), a table of names and what they
mean in two columns, formulas, or prose; which one it is shows in its layout.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from .formulas import latex

ROW = re.compile(r"(\S+(?: \S+)*) {2,}(?=\S)")
CODE = re.compile(r"`([^`\n]+)`")
URL = re.compile(r"https?://[^\s,;)]*[^\s,;).]")
MARKUP = re.compile(r"([\\*|]|(?<=\w)_|_(?=\w)|:(?=\w))")
ERROR = re.compile(r"\b(?:[A-Z]\w*Error|SSMError)\b")


def restructured(text: str, link: Callable[[str], str | None]) -> list[str]:
    """The lines of reStructuredText of a docstring. `link` gives the full name that a name means, or None."""
    lines: list[str] = []
    for index, block in enumerate(re.split(r"\n[ \t]*\n", text.strip("\n"))):
        lines += [*convert(block, link, first=index == 0), ""]
    return lines


def convert(block: str, link: Callable[[str], str | None], first: bool = False) -> list[str]:
    if block.startswith(">>>"):
        return ["", ".. code-block:: pycon", "", *indented(block.split("\n"))]
    if first:
        return [prose(block, link)]
    if rows := table(block):
        return fields(rows, link)
    if is_formula(block):
        return [".. math::", "", *indented(latex(block).split("\n"))]
    if found := re.search(r"(?:^|(?<=\.\s))Raises ((?:[^.]|\.(?=\S))+)(?:\.\s*|$)", block):
        before, after = block[: found.start()], block[found.end() :]
        around = [[prose(text, link), ""] if text.strip() else [] for text in (before, after)]
        return [*around[0], f":Raises: {prose(found[1], link)}", "", *around[1]]
    head, *rest = block.split("\n")
    if rest and is_formula(head) and not re.search(r"\w,?$|:$", head.rstrip(",")):
        return convert(head, link)
    return [prose(block, link)]


def table(block: str) -> list[tuple[str, str]]:
    """Names and meanings of a block in two columns: [] if it is none."""
    lines = block.split("\n")
    first = ROW.match(lines[0])
    if not first:
        return []
    column, rows = first.end(), []
    for line in lines:
        row = ROW.match(line)
        if row and row.end() >= column and not line.startswith(" "):  # a name may be wider than its column
            rows.append((row[1].rstrip(":"), line[row.end() :]))
        elif line[:column].strip() == "" and rows:
            rows[-1] = (rows[-1][0], f"{rows[-1][1]} {line[column:].strip()}")
        else:
            return []
    return [] if any(re.search(r"[=^]|<-|->", name) for name, _ in rows) else rows


def fields(rows: list[tuple[str, str]], link: Callable[[str], str | None]) -> list[str]:
    lines = []
    for name, meaning in rows:
        if name in ("returns", "yields"):
            lines.append(f":{name.capitalize()}: {prose(meaning, link)}")
        else:
            lines.append(f":param {name.replace('*', chr(92) + '*')}: {prose(meaning, link)}")
    return lines


def is_formula(block: str) -> bool:
    """Equations and no sentence: no full stop at the end, and no word of more than one clause."""
    ends = block.rstrip()[-1:]
    equation = re.search(r" (=|<-|->) ", block)
    words = re.findall(r"(?<![\w`\"])[a-z]{4,}(?![\w(])", block)
    return (
        bool(equation)
        and ends not in ".:"
        and not re.search('[`"]', block)
        and len(words) <= 7 * (block.count("\n") + 1)
    )


def prose(text: str, link: Callable[[str], str | None]) -> str:
    """A paragraph on one line, with markup characters escaped, code marked, and names and addresses linked."""
    text = " ".join(text.split())
    parts, end = [], 0
    for found in re.finditer(f"{CODE.pattern}|{URL.pattern}|{ERROR.pattern}", text):
        parts += [escaped(text[end : found.start()]), marked(found[0], found[1], link)]
        end = found.end()
    return "".join([*parts, escaped(text[end:])])


def marked(whole: str, code: str | None, link: Callable[[str], str | None]) -> str:
    if code is None and whole.startswith("http"):
        return f"`{whole} <{whole}>`__\\ "
    name = code or whole
    target = link(name)
    return f":py:obj:`{name} <{target}>`\\ " if target else f"``{name}``\\ " if code else escaped(name)


def escaped(text: str) -> str:
    return MARKUP.sub(r"\\\1", text)


def indented(lines: list[str]) -> Iterator[str]:
    return (f"   {line}" for line in lines)
