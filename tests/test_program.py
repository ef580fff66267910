"""`python -m ssm_core generate`: a language model of a directory goes on with a text, token by token."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("safetensors")

import ssm_core
from ssm_core import adapters
from ssm_core.files.tokenizer import Bytes, HuggingFace, Written, tokenizer_of
from ssm_core.models import MambaLM
from ssm_core.program import main

WORDS = ["<end>", "once", "upon", "a", "time", "there", "was", "state", "space", "model", "?"]
MODEL = MambaLM(11, 8, 2, {"d_state": 4})
IDS = np.asarray([[1, 2, 3, 4]])
TEXT = "once upon a time"


def saved(folder: Path, model: MambaLM = MODEL, **files: Any) -> dict[str, np.ndarray]:
    """A directory with a model, as if after some training, and files beside it."""
    rng = np.random.default_rng(2)
    params = {n: p + rng.uniform(-0.5, 0.5, p.shape) for n, p in model.initial_parameters().items()}
    ssm_core.save_pretrained(model, params, folder)
    for name, entries in files.items():
        (folder / f"{name}.json").write_text(json.dumps(entries))
    return ssm_core.from_pretrained(folder)[1]


def words(folder: Path, vocabulary: list[str] = WORDS) -> None:
    """A tokenizer of words."""
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: k for k, word in enumerate(vocabulary)}, "?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.add_special_tokens(["<end>"])
    made.save(str(folder / "tokenizer.json"))


def said(capsys: pytest.CaptureFixture[str], *arguments: Any, status: int = 0) -> str:
    assert main(["generate", *map(str, arguments)]) == status
    out, err = capsys.readouterr()
    return err if status else out


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"])
def test_a_text_goes_on(backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], quick_compilation: None):
    """The same words in every framework, greedy and drawn."""
    if backend != "numpy":
        pytest.importorskip({"torch": "torch", "jax": "flax"}[backend])
    params = saved(tmp_path)
    words(tmp_path)
    for options in ({}, {"temperature": 1.5, "top_k": 9, "top_p": 0.9, "min_p": 0.01, "seed": 3}):
        given = [x for name, value in options.items() for x in ("--" + name.replace("_", "-"), value)]
        text = said(capsys, tmp_path, TEXT, "--backend", backend, "--n-tokens", 6, *given)
        tokens = MODEL.generate(params, IDS, 6, **options)[0]
        assert text.split() == [WORDS[token] for token in tokens if token != 0]


def test_tokens_as_numbers_and_from_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    params = saved(tmp_path)
    wanted = MODEL.generate(params, IDS, 5, repetition_penalty=1.5)[0].tolist()
    monkeypatch.setattr("sys.stdin", io.StringIO("1, 2 3\n4"))
    found = said(capsys, tmp_path, "-", "--ids", "--n-tokens", 5, "--repetition-penalty", 1.5)
    assert [int(token) for token in found.split()] == wanted
    assert said(capsys, tmp_path, "1 2", "--ids", "--n-tokens", 0) == "\n"


def test_a_text_ends_where_the_directory_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    free = [int(token) for token in MODEL.generate(saved(tmp_path), IDS, 8, temperature=2.0)[0]]
    last = next(token for token in free[1:] if token != free[0])
    wanted = free[: free.index(last) + 1]

    def numbers(*more: Any) -> list[int]:
        given = ["--ids", "--n-tokens", 8, "--temperature", 2, *more]
        return [int(token) for token in said(capsys, tmp_path, "1 2 3 4", *given).split()]

    assert numbers() == free
    assert numbers("--eos", last) == wanted
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"eos_token_id": last}))
    assert numbers() == wanted
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [last, free[0]]}))
    assert numbers() == free[:1]


def test_bytes_where_the_model_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = MambaLM(256, 8, 1, {"d_state": 4})
    params = saved(tmp_path, model, tokenizer_config={"tokenizer_class": "ByteTokenizer"})
    assert isinstance(tokenizer_of(tmp_path, 256), Bytes)
    prompt = np.asarray([list("né".encode())])
    tokens = model.generate(params, prompt, 7)[0]
    wanted = bytes(tokens.tolist()).decode(errors="replace")
    assert said(capsys, tmp_path, "né", "--n-tokens", 7) == wanted + "\n"


def test_characters_are_printed_when_they_are_complete():
    """Of bytes, and of a tokenizer whose words begin with a space but for the first."""
    text, written = "aé€😀b", Written(Bytes(), [])
    pieces = [written.add(byte) for byte in text.encode()]
    assert [piece for piece in pieces if piece] == list(text)
    cut = Written(Bytes(), [])
    assert [cut.add(byte) for byte in "é".encode()[:1]] == [""]
    assert cut.end() == "\ufffd"
    assert sum(len(written.add(0xFF)) for _ in range(100)) > 90
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {word: k for k, word in enumerate(["▁once", "▁upon", "▁a", "s", "?"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "?"))
    made.decoder = tokenizers.decoders.Metaspace()
    following = Written(HuggingFace(made), [0])
    assert [following.add(token) for token in (1, 2, 3)] == [" upon", " a", "s"]


def test_as_a_program(tmp_path: Path):
    """In a process of its own, which loads no framework, and whose reader may leave."""
    saved(tmp_path)
    code = "import runpy, sys; sys.modules['torch'] = sys.modules['jax'] = None; "
    code += "sys.argv = ['ssm_core', 'generate', *sys.argv[1:]]; runpy.run_module('ssm_core', run_name='__main__')"
    command = [sys.executable, "-c", code, str(tmp_path), "1 2 3", "--ids", "--n-tokens"]
    done = subprocess.run([*command, "4"], capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stdout.split())) == (0, 4), done.stderr
    with subprocess.Popen([*command, "100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None  # noqa: PT018
        process.stdout.read(4)
        process.stdout.close()
        assert process.wait(60) == 0
        assert not process.stderr.read()


def other_tokens(folder: Path) -> None:
    words(folder, [*WORDS, "more"])


def broken(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text("{")


def config(**entries: Any) -> Callable[[Path], Any]:
    return lambda folder: (folder / "generation_config.json").write_text(json.dumps(entries))


def of_bytes(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "ByteTokenizer"}')


def sentence_piece(folder: Path) -> None:
    (folder / "tokenizer.model").write_bytes(b"")


WRONG: list[tuple[Callable[[Path], Any], list[Any], str]] = [
    (lambda folder: None, [TEXT], "has no tokenizer.json. Copy it there"),
    (sentence_piece, [TEXT], "There is tokenizer.model: where transformers is installed, write it with AutoTokenizer"),
    (other_tokens, [TEXT], "tokenizer.json has tokens up to 11, but the model of .* has 11 of them .vocab_size"),
    (of_bytes, [TEXT], "has tokens for bytes up to 255, but the model of .* has 11 of them"),
    (broken("tokenizer.json"), [TEXT], "is no readable tokenizer"),
    (broken("tokenizer_config.json"), [TEXT], "tokenizer_config.json' cannot be read"),
    (words, [""], "the text is empty, but a prompt needs at least one token"),
    (words, ["once \udcff"], "holds bytes that are no UTF-8"),
    (lambda folder: words(folder, []), ["once"], "tokenizer.json has no tokens for 'once'"),
    (words, ["1 x", "--ids"], "'1 x' holds more than tokens as numbers"),
    (words, ["1 99", "--ids"], r"tokens must lie in \[0, 11\)"),
    (words, ["1 -1", "--ids"], r"tokens must lie in \[0, 11\)"),
    (words, [str(10**30), "--ids"], r"tokens must lie in \[0, 11\)"),
    (words, [TEXT, "--n-tokens", -1], "n_tokens = -1 must be a whole number of at least 0"),
    (words, [TEXT, "--temperature", -1], "temperature = -1.0 must be at least 0"),
    (words, [TEXT, "--temperature", "nan"], "temperature = nan must be at least 0"),
    (words, [TEXT, "--top-p", 0.5], "top_p need a temperature above 0"),
    (words, [TEXT, "--temperature", 1, "--top-p", 1.5], r"top_p = 1.5 must lie in \(0, 1\]"),
    (words, [TEXT, "--temperature", 1, "--seed", -1], "seed = -1 seeds no generator"),
    (words, [TEXT, "--eos", 11], r"eos = \[11\] must be a token in \[0, 11\)"),
    (config(eos_token_id=11), ["1", "--ids"], r"eos_token_id of generation_config.json is 11, but tokens lie in"),
    (config(eos_token_id="end"), ["1", "--ids"], "Say which token ends a text with --eos"),
    (config(eos_token_id=[]), ["1", "--ids"], r"eos_token_id of generation_config.json is \[\], but tokens"),
    (lambda folder: (folder / "config.json").unlink(), ["1", "--ids"], "config.json' cannot be read"),
]


@pytest.mark.parametrize(("wrong", "arguments", "message"), WRONG, ids=[row[2][:40] for row in WRONG])
def test_refused(
    wrong: Callable[[Path], Any],
    arguments: list[Any],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    """One line on standard error, and nothing written."""
    saved(tmp_path)
    wrong(tmp_path)
    err = said(capsys, tmp_path, *arguments, status=1)
    assert re.search(message, err), err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("package", "backend", "message"),
    [
        ("tokenizers", "numpy", "needs the package tokenizers.*pip install tokenizers"),
        ("torch", "torch", "pip install"),
        ("flax", "jax", "pip install"),
    ],
)
def test_packages_that_are_absent(package: str, backend: str, message: str, tmp_path: Path):
    saved(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    code = f"import sys; sys.modules[{package!r}] = None; from ssm_core.program import main; "
    code += f"sys.exit(main(['generate', {str(tmp_path)!r}, 'a', '--backend', {backend!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert re.search(message, done.stderr), done.stderr


def test_modules_of_directories_stream(tmp_path: Path):
    """What the program does, in two lines of a user's."""
    torch = pytest.importorskip("torch")
    params = saved(tmp_path)
    model = adapters.torch.from_pretrained(tmp_path)
    tokens = model.stream(torch.from_numpy(IDS))
    assert [next(tokens).item() for _ in range(3)] == MODEL.generate(params, IDS, 3)[0].tolist()
