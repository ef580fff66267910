"""
HiPPO remembers a curve
=======================

Sixty-four numbers, updated sample by sample, hold all of an electrocardiogram's past, or its last second.

`hippo_project` keeps the coefficients of the best polynomial through the past; `hippo_reconstruct` draws it. The
measure says which past matters: ``"legs"`` all of it, ``"legt"`` a sliding window. The recording comes with PyWavelets.
"""

import matplotlib.pyplot as plt
import numpy as np
import pywt

import ssm_core

ecg = pywt.data.ecg().astype(float)
ecg = (ecg - ecg.mean()) / ecg.std()
L = len(ecg)

# %%
# All of the past. The same 64 numbers must tell more and more of it: early beats grow smooth.

c = ssm_core.hippo_project(ecg, "legs", 64)  # (L, 64): the memory after every sample

figure, rows = plt.subplots(3, 1, figsize=(7.2, 5.2), sharex=True)
for ax, now in zip(rows, (256, 512, L), strict=True):
    past = np.linspace(0.0, 1.0, 800)  # as a share of the time that has passed
    ax.plot(ecg, color="0.82")
    ax.plot(now * (1 - past), ssm_core.hippo_reconstruct(c[now - 1], "legs", past))
    ax.axvline(now, color="0.4", linestyle=":")
    ax.set_ylabel(f"after {now}")
rows[0].set_title("64 numbers, all of the past")
rows[-1].set_xlabel("sample")

# %%
# A window of 200 samples. What is older has left the memory.

window, dt = 1.0, 1 / 200
c = ssm_core.hippo_project(ecg, "legt", 64, dt=dt, window=window)
figure, ax = plt.subplots()
ax.plot(np.arange(1 - L, 1) * dt, ecg, color="0.82", label="signal")
ssm_core.plot.memory(c[-1], "legt", window=window, ax=ax, label="memory")
ax.set(xlim=(-2.0, 0.0), title="64 numbers, the last 200 samples")
ax.legend()

remembered = ssm_core.hippo_reconstruct(c[-1], "legt", np.arange(180) * dt, window=window)
print(f"correlation over the last 180 samples: {np.corrcoef(remembered, ecg[::-1][:180])[0, 1]:.3f}")
