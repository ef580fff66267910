"""The versions of a published site: the list that the menu of its pages reads, and the way from its root to the newest.

    python docs/versions.py site https://someone.github.io/ssm_core

The site has a folder a version: those of releases by their numbers, and `dev` of the main branch.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path


def listed(folders: list[str], base: str) -> list[dict[str, object]]:
    """What the theme reads: releases first, the newest before the others and preferred; then what is no release.

    >>> [entry["version"] for entry in listed(["0.9.0", "dev", "0.10.0"], "")]
    ['0.10.0', '0.9.0', 'dev']
    """
    releases = [name for name in folders if re.fullmatch(r"\d+(\.\d+)*", name)]
    releases.sort(key=lambda name: [int(part) for part in name.split(".")], reverse=True)
    names = [*releases, *sorted(set(folders) - set(releases))]
    return [
        {
            "version": name,
            "name": f"{name} (stable)" if name in releases[:1] else name,
            "url": f"{base.rstrip('/')}/{name}/",
            "preferred": name == names[0],
        }
        for name in names
    ]


def write(site: Path, base: str) -> None:
    """switcher.json and index.html of a site."""
    found = listed([path.parent.name for path in site.glob("*/index.html")], base)
    (site / "switcher.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    first = found[0]["version"]
    page = f'<!doctype html><title>ssm_core</title><meta http-equiv="refresh" content="0; url={first}/">'
    (site / "index.html").write_text(f'{page}<a href="{first}/">ssm_core</a>\n', encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2])
