"""A classifier of sequences trained in Flax; `train_torch.py` says the same in PyTorch."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import optax
from flax import nnx

from recipe import Recipe
from ssm_core.adapters.flax import SequenceModel, load, param_labels, save


class Trainer:
    """Updates the model of a weight file, batch by batch."""

    def __init__(self, weights: Path, recipe: Recipe, updates: int) -> None:
        self.model = load(weights)

        def adamw(lr: float, weight_decay: float) -> optax.GradientTransformation:
            warmup = recipe.warmup_updates(updates)
            schedule = optax.warmup_cosine_decay_schedule(0.0, lr, warmup, updates, end_value=0.0)
            b1, b2 = recipe.betas
            return optax.adamw(schedule, b1, b2, recipe.eps, eps_root=0.0, weight_decay=weight_decay)

        rules = {"regular": adamw(recipe.lr, recipe.weight_decay), "ssm": adamw(recipe.ssm_lr, 0.0)}
        optimizer = optax.multi_transform(rules, param_labels(self.model))
        self.optimizer = nnx.Optimizer(self.model, optimizer, wrt=nnx.Param)

    def update(self, u: np.ndarray, label: np.ndarray) -> float:
        """One step of the optimizer on the cross-entropy of a batch u (B, L, 1), label (B,); returns the loss."""
        return float(_update(self.model, self.optimizer, u, label))

    def logits(self, u: np.ndarray) -> np.ndarray:
        """(B, L, 1) to (B, 10)."""
        return np.asarray(_logits(self.model, u))

    def save(self, path: Path) -> None:
        save(self.model, path)


@nnx.jit
def _update(model: SequenceModel, optimizer: nnx.Optimizer, u: jax.Array, label: jax.Array) -> jax.Array:
    def loss_of(model: SequenceModel) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(u), label).mean()

    loss, gradients = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, gradients)
    return loss


@nnx.jit
def _logits(model: SequenceModel, u: jax.Array) -> jax.Array:
    return model(u)
