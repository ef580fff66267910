"""`python -m ssm_core`: print the backends, or let a language model write."""

from __future__ import annotations

import sys

from .program import main

if status := main():
    sys.exit(status)
