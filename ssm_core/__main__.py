"""`python -m ssm_core`: print the backends."""

from __future__ import annotations

import argparse

from . import __version__, show_backends

parser = argparse.ArgumentParser(
    prog="python -m ssm_core",
    description="Print which array libraries are installed, what is fused for them, and why others have nothing.",
)
parser.add_argument("--version", action="version", version=f"ssm_core {__version__}")
parser.parse_args()
show_backends()
