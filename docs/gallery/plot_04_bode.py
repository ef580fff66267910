"""
Frequency responses, poles and Bode plots
=========================================

A Chebyshev filter from scipy.signal, converted, drawn, and sampled: what a discretization does to a filter.
"""

import matplotlib.pyplot as plt
import numpy as np
import scipy.signal

import ssm_core

# %%
# scipy designs it; `from_scipy` makes it a system of this package, and `poles` and `frequency_response` look at it.

design = scipy.signal.cheby1(5, 1.0, 2 * np.pi, analog=True, output="zpk")
filter_ = ssm_core.from_scipy(scipy.signal.ZerosPolesGain(*design))

figure = plt.figure(figsize=(8.6, 5.4))
grid = figure.add_gridspec(2, 2, width_ratios=(1, 1.8))
ax = figure.add_subplot(grid[:, 0])
ssm_core.plot.poles(filter_, ax=ax, markersize=7)
ax.set(title="poles", xlim=(-3.2, 0.4))
axes = [figure.add_subplot(grid[row, 1]) for row in (0, 1)]
omega = np.logspace(-1, 2, 600)
ssm_core.plot.bode(filter_, omega, axes=axes)
axes[0].set(title="Chebyshev, order 5, edge at 1 Hz", ylim=(-120, 10))

# %%
# Sampled at 10 Hz. A discrete system takes radians per step; the trapezoid bends the axis of frequencies, and holding
# the input adds a delay of half a step.

dt = 0.1
figure, axes = plt.subplots(2, 1, figsize=(7.2, 4.8), sharex=True)
ssm_core.plot.bode(filter_, omega[omega < np.pi / dt], axes=axes, color="0.7", label="continuous")
for method in ("zoh", "tustin"):
    sampled = ssm_core.discretize(filter_, dt, method)
    inside = omega[omega < np.pi / dt]
    response = ssm_core.frequency_response(sampled, inside * dt)
    axes[0].semilogx(inside, 20 * np.log10(np.abs(response)), label=method)
    axes[1].semilogx(inside, np.degrees(np.unwrap(np.angle(response))))
axes[0].set(ylim=(-120, 10), title="the same filter at 10 samples a second")
axes[0].legend()

gain = np.abs(ssm_core.frequency_response(ssm_core.discretize(filter_, dt, "tustin"), np.asarray([0.0])))
print(f"gain at rest: {gain[0]:.6f}")
