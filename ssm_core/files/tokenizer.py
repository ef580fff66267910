"""Text as tokens, by the tokenizer that lies in a directory of Hugging Face."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

from .._arrays.errors import MissingPackageError, OptionError

TOKENIZER, CONFIG, BYTES = "tokenizer.json", "tokenizer_config.json", "ByteTokenizer"
INCOMPLETE = "\ufffd"  # what stands for the first bytes of a character
CONTEXT = 16  # tokens of the prompt that what follows is decoded with
PATIENCE = 8  # tokens that a character may have; bytes that are no text are not waited for


class Tokenizer(Protocol):
    """What maps a text to tokens and back."""

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, with those that a model of its kind begins with."""

    def decode(self, tokens: list[int]) -> str:
        """The text of tokens."""


class Bytes:
    """Token k is the byte k of UTF-8; others have no text."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: list[int]) -> str:
        return bytes(token for token in tokens if token < 256).decode(errors="replace")


class Numbers:
    """Tokens written as numbers: "5 12 7"."""

    def encode(self, text: str) -> list[int]:
        try:
            return [int(number) for number in text.replace(",", " ").split()]
        except ValueError as error:
            raise OptionError(f"generate: {text!r} holds more than tokens as numbers, such as '5 12 7'.") from error

    def decode(self, tokens: list[int]) -> str:
        return "".join(f"{token} " for token in tokens)


class HuggingFace:
    """That of a tokenizer.json, which the package tokenizers reads."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        try:
            tokens: list[int] = self.tokenizer.encode(text).ids
        except Exception as error:  # of no kind of their own
            raise OptionError(f"generate: {TOKENIZER} has no tokens for {text!r} ({error}).") from error
        return tokens

    def decode(self, tokens: list[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text


def tokenizer_of(directory: str | os.PathLike[str], vocab_size: int) -> Tokenizer:
    """The tokenizer of a directory, of a model with so many tokens.

    It is tokenizer.json, or where tokenizer_config.json has the tokenizer_class "ByteTokenizer", the bytes of UTF-8.
    Raises OptionError without either, or for one of another vocabulary; MissingPackageError without tokenizers.
    """
    folder = Path(directory)
    if _of_bytes(folder):
        tokenizer: Tokenizer = Bytes()
        largest, what = 255, f"{CONFIG} has tokens for bytes"
    elif (folder / TOKENIZER).is_file():
        read = _read(folder / TOKENIZER)
        tokenizer, largest = HuggingFace(read), max(read.get_vocab(with_added_tokens=True).values(), default=-1)
        what = f"{TOKENIZER} has tokens"
    else:
        raise OptionError(
            f"generate: {os.fspath(folder)!r} has no {TOKENIZER}.{_other(folder)} Give tokens as numbers with --ids."
        )
    if largest >= vocab_size:
        raise OptionError(
            f"generate: {what} up to {largest}, but the model of {os.fspath(folder)!r} has {vocab_size} of them "
            f"(vocab_size). It belongs to another model. Give tokens as numbers with --ids."
        )
    return tokenizer


def _of_bytes(folder: Path) -> bool:
    """Whether the model says that its tokens are bytes."""
    if not (folder / CONFIG).is_file():
        return False
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OptionError(f"generate: {os.fspath(folder / CONFIG)!r} cannot be read ({error}).") from error
    return isinstance(found, dict) and found.get("tokenizer_class") == BYTES


def _read(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer as Read
    except ImportError as error:
        raise MissingPackageError(
            f"generate: {path.name} needs the package tokenizers, which is not installed. Install it: "
            "pip install 'ssm-core[text]', or pip install tokenizers. Or give tokens as numbers with --ids."
        ) from error
    try:
        return Read.from_file(os.fspath(path))
    except Exception as error:  # of no kind of their own
        raise OptionError(f"generate: {os.fspath(path)!r} is no readable tokenizer ({error}).") from error


def _other(folder: Path) -> str:
    """What to do with a tokenizer that is stored in another way."""
    found = [name for name in ("tokenizer.model", "vocab.json", CONFIG) if (folder / name).is_file()]
    if not found:
        return " Copy it there from where the model comes from."
    return (
        f" There is {found[0]}: where transformers is installed, write it with "
        f"AutoTokenizer.from_pretrained({os.fspath(folder)!r}).save_pretrained({os.fspath(folder)!r})."
    )


class Written:
    """The text of tokens that come one after another: what a token adds, when its characters are complete.

    Decoders look at what stands before a token, so the last piece of text is decoded again with what follows it; the
    prompt is the first.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: list[int]) -> None:
        self._tokenizer, self._before, self._new = tokenizer, prompt[-CONTEXT:], list[int]()

    def add(self, token: int) -> str:
        """What the token adds to the text, nothing while a character is incomplete."""
        self._new.append(token)
        return self._rest(complete=True)

    def end(self) -> str:
        """What is left."""
        return self._rest(complete=False)

    def _rest(self, complete: bool) -> str:
        known = self._tokenizer.decode(self._before)
        text = self._tokenizer.decode(self._before + self._new)
        waiting = text.endswith(INCOMPLETE) or len(text) <= len(known)
        if complete and waiting and len(self._new) < PATIENCE:
            return ""
        self._before, self._new = self._new, []
        return text[len(known) :]
