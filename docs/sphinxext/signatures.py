"""Signatures of several lines: spans of one line each, where Sphinx writes a list of definitions without terms.

And arguments that are documented together: Sphinx takes all names but the last for a type, `v (q, k,)`.
"""

from __future__ import annotations

import re
from typing import Any

LINES = re.compile(r"<dl>\s*((?:<dd>.*?</dd>\s*)+)</dl>", re.DOTALL)
TOGETHER = re.compile(r"<strong>([^<]+)</strong> \(((?:<em>[^<]*</em>)*<em>,</em>)\)")


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


def together(html: str) -> str:
    """The page with arguments that share their meaning side by side.

    >>> together("<strong>v</strong> (<em>q</em><em>, </em><em>k</em><em>,</em>) - (B, L)")
    '<strong>q, k, v</strong> - (B, L)'
    """
    return TOGETHER.sub(lambda found: f"<strong>{re.sub('<[^>]+>', '', found[2])} {found[1]}</strong>", html)


def in_page(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if "body" in context:
        context["body"] = together(plain(context["body"]))
