"""
Mamba's selectivity, drawn
==========================

A time-invariant system forgets at its own pace. In a selective one every input decides how much of the past it
replaces.

Here the decision is made by hand, so that it can be seen: marked samples get a long step dt, the others next to none.
In a Mamba layer dt is a learned function of the input.
"""

import matplotlib.pyplot as plt
import numpy as np

import ssm_core

rng = np.random.default_rng(3)
L = 120
u = rng.normal(size=L)
marked = np.zeros(L, dtype=bool)
marked[[12, 34, 61, 88]] = True
u[marked] = (1.5, -1.2, 0.8, -1.7)

# %%
# One channel with one state: x_k = exp(dt_k A) x_{k-1} + dt_k B_k u_k. Arrays are (batch, channels, L).


def run(dt):
    A, B, C = -np.ones((1, 1)), np.ones((1, 1, L)), np.ones((1, 1, L))
    return ssm_core.selective_scan(u[None, None], dt[None, None], A, B / dt * -np.expm1(-dt), C)[0, 0]


steps = {"the same dt for all": np.full(L, 0.15), "selective": np.where(marked, 6.0, 0.002)}
invariant, selective = (run(dt) for dt in steps.values())

figure, (above, below) = plt.subplots(2, 1, figsize=(7.2, 5.0), sharex=True, height_ratios=(3, 1))
above.stem(np.arange(L), u, linefmt="0.85", markerfmt=" ", basefmt=" ")
above.plot(np.flatnonzero(marked), u[marked], "o", color="C1", label="marked")
above.plot(invariant, color="0.5", label="the same dt for all")
above.plot(selective, color="C0", label="selective")
above.legend(ncols=3, fontsize="small", loc="lower left")
above.set_title("the state holds the last marked sample")
for color, dt in zip(("0.5", "C0"), steps.values(), strict=True):
    below.plot(dt, drawstyle="steps-mid", color=color)
below.set(title="dt", xlabel="step")

# %%
# How much of every input each output holds: powers of one number on the left, blocks on the right. The rows are times,
# the columns the inputs before.


def weights(dt):
    decay = np.exp(-(np.cumsum(dt)[:, None] - np.cumsum(dt)[None, :]))
    return np.tril(decay) * -np.expm1(-dt)


figure, axes = plt.subplots(1, 2, figsize=(8.6, 4.2), sharey=True)
for ax, (title, dt) in zip(axes, steps.items(), strict=True):
    ax.imshow(weights(dt) ** 0.5, cmap="magma_r", vmin=0, vmax=1)
    ax.grid(False)
    ax.set(title=title, xlabel="input")
axes[0].set_ylabel("output")
print(f"the matrix is the scan: {np.abs(weights(np.full(L, 0.15)) @ u - invariant).max():.0e}")
