"""
SaShiMi learns the sound of strings
===================================

A string is a state space model: each of its tones is a pair of poles. SaShiMi, a stack of state space layers on three
levels of time, hears four of them until it knows them by heart, and plays on from a short beginning, sample by sample.

A quarter of a second each, some seconds of training; what takes longer has :doc:`a page of its own </sound>`.
"""

import base64
import io
import wave

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn.functional import cross_entropy

import ssm_core
from ssm_core import adapters

rate, L, levels = 4000, 1024, 64
rng = np.random.default_rng(0)
phases = np.exp(2j * np.pi * rng.uniform(size=12))

# %%
# The strings: a harmonic series that stiffness spreads, and that decays faster the higher it is. To pluck one is to ask
# for its kernel.


def plucked(pitch):
    n = np.arange(1, 13)
    frequency = pitch * n * np.sqrt(1 + 3e-4 * n**2)
    n = n[frequency < 0.45 * rate]
    poles = -(2 + 0.25 * n**1.5) + 2j * np.pi * frequency[: len(n)]
    string = ssm_core.Diagonal(poles, np.ones(len(n)), phases[: len(n)] / n, conj_pairs=True)
    y = ssm_core.kernel(string, L, dt=1 / rate)
    return y / np.abs(y).max()


clips = np.stack([plucked(196 * 2 ** (tone / 6)) for tone in range(4)])
samples = torch.from_numpy(ssm_core.quantize(clips, levels=levels)).long()
silence = torch.full((len(samples), 1), levels // 2)
heard = torch.cat([silence, samples[:, :-1]], dim=1)  # what comes before every sample

# %%
# Every sample is foretold from those before it, as one of 64 levels.

torch.manual_seed(0)
model = adapters.torch.SaShiMi(levels, d_model=32, n_layers=1, layer="S4D", layer_options={"d_state": 32}, pool=(4, 4))
optimizer = torch.optim.AdamW(adapters.torch.param_groups(model, lr=1e-2, weight_decay=0.0, ssm_lr=2e-3))
rates = [group["lr"] for group in optimizer.param_groups]
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=110)
bits = []
for _ in range(110):
    loss = cross_entropy(model(heard).flatten(0, 1), samples.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    bits.append(loss.item() / np.log(2))
print(f"{bits[0]:.1f} bits a sample before, {np.mean(bits[-10:]):.1f} after training")

# %%
# It plays on: from the first fortieth of a second of each string, every sample is drawn and heard before the next one.

prompts = heard[:, :101]
played = torch.cat([prompts[:, 1:], model.generate(prompts, L - 100, temperature=0.4, seed=0)], dim=1)
sound = ssm_core.dequantize(played.numpy(), levels=levels).astype(float)


class Audio:
    """A sound that a web page plays."""

    def __init__(self, sound):
        self.sound = sound

    def _repr_html_(self):
        data = io.BytesIO()
        with wave.open(data, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes((self.sound * 32000).astype("<i2").tobytes())
        source = f"data:audio/wav;base64,{base64.b64encode(data.getvalue()).decode()}"
        return f'<audio controls aria-label="sound of this example" src="{source}"></audio>'


Audio(np.concatenate(clips))  # the strings

# %%
Audio(sound.ravel())  # what SaShiMi plays

# %%
# Their spectra over time: straight lines that fade, the upper ones first.

figure, axes = plt.subplots(2, 1, figsize=(8, 5.6), sharex=True)
for ax, (title, y) in zip(axes, {"strings": clips, "SaShiMi": sound}.items(), strict=True):
    ax.specgram(y.ravel() + 1e-9, NFFT=256, noverlap=224, Fs=rate, cmap="BuPu", vmin=-110, vmax=-25)
    ax.grid(False)
    ax.set(title=title, ylabel="Hz", ylim=(0, 2000))
axes[1].set_xlabel("seconds")
