"""
Streaming against batch latency
===============================

The same layer, cut into chunks of any length: small chunks answer soon, large ones cost little a sample.

Outputs do not depend on the cuts, and neither does the state that goes from one chunk to the next. The times are those
of the machine that built this page. :doc:`/serve` says what else can be done with a state.
"""

import time

import matplotlib.pyplot as plt
import torch

from ssm_core import adapters

torch.manual_seed(0)
layer = adapters.torch.S4D(d_model=32, d_state=32)
u = torch.randn(1, 4096, 32)

# %%
# A single sample goes through `stepper`, a chunk through the layer: both take the state and give the next one.

chunks = (1, 4, 16, 64, 256, 1024, 4096)
per_sample, latency = [], []
with torch.no_grad():
    whole = layer(u)
    for chunk in chunks:
        state = layer.initial_state(1)
        pieces, calls = [], []
        step = layer.stepper()
        for start in range(0, min(4096, 128 * chunk), chunk):
            begun = time.perf_counter()
            if chunk == 1:
                y, state = step(u[:, start], state)
                y = y[:, None]
            else:
                y, state = layer(u[:, start : start + chunk], state=state, return_state=True)
            calls.append(time.perf_counter() - begun)
            pieces.append(y)
        streamed = torch.cat(pieces, dim=1)
        torch.testing.assert_close(streamed, whole[:, : streamed.shape[1]], rtol=1e-3, atol=1e-4)
        latency.append(1e3 * sorted(calls)[len(calls) // 2])
        per_sample.append(1e3 * latency[-1] / chunk)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 5))
left.loglog(chunks, latency, "o-")
left.set(title="time until a chunk is answered", xlabel="samples a chunk", ylabel="milliseconds")
right.loglog(chunks, per_sample, "o-", color="C1")
right.set(title="work a sample", xlabel="samples a chunk", ylabel="microseconds")
