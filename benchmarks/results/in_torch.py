"""One update, outputs and the whole state of a training in PyTorch; `in_flax.py` says the same in Flax."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, mse_loss

from ssm_core.adapters.torch import load, param_groups

from .recipe import NONE, Recipe

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Trainer:
    """Updates the model of a weight file, batch by batch."""

    def __init__(self, weights: Path, recipe: Recipe) -> None:
        self.recipe, self.factors = recipe, recipe.factors()
        self.device = torch.cuda.get_device_name() if DEVICE == "cuda" else DEVICE
        self.module = load(weights).to(DEVICE)
        groups = param_groups(self.module, lr=recipe.lr, weight_decay=recipe.weight_decay, ssm_lr=recipe.ssm_lr)
        self.optimizer = torch.optim.AdamW(groups, betas=recipe.betas, eps=recipe.eps)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    def update(self, inputs: np.ndarray, targets: np.ndarray, k: int) -> float:
        """The k-th step of the optimizer; returns the loss."""
        torch.manual_seed(k)  # of dropout
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * float(self.factors[k])
        loss = self._loss(self.module.train()(_there(inputs)), _there(targets))
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.recipe.clip)
        self.optimizer.step()
        return loss.item()

    def _loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if self.recipe.loss == "squares":
            return mse_loss(outputs[:, -targets.shape[1] :], targets)
        return cross_entropy(outputs.reshape(-1, outputs.shape[-1]), targets.reshape(-1), ignore_index=NONE)

    @torch.no_grad()
    def outputs(self, inputs: np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
        return self.module.eval()(_there(inputs), **options).cpu().numpy()

    def arrays(self) -> dict[str, np.ndarray]:
        """All that the next update depends on, by name."""
        found = {f"model/{name}": x for name, x in self.module.state_dict().items()}
        for i, kept in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer/{i}/{name}": x for name, x in kept.items()}
        return {name: x.cpu().numpy() for name, x in found.items()}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        model: dict[str, torch.Tensor] = {}
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, x in arrays.items():
            kind, _, rest = name.partition("/")
            if kind == "model":
                model[rest] = torch.from_numpy(x)
            else:
                i, _, field = rest.partition("/")
                state.setdefault(int(i), {})[field] = torch.from_numpy(x)
        self.module.load_state_dict(model)
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})


def _there(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x)).to(DEVICE)
