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
    """Updates the model of a weight file, batch by batch.

    Module and optimizer are taken apart once, and jitted functions of arrays put them together while they are traced:
    nnx.jit does so at every call, which costs a small model several times the arithmetic of its update.
    """

    def __init__(self, weights: Path, recipe: Recipe) -> None:
        self.recipe, factors = recipe, jnp.asarray(recipe.factors())
        module, self.device = load(weights), jax.devices()[0].device_kind

        def adamw(lr: float, weight_decay: float) -> optax.GradientTransformation:
            b1, b2 = recipe.betas
            return optax.adamw(lambda k: lr * factors[k], b1, b2, recipe.eps, eps_root=0.0, weight_decay=weight_decay)

        rules = {"regular": adamw(recipe.lr, recipe.weight_decay), "ssm": adamw(recipe.ssm_lr, 0.0)}
        by_label = optax.multi_transform(rules, param_labels(module))
        clipped = optax.chain(optax.clip_by_global_norm(recipe.clip), by_label)
        optimizer = nnx.Optimizer(module, clipped, wrt=nnx.Param)
        self.form, self.state = nnx.split((module, optimizer))

    def update(self, inputs: np.ndarray, targets: np.ndarray, k: int) -> float:
        """The k-th step of the optimizer; returns the loss."""
        self.state, loss = _update(self.form, self.state, inputs, targets, k, self.recipe.loss)
        return float(loss)

    def outputs(self, inputs: np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
        return np.asarray(_outputs(self.form, self.state, inputs, **options))

    def arrays(self) -> dict[str, np.ndarray]:
        """All that the next update depends on, numbered: dropout draws by the number of the update."""
        return {str(i): np.asarray(x) for i, x in enumerate(jax.tree.leaves(self._kept()))}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        tree = jax.tree.structure(self._kept())
        leaves = [jnp.asarray(arrays[str(i)]) for i in range(tree.num_leaves)]
        module, optimizer = nnx.merge(self.form, self.state)
        model, kept = jax.tree.unflatten(tree, leaves)
        nnx.update(module, model)
        nnx.update(optimizer, kept)
        self.form, self.state = nnx.split((module, optimizer))

    def _kept(self) -> tuple[Any, Any]:
        module, optimizer = nnx.merge(self.form, self.state)
        return nnx.state(module, nnx.Param), nnx.state(optimizer, nnx.OptState)


@partial(jax.jit, static_argnums=(0, 5), donate_argnums=1)
def _update(
    form: Any, state: Any, inputs: jax.Array, targets: jax.Array, k: jax.Array, loss: str
) -> tuple[Any, jax.Array]:
    module, optimizer = nnx.merge(form, state)
    module.train()
    nnx.reseed(module, default=jax.random.key(k))

    def loss_of(module: Any) -> jax.Array:
        outputs = module(inputs)
        if loss == "squares":
            return jnp.square(outputs[:, -targets.shape[1] :] - targets).mean()
        counted = targets != NONE
        each = optax.softmax_cross_entropy_with_integer_labels(outputs, jnp.where(counted, targets, 0))
        return jnp.where(counted, each, 0.0).sum() / counted.sum()

    value, gradients = nnx.value_and_grad(loss_of)(module)
    optimizer.update(module, gradients)
    return nnx.state((module, optimizer)), value


@partial(jax.jit, static_argnums=0, static_argnames="rate")
def _outputs(form: Any, state: Any, inputs: jax.Array, rate: float = 1.0) -> jax.Array:
    module, _ = nnx.merge(form, state)
    module.eval()
    return module(inputs, rate=rate)
