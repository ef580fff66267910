"""
A notch filter, sample by sample
================================

Mains hum at 50 Hz is taken out of an electrocardiogram while it arrives: one sample in, one sample out.
"""

import matplotlib.pyplot as plt
import numpy as np
import pywt
import scipy.signal

import ssm_core

rate = 360
ecg = pywt.data.ecg().astype(float)
ecg = (ecg - ecg.mean()) / ecg.std()
time = np.arange(len(ecg)) / rate
noisy = ecg + 0.8 * np.sin(2 * np.pi * 50 * time + 0.3)

# %%
# The filter comes from scipy.signal. `step` takes a sample and the state, and gives a sample and the state: that is all
# a sensor needs.

b, a = scipy.signal.iirnotch(50, Q=10, fs=rate)
notch = ssm_core.from_scipy(scipy.signal.TransferFunction(b, a, dt=1 / rate))

state = np.zeros(3)  # of its recurrence in powers of 1/z: the numbers of b and a
cleaned = []
for sample in noisy:
    y, state = ssm_core.step(notch, sample, state)
    cleaned.append(float(y))
cleaned = np.asarray(cleaned)

at_once, last = ssm_core.scan(notch, noisy)  # the same filter over the whole recording
print(f"steps against the whole: {np.abs(cleaned - at_once).max():.0e}")
print(f"against scipy.signal.lfilter: {np.abs(cleaned - scipy.signal.lfilter(b, a, noisy)).max():.0e}")

# %%
figure, (above, middle, below) = plt.subplots(3, 1, figsize=(7.2, 5.6))
above.plot(time, noisy, linewidth=0.9, color="0.6")
above.set(title="with hum", xlim=(0, time[-1]))
middle.plot(time, ecg, color="0.8", label="before the hum")
middle.plot(time, cleaned, linewidth=1.0, label="filtered")
middle.set(title="filtered, sample by sample", xlim=(0, time[-1]), xlabel="seconds")
middle.legend(loc="upper right", ncols=2)
frequency = np.linspace(1, 179, 800)
gain = np.abs(ssm_core.frequency_response(notch, 2 * np.pi * frequency / rate))
below.plot(frequency, gain)
below.set(title="gain of the filter", xlabel="Hz", ylim=(0, 1.1))
