"""
Irregular samples
=================

A third of the samples is missing, at random. Each step says how long it lasted, and nothing needs to be filled in.
"""

import matplotlib.pyplot as plt
import numpy as np

import ssm_core

rng = np.random.default_rng(1)
time = np.arange(1, 601) / 100
signal = np.sin(2 * np.pi * 0.7 * time) + 0.5 * np.sin(2 * np.pi * 1.9 * time + 1)
kept = np.sort(rng.choice(600, 200, replace=False))

# %%
# A memory of the past two seconds, from samples taken at any ``times``.

c = ssm_core.hippo_project(signal[kept], "legt", 24, times=time[kept], window=2.0, method="zoh")
ago = np.linspace(0.0, 2.0, 400)
now = time[kept][-1]

figure, ax = plt.subplots(figsize=(7.2, 4.6))
ax.plot(time, signal, color="0.75", label="signal")
ax.plot(time[kept], signal[kept], ".", label="samples")
ax.plot(now - ago, ssm_core.hippo_reconstruct(c[-1], "legt", ago, window=2.0), label="memory")
ax.set(xlim=(now - 2.5, now), title="remembered from 200 of 600 samples", xlabel="time")
ax.legend(ncols=3, loc="lower right")

# %%
# A system that is told: step k lasts ``step_scale[k] * dt``. The wrong way, counting samples as if they were equally
# far apart, hears another frequency.

resonator = ssm_core.Diagonal(
    np.asarray([-0.8 + 2j * np.pi * 0.7]), np.asarray([1.0]), np.asarray([0.8]), conj_pairs=True
)
dt = 0.01
full, _ = ssm_core.scan(resonator, signal, dt=dt)
scale = np.diff(time[kept], append=time[kept][-1] + dt) / dt
told, _ = ssm_core.scan(resonator, signal[kept], dt=dt, step_scale=scale)
untold, _ = ssm_core.scan(resonator, signal[kept], dt=dt * 3)

figure, ax = plt.subplots()
ax.plot(time, full, color="0.75", linewidth=4, label="all samples")
ax.plot(time[kept], untold, color="C1", label="a third, not told when")
ax.plot(time[kept], told, color="C0", label="a third, told when")
ax.set(title="a resonator at 0.7 Hz", xlabel="time")
ax.legend(fontsize="small", loc="lower left")


def error(y):
    return np.sqrt(np.mean((y - full[kept]) ** 2) / np.mean(full**2))


print(f"relative error: told {error(told):.2f}, not told {error(untold):.2f}")
