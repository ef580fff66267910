"""Every link of the built site that stays inside of it leads to a page, a file, or a place on a page that exists.

python docs/check_links.py docs/_build/html
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """Where a page leads, and the places on it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.places: set[str] = {"", "top"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.targets.add(value)
            elif name in ("id", "name") and value:
                self.places.add(value)


def broken(folder: Path) -> Iterator[str]:
    written = (path for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts)  # templates of the theme
    pages = {path.resolve(): Page(path) for path in written}
    for path, page in pages.items():
        for target in sorted(page.targets):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            other = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = other in pages and unquote(parts.fragment) in pages[other].places
            if not known and (other in pages or not other.is_file()):
                yield f"{path.relative_to(folder.resolve())}: {target}"


def main(folder: str) -> None:
    found = list(broken(Path(folder)))
    if found:
        raise SystemExit("links that lead nowhere:\n" + "\n".join(found))
    print(f"all inner links of {folder} lead somewhere")


if __name__ == "__main__":
    main(*sys.argv[1:])
