"""`python -m benchmarks [JOB ...]`: time the jobs, ours and others in turn, and print the table."""

from __future__ import annotations

import argparse
import fnmatch
from functools import partial
from pathlib import Path

from . import accuracy, floor, harness, peers, place, sweep
from .jobs import JOBS


def main() -> None:
    options = arguments()
    place.choose(options.device)
    peers.folder = options.peers
    if options.memory_of:
        print(memory_of(*options.memory_of))
        return
    if options.sweep_memory_of:
        print(sweep.memory_of(*options.sweep_memory_of))
        return
    if options.list:
        print("\n".join([*JOBS, "accuracy"]))
        return
    names = [name for name in chosen(options.jobs) if name not in chosen(options.without or ["-"])]
    best = floor.measure()
    print(floor.describe(best), flush=True)
    rows: list[harness.Row] = []
    curves: list[dict[str, object]] = []
    errors: dict[str, float] = {}
    if options.sweep:
        curves = sweep.run(best)
        sweep.draw(curves, options.sweep)
    else:
        for name in names:
            if name == "accuracy":
                continue
            rows += run(name)
            if options.json:  # after every job, so that a run which ends early leaves what it has measured
                harness.write_json(rows, options.json, machine=floor.machine(), floor=vars(best))
        if "accuracy" in names:
            errors = accuracy.measure()
            for what, error in errors.items():
                print(f"accuracy 2^20  {what:14s} {error:.1e} of the largest value")
    if options.json:
        harness.write_json(
            rows, options.json, machine=floor.machine(), floor=vars(best), curves=curves, accuracy=errors
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="a name or a pattern such as 'scan-*'; all by default")
    parser.add_argument("--without", nargs="+", default=[], metavar="JOB", help="names or patterns to leave out")
    parser.add_argument("--list", action="store_true", help="print the names of the jobs")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the jobs run")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="folder with clones of other implementations")
    parser.add_argument("--sweep", type=Path, metavar="PNG", help="times over the length instead, drawn there")
    parser.add_argument("--json", metavar="PATH", help="write the results to a JSON file")
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--sweep-memory-of", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for pattern in [*options.jobs, *options.without]:
        if not fnmatch.filter([*JOBS, "accuracy"], pattern):
            parser.error(f"no job is named {pattern!r}. `--list` prints the names.")
    return options


def chosen(patterns: list[str]) -> list[str]:
    """The names that the patterns match, in the order of the registry; all where there are none."""
    names = [*JOBS, "accuracy"]
    return [name for name in names if not patterns or any(fnmatch.fnmatch(name, p) for p in patterns)]


def run(name: str) -> list[harness.Row]:
    """Measure one job and print its rows."""
    job, rows = JOBS[name], []
    reason = place.absence(job.framework)
    if reason is not None:
        print(f"{name:40s} not run: {reason}", flush=True)
        return []
    where = () if peers.folder is None else ("--peers", str(peers.folder))
    known: dict[str, float] = {}  # memory of variants that several cases stand beside

    def memory(number: int, row: harness.Row) -> float:
        key = f"{number} ours" if row.variant == "ours" else row.variant
        if key not in known:
            known[key] = harness.peak_memory(*where, "--memory-of", name, str(number), row.variant)
        return known[key]

    for number, case in enumerate(job.cases()):
        found = harness.measure(case)
        if job.memory:
            harness.add_memory(found, partial(memory, number))
        harness.print_rows(found)
        for peer, why in case.missing.items():
            print(f"{case.name:40s} {peer:24s} not run: {why}", flush=True)
        rows += found
    for row in rows:
        row.job = name
    return rows


def memory_of(name: str, number: str, variant: str) -> int:
    """The peak that one variant adds in this process."""
    job = JOBS[name]
    if job.framework == "torch":
        warm_up()
    return harness.added_to_peak(job.cases()[int(number)].works[variant])


def warm_up() -> None:
    """Small layers forward and backward, so that libraries have loaded what they load at first use."""
    import torch

    import ssm_core

    for layer in (ssm_core.adapters.torch.S4D(8, d_state=64), ssm_core.adapters.torch.Mamba(8)):
        layer(torch.zeros(1, 256, 8)).sum().backward()
    x = torch.zeros(8, 64, requires_grad=True)
    torch.fft.irfft(torch.fft.rfft(x, 128) * torch.fft.rfft(x, 128), 128).sum().backward()


if __name__ == "__main__":
    main()
