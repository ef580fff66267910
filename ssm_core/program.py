"""What `python -m ssm_core` does: print the backends, or let a language model write."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from . import SSMError, __version__, show_backends
from ._arrays.errors import OptionError
from ._arrays.library import resolve, to_numpy
from ._arrays.numbers import whole
from .files.pretrained import from_pretrained
from .files.tokenizer import Numbers, Tokenizer, Written, tokenizer_of
from .models import LanguageModel

BACKENDS = ("numpy", "torch", "jax")


def program() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ssm_core",
        description="Print which array libraries are installed, what is fused for them, and why others have nothing; "
        "or let a language model write.",
    )
    parser.add_argument("--version", action="version", version=f"ssm_core {__version__}")
    text = "Go on with a text, by a language model in a directory of Hugging Face."
    generate = parser.add_subparsers(dest="command", metavar="generate").add_parser(
        "generate", help=text, description=f"{text} Tokens are printed as they come."
    )
    add = generate.add_argument
    add("directory", help="with config.json, safetensors files, and tokenizer.json")
    add("text", help="to go on with; - reads it from standard input")
    add("--backend", choices=BACKENDS, default="numpy", help="what computes (default: numpy); jax needs flax")
    add("--n-tokens", type=int, default=100, metavar="N", help="at most so many (default: 100)")
    add("--temperature", type=float, default=0.0, metavar="T", help="0 takes the likeliest token (default)")
    add("--top-k", type=int, metavar="K", help="draw from the K likeliest")
    add("--top-p", type=float, metavar="P", help="draw from the fewest that have this probability together")
    add("--min-p", type=float, metavar="P", help="draw from those at least so likely beside the likeliest")
    add("--repetition-penalty", type=float, default=1.0, metavar="X", help="above 1 avoids what was written")
    add("--eos", type=int, action="append", metavar="TOKEN", help="end with it; by default with those of the directory")
    add("--seed", type=int, default=0, help="of the draws (default: 0)")
    add("--ids", action="store_true", help="text is tokens as numbers, and so is what is printed")
    return parser


def opened(backend: str, directory: str) -> tuple[LanguageModel, Any]:
    """The model of a directory, and its `stream` in a backend."""
    if backend == "numpy":
        definition, params = from_pretrained(directory)
        return definition, lambda ids, **options: definition.stream(params, ids, **options)
    from . import adapters  # loads a framework

    module = (adapters.torch if backend == "torch" else adapters.flax).from_pretrained(directory)
    return module.definition, module.stream


def ends_of(model: LanguageModel) -> Any:
    """The tokens that a directory says a text ends with, None if it does not say."""
    for file in ("generation_config.json", "config.json"):
        eos = model.origin.get(file, {}).get("eos_token_id")
        tokens = eos if isinstance(eos, list) else [eos]
        if eos is not None and not (tokens and all(is_token(token, model.vocab_size) for token in tokens)):
            raise OptionError(
                f"generate: eos_token_id of {file} is {eos!r}, but tokens lie in [0, {model.vocab_size}). "
                "Say which token ends a text with --eos."
            )
        if eos is not None:
            return tokens
    return None


def is_token(x: Any, vocab_size: int) -> bool:
    """Whether x is a token of a model of so many."""
    return isinstance(x, int) and not isinstance(x, bool) and 0 <= x < vocab_size


def prompt_of(text: str, tokenizer: Tokenizer, vocab_size: int) -> list[int]:
    """The tokens of a text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise OptionError(f"generate: the text {text!r} holds bytes that are no UTF-8.") from error
    tokens = tokenizer.encode(text)
    if not tokens:
        what = "is empty" if not text.strip() else f"{text!r} has no tokens in this tokenizer"
        raise OptionError(f"generate: the text {what}, but a prompt needs at least one token.")
    if not all(is_token(token, vocab_size) for token in tokens):
        raise OptionError(
            f"generate: tokens must lie in [0, {vocab_size}) (smallest: {min(tokens)}, largest: {max(tokens)})."
        )
    return tokens


def written(options: argparse.Namespace) -> Iterator[str]:
    """The text that follows, piece by piece."""
    n_tokens = whole("generate", 0, n_tokens=options.n_tokens)
    text = sys.stdin.read() if options.text == "-" else options.text
    model, stream = opened(options.backend, options.directory)
    tokenizer: Tokenizer = Numbers() if options.ids else tokenizer_of(options.directory, model.vocab_size)
    tokens = prompt_of(text, tokenizer, model.vocab_size)
    xp = resolve(options.backend)
    drawn = stream(
        xp.asarray([tokens], dtype=xp.int32),
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        repetition_penalty=options.repetition_penalty,
        eos=ends_of(model) if options.eos is None else options.eos,
        seed=options.seed,
    )
    following = Written(tokenizer, tokens)
    for token in islice(drawn, min(n_tokens, sys.maxsize)):
        yield following.add(int(to_numpy(token)[0]))
    yield following.end()


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    options = program().parse_args(arguments)
    if options.command is None:
        show_backends()
        return 0
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal may not have every character
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="surrogateescape")  # as arguments are read: `prompt_of` refuses what is no text
    try:
        for piece in written(options):
            print(piece, end="", flush=True)
        print()
    except SSMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
        return 130
    except BrokenPipeError:  # who read it has seen enough; at the end Python flushes once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
