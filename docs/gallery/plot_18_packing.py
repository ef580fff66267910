"""
Packing and resets
==================

Three sequences of different lengths in one row, without padding, and without any of them seeing its neighbor.
"""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np

import ssm_core

rng = np.random.default_rng(0)
system = ssm_core.Diagonal(np.asarray([-0.5 + 3j]), np.asarray([1.0]), np.asarray([1.0]), conj_pairs=True)
lengths = (90, 160, 50)
parts = [rng.normal(size=n).cumsum() / 8 for n in lengths]
packed = np.concatenate(parts)
ends = np.cumsum((0, *lengths))

# %%
# ``cu_seqlens`` says where they begin and end, and gives back the state of each.

y, states = ssm_core.scan(system, packed[None], dt=0.05, cu_seqlens=ends)
alone = [ssm_core.scan(system, part, dt=0.05) for part in parts]
print("outputs:", np.abs(y[0] - np.concatenate([each for each, _ in alone])).max())
print("states: ", np.abs(states - np.stack([state for _, state in alone])).max())

# %%
# ``reset`` is the other way to say it: the state is zeroed before a step. Without either, the past of one sequence
# leaks into the next.

reset = np.zeros(len(packed), dtype=bool)
reset[ends[1:-1]] = True
with_resets, _ = ssm_core.scan(system, packed, dt=0.05, reset=reset)
leaking, _ = ssm_core.scan(system, packed, dt=0.05)

figure, (above, below) = plt.subplots(2, 1, figsize=(7.6, 4.4), sharex=True)
for k, (start, end) in enumerate(pairwise(ends)):
    above.plot(np.arange(start, end), packed[start:end], color=f"C{k}", label=f"sequence {k + 1}")
    above.axvspan(start, end, color=f"C{k}", alpha=0.08, linewidth=0)
    below.axvspan(start, end, color=f"C{k}", alpha=0.08, linewidth=0)
    below.plot(np.arange(start, end), y[0, start:end], color=f"C{k}")
above.set_title("one row, three sequences")
above.legend(ncols=3)
below.plot(leaking, color="0.5", linestyle=":", label="without cu_seqlens")
below.set(title="outputs", xlabel="step", xlim=(0, len(packed)))
below.legend()
assert np.allclose(with_resets, y[0])
