"""Model, optimizer and schedule of an example: one record that both trainers read."""

from __future__ import annotations

from dataclasses import dataclass

from ssm_core import models


@dataclass(frozen=True)
class Recipe:
    """AdamW with a linear warm-up and a cosine decay to zero, every option written out."""

    model: models.SequenceModel
    epochs: int
    batch: int
    lr: float
    ssm_lr: float  # of the poles, the steps and B
    weight_decay: float  # of all other parameters
    warmup: float  # fraction of all updates
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def warmup_updates(self, updates: int) -> int:
        return max(1, round(self.warmup * updates))


DIGITS = Recipe(
    models.SequenceModel(1, 10, d_model=32, n_layers=2, layer_options={"d_state": 16, "dt_min": 0.01}, pool="mean"),
    epochs=20,
    batch=32,
    lr=1e-2,
    ssm_lr=4e-3,
    weight_decay=0.01,
    warmup=0.05,
)

MNIST = Recipe(
    models.SequenceModel(1, 10, d_model=32, n_layers=2, layer_options={"d_state": 64}, pool="mean"),
    epochs=3,
    batch=50,
    lr=1e-2,
    ssm_lr=4e-3,
    weight_decay=0.01,
    warmup=0.1,
)
