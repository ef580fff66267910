"""The training loop, for both frameworks: seeded, with a progress bar, and stopped and gone on with at any update.

The batch of an update depends on its number alone, and a checkpoint holds all that the next update depends on: a
training that was stopped comes to the same numbers.
"""

from __future__ import annotations

import fnmatch
import importlib
import json
import math
import os
import time
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import ssm_core

from .recipe import Batch, Recipe, Scored, Task

FRAMEWORKS = ("torch", "flax")


@dataclass(frozen=True)
class Run:
    """What the command line asks for."""

    folder: Path
    framework: str = "torch"
    data: Path | None = None
    small: bool = False
    steps: int | None = None  # no training goes beyond so many updates
    only: tuple[str, ...] = ()  # patterns of names of what is trained; all if there is none
    every: float = 60.0  # seconds between checkpoints

    def compare(self, task: Task | Mapping[str, Task], recipes: Mapping[str, Recipe]) -> dict[str, dict[str, Any]]:
        """Train them in turn; by name what `trained` gives, and of those that `only` leaves out what it gave before."""
        chosen, before, found = self.chosen(recipes), self._before(), {}
        for name, recipe in recipes.items():
            its = task if isinstance(task, Task) else task[name]
            if name in chosen:
                found[name] = trained(self, name, recipe, its)
            elif name in before and before[name].get("mark") == marked(its, recipe):
                found[name] = before[name]
        return found

    def _before(self) -> dict[str, dict[str, Any]]:
        path = self.folder / f"{self.framework}.json"
        return json.loads(path.read_text(encoding="utf-8"))["numbers"] if path.exists() else {}

    def chosen(self, recipes: Mapping[str, Recipe]) -> dict[str, Recipe]:
        """Those whose names meet a pattern of `only`."""
        names = [name for name in recipes if not self.only or any(fnmatch.fnmatch(name, p) for p in self.only)]
        if not names:
            raise SystemExit(f"results: --only {' '.join(self.only)} meets none of {', '.join(recipes)}.")
        return {name: recipes[name] for name in names}


def trained(run: Run, name: str, recipe: Recipe, task: Task) -> dict[str, Any]:
    """Device, updates made, their CPU seconds, the parameters' number, the mean loss in twentieths, and the scores.

    "mark" tells numbers of another model, data, training or test from these.
    """
    path = run.folder / f"{name}.{run.framework}.npz"
    trainer = _trainer(run, recipe, path.with_suffix(".safetensors"))
    mark = _begun_as(task, recipe)
    losses, watched, seconds = _restored(path, mark, trainer)
    end = recipe.updates if run.steps is None else min(run.steps, recipe.updates)
    begun, kept = time.process_time() - seconds, time.monotonic()
    with tqdm(total=recipe.updates, initial=len(losses), desc=name, unit="update", dynamic_ncols=True) as bar:
        for k in range(len(losses), end):
            losses.append(trainer.update(*_batch(task, recipe, k), k))
            bar.set_postfix_str(f"loss {np.mean(losses[-20:]):.4f}", refresh=False)
            bar.update()
            if task.watched and (k + 1) % max(recipe.updates // 20, 1) == 0:
                watched.append([k + 1, *scores(trainer, task, task.watched).values()])
            if time.monotonic() - kept > run.every or k + 1 == end:
                _keep(path, mark, trainer, losses, watched, time.process_time() - begun)
                kept = time.monotonic()
    found = scores(trainer, task, task.tests)
    print(f"{name}: {', '.join(f'{test} {score:.4g}' for test, score in found.items())}", flush=True)
    return {
        "mark": marked(task, recipe),
        "device": trainer.device,
        "updates": len(losses),
        "of": recipe.updates,
        "cpu_seconds": round(time.process_time() - begun, 1),
        "parameters": sum(math.prod(p.shape) for p in recipe.model.parameters()),
        "losses": [float(part.mean()) for part in np.array_split(losses, min(20, len(losses)))],
        "watched": watched,
        "scores": found,
    }


def scores(trainer: Any, task: Task, tests: Mapping[str, Scored], batch: int = 64) -> dict[str, float]:
    """By the name of the test."""
    found = {}
    for name, (inputs, targets, options) in tests.items():
        parts = [trainer.outputs(inputs[i : i + batch], options) for i in range(0, len(inputs), batch)]
        found[name] = task.score(np.concatenate(parts), targets)
    return found


def _trainer(run: Run, recipe: Recipe, weights: Path) -> Any:
    """From weights that are the same in every framework."""
    run.folder.mkdir(parents=True, exist_ok=True)
    ssm_core.save(recipe.model, recipe.model.initial_parameters(seed=0), weights)
    return importlib.import_module(f"{__package__}.in_{run.framework}").Trainer(weights, recipe)


def marked(task: Task, recipe: Recipe) -> str:
    """Equal where the same model is trained by the same batches and asked the same."""
    tests = [(name, _sums(inputs, targets), dict(options)) for name, (inputs, targets, options) in task.tests.items()]
    return f"{zlib.crc32(f'{_begun_as(task, recipe)} {tests}'.encode()):08x}"


def _begun_as(task: Task, recipe: Recipe) -> str:
    return f"{recipe} {_sums(*_batch(task, recipe, 0))}"


def _sums(*arrays: np.ndarray) -> list[int]:
    return [zlib.crc32(np.ascontiguousarray(x)) for x in arrays]


def _batch(task: Task, recipe: Recipe, k: int) -> Batch:
    return task.batch(np.random.default_rng([17, k]), recipe.batch)


def _keep(path: Path, mark: str, trainer: Any, losses: list[float], watched: list[list[float]], seconds: float) -> None:
    """Write a checkpoint beside the last one, then put it in its place: one of them is always whole."""
    beside = path.with_suffix(".new.npz")
    told = {"mark": np.asarray(mark), "losses": losses, "watched": watched, "seconds": seconds}
    np.savez(beside, **{f"told/{k}": np.asarray(v) for k, v in told.items()}, **trainer.arrays())
    os.replace(beside, path)


def _restored(path: Path, mark: str, trainer: Any) -> tuple[list[float], list[list[float]], float]:
    """Losses and watched scores of the updates that were made before, and their CPU seconds."""
    if not path.exists():
        return [], [], 0.0
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = dict(file)
        told = {key: arrays.pop(f"told/{key}") for key in ("mark", "losses", "watched", "seconds")}
    except (ValueError, OSError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise SystemExit(
            f"results: the checkpoint {path} cannot be read ({error}). Delete it to begin anew."
        ) from error
    if str(told["mark"]) != mark:
        raise SystemExit(f"results: the checkpoint {path} is of another model, data or training. Delete it.")
    trainer.restore(arrays)
    return told["losses"].tolist(), told["watched"].tolist(), float(told["seconds"])
