"""The launches of every probe, compiled for an H100 or H200, which takes no GPU: nothing runs, no value is looked at.

The interpreter takes more than the compiler does, so what passes there need not compile. The first problem of a probe
has the strides and tiles of large arrays; the second of the scan has few columns.
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
from itertools import islice
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
    assert options["enable_fp_fusion"]  # else a x + b is two instructions, from Triton 3.10 on
    sizes.append(len(run(self, *arguments, grid=grid, warmup=True, **options).asm["cubin"]))

driver.set_active(Hopper())
jit.JITFunction.run = compiled
kernels = importlib.import_module(f"ssm_core.backends.torch.{sys.argv[1]}.triton_kernels")
CPU = torch.device("cpu")
list(kernels.probe(CPU))
"""
MORE = {
    "scans": """
for dtype in (torch.float64, torch.complex64, torch.complex128):
    list(islice(kernels.probe(CPU, dtype), 6))
""",
    "selective": """
list(islice(kernels.probe(CPU, torch.float64), 8))
signal, state, rows = torch.zeros(1, 64, 64), torch.zeros(1, 64, 64), torch.zeros(1, 1, 64, 64)
given = signal, signal, state[0], rows, rows
T = kernels.tile(64, 64)[0]
y, last, starts = kernels.forward(*given, state, None, None, True, T)
kernels.backward(y, last, *given, starts, None, None, True, True, T)
""",
}


@pytest.mark.parametrize("operator", OPERATORS)
def test_kernels_compile(operator: str):
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = SCRIPT + MORE.get(operator, "") + "assert sizes and min(sizes) > 0"
    done = subprocess.run([sys.executable, "-c", script, operator], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
