"""Signatures of several lines: spans of one line each, where Sphinx writes a list of definitions without terms."""

from __future__ import annotations

import re
from typing import Any

LINES = re.compile(r"<dl>\s*((?:<dd>.*?</dd>\s*)+)</dl>", re.DOTALL)


def plain(html: str) -> str:
    """The page with lists of definitions that define nothing as lines.

    >>> plain("f(<dl><dd>a</dd></dl>)")
    'f(<span class="sig-lines"><span class="sig-line">a</span></span>)'
    >>> plain("<dl><dt>a</dt><dd>what it is</dd></dl>")
    '<dl><dt>a</dt><dd>what it is</dd></dl>'
    """
    return LINES.sub(lambda found: f'<span class="sig-lines">{_spans(found[1])}</span>', html)


def _spans(lines: str) -> str:
    return lines.replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")


def in_page(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if "body" in context:
        context["body"] = plain(context["body"])
