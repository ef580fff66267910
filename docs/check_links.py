"""Every link of the built site that stays inside of it leads to a page, a file, or a place on a page that exists.

python docs/check_links.py docs/_build/html
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from functools import cache
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

TAG = re.compile(r"<\w[^>]*>")
ATTRIBUTE = re.compile(r"\s(href|src|id|name)=\"([^\"]*)\"")


class Page:
    """Where a page leads, and the places on it. What Sphinx writes is regular: quoted attributes, and escaped text."""

    def __init__(self, path: Path) -> None:
        found: dict[str, set[str]] = {name: set() for name in ("href", "src", "id", "name")}
        for tag in TAG.findall(path.read_text(encoding="utf-8")):
            for name, value in ATTRIBUTE.findall(tag):
                found[name].add(unescape(value))
        self.targets = (found["href"] | found["src"]) - {""}
        self.places = found["id"] | found["name"] | {"", "top"}


def broken(folder: Path) -> Iterator[str]:
    root = str(folder.resolve())
    written = (path for path in sorted(Path(root).rglob("*.html")) if "_static" not in path.parts)  # theme's templates
    pages = {str(path): Page(path) for path in written}
    is_file = cache(os.path.isfile)
    for path, page in pages.items():
        for target in sorted(page.targets):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            other = os.path.normpath(os.path.join(os.path.dirname(path), unquote(parts.path))) if parts.path else path
            known = other in pages and unquote(parts.fragment) in pages[other].places
            if not known and (other in pages or not is_file(other)):
                yield f"{os.path.relpath(path, root)}: {target}"


def main(folder: str) -> None:
    found = list(broken(Path(folder)))
    if found:
        raise SystemExit("links that lead nowhere:\n" + "\n".join(found))
    print(f"all inner links of {folder} lead somewhere")


if __name__ == "__main__":
    main(*sys.argv[1:])
