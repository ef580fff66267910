"""Builds the documentation: Markdown pages in this folder to static HTML in `_build`.

    python docs/build.py

Two pages are generated where their marker stands: the API reference from the docstrings, and the support table from
the capability table of the conformance suite. Fails on a link that leads nowhere.
"""

from __future__ import annotations

import html
import importlib
import inspect
import re
import shutil
import sys
from collections.abc import Iterator
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

import ssm_core
from ssm_core.files.pretrained import architectures

DOCS = Path(__file__).parent
ROOT = DOCS.parent
OUT = DOCS / "_build"

# The pages in the order of the menu.
MENU = {
    "Start": ("index", "installation", "gallery"),
    "Use": (
        "conventions",
        "layers",
        "family",
        "mamba",
        "language_models",
        "generation",
        "sound",
        "transformers",
        "gated",
        "gated_vectors",
        "delta",
        "modes",
        "distributed",
        "performance",
    ),
    "Understand": ("hippo", "s4d", "support", "api"),
    "Extend": ("add_a_backend", "add_a_layer"),
}
PAGES = tuple(page for pages in MENU.values() for page in pages)

# The modules of the API reference, by the names that users write.
MODULES = (
    "ssm_core",
    "ssm_core.layers",
    "ssm_core.models",
    "ssm_core.distributed",
    "ssm_core.adapters.torch",
    "ssm_core.adapters.flax",
    "ssm_core.importers",
    "ssm_core.special",
)


def build() -> None:
    texts = {page: page_text(page) for page in PAGES}
    trees = {page: parse(text) for page, text in texts.items()}
    broken = [f"{page}.md: {link}" for page in PAGES for link in broken_links(page, trees)]
    if broken:
        raise SystemExit("links that lead nowhere:\n" + "\n".join(broken))
    OUT.mkdir(exist_ok=True)
    titles = {page: title_of(tokens) for page, tokens in trees.items()} | {"index": "Overview"}
    for page, tokens in trees.items():
        (OUT / f"{page}.html").write_text(document(page, titles, render(tokens)), encoding="utf-8")
    light, dark = (HtmlFormatter(style=style).get_style_defs("pre") for style in ("friendly", "github-dark"))
    style = (DOCS / "style.css").read_text(encoding="utf-8")
    (OUT / "style.css").write_text(f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n{style}")
    shutil.copytree(DOCS / "images", OUT / "images", dirs_exist_ok=True)
    print(f"{len(PAGES)} pages: {OUT / 'index.html'}")


def page_text(page: str) -> str:
    """The Markdown of a page, with what is generated in the place of its marker."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    for marker, generate in _GENERATED.items():
        line = re.search(rf"^.*<!-- generated: {marker} -->$", text, re.MULTILINE)
        if line:
            text = text.replace(line[0], generate())
    return text


def support_table() -> str:
    sys.path.insert(0, str(ROOT))
    return importlib.import_module("conformance.capabilities").support_table_markdown()


def architecture_table() -> str:
    """Model types x frameworks: what `from_pretrained` opens, and whose modules it gives there."""
    modules = {name: "".join(p.read_text(encoding="utf-8") for p in _written(name)) for name in ("torch", "flax")}
    head = "| `model_type` | published as | model | NumPy and other arrays | PyTorch | Flax |"
    lines = [head, "|---|---|---|---|---|---|"]
    for kind, architecture in architectures().items():
        file = importlib.import_module(f"ssm_core.files.pretrained.{kind}")
        title = (
            (file.__doc__ or "")
            .partition("\n")[0]
            .rstrip(".")
            .replace(" is published", "")
            .replace(" are published", "")
        )
        cls = architecture.model.split("`")[1]
        there = [f"`{cls}`" if f"class {cls}(" in text else "no" for text in modules.values()]
        lines.append(f"| `{kind}` | {title} | {architecture.model} | yes | {' | '.join(there)} |")
    return "\n".join(lines) + "\n"


def _written(framework: str) -> list[Path]:
    return sorted((ROOT / "adapters" / framework / "modules").glob("*.py"))


# API reference


def api_reference() -> str:
    sections = []
    for name in MODULES:
        module = reduce(getattr, name.split(".")[1:], ssm_core)
        sections.append(f"## {name}\n\n{cleaned(module)}\n")
        members = {member: getattr(module, member) for member in documented(module)}
        ordered = sorted(members, key=lambda member: (is_error(members[member]), member.lower()))
        sections += [entry(name, member, members[member]) for member in ordered]
    return "\n".join(sections)


def documented(module: Any) -> Iterator[str]:
    """The public functions and classes of a module: those of __all__, else those it defines."""
    for name in getattr(module, "__all__", None) or vars(module):
        value = getattr(module, name)
        own = hasattr(module, "__all__") or getattr(value, "__module__", None) == module.__name__
        if own and not name.startswith("_") and (inspect.isfunction(value) or inspect.isclass(value)):
            yield name


def is_error(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, Exception)


def entry(module: str, name: str, value: Any) -> str:
    lines = [f"### {name}", f"```python-signature\n{module}.{name}{signature(value)}\n```", block(value)]
    if inspect.isclass(value):
        for method, function in methods(value):
            lines += [
                f"#### {name}.{method}",
                f"```python-signature\n{method}{signature(function)}\n```",
                block(function),
            ]
    return "\n\n".join(lines) + "\n"


def methods(cls: type) -> Iterator[tuple[str, Any]]:
    """The public methods that a class defines itself, with a docstring of their own."""
    for name, value in vars(cls).items():
        if not name.startswith("_") and inspect.isfunction(value) and value.__doc__:
            yield name, value


class Bare(str):
    """An annotation that is shown as it is written, but short: `Array`, not `ssm_core._arrays.library.Array`."""

    def __repr__(self) -> str:
        return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", str(self))


def signature(value: Any) -> str:
    """The signature, one argument a line where it is long."""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    parameters = [p.replace(annotation=bare(p.annotation)) for p in found.parameters.values() if p.name != "self"]
    result = None if inspect.isclass(value) else bare(found.return_annotation)
    short = inspect.Signature(parameters, return_annotation=inspect.Signature.empty if result is None else result)
    if len(str(short)) < 90:
        return str(short)
    rest = str(short).rpartition(")")[2]
    kinds = [str(inspect.Signature([p]))[1:-1].removeprefix("*, ") for p in parameters]
    first = next((i for i, p in enumerate(parameters) if p.kind is p.KEYWORD_ONLY), None)
    if first is not None:
        kinds.insert(first, "*")
    return "(\n" + "".join(f"    {kind},\n" for kind in kinds) + ")" + rest


def bare(annotation: Any) -> Any:
    return Bare(annotation) if isinstance(annotation, str) else annotation


def cleaned(value: Any) -> str:
    return (inspect.getdoc(value) or "").partition("\n")[0]


def block(value: Any) -> str:
    """A docstring as it stands: its tables and equations are laid out by hand. Its first line is a sentence."""
    text = inspect.getdoc(value) or ""
    if "this module" in text:
        text += "\n\nThe module:\n\n" + (inspect.getdoc(inspect.getmodule(value)) or "")
    first, _, rest = text.partition("\n")
    prose, _, example = rest.partition("\n>>> ")
    example, _, more = example.partition("\n\n")
    parts = [("text", prose), ("pycon", example and f">>> {example}"), ("text", more)]
    return "\n\n".join([first, *(f"```{kind}\n{part.strip(chr(10))}\n```" for kind, part in parts if part.strip())])


# Markdown to HTML


def parse(text: str) -> list[Token]:
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    seen: set[str] = set()
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            anchor = slug(inline.content)
            while anchor in seen:
                anchor += "-1"
            seen.add(anchor)
            opening.attrSet("id", anchor)
    return tokens


def slug(heading: str) -> str:
    """The anchor of a heading, as code hosts make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def links(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        for child in token.children or ():
            if child.type in ("link_open", "image"):
                yield child


def broken_links(page: str, trees: dict[str, list[Token]]) -> Iterator[str]:
    for link in links(trees[page]):
        target = str(link.attrs.get("href") or link.attrs.get("src"))
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        other = name.removesuffix(".md") if name else page
        if name.endswith(".md") or not name:
            anchors = {t.attrs.get("id") for t in trees.get(other, ()) if t.type == "heading_open"}
            if other not in trees or (anchor and anchor not in anchors):
                yield target
        elif not (DOCS / name).exists():
            yield target


def title_of(tokens: list[Token]) -> str:
    return next(after.content for before, after in pairwise(tokens) if before.tag == "h1")


def render(tokens: list[Token]) -> str:
    for link in links(tokens):
        target = str(link.attrs.get("href", ""))
        if not re.match(r"[a-z]+:", target):
            link.attrSet("href", re.sub(r"\.md(?=#|$)", ".html", target)) if target else None
    markdown = MarkdownIt("commonmark", {"highlight": colored}).enable("table")
    return markdown.renderer.render(tokens, markdown.options, {})


def colored(code: str, language: str, _attributes: str) -> str:
    lexer = {"python-signature": "python", "sh": "bash", "": "text"}.get(language, language)
    kind = " class='signature'" if language == "python-signature" else ""
    inner = highlight(code, get_lexer_by_name(lexer), HtmlFormatter(nowrap=True))
    return f"<pre{kind}><code>{inner}</code></pre>"


def document(page: str, titles: dict[str, str], body: str) -> str:
    menu = "".join(
        f"<p>{group}</p><ul>"
        + "".join(
            f'<li><a href="{p}.html"{" aria-current=page" if p == page else ""}>{html.escape(titles[p])}</a></li>'
            for p in pages
        )
        + "</ul>"
        for group, pages in MENU.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(titles[page])} · ssm_core</title>"
        '<link rel="stylesheet" href="style.css"></head><body>'
        f'<nav><a class="name" href="index.html">ssm_core</a>{menu}</nav><main>{body}</main></body></html>\n'
    )


_GENERATED = {"api": api_reference, "support table": support_table, "architectures": architecture_table}


if __name__ == "__main__":
    build()
