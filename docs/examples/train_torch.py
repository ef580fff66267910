"""A classifier of sequences trained in PyTorch; `train_flax.py` says the same in Flax."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from recipe import Recipe
from ssm_core.adapters.torch import SequenceModel, load, param_groups, save


def use_one_thread() -> None:
    """For small arrays: several threads wait for each other longer than they compute."""
    torch.set_num_threads(1)


def write_initial_weights(recipe: Recipe, path: Path) -> None:
    """Fresh weights, the same on every run."""
    torch.manual_seed(0)
    save(SequenceModel(**recipe.model.options()), path)


class Trainer:
    """Updates the model of a weight file, batch by batch."""

    def __init__(self, weights: Path, recipe: Recipe, updates: int) -> None:
        self.model = load(weights)
        groups = param_groups(self.model, lr=recipe.lr, weight_decay=recipe.weight_decay, ssm_lr=recipe.ssm_lr)
        self.optimizer = torch.optim.AdamW(groups, betas=recipe.betas, eps=recipe.eps)

        warmup = recipe.warmup_updates(updates)

        def factor(k: int) -> float:
            if k < warmup:
                return k / warmup
            return 0.5 * (1 + math.cos(math.pi * (k - warmup) / (updates - warmup)))

        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)

    def update(self, u: np.ndarray, label: np.ndarray) -> float:
        """One step of the optimizer on the cross-entropy of a batch u (B, L, 1), label (B,); returns the loss."""
        loss = cross_entropy(self.model(torch.from_numpy(u)), torch.from_numpy(label))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return loss.item()

    @torch.no_grad()
    def logits(self, u: np.ndarray) -> np.ndarray:
        """(B, L, 1) to (B, 10)."""
        return self.model(torch.from_numpy(u)).numpy()

    def save(self, path: Path) -> None:
        save(self.model, path)
