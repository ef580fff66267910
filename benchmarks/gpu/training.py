"""Sequential digits, one pixel a step: S4D blocks trained for as long as the part has, and what they then know.

The digits are those of MNIST where a file of them is given, else scikit-learn's where it is installed, else drawn:
ten random curves with noise, which says nothing but that training works.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .record import emit, guarded, left


def run(device: str, options: Any) -> None:
    guarded("training", lambda: train(device, options.mnist))


def images(path: Any) -> tuple[str, tuple[np.ndarray, ...]]:
    """Where they are from, and pixels (B, L, 1) with labels (B,), to train with and to test."""
    if path is not None:
        with np.load(path) as file:
            x, y, x_test, y_test = (file[name] for name in ("x_train", "y_train", "x_test", "y_test"))
        pixels = [((v.reshape(len(v), -1, 1) / 255 - 0.13) / 0.31).astype("f4") for v in (x, x_test)]
        return "MNIST", (pixels[0], y.astype("i8"), pixels[1], y_test.astype("i8"))
    source, (x, y) = known()
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[len(x) // 5 :], order[: len(x) // 5]
    return source, (x[train], y[train], x[test], y[test])


def known() -> tuple[str, tuple[np.ndarray, np.ndarray]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        rng = np.random.default_rng(0)
        curves, y = rng.normal(size=(10, 64, 1)), rng.integers(10, size=2000)
        return "drawn", ((curves[y] + rng.normal(size=(2000, 64, 1))).astype("f4"), y)
    data = load_digits()
    return "digits of scikit-learn", ((data.data / 8 - 1).astype("f4")[..., None], data.target.astype("i8"))


def train(device: str, path: Any) -> None:
    import torch

    from ssm_core.adapters.torch import SequenceModel, param_groups

    source, (x, y, x_test, y_test) = images(path)
    torch.manual_seed(0)
    width, batch = (128, 64) if device == "cuda" else (8, 16)
    model = SequenceModel(1, 10, d_model=width, n_layers=4 if device == "cuda" else 1, pool="mean").to(device)
    optimizer = torch.optim.AdamW(param_groups(model, lr=4e-3, weight_decay=0.01, ssm_lr=1e-3))
    rng, losses = np.random.default_rng(1), []
    seconds = left() if device == "cuda" else 1.0
    end = left() - 0.85 * seconds
    while left() > end or len(losses) < 2:
        chosen = rng.integers(len(x), size=batch)
        u, label = (torch.from_numpy(v[chosen]).to(device) for v in (x, y))
        loss = torch.nn.functional.cross_entropy(model(u), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        parts = zip(np.array_split(x_test, 20), np.array_split(y_test, 20), strict=True)
        right = sum(int((model(torch.from_numpy(u).to(device)).argmax(-1).cpu().numpy() == v).sum()) for u, v in parts)
    emit(
        "training", source=source, length=x.shape[1], updates=len(losses), first_loss=losses[0],
        last_loss=float(np.mean(losses[-20:])), accuracy=right / len(x_test),
    )  # fmt: skip
