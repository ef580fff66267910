"""
One sequence over two processes
===============================

What a chunk of steps does to the state before it is one product and one sum. So chunks can be summarized side by side,
and each process needs one state from its neighbor, however long the sequence is.
"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import matplotlib.pyplot as plt
import numpy as np

import ssm_core

rng = np.random.default_rng(0)
init = ssm_core.diagonal_init("lin", 32)
system = ssm_core.Diagonal(init.poles, init.B, rng.normal(size=16), conj_pairs=True)
u = rng.normal(size=20_000)
halves = np.split(u, 2)

# %%
# First both processes summarize their half; then both run it, the second from the state that the first one leaves.

if __name__ == "__main__":  # processes that are spawned import this file
    begin = np.zeros(16, dtype=complex)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        runs = [pool.submit(ssm_core.scan_summary, system, half, dt=0.01) for half in halves]
        first, second = (run.result() for run in runs)
        states = (begin, first.after(begin))
        runs = [
            pool.submit(ssm_core.scan, system, half, dt=0.01, initial=state)
            for half, state in zip(halves, states, strict=True)
        ]
        y = np.concatenate([run.result()[0] for run in runs])

    whole, last = ssm_core.scan(system, u, dt=0.01)
    print(f"outputs: {np.abs(y - whole).max() / np.abs(whole).max():.0e}")
    print(f"last state: {np.abs(first.then(second).after(begin) - last).max() / np.abs(last).max():.0e}")

# %%
# The second half from nothing, and what the first half still has to say in it.

alone, _ = ssm_core.scan(system, halves[1], dt=0.01)
carried, _ = ssm_core.scan(system, 0 * halves[1], dt=0.01, initial=ssm_core.scan(system, halves[0], dt=0.01)[1])
shown = 600
figure, ax = plt.subplots(figsize=(7.6, 4.6))
ax.axvspan(-shown, 0, color="C0", alpha=0.06, linewidth=0)
ax.axvspan(0, shown, color="C1", alpha=0.06, linewidth=0)
before, _ = ssm_core.scan(system, halves[0], dt=0.01)
ax.plot(np.arange(-shown, 0), before[-shown:], linewidth=0.9, label="first process")
ax.plot(np.arange(shown), (alone + carried)[:shown], linewidth=0.9, label="second process")
ax.plot(np.arange(shown), carried[:shown], color="0.2", label="of it, what one state has brought over")
ax.set(title="one sequence, cut", xlabel="step from the cut", xlim=(-shown, shown))
ax.legend(ncols=3, fontsize="small", loc="lower left")
