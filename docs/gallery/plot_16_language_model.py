"""
A language model that writes
============================

Some seconds of training on the text of Python's ``help()``, byte by byte; then it writes on, one state per text.

``nox -s language`` trains a larger one for two minutes, and lets PyTorch, Flax and NumPy write the same bytes.
"""

import itertools
import pydoc_data.topics

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn.functional import cross_entropy

from ssm_core import adapters

text = "\n".join(value for _, value in sorted(pydoc_data.topics.topics.items()))
data = torch.from_numpy(np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64))

# %%
torch.manual_seed(0)
model = adapters.torch.LanguageModel(
    vocab_size=256, d_model=80, n_layers=2, layer="Mamba2", layer_options={"d_state": 16, "head_dim": 16}
)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=80)
draw = torch.Generator().manual_seed(0)
bits = []
for _ in range(80):
    starts = torch.randint(0, len(data) - 129, (8,), generator=draw)
    batch = data[starts[:, None] + torch.arange(129)]
    loss = cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    bits.append(loss.item() / np.log(2))

# %%
# It writes. ``stream`` gives tokens as they are drawn; the state does not grow with the text.

prompt = "The object is "
given = torch.from_numpy(np.frombuffer(prompt.encode(), dtype=np.uint8).astype(np.int64))[None]
written = [int(token[0]) for token in itertools.islice(model.stream(given, temperature=0.6, seed=2), 240)]
print(prompt + bytes(written).decode(errors="replace"))

# %%
# How much every byte of a sentence surprises it: least within words, most where one begins.

sentence = "If the object is not an instance of the class, an exception is raised."
ids = torch.from_numpy(np.frombuffer(sentence.encode(), dtype=np.uint8).astype(np.int64))[None]
with torch.no_grad():
    surprise = cross_entropy(model(ids[:, :-1])[0], ids[0, 1:], reduction="none").numpy() / np.log(2)

figure, (above, below) = plt.subplots(2, 1, figsize=(9, 5.6), height_ratios=(3, 2))
above.plot(bits)
above.set(title="bits per byte while learning", xlabel="update", ylim=(0, 8.5))
below.bar(np.arange(1, len(sentence)), surprise, color=plt.get_cmap("viridis_r")(surprise / 8))
below.set_xticks(range(len(sentence)), list(sentence), fontsize=7, family="monospace")
below.set(title="bits of surprise, byte by byte", xlim=(-1, len(sentence)))
below.grid(False)
