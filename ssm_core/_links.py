"""Says what to do where a checkout has no links: git then writes the address of a link into a file of its name."""

from __future__ import annotations

from pathlib import Path

for _name in ("adapters", "backends"):
    if Path(__file__).with_name(_name).is_file():
        raise ImportError(
            f"ssm_core: {_name} is a file in this checkout and must be a link to the folder {_name} beside it: "
            "git made no links, as it does on Windows until it may and is told to. Run `git config core.symlinks true` "
            "and `git checkout -- ssm_core/adapters ssm_core/backends`, in developer mode or as administrator."
        )
