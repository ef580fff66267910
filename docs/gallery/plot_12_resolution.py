"""
Another resolution, without training again
==========================================

A layer learned a filter from signals at one sampling rate. At half of it and at twice of it, it is still that filter.

A layer is a continuous system with a step: ``rate`` says how long the steps are, compared with those of the training.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

from ssm_core import adapters

torch.manual_seed(0)
rng = np.random.default_rng(0)


def smooth_noise(n, batch):
    """Noise below a quarter of the Nyquist frequency of 256 samples, sampled n times."""
    spectrum = np.zeros((batch, n // 2 + 1), dtype=complex)
    spectrum[:, :24] = rng.normal(size=(batch, 24)) + 1j * rng.normal(size=(batch, 24))
    return torch.from_numpy((np.fft.irfft(spectrum, n=n) * n / 7).astype(np.float32))


def smoothed(u, n):
    """The target: an exponential mean over 16 of 256 samples."""
    decay = np.exp(-256 / n / 16)
    y, out = torch.zeros(len(u)), []
    for t in range(u.shape[1]):
        y = decay * y + (1 - decay) * u[:, t]
        out.append(y)
    return torch.stack(out, dim=1)


# %%
layer = adapters.torch.S4D(d_model=1, d_state=8, activation=None, output=None, dt_min=0.05, dt_max=0.05)
optimizer = torch.optim.Adam(layer.parameters(), lr=2e-2)
u = smooth_noise(256, 64)
target = smoothed(u, 256)
for _ in range(250):
    loss = (layer(u[..., None])[..., 0] - target).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"error at the rate of the training: {loss.item() ** 0.5:.3f}")

# %%
figure, axes = plt.subplots(2, 1, figsize=(7.2, 4.6), sharex=True, sharey=True)
for ax, n, words in zip(axes, (128, 512), ("half the samples", "twice the samples"), strict=True):
    u = smooth_noise(n, 1)
    time = np.arange(n) / n
    with torch.no_grad():
        ax.plot(time, smoothed(u, n)[0], color="0.75", linewidth=4, label="right")
        ax.plot(time, layer(u[..., None])[0, :, 0], linewidth=1, color="C1", label="as if nothing had changed")
        ax.plot(time, layer(u[..., None], rate=256 / n)[0, :, 0], linewidth=1.2, color="C0", label=f"rate={256 / n}")
    ax.set(title=words, xlim=(0, 1))
    ax.legend(ncols=3, loc="upper right", fontsize="small")
axes[-1].set_xlabel("time")
