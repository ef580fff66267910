"""`python -m benchmarks [JOB ...]`: time the jobs, ours and others in turn, and print the table."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import floor, harness, jobs, peers, sweep


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"{', '.join(jobs.JOBS)}, accuracy; all by default")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="folder with clones of s4 and annotated-s4")
    parser.add_argument("--sweep", type=Path, metavar="PNG", help="times over the length instead, drawn there")
    parser.add_argument("--json", metavar="PATH", help="write the results to a JSON file")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--sweep-memory-of", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    peers.folder = options.peers
    if options.memory_of:
        print(memory_of(*options.memory_of))
        return
    if options.sweep_memory_of:
        print(sweep.memory_of(*options.sweep_memory_of))
        return
    unknown = set(options.jobs) - {*jobs.JOBS, "accuracy"}
    if unknown:
        parser.error(f"unknown jobs {sorted(unknown)}. Known: {', '.join([*jobs.JOBS, 'accuracy'])}")
    best = floor.measure()
    print(floor.describe(best), flush=True)
    rows, curves = [], []
    if options.sweep:
        curves = sweep.run(best)
        sweep.draw(curves, options.sweep)
    else:
        for name in options.jobs or jobs.JOBS:
            if name != "accuracy":
                rows += run(name)
        if not options.jobs or "accuracy" in options.jobs:
            for name, error in jobs.accuracy().items():
                print(f"accuracy 2^20  {name:14s} {error:.1e} of the largest value")
    if options.json:
        harness.write_json(rows, options.json, machine=floor.machine(), floor=vars(best), curves=curves)


def run(name: str) -> list[harness.Row]:
    """Measure one job and print its rows."""
    case = jobs.JOBS[name]()
    rows = harness.measure(case)
    if name in jobs.MEMORY:
        where = () if peers.folder is None else ("--peers", str(peers.folder))
        for row in rows:
            row.memory = harness.peak_memory(*where, "--memory-of", name, row.variant)
    harness.print_rows(rows)
    for peer, reason in case.missing.items():
        print(f"{case.name:28s} {peer:24s} not run: {reason}", flush=True)
    return rows


def memory_of(name: str, variant: str) -> int:
    """The peak that one variant adds in this process."""
    jobs.warm_up()
    case = jobs.JOBS[name]()
    return harness.added_to_peak(case.ours if variant == "ours" else case.others[variant])


if __name__ == "__main__":
    main()
