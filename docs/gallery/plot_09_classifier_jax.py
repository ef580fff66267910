"""
A classifier in plain JAX and in Equinox
========================================

First without modules: a definition, a dictionary of arrays, and pure functions of both; ``jit`` and ``grad`` are JAX's
own. Then the same classifier as a module of Equinox.

A definition is frozen and hashable, so a closure or a static argument will do. Haiku or a library of your own can hold
the parameters in any way they like.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import ssm_core
from ssm_core import adapters

digits = load_digits()
u = jnp.asarray((digits.data[..., None] / 16).astype(np.float32))
label = jnp.asarray(digits.target)

# %%
# One layer, and a linear head written out by hand.

layer = ssm_core.layers.S4D(d_model=32, d_state=16, dt_min=0.01, dt_max=0.5)
rng = np.random.default_rng(0)
first = {
    "encoder": jnp.asarray(rng.normal(size=(1, 32)), jnp.float32),
    "layer": {name: jnp.asarray(value) for name, value in layer.initial_parameters(seed=0).items()},
    "head": jnp.asarray(rng.normal(size=(32, 10)) / 6, jnp.float32),
}


def logits(params, u):
    x = u @ params["encoder"]
    return (x + layer.apply(params["layer"], x)).mean(axis=1) @ params["head"]


optimizer = optax.adam(optax.cosine_decay_schedule(3e-2, 112))


def cross_entropy(logits, label):
    return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()


@jax.jit
def update(params, state, u, label):
    def loss_of(params):
        return cross_entropy(logits(params, u), label)

    loss, gradients = jax.value_and_grad(loss_of)(params)
    steps, state = optimizer.update(gradients, state)
    return optax.apply_updates(params, steps), state, loss


# %%
def trained(update, model):
    """The model after four rounds, and its losses on the way."""
    state, losses, order = optimizer.init(eqx.filter(model, eqx.is_array)), [], np.random.default_rng(0)
    for _ in range(4):
        for batch in order.permutation(1400).reshape(28, 50):
            model, state, loss = update(model, state, u[batch], label[batch])
            losses.append(float(loss))
    return model, losses


def accuracy(logits):
    return float((logits.argmax(-1) == label[1400:]).mean())


params, losses = trained(update, first)
print(f"accuracy on {len(u) - 1400} images that it has not seen: {accuracy(jax.jit(logits)(params, u[1400:])):.1%}")

# %%
# In Equinox a layer is a pytree of its parameters, a field like any other. This one begins with the same weights.


class Classifier(eqx.Module):
    encoder: jax.Array
    layer: adapters.equinox.S4D
    head: jax.Array

    def __init__(self, params, key):
        self.encoder, self.head = params["encoder"], params["head"]
        layer = adapters.equinox.S4D(d_model=32, d_state=16, dt_min=0.01, dt_max=0.5, key=key)
        self.layer = eqx.tree_at(lambda layer: layer.params, layer, params["layer"])

    def __call__(self, u):
        x = u @ self.encoder
        return (x + self.layer(x)).mean(axis=1) @ self.head


@eqx.filter_jit
def update_module(model, state, u, label):
    loss, gradients = eqx.filter_value_and_grad(lambda model: cross_entropy(model(u), label))(model)
    steps, state = optimizer.update(gradients, state)
    return eqx.apply_updates(model, steps), state, loss


model, losses_of_module = trained(update_module, Classifier(first, jax.random.key(0)))
print(f"and of the module: {accuracy(eqx.filter_jit(model)(u[1400:])):.1%}")

# %%
# The kernels that were learned: how much a pixel counts when it is so many pixels ago. The functions of a layer take
# NumPy's arrays as they take JAX's.

kernels = layer.kernel(jax.tree.map(np.asarray, params["layer"]), 64)[0]
figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 5.2))
left.semilogy(losses, linewidth=4, alpha=0.5, label="pure functions")
left.semilogy(losses_of_module, linewidth=1, label="Equinox")
left.set(title="one layer", xlabel="update", ylabel="cross-entropy")
left.legend()
limit = np.abs(kernels).max() / 2
right.imshow(kernels, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
right.grid(False)
right.set(title="kernels of 32 channels", xlabel="pixels ago", ylabel="channel")
