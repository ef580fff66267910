"""Handwritten digits, pixel by pixel: one S4D classifier trained in PyTorch and in Flax, and run in plain NumPy.

    python docs/examples/digits.py
    python docs/examples/digits.py --mnist mnist.npz --framework flax

The first command trains both frameworks from the same weights on the same batches of scikit-learn's 8x8 digits,
loads the results into NumPy, classifies the test images one pixel at a time, and draws a picture of it all.
The second trains one framework on sequential MNIST: 784 pixels an image.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import picture
import ssm_core
from recipe import DIGITS, MNIST, Recipe
from train_torch import use_one_thread, write_initial_weights

FRAMEWORKS = ("torch", "flax")
FOLDER = Path(__file__).parents[1] / "_build" / "digits"


@dataclass(frozen=True)
class Images:
    """Images as sequences of pixels, float32 (B, L, 1), with their labels (B,)."""

    train: np.ndarray
    train_label: np.ndarray
    test: np.ndarray
    test_label: np.ndarray


def digits() -> Images:
    """1797 images of 8x8 pixels, a fifth of them for testing."""
    data = load_digits()
    pixels = (data.data / 8 - 1).astype(np.float32)[..., None]
    train, test, train_label, test_label = train_test_split(
        pixels, data.target, test_size=0.2, stratify=data.target, random_state=0
    )
    return Images(train, train_label, test, test_label)


def mnist(path: Path) -> Images:
    """x_train, y_train, x_test and y_test of an .npz file, with 28x28 bytes an image."""
    with np.load(path) as file:
        found = {name: file[name] for name in ("x_train", "y_train", "x_test", "y_test")}

    def pixels(x: np.ndarray) -> np.ndarray:
        return ((x.reshape(len(x), -1, 1) / 255 - 0.13) / 0.31).astype(np.float32)

    labels = (found[name].astype(np.int64) for name in ("y_train", "y_test"))
    return Images(pixels(found["x_train"]), next(labels), pixels(found["x_test"]), next(labels))


def fit(
    framework: str,
    recipe: Recipe,
    images: Images,
    start: Path,
    end: Path,
    each_epoch: Callable[..., None] | None = None,
) -> tuple[np.ndarray, Any]:
    """Train from the weights of one file to another; the losses of all updates, and the trainer."""
    per_epoch = len(images.train) // recipe.batch
    updates = per_epoch * recipe.epochs
    trainer = importlib.import_module(f"train_{framework}").Trainer(start, recipe, updates)
    order, losses = np.random.default_rng(0), []
    with tqdm(total=updates, desc=framework, unit="batch", dynamic_ncols=True) as bar:
        for epoch in range(recipe.epochs):
            begun = time.perf_counter()
            shuffled = order.permutation(len(images.train))[: per_epoch * recipe.batch]
            for chosen in np.split(shuffled, per_epoch):
                losses.append(trainer.update(images.train[chosen], images.train_label[chosen]))
                bar.set_postfix(epoch=epoch + 1, loss=f"{losses[-1]:.4f}", refresh=False)
                bar.update()
            if each_epoch is not None:
                each_epoch(epoch + 1, float(np.mean(losses[-per_epoch:])), time.perf_counter() - begun, trainer)
    trainer.save(end)
    return np.asarray(losses), trainer


def classify(logits: Callable[[np.ndarray], np.ndarray], u: np.ndarray, batch: int = 200) -> np.ndarray:
    """The labels that a model gives to images."""
    return np.concatenate([logits(u[i : i + batch]).argmax(-1) for i in range(0, len(u), batch)])


def step_through(weights: Path, u: np.ndarray) -> np.ndarray:
    """The logits (B, L, 10) of plain NumPy after every pixel, given one pixel at a time."""
    model, params = ssm_core.load(weights)
    step, state = model.stepper(params), model.initial_state(params, len(u))
    logits = []
    for k in range(u.shape[1]):
        y, state = step(u[:, k, :], state)
        logits.append(y)
    return np.stack(logits, axis=1)


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SystemExit(f"digits: {otherwise}.")


def run_digits(recipe: Recipe, images: Images, folder: Path, least: float = 0.95) -> Path:
    """Train in both frameworks, step in NumPy, draw; returns the path of the picture."""
    start, ends = folder / "digits_start.safetensors", {f: folder / f"digits_{f}.safetensors" for f in FRAMEWORKS}
    write_initial_weights(recipe, start)
    losses, stepped = {}, {}
    for framework, end in ends.items():
        losses[framework], trainer = fit(framework, recipe, images, start, end)
        predicted = classify(trainer.logits, images.test)
        accuracy = float(np.mean(predicted == images.test_label))
        print(f"{framework}: test accuracy {accuracy:.1%}, weights in {end}")
        require(accuracy >= least, f"{framework} reached less than {least:.0%} on the test images")

        model, params = ssm_core.load(end)
        parallel = model.apply(params, images.test)
        stepped[framework] = step_through(end, images.test)
        by_step = stepped[framework][:, -1].argmax(-1)
        same = int(np.sum((by_step == predicted) & (parallel.argmax(-1) == predicted)))
        error = np.max(np.abs(stepped[framework][:, -1] - parallel))
        print(f"numpy: {same} of {len(predicted)} test images, one pixel at a time, are classified as in {framework};")
        print(f"       logits of the last step and of the parallel form differ by {error:.1e} at most")
        require(same == len(predicted), "stepping and the parallel form differ")

    difference = np.max(np.abs(losses["torch"] - losses["flax"]))
    print(f"largest difference of the two loss curves: {difference:.1e} over {len(losses['torch'])} updates")
    require(difference < 1e-2, "the loss curves of torch and flax differ")
    return picture.draw(
        folder / "digits.png", losses, start, ends["torch"], images.test, images.test_label, stepped["torch"]
    )


def run_mnist(recipe: Recipe, images: Images, folder: Path, framework: str) -> float:
    """Train in one framework, reporting every epoch; returns the test accuracy."""
    start, end = folder / "mnist_start.safetensors", folder / f"mnist_{framework}.safetensors"
    write_initial_weights(recipe, start)
    print(f"sequential MNIST in {framework}: {len(images.train)} images of {images.train.shape[1]} pixels for training")

    def report(epoch: int, loss: float, seconds: float, trainer: Any) -> None:
        accuracy = float(np.mean(classify(trainer.logits, images.test) == images.test_label))
        tqdm.write(f"epoch {epoch}: loss {loss:.4f}, test accuracy {accuracy:.2%}, {seconds:.0f} s of training")

    _, trainer = fit(framework, recipe, images, start, end, report)
    predicted = classify(trainer.logits, images.test)
    some = images.test[:100]
    same = int(np.sum(step_through(end, some)[:, -1].argmax(-1) == predicted[:100]))
    print(f"numpy: {same} of {len(some)} test images, one pixel at a time, are classified as in {framework}")
    return float(np.mean(predicted == images.test_label))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="digits", description=__doc__.partition("\n")[0])
    parser.add_argument("--mnist", type=Path, metavar="FILE", help=".npz with x_train, y_train, x_test, y_test")
    parser.add_argument("--framework", choices=FRAMEWORKS, default="torch", help="for --mnist (default: torch)")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's number")
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="for weights and picture (default: docs/_build/digits)"
    )
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    recipe = DIGITS if options.mnist is None else MNIST
    recipe = recipe if options.epochs is None else replace(recipe, epochs=options.epochs)
    begun = time.perf_counter()
    if options.mnist is None:
        use_one_thread()
        path = run_digits(recipe, digits(), options.folder)
        print(f"picture: {path}")
    else:
        accuracy = run_mnist(recipe, mnist(options.mnist), options.folder, options.framework)
        print(f"test accuracy {accuracy:.2%}")
    print(f"{time.perf_counter() - begun:.0f} seconds in all")


if __name__ == "__main__":
    main()
