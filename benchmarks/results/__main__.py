"""`python -m benchmarks.results NAME`: train, score, and write JSON and a picture of one published comparison.

A stopped training goes on from its last checkpoint when the command is given again, to the same numbers.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from . import NAMES, report
from .loop import FRAMEWORKS, Run

FOLDER = Path(__file__).parents[2] / "docs" / "_build" / "results"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of results; without one their names are printed")
    parser.add_argument("--framework", choices=FRAMEWORKS, default="torch", help="that trains (default: torch)")
    given = os.environ.get("SSM_CORE_DATA")
    parser.add_argument("--data", type=Path, default=given and Path(given), metavar="FOLDER", help="of the data sets")
    parser.add_argument(
        "--small", action="store_true", help="in the sizes that two cores allow, not the published ones"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="end every training after N updates")
    parser.add_argument("--only", nargs="+", default=[], metavar="PATTERN", help="of the names of what is trained")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of what is written (default: docs/_build/results)")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"no result is named {', '.join(sorted(unknown))}. There are {', '.join(NAMES)}.")
    if options.steps is not None and options.steps < 1:
        parser.error(f"--steps {options.steps} must be positive.")
    if not options.names:
        print("\n".join(f"{name:18s}{about}" for name, about in NAMES.items()))
    for name in options.names:
        folder = options.folder / (f"{name}-small" if options.small else name)
        run = Run(folder, options.framework, options.data, options.small, options.steps, tuple(options.only))
        folder.mkdir(parents=True, exist_ok=True)
        begun = time.process_time()
        numbers = importlib.import_module(f"{__package__}.{name.replace('-', '_')}").run(run)
        about = {"framework": run.framework, "small": run.small, "only": run.only}
        path = folder / f"{run.framework}.json"
        report.write(path, name, numbers, **about, cpu_seconds=round(time.process_time() - begun, 1))
        print(f"{name}: {path} and {folder / 'picture.png'}")


if __name__ == "__main__":
    main()
