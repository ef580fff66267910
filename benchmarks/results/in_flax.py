"""One update, outputs and the whole state of a training in Flax; `in_torch.py` says the same in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from ssm_core.adapters.flax import load, param_labels

from .recipe import NONE, Recipe


class Trainer:
    """Updates the model of a weight file, batch by batch."""

    def __init__(self, weights: Path, recipe: Recipe) -> None:
        self.recipe, factors = recipe, jnp.asarray(recipe.factors())
        self.module, self.device = load(weights), jax.devices()[0].device_kind

        def adamw(lr: float, weight_decay: float) -> optax.GradientTransformation:
            b1, b2 = recipe.betas
            return optax.adamw(lambda k: lr * factors[k], b1, b2, recipe.eps, eps_root=0.0, weight_decay=weight_decay)

        rules = {"regular": adamw(recipe.lr, recipe.weight_decay), "ssm": adamw(recipe.ssm_lr, 0.0)}
        by_label = optax.multi_transform(rules, param_labels(self.module))
        clipped = optax.chain(optax.clip_by_global_norm(recipe.clip), by_label)
        self.optimizer = nnx.Optimizer(self.module, clipped, wrt=nnx.Param)

    def update(self, inputs: np.ndarray, targets: np.ndarray, k: int) -> float:
        """The k-th step of the optimizer; returns the loss."""
        self.module.train()
        nnx.reseed(self.module, default=k)  # of dropout
        return float(_update(self.module, self.optimizer, inputs, targets, self.recipe.loss))

    def outputs(self, inputs: np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
        self.module.eval()
        return np.asarray(_outputs(self.module, inputs, **options))

    def arrays(self) -> dict[str, np.ndarray]:
        """All that the next update depends on, numbered."""
        return {str(i): np.asarray(x) for i, x in enumerate(jax.tree.leaves(self._state()))}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        tree = jax.tree.structure(self._state())
        leaves = [jnp.asarray(arrays[str(i)]) for i in range(tree.num_leaves)]
        model, optimizer = jax.tree.unflatten(tree, leaves)
        nnx.update(self.module, model)
        nnx.update(self.optimizer, optimizer)

    def _state(self) -> tuple[Any, Any]:
        return nnx.state(self.module, nnx.Param), nnx.state(self.optimizer, nnx.OptState)


@partial(nnx.jit, static_argnums=4)
def _update(module: Any, optimizer: nnx.Optimizer, inputs: jax.Array, targets: jax.Array, loss: str) -> jax.Array:
    def loss_of(module: Any) -> jax.Array:
        outputs = module(inputs)
        if loss == "squares":
            return jnp.square(outputs[:, -targets.shape[1] :] - targets).mean()
        counted = targets != NONE
        each = optax.softmax_cross_entropy_with_integer_labels(outputs, jnp.where(counted, targets, 0))
        return jnp.where(counted, each, 0.0).sum() / counted.sum()

    value, gradients = nnx.value_and_grad(loss_of)(module)
    optimizer.update(module, gradients)
    return value


@partial(nnx.jit, static_argnames="rate")
def _outputs(module: Any, inputs: jax.Array, rate: float = 1.0) -> jax.Array:
    return module(inputs, rate=rate)
