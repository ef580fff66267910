"""
A state space model sounds
==========================

A string is a state space model: each of its tones is a pair of poles. Pluck it with a burst of noise and listen.

Networks of raw audio, as SaShiMi, are stacks of such systems with learned poles. These are set by hand: a harmonic
series that decays faster the higher it is.
"""

import base64
import io
import wave

import matplotlib.pyplot as plt
import numpy as np

import ssm_core

rate = 8000
rng = np.random.default_rng(0)


def string(pitch):
    """A system with a pair of poles a partial; stiffness spreads the higher ones."""
    n = np.arange(1, 25)
    frequency = pitch * n * np.sqrt(1 + 3e-4 * n**2)
    n, frequency = n[frequency < 0.45 * rate], frequency[frequency < 0.45 * rate]
    poles = -(1.2 + 0.25 * n**1.5) + 2j * np.pi * frequency
    return ssm_core.Diagonal(poles, np.ones(len(n)), np.exp(2j * np.pi * rng.uniform(size=len(n))) / n, conj_pairs=True)


# %%
# A chord, one string after the other. Each is a scan over its own plucks.

L = int(2.6 * rate)
sound = np.zeros(L)
for k, pitch in enumerate((196.0, 246.9, 293.7, 392.0, 587.3)):
    pluck = np.zeros(L)
    start = int(0.18 * k * rate)
    pluck[start : start + 40] = rng.normal(size=40)
    y, _ = ssm_core.scan(string(pitch), pluck, dt=1 / rate)
    sound += y
sound /= np.abs(sound).max()


class Audio:
    """A sound that a web page plays."""

    def _repr_html_(self):
        data = io.BytesIO()
        with wave.open(data, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes((sound * 32000).astype("<i2").tobytes())
        return f'<audio controls src="data:audio/wav;base64,{base64.b64encode(data.getvalue()).decode()}"></audio>'


Audio()

# %%
# The spectrum over time: straight lines that fade, the upper ones first.

figure, (above, below) = plt.subplots(2, 1, figsize=(8, 5), sharex=True, height_ratios=(1, 3))
above.plot(np.arange(L) / rate, sound, linewidth=0.4)
above.set(title="five strings", yticks=[], xlim=(0, L / rate))
below.specgram(sound, NFFT=512, noverlap=448, Fs=rate, cmap="magma", vmin=-120, vmax=-30)
below.grid(False)
below.set(xlabel="seconds", ylabel="Hz", ylim=(0, 3500))
