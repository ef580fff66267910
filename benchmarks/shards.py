"""What a sequence over many processes costs, on paper and by simulation: `python -m benchmarks.shards [--plot SVG]`.

    T_n(L) = 3 (L/n) (f + g) / rate + 2 (G(halo) + G(m)) + 3 n m / memory      forward and backward of a layer
    G(m) = (n - 1) (latency + m / link)                                       a gather around a ring

f and g are the flops of a step and of its summary once more, m the bytes of a summary, n m what every process reads to
compose them. The efficiency is T_1(L) / (n T_n(L)), where one process gathers nothing. The simulation lets every
process begin a layer when it has ended the one before, take up to a twentieth longer for its own steps, another one in
every layer, and pass each piece of a ring on when it and its neighbor have it. Sizes of messages are counted where
layers send them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssm_core import layers
from ssm_core.distributed import Shards, sequence

D_MODEL, DEPTH = 1024, 24
RATE, MEMORY, LINK, LATENCY = 2e14, 2e12, 5e10, 5e-6  # flop/s, byte/s, byte/s and s of a process
JITTER = 0.05
RANKS, LENGTHS = (8, 64, 512), (10**6, 10**7, 10**8)
LAYERS = {
    "S4D": layers.S4D(D_MODEL),
    "Mamba": layers.Mamba(D_MODEL),
    "Mamba2": layers.Mamba2(D_MODEL),
    "GatedDeltaNet": layers.GatedDeltaNet(D_MODEL),
}
TABLED = "Mamba2"


@dataclass(frozen=True)
class Cost:
    """Of a layer, for a batch of one: flops of a step and of its summary, bytes of the messages of a process."""

    step: float
    summary: float
    messages: tuple[int, ...]


def cost(layer: Any) -> Cost:
    """Two flops a weight of a map, and six a number of the state: it decays, takes an input and is read."""
    sent: list[int] = []

    def gather(x: Any) -> Any:
        sent.append(x.nbytes)
        return np.stack([x, x])

    params = layer.initial_parameters(seed=0)
    with sequence(Shards(2, 0, gather, lambda length: (length, length))):
        layer.apply(params, np.zeros((1, 4, layer.input_width), np.float32))
    maps = sum(p.size for name, p in params.items() if name.endswith(("proj_weight", "output_weight")))
    state = layer.initial_state(params, 1)
    recurrence = 6 * sum(x.size * (1 + np.iscomplexobj(x)) for x in (state if isinstance(state, tuple) else (state,)))
    return Cost(2.0 * maps + recurrence, float(recurrence), tuple(sent))


def own_work(one: Cost, ranks: int, length: int) -> float:
    """Seconds of a process for its steps, forward and backward."""
    return 3 * length / ranks * (one.step + (one.summary if ranks > 1 else 0)) / RATE


def composed(one: Cost, ranks: int) -> float:
    """Seconds to read what was gathered, forward and twice backward."""
    return 3 * ranks * sum(one.messages) / MEMORY if ranks > 1 else 0.0


def on_paper(one: Cost, ranks: int, length: int) -> float:
    """Seconds of a layer, forward and backward."""
    gathers = sum(2 * (ranks - 1) * (LATENCY + m / LINK) for m in one.messages)
    return own_work(one, ranks, length) + gathers + composed(one, ranks)


def simulated(one: Cost, ranks: int, length: int) -> float:
    """The same of a model of several layers, over how many there are, for processes that are not equally fast."""
    draws, clock = np.random.default_rng(0), np.zeros(ranks)
    for _ in range(DEPTH):
        clock += own_work(one, ranks, length) * (1 + JITTER * draws.random(ranks)) + composed(one, ranks)
        for message in one.messages * 2:
            for _ in range(ranks - 1):
                clock = np.maximum(clock, np.roll(clock, 1)) + LATENCY + message / LINK
    return float(clock.max()) / DEPTH


def efficiency(one: Cost, ranks: int, length: int, seconds: float) -> float:
    """How much of n processes is a speedup."""
    return on_paper(one, 1, length) / (ranks * seconds)


def table() -> str:
    """Messages of all layers, then times of one of them, in Markdown."""
    costs = {name: cost(layer) for name, layer in LAYERS.items()}
    rows = ["| layer | flops of a step | bytes of its messages |", "|---|---|---|"]
    for name, one in costs.items():
        rows.append(f"| {name} | {one.step:.1e} | {' and '.join(f'{m:,}' for m in one.messages)} |")
    rows += ["", "| steps | processes | flops of one | bytes to one | on paper | simulated | efficiency |"]
    rows.append("|---|---|---|---|---|---|---|")
    one = costs[TABLED]
    for length in LENGTHS:
        for ranks in RANKS:
            flops = 3 * length / ranks * (one.step + one.summary)
            received = 2 * (ranks - 1) * sum(one.messages)
            paper, found = on_paper(one, ranks, length), simulated(one, ranks, length)
            share = efficiency(one, ranks, length, found)
            cells = f"{length:.0e} | {ranks} | {flops:.1e} | {received:.1e}".replace("e+0", "e").replace("e+", "e")
            rows.append(f"| {cells} | {paper * 1e3:.1f} ms | {found * 1e3:.1f} ms | {share:.0%} |")
    return "\n".join(rows).replace("e+0", "e")


def draw(path: Path) -> None:
    """The efficiency over the number of processes, a panel a layer."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    plt.rcParams |= {"svg.hashsalt": "ssm_core", "svg.fonttype": "none", "font.size": 9}
    figure, axes = plt.subplots(1, len(LAYERS), figsize=(10, 2.8), sharey=True, layout="constrained")
    many = 2 ** np.arange(1, 11)
    for (name, layer), axis in zip(LAYERS.items(), axes, strict=True):
        one = cost(layer)
        for length, color in zip(LENGTHS, ("#e4572e", "#1f6f8b", "#22303c"), strict=True):
            paper = [efficiency(one, n, length, on_paper(one, n, length)) for n in many]
            axis.semilogx(many, paper, base=2, color=color, label=f"{length:,} steps")
            points = [efficiency(one, n, length, simulated(one, n, length)) for n in RANKS]
            axis.plot(RANKS, points, "o", color=color, markersize=4)
        axis.set(title=name, xlabel="processes", ylim=(0, 1.02))
    axes[0].set_ylabel("efficiency")
    axes[0].legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shards", description=__doc__)
    parser.add_argument("--plot", type=Path, metavar="SVG", help="draw the efficiency there")
    options = parser.parse_args()
    print(table())
    if options.plot:
        draw(options.plot)


if __name__ == "__main__":
    main()
