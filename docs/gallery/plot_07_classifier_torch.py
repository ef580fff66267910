"""
A classifier in PyTorch
=======================

Handwritten digits, read pixel by pixel as sequences of 64 steps, by a small model of two S4D layers.

The same training in :doc:`Flax <plot_08_classifier_flax>` and in :doc:`plain JAX <plot_09_classifier_jax>`.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from ssm_core import adapters

digits = load_digits()
u = torch.from_numpy((digits.data[..., None] / 16).astype(np.float32))  # (1797, 64, 1)
label = torch.from_numpy(digits.target)
train, test = slice(0, 1400), slice(1400, None)

# %%
# The model: an encoder, two residual blocks of S4D, the mean over time, a head.

torch.manual_seed(0)
model = adapters.torch.SequenceModel(
    d_input=1,
    d_output=10,
    d_model=32,
    n_layers=2,
    layer="S4D",
    layer_options={"d_state": 16, "dt_min": 0.01, "dt_max": 0.5},
    pool="mean",
)
groups = adapters.torch.param_groups(model, lr=2e-2, weight_decay=0.01, ssm_lr=4e-3)  # poles and steps learn slowly
optimizer = torch.optim.AdamW(groups)

# %%
# An ordinary loop.

losses = []
shuffle = torch.Generator().manual_seed(0)
for _ in range(5):
    for batch in torch.randperm(1400, generator=shuffle).split(50):
        loss = cross_entropy(model(u[train][batch]), label[train][batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

with torch.no_grad():
    found = model(u[test]).argmax(-1)
    accuracy = (found == label[test]).double().mean().item()
print(f"accuracy on {len(found)} images that it has not seen: {accuracy:.1%}")

# %%
# The loss, and some digits with what the model says of them.

figure = plt.figure(figsize=(9, 5.4))
grid = figure.add_gridspec(2, 8)
ax = figure.add_subplot(grid[:, :4])
ax.semilogy(losses)
ax.set(title=f"cross-entropy; test accuracy {accuracy:.1%}", xlabel="update")
for k in range(8):
    ax = figure.add_subplot(grid[k // 4, 4 + k % 4])
    ax.imshow(digits.images[1400 + 7 * k], cmap="Blues")
    ax.set_title(f"it is a {found[7 * k]}", fontsize="small")
    ax.axis("off")
