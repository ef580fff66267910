"""
Poles and kernels of every initialization
=========================================

A diagonal layer starts from one of six sets of poles. Where they lie says which past its kernels can see.

The real part of a pole is how fast it forgets, the imaginary part how fast it turns. The kernels are those of random
outputs C, with the step dt of a layer.
"""

import matplotlib.pyplot as plt
import numpy as np

import ssm_core

rng = np.random.default_rng(0)
names = ("legs", "lin", "inv", "inv2", "quad", "real")

figure, axes = plt.subplots(2, 6, figsize=(10, 6))
for (above, below), name in zip(axes.T, names, strict=True):
    system = ssm_core.diagonal_init(name, 32)
    ssm_core.plot.poles(system, ax=above, markersize=4)
    above.set(title=f'"{name}"', xlabel="", ylabel="")
    for _ in range(2):
        C = rng.normal(size=16) + 1j * rng.normal(size=16)
        system = ssm_core.Diagonal(system.poles, system.B, C, conj_pairs=True)
        ssm_core.plot.kernel(system, 400, dt=0.01, ax=below, linewidth=0.9)
    below.set(ylabel="", xlabel="time", yticks=[])
axes[0, 0].set_ylabel("poles")
axes[1, 0].set_ylabel("kernels")

# %%
# The low-rank correction that S4 adds to the poles of ``"legs"`` makes the dense HiPPO matrix of it: the same kernel.

dplr, V = ssm_core.nplr("legs", 64)
A, B = ssm_core.hippo("legs", 64)
c = rng.normal(size=64)
of_s4 = ssm_core.kernel(ssm_core.DPLR(dplr.poles, dplr.P, dplr.Q, dplr.B, c @ V, conj_pairs=True), 400, dt=0.02)
of_hippo = ssm_core.kernel((A, B, c), 400, dt=0.02)
print(f"largest difference: {np.abs(of_s4 - of_hippo).max() / np.abs(of_hippo).max():.1e}")
