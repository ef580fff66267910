"""
The delta rule erases a key
===========================

A key gets a new value. A memory that adds holds the sum of both; the delta rule reads what is there, takes it out, and
writes the new value.
"""

import matplotlib.pyplot as plt
import numpy as np

import ssm_core

K = 12
keys = np.eye(K)[[2, 6, 9, 6]]  # the second key comes again
values = np.zeros((4, K))
for row, place in zip(values, ([1, 2], [4, 5, 6], [9, 10], [7, 8]), strict=True):
    row[place] = 1.0

# %%
# Four writes, and the memory after each of them: rows are keys, columns the parts of a value.


def states(rule):
    state, found = np.zeros((1, 1, K, K)), []
    for key, value in zip(keys, values, strict=True):
        _, state = rule(state, key[None, None], key[None, None], value[None, None])
        found.append(state[0, 0])
    return found


rules = {
    "linear attention adds": ssm_core.gated_linear_attention_update,
    "the delta rule corrects": lambda *given: ssm_core.gated_delta_update(*given, beta=np.ones((1, 1))),
}
figure, axes = plt.subplots(2, 4, figsize=(9, 4.8), sharex=True, sharey=True)
for row, (title, rule) in zip(axes, rules.items(), strict=True):
    for k, (ax, state) in enumerate(zip(row, states(rule), strict=True)):
        ax.imshow(state, cmap="Blues", vmin=0, vmax=1.2)
        ax.grid(False)
        ax.set(xticks=[], yticks=[], title=title if k == 0 else None)
        if k == 3:
            ax.axhline(6, color="C1", linewidth=0.8, linestyle=":")
    row[0].set_ylabel("keys")
for k, ax in enumerate(axes[1]):
    ax.set_xlabel(f"after write {k + 1}")

# %%
# Half a correction (beta = 1/2) leaves half of the old value; beta = 2 turns it around.

figure, axes = plt.subplots(1, 4, figsize=(9, 1.9), sharey=True)
for ax, beta in zip(axes, (0.0, 0.5, 1.0, 2.0), strict=True):
    state = states(rules["the delta rule corrects"])[2]
    k, v = keys[3][None, None], values[3][None, None]
    _, new = ssm_core.gated_delta_update(state[None, None], k, k, v, beta=np.full((1, 1), beta))
    ax.bar(np.arange(K), new[0, 0, 6])
    ax.set(title=f"beta = {beta}", xticks=[])
