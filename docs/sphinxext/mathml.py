"""Formulas as MathML, which browsers draw themselves: no script, no font and no other site."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx


def mathml(code: str, *, block: bool) -> str:
    code = re.sub(r"\\text\{[^}]*\}", lambda found: found[0].replace("~", "\u00a0"), code.strip())
    return latex2mathml.tex2mathml(code, as_block=block)


def visit_inline(writer: Any, node: nodes.Element) -> None:
    writer.body.append(mathml(node.astext(), block=False))
    raise nodes.SkipNode


def visit_block(writer: Any, node: nodes.Element) -> None:
    writer.body.append(f'<div class="formula">{mathml(node.astext(), block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
