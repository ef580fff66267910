"""Data sets of a folder, which the command line or SSM_CORE_DATA names. What is missing or broken is told by name."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from .loop import Run

# Of every data set: the file, what it must hold, and where it is from.
FORMS = {
    "mnist": (
        "mnist.npz",
        "x_train (60000, 28, 28), y_train, x_test and y_test of whole numbers",
        "http://yann.lecun.com/exdb/mnist",
    ),
    "cifar": (
        "cifar10.npz",
        "x_train (50000, 32, 32, 3), y_train, x_test and y_test of whole numbers, or be cifar10_train_1.npz ... "
        "cifar10_train_5.npz and cifar10_test.npz with labels and delta, differences of G, R-G, B-G",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    "digits": (
        "fsdd.npz",
        "samples (n,) int16, offsets (clips + 1,), digit (clips,) and is_test (clips,)",
        "https://github.com/Jakobovski/free-spoken-digit-dataset",
    ),
    "etth1": (
        "ETTh1.csv.gz",
        "the published lines, or be ETTh1.csv: a date and seven numbers each, OT last",
        "https://github.com/zhouhaoyi/ETDataset",
    ),
    "ecg": (
        "mitbih_100.npz",
        "signal (n, leads) of whole numbers, 200 a millivolt about 1024",
        "https://physionet.org/content/mitdb/1.0.0, record 100",
    ),
}

IMAGES = ("x_train", "y_train", "x_test", "y_test")


def refused(name: str, path: Path, why: str) -> SystemExit:
    """The error for a file: why, and what it must hold."""
    return SystemExit(f"results: {path} {why}. It must hold {FORMS[name][1]}.")


def located(run: Run, name: str, *others: str) -> Path:
    """The file of a data set, or one that stands for it; SystemExit where there is none."""
    file, form, source = FORMS[name]
    if run.data is None:
        raise SystemExit(
            f"results: {file} is needed, from {source}. Give its folder by --data FOLDER or SSM_CORE_DATA. "
            f"It must hold {form}."
        )
    if not run.data.is_dir():
        raise SystemExit(f"results: {run.data} is no folder. Give that of {file} by --data FOLDER or SSM_CORE_DATA.")
    for found in (run.data / other for other in (file, *others)):
        if found.exists():
            return found
    raise SystemExit(f"results: {run.data} has no {file}. It is from {source} and must hold {form}.")


TORN = (KeyError, ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error)


def arrays(
    name: str, path: Path, wanted: Sequence[str], rate: int | None = None, whole: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Arrays of real finite numbers of an .npz file, those of them that are `whole` without fractions.

    SystemExit for a file that is torn, of another kind, empty, or of another number of samples a second, where it says
    so by sample_rate.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            found = {key: file[key] for key in wanted}
            own = file.get("sample_rate") if rate else None
    except TORN as error:
        raise refused(name, path, f"cannot be read ({error})") from error
    if any(x.size == 0 for x in found.values()):
        raise refused(name, path, "is empty")
    for key, x in found.items():
        if x.dtype.kind not in "biuf" or (x.dtype.kind == "f" and not np.isfinite(x).all()):
            raise refused(name, path, f"has a {key} that is not of finite real numbers ({x.dtype} {x.shape})")
        if key in whole and x.dtype.kind not in "iu" and (x.dtype.kind == "b" or (x != np.floor(x)).any()):
            raise refused(name, path, f"has a {key} that is not of whole numbers ({x.dtype} {x.shape})")
    if own is not None and not np.array_equal(own, np.asarray(rate)):
        raise refused(name, path, f"has {own} samples a second, not {rate}: resample it")
    return found


def checked(name: str, path: Path, holds: bool) -> None:
    if not holds:
        raise refused(name, path, "has arrays of other shapes")


def classes(name: str, path: Path, labels: np.ndarray, n: int = 10) -> np.ndarray:
    """Labels 0 ... n - 1 (B,), of whole numbers."""
    if labels.ndim == 1 and not (labels.min() >= 0 and labels.max() < n):
        raise refused(name, path, f"has labels from {labels.min()} to {labels.max()}, not in 0 ... {n - 1}")
    return labels.astype(np.int64)


def mnist(run: Run) -> tuple[np.ndarray, ...]:
    """Pixels (B, 784, 1) in rows, about 0, and labels (B,): to train with, and to test."""
    path = located(run, "mnist")
    found = arrays("mnist", path, IMAGES, whole=IMAGES)
    return _images("mnist", path, found, lambda x: x.reshape(len(x), -1, 1) / 255, 0.1307, 0.3081)


def cifar(run: Run) -> tuple[np.ndarray, ...]:
    """Gray pixels (B, 1024, 1) in rows, about 0, and labels (B,): to train with, and to test."""
    path = located(run, "cifar", "cifar10_train_1.npz")
    if path.name == "cifar10.npz":
        found = arrays("cifar", path, IMAGES, whole=IMAGES)
    else:
        parts = [path.with_name(f"cifar10_train_{i}.npz") for i in range(1, 6)]
        train, (test,) = [_batch_of(part) for part in parts], [_batch_of(path.with_name("cifar10_test.npz"))]
        for part, (x, _) in zip(parts, train, strict=True):
            checked("cifar", part, x.shape[1:] == test[0].shape[1:])
        x, y = (np.concatenate(column) for column in zip(*train, strict=True))
        found = {"x_train": x, "y_train": y, "x_test": test[0], "y_test": test[1]}
    luma = np.asarray([0.299, 0.587, 0.114], np.float32) / 255
    gray = lambda x: (x.astype(np.float32) @ luma).reshape(len(x), -1, 1)  # noqa: E731
    return _images("cifar", path, found, gray, 122.6 / 255, 61.0 / 255)


def _batch_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (B, 32, 32, 3) and labels of a file of differences."""
    delta, labels = arrays("cifar", path, ("delta", "labels"), whole=("labels",)).values()
    checked("cifar", path, delta.ndim == 4 and len(delta) == 3 and delta.dtype == np.uint8)
    checked("cifar", path, labels.shape == delta.shape[1:2])
    green, red, blue = delta.cumsum(2, dtype="u1").cumsum(3, dtype="u1")
    return np.stack([green + red, green, green + blue], -1), labels


def _images(
    name: str,
    path: Path,
    found: dict[str, np.ndarray],
    pixels: Callable[[np.ndarray], np.ndarray],
    mean: float,
    deviation: float,
) -> tuple[np.ndarray, ...]:
    x, y, x_test, y_test = (found[key] for key in ("x_train", "y_train", "x_test", "y_test"))
    dims = 4 if name == "cifar" else 3
    alike = all(
        images.ndim == dims and labels.shape == images.shape[:1] for images, labels in ((x, y), (x_test, y_test))
    )
    checked(name, path, alike and x.shape[1:] == x_test.shape[1:] and (name != "cifar" or x.shape[-1] == 3))
    scaled = [((pixels(part) - mean) / deviation).astype(np.float32) for part in (x, x_test)]
    return scaled[0], classes(name, path, y), scaled[1], classes(name, path, y_test)


def digits(run: Run, length: int) -> tuple[np.ndarray, ...]:
    """The first samples of clips (B, length, 1), each of deviation 1, zeros behind short ones, and their digits."""
    path = located(run, "digits")
    wanted = ("samples", "offsets", "digit", "is_test")
    found = arrays("digits", path, wanted, rate=8000, whole=("samples", "offsets", "digit"))
    samples, offsets, digit, is_test = (found[key] for key in wanted)
    checked("digits", path, offsets.ndim == 1 and digit.shape == is_test.shape == (len(offsets) - 1,))
    offsets, digit, tested = offsets.astype(np.int64), classes("digits", path, digit), is_test.astype(bool)
    checked("digits", path, offsets[0] == 0 and samples.shape == (offsets[-1],))
    if (np.diff(offsets) < 1).any():
        raise SystemExit(f"results: clip {int(np.diff(offsets).argmin())} of {path} holds no samples. Leave it out.")
    if tested.all() or not tested.any():
        raise refused("digits", path, f"has {len(tested)} clips, of which is_test says {tested.sum()}: some, not all")
    x = np.zeros((len(digit), length, 1), np.float32)
    for row, start, end in zip(x, offsets[:-1], offsets[1:], strict=True):
        clip = samples[start : min(end, start + length)].astype(np.float32)
        row[: len(clip), 0] = clip / max(float(clip.std()), 1.0)
    return x[~tested], digit[~tested], x[tested], digit[tested]


def etth1(run: Run) -> np.ndarray:
    """Oil temperatures (hours,), standardized by the first year."""
    path, year = located(run, "etth1", "ETTh1.csv"), 8640
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            head, *lines = file.read().splitlines() or [""]
        rows = np.loadtxt(lines, delimiter=",", usecols=range(1, 8), ndmin=2) if lines else np.zeros((0, 7))
    except TORN as error:
        raise refused("etth1", path, f"cannot be read ({error})") from error
    if lines and head.split(",")[-1].strip() != "OT":
        raise refused("etth1", path, f"begins with {head[:80]!r}, not with the names of its columns, OT last")
    if len(rows) < 14400:
        raise refused("etth1", path, f"has {len(rows)} hours, not the 14400 of the published split")
    if not np.isfinite(rows).all():
        hour = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise SystemExit(f"results: {path} has no numbers at hour {hour}.")
    oil = rows[:, -1]
    if oil[:year].std() == 0:
        raise refused("etth1", path, f"has no oil temperatures: all of the first year are {oil[0]}")
    return ((oil - oil[:year].mean()) / oil[:year].std()).astype(np.float32)


def ecg(run: Run) -> np.ndarray:
    """The first lead in millivolt."""
    path = located(run, "ecg")
    signal = arrays("ecg", path, ("signal",), rate=360, whole=("signal",))["signal"]
    checked("ecg", path, signal.ndim == 2)
    return (signal[:, 0] - 1024.0) / 200.0
