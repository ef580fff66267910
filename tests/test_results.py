"""The published comparisons in miniature: a few updates, stopped and gone on with, in both frameworks; dirty data."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for package in ("torch", "flax", "matplotlib", "tqdm"):
    pytest.importorskip(package, reason=f"the results need {package}, which is not installed")

from benchmarks.results import NAMES, __main__, data, forecasting, measured, report, tasks  # noqa: E402
from benchmarks.results.loop import Run, trained  # noqa: E402
from benchmarks.results.recipe import NONE, Recipe, Scored, Task, drawn_from, mean_square  # noqa: E402
from ssm_core import models  # noqa: E402

DRAW = np.random.default_rng(0)
SYNTHETIC = {
    "state-tracking": "DeltaProduct n = 2, beta to 2",
    "parity": "LRU",
    "recall": "S4D 32",
    "selective-copying": "GLA",
    "induction-heads": "S4D",
    "rates": "S4D",
}


def write_sets(folder: Path) -> None:
    """Data sets in miniature, of the published forms."""

    def bytes_of(*shape: int) -> np.ndarray:
        return DRAW.integers(0, 256, shape, dtype=np.uint8)

    labels = np.arange(20, dtype=np.uint8) % 10
    np.savez(folder / "mnist.npz", x_train=bytes_of(20, 6, 6), y_train=labels, x_test=bytes_of(20, 6, 6), y_test=labels)
    for part in (*(f"train_{i}" for i in range(1, 6)), "test"):
        np.savez(folder / f"cifar10_{part}.npz", delta=bytes_of(3, 20, 4, 4), labels=labels)
    offsets, tested = np.arange(21) * 30, np.arange(20) % 2
    samples = DRAW.integers(-999, 999, 600).astype(np.int16)
    np.savez(folder / "fsdd.npz", samples=samples, offsets=offsets, digit=labels, is_test=tested)
    rows = [f"hour,{','.join(f'{x:.3f}' for x in row)}" for row in DRAW.normal(size=(14400, 7)).cumsum(0)]
    (folder / "ETTh1.csv.gz").write_bytes(
        gzip.compress("\n".join(["date,HUFL,HULL,MUFL,MULL,LUFL,LULL,OT", *rows]).encode())
    )
    np.savez(folder / "mitbih_100.npz", signal=DRAW.integers(900, 1300, (1100, 2)).astype(np.int16))


def results(folder: Path, name: str, *options: str) -> dict[str, Any]:
    __main__.main([name, "--small", "--folder", str(folder), *options])
    return json.loads((folder / f"{name}-small" / "torch.json").read_text())["numbers"]


@pytest.mark.parametrize("name", SYNTHETIC)
def test_training_on_made_tasks(name: str, tmp_path: Path):
    found = results(tmp_path, name, "--steps", "2", "--only", SYNTHETIC[name])
    ((label, one),) = found.items()
    assert label == SYNTHETIC[name]
    assert one["updates"] == 2
    assert np.isfinite(one["losses"]).all()
    assert all(0 <= score <= 1 for score in one["scores"].values())
    assert (tmp_path / f"{name}-small" / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", sorted(NAMES.keys() - SYNTHETIC.keys()))
def test_training_on_data(name: str, tmp_path: Path):
    write_sets(tmp_path)
    found = results(tmp_path, name, "--data", str(tmp_path), "--steps", "1", "--only", "S4D")
    if name == "ecg":
        assert 0 < found["legs, zoh"]["16"] < found["legs, zoh"]["8"] < 1
        assert found["projection"]["16"] < found["bound of theory"]["16"]
    else:
        assert np.isfinite(found["S4D"]["losses"]).all()
    if name == "cifar":
        ours, theirs = found["S4D"], found["the original"]
        assert (ours["parameters"], ours["of"]) == (theirs["parameters"], theirs["of"])
        assert ours["scores"].keys() == theirs["scores"].keys()
    assert (tmp_path / f"{name}-small" / "picture.png").exists()


def small(dropout: float) -> tuple[Task, Recipe]:
    u = DRAW.normal(size=(40, 12, 2)).astype(np.float32)
    model = models.SequenceModel(2, 1, 4, 1, layer_options={"d_state": 4}, dropout=dropout, pool=None)
    task = Task(drawn_from(u, u[..., :1].cumsum(1)), {"all": Scored(u, u[..., :1].cumsum(1))}, mean_square)
    return task, Recipe(model, 6, 4, loss="squares")


@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_a_stopped_training_goes_on_to_the_same_numbers(framework: str, tmp_path: Path):
    """Dropout, moments of the optimizer and the schedule among them."""
    task, recipe = small(dropout=0.5)
    whole = trained(Run(tmp_path / "whole", framework), "model", recipe, task)
    trained(Run(tmp_path / "cut", framework, steps=2), "model", recipe, task)
    rest = trained(Run(tmp_path / "cut", framework), "model", recipe, task)
    assert whole["losses"] == rest["losses"]
    assert whole["scores"] == rest["scores"]


def test_checkpoints_that_cannot_be_gone_on_with(tmp_path: Path):
    task, recipe = small(dropout=0.5)
    trained(Run(tmp_path, steps=1), "model", recipe, task)
    with pytest.raises(SystemExit, match="is of another model, data or training"):
        trained(Run(tmp_path), "model", small(dropout=0.0)[1], task)
    checkpoint = tmp_path / "model.torch.npz"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(SystemExit, match="cannot be read"):
        trained(Run(tmp_path), "model", recipe, task)


def test_a_later_command_keeps_what_an_earlier_one_measured(tmp_path: Path):
    """Of the same model, data and tests alone."""
    task, recipe = small(dropout=0.0)
    recipes = {"a": recipe, "b": recipe}
    found = Run(tmp_path, steps=1, only=("a",)).compare(task, recipes)
    report.write(tmp_path / "torch.json", "small", found)
    again = Run(tmp_path, steps=1, only=("b",)).compare(task, recipes)
    assert list(again) == ["a", "b"]
    assert again["a"] == found["a"]
    other = Task(task.batch, {"half": Scored(*(x[:20] for x in task.tests["all"][:2]))}, task.score)
    assert list(Run(tmp_path, steps=1, only=("b",)).compare(other, recipes)) == ["b"]


def test_training_gives_the_same_numbers_in_both_frameworks(tmp_path: Path):
    task, recipe = small(dropout=0.0)
    one, other = (trained(Run(tmp_path, framework), "model", recipe, task) for framework in ("torch", "flax"))
    np.testing.assert_allclose(one["losses"], other["losses"], rtol=1e-4)
    assert one["scores"]["all"] == pytest.approx(other["scores"]["all"], rel=1e-4)


def test_forecasts_begin_at_the_last_value():
    oil, first = DRAW.normal(size=2000).cumsum().astype(np.float32), np.asarray([720, 1000])
    u, wanted = forecasting.windows(oil, first)
    assert u.shape == (2, 1440, 2)
    assert (u[:, 719, 0] == 0).all()
    np.testing.assert_allclose(wanted[:, 9, 0], oil[first + 9] - oil[first - 1], rtol=1e-6)
    for told, colder in zip((u, wanted), forecasting.windows(oil - 50, first), strict=True):
        np.testing.assert_allclose(colder, told, atol=1e-4)


def test_tasks_ask_what_they_say():
    tokens, product = tasks.composed(3)(np.random.default_rng(0), 50, 9)
    assert set(product.flat) == set(range(6))
    assert (product[:, 0] == tokens[:, 0]).all()
    assert any(
        (product[i, 1] != product[j, 1])
        for i in range(50)
        for j in range(50)
        if sorted(tokens[i, :2]) == sorted(tokens[j, :2])
    )
    bits, odd = tasks.parity(np.random.default_rng(0), 3, 20)
    assert (odd[:, -1] == bits.sum(1) % 2).all()
    for tokens, targets in zip(*tasks.recall([4], 32)(np.random.default_rng(0), 20, 32), strict=True):
        value = dict(zip(tokens[:8:2], tokens[1:8:2], strict=True))
        asked = np.flatnonzero(targets != NONE)
        assert [value[tokens[k]] for k in asked] == targets[asked].tolist()
        assert len(asked) == 4
    tokens, targets = tasks.selective_copying(4, 16)(np.random.default_rng(0), 20, 32)
    assert tokens[:, :32][tokens[:, :32] > 0].tolist() == targets[:, 32:].reshape(-1).tolist()
    tokens, targets = tasks.induction(16)(np.random.default_rng(0), 20, 32)
    marks = (tokens[:, :-1] == 0).argmax(1)
    assert (tokens[np.arange(20), marks + 1] == targets[:, -1]).all()


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def without(key: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        kept = dict(np.load(path))
        del kept[key]
        np.savez(path, **kept)

    return change


def with_array(key: str, value: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **{**np.load(path), key: value})


def with_lines(lines: list[str]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(gzip.compress("\n".join(lines).encode())) and None


READERS = {
    "mnist": data.mnist,
    "cifar10_train_3": data.cifar,
    "fsdd": lambda run: data.digits(run, 20),
    "ETTh1": data.etth1,
    "mitbih_100": data.ecg,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "change", [torn, Path.unlink, lambda path: path.write_bytes(b"")], ids=["torn", "none", "empty"]
)
def test_sets_that_are_missing_or_torn(name: str, change: Callable[[Path], None], tmp_path: Path):
    write_sets(tmp_path)
    change(next(tmp_path.glob(f"{name}.*")))
    with pytest.raises(SystemExit, match=r"^results: ") as caught:
        READERS[name](Run(tmp_path, data=tmp_path))
    assert name in str(caught.value)
    assert "must hold" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("mnist", without("y_test"), "y_test"),
        ("mnist", with_array("y_train", np.arange(3)), "other shapes"),
        ("mnist", with_array("x_train", np.zeros((0, 6, 6))), "is empty"),
        ("mnist", with_array("x_train", np.full((20, 6, 6), 0.5)), "x_train that is not of whole numbers"),
        ("mnist", with_array("x_train", np.full((20, 6, 6), "0")), "x_train that is not of finite real numbers"),
        ("mnist", with_array("y_test", np.full(20, np.nan)), "y_test that is not of finite real numbers"),
        ("mnist", with_array("y_train", np.arange(20)), "labels from 0 to 19, not in 0 ... 9"),
        ("cifar10_train_3", with_array("delta", np.zeros((2, 20, 4, 4), np.uint8)), "other shapes"),
        ("cifar10_train_3", with_array("delta", np.zeros((3, 20, 5, 5), np.uint8)), "train_3.* other shapes"),
        ("cifar10_train_3", with_array("labels", np.zeros((20, 1), np.uint8)), "train_3.* other shapes"),
        ("fsdd", with_array("offsets", np.asarray([*range(0, 570, 30), 540, 600])), "clip 18 .* holds no samples"),
        ("fsdd", with_array("samples", np.zeros(9, np.int16)), "other shapes"),
        ("fsdd", with_array("samples", np.zeros((600, 2), np.int16)), "other shapes"),
        ("fsdd", with_array("offsets", np.asarray(600)), "other shapes"),
        ("fsdd", with_array("sample_rate", np.asarray(16000)), "16000 samples a second, not 8000"),
        ("fsdd", with_array("is_test", np.ones(20, bool)), "20 clips, of which is_test says 20"),
        ("ETTh1", with_lines(["day,1,2,3,4,5,6,7"] * 14401), "begins with 'day,1,2,3,4,5,6,7', not with the names"),
        ("ETTh1", with_lines(["date,OT"] + ["day,1,2,3,4,5,6,7"] * 14400), "no oil temperatures"),
        ("ETTh1", lambda path: path.write_bytes(b"\0".join([path.read_bytes()[:3000]] * 2)), "cannot be read"),
        ("ETTh1", with_lines(["date,OT"] + ["day,1,2,3,4,5,6,7"] * 5), "has 5 hours"),
        ("ETTh1", with_lines(["date,OT", "day,1,2,3"]), "cannot be read"),
        ("ETTh1", with_lines(["date,OT"] + ["day,1,2,3,4,5,6,nan"] * 14400), "no numbers at hour 0"),
        ("mitbih_100", with_array("signal", np.zeros(90)), "other shapes"),
        ("mitbih_100", with_array("signal", np.full((90, 2), 0.1)), "not of whole numbers"),
        ("mitbih_100", with_array("sample_rate", np.asarray(250)), "250 samples a second, not 360"),
    ],
)
def test_sets_of_another_form(name: str, change: Callable[[Path], None], message: str, tmp_path: Path):
    write_sets(tmp_path)
    change(next(tmp_path.glob(f"{name}.*")))
    with pytest.raises(SystemExit, match=f"^results: .*{message}"):
        READERS[name](Run(tmp_path, data=tmp_path))


def test_without_a_folder_the_error_says_what_to_get():
    with pytest.raises(SystemExit, match=r"mnist\.npz is needed, from http://yann.* --data FOLDER or SSM_CORE_DATA"):
        data.mnist(Run(Path()))
    with pytest.raises(SystemExit, match=r"nowhere is no folder\. Give that of mnist\.npz by --data FOLDER"):
        data.mnist(Run(Path(), data=Path("nowhere")))


def test_commands_that_mean_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    __main__.main([])
    assert capsys.readouterr().out.count("\n") == len(NAMES)
    for arguments in (["sudoku"], ["parity", "--steps", "0"]):
        with pytest.raises(SystemExit):
            __main__.main(arguments)
    assert "no result is named sudoku" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="--only S9 meets none of DeltaNet"):
        __main__.main(["parity", "--only", "S9", "--folder", str(tmp_path)])


def test_table_of_a_result():
    spent = {"cpu_seconds": 7.4, "parameters": 1234}
    numbers = {
        "S4D": {"updates": 30, "of": 40, **spent, "losses": [1.0], "scores": {"16": 0.25, "32": 1.0}},
        "guess": {"scores": {"32": 0.5}},
        "the original": {"from": "there", "updates": 40, "of": 40, **spent, "scores": {"16": 0.5}},
    }
    about = {
        "small": True,
        "framework": "flax",
        "only": ["S4*"],
        "machine": {"processor": "P", "numpy": "2", "torch": "3", "jax": "4"},
    }
    held = measured.entered({}, {"name": "mnist", **about, "numbers": numbers})
    assert "losses" not in held["mnist"]["numbers"]["S4D"]
    assert measured.filled("a\n<!-- measured: mnist -->\nold\n<!-- end -->\nb\n", held) == (
        "a\n<!-- measured: mnist -->\n\n"
        "`nox -s results -- mnist --small --framework flax --data FOLDER --only 'S4*' --steps 30`: "
        "7 s of one CPU, P, JAX 4\n\n"
        "|  | parameters | updates | 16 | 32 | CPU time |\n| --- | --- | --- | --- | --- | --- |\n"
        "| S4D | 1,234 | 30 of 40 | 0.250 | 1.000 | 7 s |\n| guess |  |  |  | 0.500 |  |\n"
        "| the original | 1,234 | 40 | 0.500 |  | 7 s |\n"
        "\n<!-- end -->\nb\n"
    )


def test_the_document_shows_what_was_measured():
    """Its tables are those of docs/results.json, and its sentences name no number that is not there."""
    folder = Path(__file__).parents[1] / "docs"
    text, held = (folder / "results.md").read_text(), json.loads((folder / "results.json").read_text())
    assert measured.filled(text, held) == text
    sections = {part.partition("\n")[0]: part for part in text.partition("\n## Data")[0].split("\n### ")[1:]}
    shown = {heading: measured.BLOCK.search(part)["name"] for heading, part in sections.items()}
    assert sorted(shown.values()) == sorted(held) == sorted(NAMES)
    rows = {row[1]: row[2] for row in re.finditer(r"^\| \[(.*?)\]\(.*\|(.*)\|$", text, re.MULTILINE)}
    assert sorted(rows) == sorted(shown)
    for heading, name in shown.items():
        known = [x for one in held[name]["numbers"].values() for x in one.get("scores", one).values()]
        for number in re.findall(r"\b\d\.\d+", rows[heading] + measured.BLOCK.sub("", sections[heading])):
            digits = len(number) - 2
            assert any(f"{x:.{digits}f}" == number for x in known), f"{heading}: {number} was not measured"
