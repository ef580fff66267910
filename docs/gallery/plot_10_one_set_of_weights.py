"""
One set of weights in three frameworks
======================================

Made in PyTorch, loaded in Flax and in plain NumPy: the same outputs to the last digits of single precision.
"""

import tempfile
from pathlib import Path

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import torch
from flax import nnx

import ssm_core
from ssm_core import adapters

torch.manual_seed(0)
model = adapters.torch.SequenceModel(1, 3, d_model=16, n_layers=2, layer="S5", layer_options={"d_state": 16}, pool=None)

# %%
# One file, which holds the name of the model and its options besides the weights.

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model.safetensors"
    adapters.torch.save(model, path)
    in_flax = adapters.flax.load(path)
    definition, params = ssm_core.load(path)
print(definition)

# %%
u = np.sin(np.arange(400) ** 1.5 / 60).astype(np.float32)[None, :, None]
with torch.no_grad():
    outputs = {"PyTorch": model(torch.from_numpy(u)).numpy()}
outputs["Flax"] = np.asarray(nnx.jit(lambda model, u: model(u))(in_flax, jnp.asarray(u)))
outputs["NumPy"] = definition.apply(params, u)

figure, (above, below) = plt.subplots(2, 1, figsize=(7.2, 4.6), sharex=True, height_ratios=(2, 1))
for (name, y), width in zip(outputs.items(), (5, 2.8, 1), strict=True):
    above.plot(y[0, :, 0], linewidth=width, label=name, alpha=0.8)
above.set_title("three curves, one on the other")
above.legend(ncols=3)
for name in ("Flax", "NumPy"):
    difference = np.abs(outputs[name] - outputs["PyTorch"])[0].max(-1)
    below.semilogy(np.maximum(difference, 1e-9), label=f"{name} - PyTorch", linewidth=0.8)
below.set(ylabel="difference", xlabel="step", ylim=(1e-9, 1e-3))
below.legend(ncols=2)
