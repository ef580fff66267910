"""
A classifier in plain JAX
=========================

No modules: a definition, a dictionary of arrays, and pure functions of both. ``jit`` and ``grad`` are JAX's own.

A definition is frozen and hashable, so a closure or a static argument will do. Equinox, Haiku or a library of your own
can hold the parameters in any way they like.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import ssm_core

digits = load_digits()
u = jnp.asarray((digits.data[..., None] / 16).astype(np.float32))
label = jnp.asarray(digits.target)

# %%
# One layer, and a linear head written out by hand.

layer = ssm_core.layers.S4D(d_model=32, d_state=16, dt_min=0.01, dt_max=0.5)
rng = np.random.default_rng(0)
params = {
    "encoder": jnp.asarray(rng.normal(size=(1, 32)), jnp.float32),
    "layer": {name: jnp.asarray(value) for name, value in layer.initial_parameters(seed=0).items()},
    "head": jnp.asarray(rng.normal(size=(32, 10)) / 6, jnp.float32),
}


def logits(params, u):
    x = u @ params["encoder"]
    return (x + layer.apply(params["layer"], x)).mean(axis=1) @ params["head"]


optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 280))


@jax.jit
def update(params, state, u, label):
    def loss_of(params):
        return optax.softmax_cross_entropy_with_integer_labels(logits(params, u), label).mean()

    loss, gradients = jax.value_and_grad(loss_of)(params)
    steps, state = optimizer.update(gradients, state)
    return optax.apply_updates(params, steps), state, loss


# %%
state, losses = optimizer.init(params), []
for _ in range(10):
    for batch in rng.permutation(1400).reshape(28, 50):
        params, state, loss = update(params, state, u[batch], label[batch])
        losses.append(float(loss))

found = jax.jit(logits)(params, u[1400:]).argmax(-1)
accuracy = float((found == label[1400:]).mean())
print(f"accuracy on {len(found)} images that it has not seen: {accuracy:.1%}")

# %%
# The kernels that it learned: how much a pixel counts when it is so many pixels ago.

kernels = np.asarray(layer.kernel(params["layer"], 64))[0]
figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.6))
left.semilogy(losses)
left.set(title=f"one layer; test accuracy {accuracy:.1%}", xlabel="update", ylabel="cross-entropy")
limit = np.abs(kernels).max() / 2
right.imshow(kernels, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
right.grid(False)
right.set(title="kernels of 32 channels", xlabel="pixels ago", ylabel="channel")
