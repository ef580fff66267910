"""`python -m benchmarks [JOB ...]`: time the jobs, ours and others in turn, and print the table."""

from __future__ import annotations

import argparse

from . import harness, jobs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"{', '.join(jobs.JOBS)}, accuracy; all by default")
    parser.add_argument("--json", metavar="PATH", help="write the rows to a JSON file")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(memory_of(*options.memory_of))
        return
    unknown = set(options.jobs) - {*jobs.JOBS, "accuracy"}
    if unknown:
        parser.error(f"unknown jobs {sorted(unknown)}. Known: {', '.join([*jobs.JOBS, 'accuracy'])}")
    rows = []
    for name in options.jobs or jobs.JOBS:
        if name != "accuracy":
            rows += run(name)
    if not options.jobs or "accuracy" in options.jobs:
        for name, error in jobs.accuracy().items():
            print(f"accuracy 2^20  {name:14s} {error:.1e} of the largest value")
    if options.json:
        harness.write_json(rows, options.json)


def run(name: str) -> list[harness.Row]:
    """Measure one job and print its rows."""
    rows = harness.measure(jobs.JOBS[name]())
    if name in jobs.MEMORY:
        for row in rows:
            row.memory = harness.peak_memory(name, row.variant)
    harness.print_rows(rows)
    return rows


def memory_of(name: str, variant: str) -> int:
    """The peak that one variant adds in this process."""
    jobs.warm_up()
    case = jobs.JOBS[name]()
    return harness.added_to_peak(case.ours if variant == "ours" else case.others[variant])


if __name__ == "__main__":
    main()
