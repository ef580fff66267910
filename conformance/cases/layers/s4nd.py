"""S4ND: a direct sum over all samples with the outer products of kernels, one an axis."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ssm_core.layers import S4ND

from ...dispatched import LONG, MIXING
from ...truth.layers import Array, Options, Params, kernel, mixed
from ..instance import STEPS
from ..layer import WholeCases
from . import s4, s4d

OF_AXIS = {"S4D": s4d.CASES, "S4": s4.CASES}


def run(options: Options, params: Params, u: Array, rate: Any) -> Array:
    *shape, H = u.shape
    dims, rank, channels = options["dims"], options["rank"], options["channels"]
    rates, given = (x if isinstance(x, tuple) else (x,) * dims for x in (rate, options["layer_options"]))
    kernels = []
    for a in range(dims):  # (2 rank channels, H, lags), of which those on the future are zero in one direction
        record = OF_AXIS[options["layer"]]
        axis = record.layer(
            d_model=H, d_state=options["d_state"], channels=rank * channels, bidirectional=options["bidirectional"],
            **({} if options["bandlimit"] is None else {"bandlimit": options["bandlimit"]}), **given[a],
        )  # fmt: skip
        own = {n.removeprefix(f"axis_{a}_"): p for n, p in params.items() if n.startswith(f"axis_{a}_")}
        K = kernel(record.truth(axis.options(), own), H, max(shape[a], 1), rates[a])
        kernels.append(K if options["bidirectional"] else np.concatenate([K, 0 * K]))

    def tap(a: int, row: int, lag: int) -> Array:
        K = kernels[a]
        return K[row, :, lag] if lag >= 0 else K[row + rank * channels, :, -lag - 1]

    v = np.zeros((*shape, channels, H))
    for out, place in itertools.product(np.ndindex(*shape), repeat=2):
        for r, c in itertools.product(range(rank), range(channels)):
            taps = [tap(a, r * channels + c, out[a] - place[a]) for a in range(dims)]
            v[(*out, c)] += np.prod(taps, axis=0) * u[place] / rank
    return mixed(options, params, v, u)


BASIS = {"d_state": 4, "layer_options": STEPS}
CASES = WholeCases(
    layer=S4ND,
    truth=run,
    instances={
        "S4ND": BASIS,
        "S4ND_causal_rank_channels": BASIS | {"bidirectional": False, "rank": 2, "channels": 2, "bandlimit": 0.3},
        "S4ND_3d_dplr": BASIS | {"dims": 3, "layer": "S4", "activation": None, "output": None},
        "S4ND_own_axes": BASIS | {"layer_options": (STEPS, {"n_ssm": 1, "init": "inv", **STEPS}), "rank": 3},
        "S4ND_1d": BASIS | {"dims": 1, "output": "linear", "channels": 2},
    },
    parameters=" ".join(f"axis_{a}_{name}" for a in (0, 1) for name in s4d.CASES.parameters.split()),
    no_weight_decay=" ".join(f"axis_{a}_{name}" for a in (0, 1) for name in s4d.CASES.no_weight_decay.split()),
    rests_on=(*LONG, *MIXING),
    extensions=("fft",),
    small={"rank_2": ({"d_model": 2, "rank": 2, **BASIS}, "auto")},
    modules={
        "S4ND": {"d_model": 4, **BASIS},
        "S4ND_3d": {"d_model": 4, "dims": 3, "d_state": 2, "bidirectional": False},
    },
    refusals=(
        ({"dims": 0}, "dims = 0 must be a whole number"),
        ({"layer": "Mamba"}, "every axis: layers.make: Mamba"),
        ({"layer": "S4", "bandlimit": 0.5}, "every axis: layers.make: S4 got an unexpected .*'bandlimit'"),
        ({"layer": "S9"}, "every axis: layers.make: unknown layer 'S9'"),
        ({"layer_options": ({},)}, "one for each of the 2 axes"),
        ({"layer_options": 3}, "layer_options must be a dict"),
        ({"layer_options": {"channels": 2}}, "channels is an option of S4ND itself"),
        ({"bandlimit": 0.5, "layer_options": ({"bandlimit": 0.3}, {})}, "bandlimit is given twice"),
        ({"bandlimit": 0}, "every axis: S4D: bandlimit = 0 must be positive"),
        ({"output": "mlp"}, "unknown output 'mlp'"),
    ),
    packed=False,
)
