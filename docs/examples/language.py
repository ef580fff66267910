"""A language model of bytes: Mamba-2 trained in PyTorch on the text of Python's own help, run in Flax and NumPy.

    python docs/examples/language.py
    python docs/examples/language.py --seconds 600 --file book.txt

The text is what `help()` prints of the language (pydoc_data.topics, which comes with Python); its last tenth is kept
for testing. Bits per byte are compared with those of a bigram model of the same text. The trained weights are loaded in
Flax and in NumPy, and all three go on from the same prompt, byte by byte.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import ssm_core
from ssm_core import adapters

FOLDER = Path(__file__).parents[1] / "_build" / "language"
MODEL: dict[str, Any] = {
    "vocab_size": 256, "d_model": 128, "n_layers": 4, "layer_options": {"d_state": 32, "head_dim": 32, "chunk": 128}
}  # fmt: skip
BATCH, LENGTH = 8, 256
LR, SSM_LR, WEIGHT_DECAY, WARMUP = 4e-3, 1e-3, 0.1, 0.1  # WARMUP: share of the time
PROMPT = 'The "while" statement is used for '


def read_text(path: Path | None) -> np.ndarray:
    """The bytes of a file, or of Python's help."""
    text = "\n\n".join(topics[name] for name in sorted(topics)).encode() if path is None else path.read_bytes()
    return np.frombuffer(text, dtype=np.uint8).astype(np.int64)


def bigram_bits(train: np.ndarray, test: np.ndarray) -> float:
    """Bits per byte of the test text, every byte guessed from the one before by their counts in the training text."""
    counts = np.ones((256, 256)) / 256  # of pairs never seen
    np.add.at(counts, (train[:-1], train[1:]), 1)
    p = counts / counts.sum(axis=1, keepdims=True)
    return float(-np.log2(p[test[:-1], test[1:]]).mean())


def train(text: np.ndarray, seconds: float, options: dict[str, Any]) -> Any:
    """A model trained for so long: AdamW, a linear warm-up and a linear decay over the time."""
    torch.manual_seed(0)
    model = adapters.torch.Mamba2LM(**options)
    groups = adapters.torch.param_groups(model, lr=LR, weight_decay=WEIGHT_DECAY, ssm_lr=SSM_LR)
    optimizer = torch.optim.AdamW(groups)
    rates = [group["lr"] for group in optimizer.param_groups]
    draw, begun, done, mean = np.random.default_rng(0), time.perf_counter(), 0.0, None
    with tqdm(
        total=round(seconds), unit="s", desc="torch", bar_format="{l_bar}{bar}| {n:.0f}/{total} s {postfix}"
    ) as bar:
        while done < 1:
            starts = draw.integers(0, len(text) - LENGTH, BATCH)
            batch = torch.from_numpy(text[starts[:, None] + np.arange(LENGTH + 1)])
            loss = cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * min(done / WARMUP, 1) * (1 - done)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            bits = loss.item() / np.log(2)
            mean = bits if mean is None else 0.95 * mean + 0.05 * bits
            passed = time.perf_counter() - begun
            done = passed / seconds
            bar.set_postfix_str(f"{mean:.2f} bits per byte", refresh=False)
            bar.update(min(passed, seconds) - bar.n)
    return model


@torch.no_grad()
def bits_per_byte(model: Any, text: np.ndarray) -> float:
    """Bits per byte of a text read from its beginning in pieces, the state carried from one to the next."""
    state, bits, tokens = None, 0.0, torch.from_numpy(text)[None]
    for start in range(0, len(text) - 1, 4096):
        ids = tokens[:, start : start + 4097]
        logits, state = model(ids[:, :-1], state=state, return_state=True)
        bits += float(cross_entropy(logits[0], ids[0, 1:], reduction="sum")) / np.log(2)
    return bits / (len(text) - 1)


def go_on(weights: Path, n: int) -> dict[str, np.ndarray]:
    """What the model of a weight file writes after the prompt, the likeliest byte each time, in three libraries."""
    prompt = np.frombuffer(PROMPT.encode(), dtype=np.uint8).astype(np.int64)[None]
    found = {"torch": adapters.torch.load(weights).generate(torch.from_numpy(prompt), n).numpy()}
    found["flax"] = np.asarray(adapters.flax.load(weights).generate(_jax(prompt), n))
    model, params = ssm_core.load(weights)
    step, state = model.stepper(params), model.initial_state(params, 1)
    for byte in prompt[0]:  # in NumPy the prompt too goes byte by byte
        logits, state = step(np.asarray([byte]), state)
    found["numpy"] = ssm_core.models.generation.generate(logits, state, step, n)[0]
    return {name: tokens[0] for name, tokens in found.items()}


def _jax(x: np.ndarray) -> Any:
    import jax.numpy as jnp

    return jnp.asarray(x.astype(np.int32))


def run(text: np.ndarray, seconds: float, folder: Path, options: dict[str, Any] = MODEL, n: int = 300) -> None:
    """Train, test, save, and write on in every library."""
    split = len(text) * 9 // 10
    learn, test = text[:split], text[split:]
    print(f"{len(learn):,} bytes to learn from, {len(test):,} to be tested on")
    model = train(learn, seconds, options)
    found, bigram = bits_per_byte(model, test), bigram_bits(learn, test)
    print(f"bits per byte: {found:.3f}; of a bigram model: {bigram:.3f}")
    weights = folder / "language.safetensors"
    adapters.torch.save(model, weights)
    begun = time.perf_counter()
    texts = go_on(weights, n)
    print(f"weights in {weights}; {3 * n} bytes written in {time.perf_counter() - begun:.0f} s\n")
    print(PROMPT + bytes(texts["torch"].tolist()).decode(errors="replace") + "\n")
    for name in ("flax", "numpy"):
        same = int(np.cumprod(texts[name] == texts["torch"]).sum())
        print(f"{name}: the first {same} of {n} bytes are those of torch")
        if same < n:
            raise SystemExit(f"language: {name} and torch write different texts.")
    if found >= bigram and seconds >= 60:
        raise SystemExit("language: the model is no better than a bigram model.")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="language", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="of training (default: 120)")
    parser.add_argument("--file", type=Path, help="a text to learn instead of Python's help")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="for the weights (default: docs/_build/language)")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    run(read_text(options.file), options.seconds, options.folder)


if __name__ == "__main__":
    main()
