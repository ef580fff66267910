"""
A classifier in Flax
====================

The digits of :doc:`the PyTorch example <plot_07_classifier_torch>`, as a Flax ``nnx.Module`` trained with Optax.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

from ssm_core import adapters

digits = load_digits()
u = (digits.data[..., None] / 16).astype(np.float32)
label = digits.target.astype(np.int32)

# %%
model = adapters.flax.SequenceModel(
    d_input=1,
    d_output=10,
    d_model=32,
    n_layers=2,
    layer="S4D",
    layer_options={"d_state": 16, "dt_min": 0.01, "dt_max": 0.5},
    pool="mean",
    rngs=nnx.Rngs(0),
)
rules = {"regular": optax.adamw(2e-2, weight_decay=0.01), "ssm": optax.adam(4e-3)}
optimizer = nnx.Optimizer(model, optax.multi_transform(rules, adapters.flax.param_labels(model)), wrt=nnx.Param)


@nnx.jit
def update(model, optimizer, u, label):
    def loss_of(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(u), label).mean()

    loss, gradients = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, gradients)
    return loss


# %%
losses = []
rng = np.random.default_rng(0)
for _ in range(3):
    for batch in rng.permutation(1400).reshape(28, 50):
        losses.append(float(update(model, optimizer, u[batch], label[batch])))

found = np.asarray(nnx.jit(lambda model, u: model(u))(model, jnp.asarray(u[1400:]))).argmax(-1)
accuracy = float(np.mean(found == label[1400:]))
print(f"accuracy on {len(found)} images that it has not seen: {accuracy:.1%} (JAX on {jax.default_backend()})")

# %%
# The poles of the first layer, which began in one column and spread while learning.

first = next(module for _, module in nnx.iter_modules(model) if isinstance(module, adapters.flax.S4D))
figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 5.2))
left.semilogy(losses)
left.set(title=f"cross-entropy; test accuracy {accuracy:.1%}", xlabel="update")
decay, frequency = np.exp(np.asarray(first.log_A_re[...])), np.asarray(first.A_im[...])
right.plot(-decay.ravel(), frequency.ravel(), ".", markersize=4)
right.axvline(-0.5, color="0.6", linewidth=0.8)
right.set(title="poles after training; the line: before", xlabel="Re", ylabel="Im")
