"""
Associative recall across layers
================================

Pairs of keys and values are written into a matrix; then every key is asked for its value. What is remembered depends on
the rule of writing, and that is what the layers differ in.

The memories are the operators inside of the layers: `gated_linear_attention` without decays (LinearAttention) and with
one (RetNet), and `gated_delta` (DeltaNet). Nothing is trained: keys are random and of norm 1.
"""

import matplotlib.pyplot as plt
import numpy as np

import ssm_core

K = V = 64
rng = np.random.default_rng(0)


def pairs(n, trials=8):
    keys, values = rng.normal(size=(trials, n, 1, K)), rng.normal(size=(trials, n, 1, V))
    return keys / np.linalg.norm(keys, axis=-1, keepdims=True), values


def written(rule, keys, values):
    """The state (trials, K, V) after all pairs."""
    if rule == "DeltaNet":
        _, state = ssm_core.gated_delta(keys, keys, values, return_state=True)
    else:
        decay = np.log([0.97]) if rule == "RetNet" else None
        _, state = ssm_core.gated_linear_attention(keys, keys, values, decay, return_state=True)
    return state[:, 0]


def recalled(rule, keys, values):
    """The correlation of what is read with what was written, for every pair, oldest first."""
    read = np.einsum("bnk,bkv->bnv", keys[:, :, 0], written(rule, keys, values))
    norms = np.linalg.norm(read, axis=-1) * np.linalg.norm(values[:, :, 0], axis=-1)
    return (np.sum(read * values[:, :, 0], axis=-1) / norms).mean(axis=0)


# %%
# More pairs than dimensions cannot all be kept. With few, the delta rule keeps them best, for it corrects what the
# other keys have left under a key. With many, it has the latest; a decay has them too; a plain sum has all, badly.

rules = ("LinearAttention", "RetNet", "DeltaNet")
counts = (4, 8, 16, 32, 64, 128, 256)
figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 5.2), sharey=True)
tried = {n: pairs(n) for n in counts}
for rule in rules:
    left.semilogx(counts, [recalled(rule, *tried[n]).mean() for n in counts], "o-", base=2, label=rule)
    right.plot(np.arange(128)[::-1], recalled(rule, *tried[128]), label=rule)
left.set(title="all pairs", xlabel="pairs written", ylabel="similarity of what is read", ylim=(0, 1.05))
left.legend()
right.set(title="one of 128 pairs", xlabel="pairs written since")
right.invert_xaxis()
