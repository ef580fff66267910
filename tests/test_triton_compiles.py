"""The launches of every probe, compiled for an H100 or H200, which takes no GPU: nothing runs, no value is looked at.

The interpreter takes more than the compiler does, so what passes there need not compile.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed")

ROOT = Path(__file__).parents[1]
OPERATORS = sorted(path.parent.name for path in (ROOT / "backends" / "torch").glob("*/triton_kernels.py"))
SCRIPT = """
import importlib, sys, torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver, jit

class Hopper:
    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

run, sizes = jit.JITFunction.run, []

def compiled(self, *arguments, grid, warmup, **options):
    sizes.append(len(run(self, *arguments, grid=grid, warmup=True, **options).asm["cubin"]))

driver.set_active(Hopper())
jit.JITFunction.run = compiled
list(importlib.import_module(f"ssm_core.backends.torch.{sys.argv[1]}.triton_kernels").probe(torch.device("cpu")))
assert sizes and min(sizes) > 0
"""


@pytest.mark.parametrize("operator", OPERATORS)
def test_kernels_compile(operator: str):
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", SCRIPT, operator], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
