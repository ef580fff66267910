"""
Discretizations side by side, with scipy's names
================================================

A continuous system becomes a recurrence by an assumption about the input between two samples. Here are all of them.

What `discretize` calls ``"tustin"`` is ``"bilinear"`` in scipy.signal; ``"bilinear"`` here, as in the literature of
state space models, is the trapezoidal rule in the state alone.
"""

import matplotlib.pyplot as plt
import numpy as np
import scipy.signal

import ssm_core

oscillator = ssm_core.Diagonal(np.asarray([-0.6 + 4.0j]), np.asarray([1.0]), np.asarray([-1.0j]), conj_pairs=True)
dense = ssm_core.to_dense(oscillator)
exact = ssm_core.kernel(oscillator, 600, dt=0.01) / 0.01
dt = 0.25

# %%
# The impulse responses. Euler's explicit rule turns stable poles into growing ones, its implicit rule into tired ones.

methods = ("zoh", "foh", "bilinear", "tustin", "euler", "backward_euler")
figure, axes = plt.subplots(2, 3, figsize=(9, 6), sharex=True, sharey=True)
for ax, method in zip(axes.flat, methods, strict=True):
    ax.plot(np.arange(600) * 0.01, exact, color="0.75")
    taps = ssm_core.kernel(dense, 24, dt=dt, method=method) / dt
    ax.plot(np.arange(24) * dt, taps, marker="o", markersize=3, linewidth=0.8)
    ax.set(title=f'"{method}"', ylim=(-3, 3))
for ax in axes[-1]:
    ax.set_xlabel("time")

# %%
# The same numbers as scipy's, by scipy's names. Its output sees the state *before* the input of the step, ours the
# state after it; `from_scipy` translates, so that outputs agree at every step.

names = {"zoh": "zoh", "foh": "foh", "tustin": "bilinear"}
A, B, C, D = dense.A, dense.B[:, None], dense.C[None], np.zeros((1, 1))
u = np.random.default_rng(0).normal(size=200)
for ours, theirs in names.items():
    reference = scipy.signal.StateSpace(A, B, C, D).to_discrete(dt, theirs)
    y, _ = ssm_core.scan(dense, u, dt=dt, method=ours)
    _, y_scipy, _ = scipy.signal.dlsim(reference, u)
    again, _ = ssm_core.scan(ssm_core.from_scipy(reference), u)
    print(f"{ours:>8} is scipy's {theirs}: {np.abs(again - y_scipy[:, 0]).max():.0e}")

# %%
# Where the poles go: to the unit circle or into it, but for Euler's.

figure, ax = plt.subplots(figsize=(4.6, 4.6))
markers = dict(zip(("zoh", "bilinear", "euler", "backward_euler"), "xo+s", strict=True))
for method, marker in markers.items():
    discrete = ssm_core.discretize(oscillator, dt, method)
    ssm_core.plot.poles(discrete, ax=ax, marker=marker, label=method, fillstyle="none")
ax.legend(loc="lower left")
ax.set_title("poles of the discrete system")
