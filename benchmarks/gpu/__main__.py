"""`python -m benchmarks.gpu --minutes 8 --out FOLDER`: everything that wants a GPU, in one run of a given time.

    machine    versions, copy bandwidth, rate of products of matrices
    probes     every kernel of Triton and CUDA, every path of XLA, first uses in odd places
    agreement  the functions of PyTorch, JAX and CuPy on the device against the truth of the conformance suite
    timings    recurrences and layers forward and backward, as multiples of a copy of the same bytes
    training   sequential digits, pixel by pixel

Imports the checkout that it is started in and installs nothing. Needs PyTorch and `array_api_compat`; Triton, JAX and
CuPy are used where they are. Every part is a process with a share of the time, which is ended when that is over: what
crashes or hangs stops nothing else. FOLDER/results.jsonl grows row by row, FOLDER/table.md part by part, and
FOLDER/<part>.log holds all that a part prints. Without a GPU the same runs on the CPU, in miniature.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

from . import record

ROOT = Path(__file__).parents[2]
PARTS = {"machine": 0.06, "probes": 0.24, "agreement": 0.25, "timings": 0.32, "training": 0.13}  # shares of the time


def main() -> None:
    options = arguments()
    if options.part:
        importlib.import_module(f"{__package__}.{options.part}").run(options.device, options)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / record.ROWS).unlink(missing_ok=True)
    chosen = options.parts.split(",") if options.parts else list(PARTS)
    end, shares = time.time() + 60 * options.minutes, sum(PARTS[part] for part in chosen)
    for part in chosen:
        # What a part leaves goes to those after it.
        seconds = max(1.0, (end - time.time()) * PARTS[part] / shares)
        shares -= PARTS[part]
        run_part(part, seconds, options)
        (options.out / "table.md").write_text(record.table(list(record.rows(options.out))))
    print((options.out / "table.md").read_text())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="the time of the whole run")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), metavar="FOLDER", help="where results go")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="cuda where there is one, else the CPU in miniature")
    parser.add_argument("--parts", metavar="A,B", help=f"some of {','.join(PARTS)}; all by default")
    parser.add_argument("--mnist", type=Path, metavar="FILE", help=".npz with x_train, y_train, x_test and y_test")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set((options.parts or "machine").split(",")) - set(PARTS)
    if unknown:
        parser.error(f"no part is named {', '.join(sorted(unknown))}. There are {', '.join(PARTS)}.")
    if options.device is None:
        import torch

        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    return options


def run_part(part: str, seconds: float, options: argparse.Namespace) -> None:
    """In a process of its own, which is told when to end and is ended a little later."""
    grace = min(10.0, 0.1 * seconds)
    environment = os.environ | {
        record.FOLDER: str(options.out.resolve()),
        record.ENDS: str(time.time() + seconds - grace),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # of the memory of the GPU, which the others want too
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", part, "--device", options.device]
    command += ["--mnist", str(options.mnist.resolve())] if options.mnist else []
    start = time.time()
    with (options.out / f"{part}.log").open("w") as log:
        try:
            code: object = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, timeout=seconds, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = "ended: its time was over"
    os.environ[record.FOLDER] = str(options.out.resolve())
    record.emit(f"part {part}", code=code, seconds=round(time.time() - start, 1))


if __name__ == "__main__":
    main()
