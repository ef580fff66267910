"""What was measured, as the documents show it: docs/results.json, and the tables that are made from it.

    python -m benchmarks.results.measured docs/results.json docs/results.md RUN.json ...

enters JSON files that results have written, each in the place of the one of its name, and rewrites what stands between
`<!-- measured: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import fnmatch
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import DATA

BLOCK = re.compile(r"(<!-- measured: (?P<name>[^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, measured: Mapping[str, Any]) -> str:
    """The text with the table of every result in its block."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{told(measured[found['name']])}\n{found[3]}", text)


def told(result: Mapping[str, Any]) -> str:
    """The command, what it ran on and for how long, and a line for every model that it trained."""
    m, numbers = result["machine"], result["numbers"]
    trained = all("scores" in one for one in numbers.values())
    spent = sum(one["cpu_seconds"] for one in trainings(numbers).values()) if trained else result["cpu_seconds"]
    version = f"JAX {m['jax']}" if result["framework"] == "flax" else f"PyTorch {m['torch']}"
    head = f"`{command(result)}`: {seconds(spent)} of one CPU, {m['processor']}, {version}\n\n"
    return head + (table_of_trainings(numbers) if trained else table_of_numbers(numbers))


def command(result: Mapping[str, Any]) -> str:
    """What measures it anew."""
    name, trained = result["name"], trainings(result["numbers"])
    only = result["only"] if all(any(fnmatch.fnmatch(label, p) for p in result["only"]) for label in trained) else []
    words = ["nox -s results --", name, *(["--small"] if result["small"] else [])]
    words += ["--framework flax"] if result["framework"] == "flax" else []
    words += ["--data FOLDER"] if name in DATA else []
    words += ["--only", *(f"'{p}'" if set(p) & set("*?[ ") else p for p in only)] if only else []
    stopped = {one["updates"] for one in trained.values() if one["updates"] < one["of"]}
    words += [f"--steps {stopped.pop()}"] if len(stopped) == 1 else []
    return " ".join(words)


def trainings(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """What the command itself trains: what was made from other code says where that is from."""
    return {name: one for name, one in numbers.items() if "updates" in one and "from" not in one}


def table_of_trainings(numbers: Mapping[str, Any]) -> str:
    """A line a model, and one for whatever it is held against that needs no training."""
    tests = list(next(iter(numbers.values()))["scores"])
    rows = [["", "parameters", "updates", *tests, "CPU time"]]
    for name, one in numbers.items():
        scores = [f"{one['scores'][test]:.3f}" if test in one["scores"] else "" for test in tests]
        if "updates" not in one:
            rows.append([name, "", "", *scores, ""])
            continue
        of = "" if one["updates"] == one["of"] else f" of {one['of']:,}"
        spent = seconds(one["cpu_seconds"])
        rows.append([name, f"{one['parameters']:,}", f"{one['updates']:,}{of}", *scores, spent])
    return table(rows)


def table_of_numbers(numbers: Mapping[str, Mapping[str, float]]) -> str:
    """Of a result that trains nothing: its numbers by name, over what they depend on."""
    over = list(next(iter(numbers.values())))
    return table([["", *over], *([name, *(f"{of[x]:.3f}" for x in over)] for name, of in numbers.items())])


def table(rows: list[list[str]]) -> str:
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def seconds(x: float) -> str:
    return f"{x:.0f} s" if x < 100 else f"{x / 60:.1f} min"


def entered(measured: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """With a result in the place of that of its name; curves of losses stay in its own file."""
    left = ("losses", "watched", "mark")
    numbers = {name: {k: v for k, v in one.items() if k not in left} for name, one in result["numbers"].items()}
    return dict(sorted({**measured, result["name"]: {**result, "numbers": numbers}}.items()))


def main() -> None:
    path, document, *runs = map(Path, sys.argv[1:])
    measured = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for run in runs:
        measured = entered(measured, json.loads(run.read_text(encoding="utf-8")))
    path.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    document.write_text(filled(document.read_text(encoding="utf-8"), measured), encoding="utf-8")


if __name__ == "__main__":
    main()
