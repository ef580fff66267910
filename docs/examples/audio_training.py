"""Training of a model of sound that can be stopped: the batch of an update depends on its number alone."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from ssm_core import adapters, models


@dataclass(frozen=True)
class Recipe:
    """AdamW with a linear warm-up and a cosine decay to zero over all updates."""

    model: models.SaShiMi
    updates: int
    batch: int = 8
    length: int = 1024  # samples of a clip that an update sees
    lr: float = 1e-2
    ssm_lr: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    every: int = 50  # updates between checkpoints


def batch_of(
    clips: Sequence[np.ndarray], recipe: Recipe, update: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(what is heard before every sample, the samples, lengths) of pieces of clips of whole numbers."""
    draw = np.random.default_rng([17, update])
    pieces = []
    for clip in (clips[i] for i in draw.integers(0, len(clips), recipe.batch)):
        start = draw.integers(0, max(len(clip) - recipe.length, 0) + 1)
        pieces.append(clip[start : start + recipe.length])
    return padded(pieces, recipe.model.vocab_size // 2)


def padded(pieces: Sequence[np.ndarray], silence: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pieces as rows of one length: silence and then all but their last sample, the samples, and the lengths."""
    lengths = np.asarray([len(piece) for piece in pieces])
    targets = np.full((len(pieces), lengths.max()), -100)  # which the loss leaves out
    inputs = np.full_like(targets, silence)
    for row, piece in enumerate(pieces):
        targets[row, : len(piece)] = piece
        inputs[row, 1 : len(piece)] = piece[:-1]
    return torch.from_numpy(inputs), torch.from_numpy(targets), torch.from_numpy(lengths)


def train(name: str, recipe: Recipe, clips: Sequence[np.ndarray], path: Path, stop: int | None = None) -> Any:
    """The trained module; what was trained before and lies at `path` is gone on from. `stop` ends it early."""
    torch.manual_seed(0)
    module = adapters.torch.SaShiMi(**recipe.model.options())
    groups = adapters.torch.param_groups(module, lr=recipe.lr, weight_decay=recipe.weight_decay, ssm_lr=recipe.ssm_lr)
    optimizer = torch.optim.AdamW(groups)
    rates = [group["lr"] for group in optimizer.param_groups]
    mark = f"{recipe} {len(clips)} {zlib.crc32(np.concatenate(clips).astype(np.uint16).tobytes())}"
    done, mean = _restored(path, mark, module, optimizer)
    end = recipe.updates if stop is None else min(stop, recipe.updates)
    with tqdm(total=recipe.updates, initial=done, desc=name, unit="update") as bar:
        for update in range(done, end):
            inputs, targets, lengths = batch_of(clips, recipe, update)
            logits = module(inputs, lengths=lengths)
            loss = cross_entropy(logits.flatten(0, 1), targets.flatten())
            warm, rest = recipe.warmup * recipe.updates, update / recipe.updates
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * min((update + 1) / max(warm, 1), 0.5 * (1 + math.cos(math.pi * rest)))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            bits = loss.item() / math.log(2)
            mean = bits if mean is None else 0.95 * mean + 0.05 * bits
            bar.set_postfix_str(f"{mean:.3f} bits a sample", refresh=False)
            bar.update()
            if (update + 1) % recipe.every == 0 or update + 1 == end:
                _keep(path, mark, module, optimizer, update + 1, mean)
    return module.eval()


def _keep(path: Path, mark: str, module: Any, optimizer: Any, done: int, mean: float | None) -> None:
    """Write a checkpoint beside the last one, then put it in its place: one of them is always whole."""
    kept = {"mark": mark, "model": module.state_dict(), "optimizer": optimizer.state_dict(), "done": done, "mean": mean}
    beside = path.with_suffix(".new")
    torch.save(kept, beside)
    os.replace(beside, path)


def _restored(path: Path, mark: str, module: Any, optimizer: Any) -> tuple[int, float | None]:
    """Updates that were made before, and the mean of the loss."""
    if not path.exists():
        return 0, None
    try:
        kept = torch.load(path, weights_only=True)
    except Exception as error:
        raise SystemExit(f"audio: the checkpoint {path} cannot be read ({error}). Delete it to begin anew.") from error
    if not isinstance(kept, dict) or kept.get("mark") != mark:
        raise SystemExit(f"audio: the checkpoint {path} is of another model, sound or length of training. Delete it.")
    module.load_state_dict(kept["model"])
    optimizer.load_state_dict(kept["optimizer"])
    return int(kept["done"]), kept["mean"]


@torch.no_grad()
def bits_a_sample(module: Any, clips: Sequence[np.ndarray], batch: int = 8) -> float:
    """Bits a sample of whole clips, each from silence on."""
    bits, count = 0.0, 0
    for i in range(0, len(clips), batch):
        inputs, targets, lengths = padded(clips[i : i + batch], module.definition.vocab_size // 2)
        logits = module(inputs, lengths=lengths)
        bits += float(cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")) / math.log(2)
        count += int(lengths.sum())
    return bits / count
