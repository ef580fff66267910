"""Models of layers: whole sequences, lengths, pieces and steps against plain loops."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ssm_core.models import Mamba2LM, SequenceModel

from .backends import Backend
from .cases.instance import BATCH, H, parameters, params_of
from .cases.models import BLOCKS, LANGUAGE_MODELS, language_parameters, language_truth, sequence_truth
from .examples import Draw, as_arrays, rounded
from .tolerances import assert_close

pytestmark = pytest.mark.dtypes("float32", "float64")

FULL_AND_SHORT = pytest.mark.parametrize("lengths", [None, np.asarray([30, 11])], ids=["full", "lengths"])


def model_of(layer: str, pool: str | None, n_layers: int = 1) -> SequenceModel:
    return SequenceModel(3, 2, H, n_layers, layer, BLOCKS[layer], pool=pool)


@pytest.mark.parametrize("pool", ["mean", "last", None])
@FULL_AND_SHORT
def test_sequence_model(pool: str | None, lengths: Any, backend: Backend, dtype: str):
    model, d = model_of("S4D", pool, n_layers=2), Draw(3)
    v = as_arrays(backend, dtype, parameters(model) | {"u": d.real(BATCH, 30, 3), "lengths": lengths})
    y = backend.run(lambda v: model.apply(params_of(v, model), v.u, lengths=v.lengths), v)
    wanted = sequence_truth(model, rounded(backend, v), lengths)
    if pool is None and lengths is not None:
        y, wanted = y[:, :11, :], wanted[:, :11]
    assert_close(y, wanted, backend, dtype, function="models.SequenceModel", terms=64 * 30)


@pytest.mark.parametrize("pool", ["mean", "last", None])
def test_sequence_model_in_pieces_and_steps(pool: str | None, backend: Backend, dtype: str):
    """Its state goes through the blocks and the pool: pieces, then steps, end where the whole sequence does."""
    in_pieces_and_steps(model_of("S4D", pool, n_layers=2), ("scan", "conv"), backend, dtype)


@pytest.mark.parametrize(("layer", "pool"), [("Mamba", "mean"), ("Mamba2", "last"), ("Mamba3", None)])
@pytest.mark.dtypes("float32")
def test_sequence_models_of_gated_layers(layer: str, pool: str | None, backend: Backend, dtype: str):
    """Lengths, and a state that goes through the blocks and the pool."""
    model, lengths = model_of(layer, pool), np.asarray([12, 5])
    v = as_arrays(backend, dtype, parameters(model) | {"u": Draw(4).real(BATCH, 12, 3), "lengths": lengths})
    found = backend.run(lambda v: model.apply(params_of(v, model), v.u, lengths=v.lengths), v)
    wanted = sequence_truth(model, rounded(backend, v), lengths)
    found, wanted = (found, wanted) if pool else (found[:, :5, :], wanted[:, :5])
    assert_close(found, wanted, backend, dtype, function="models.SequenceModel", terms=64 * 12)
    in_pieces_and_steps(model, ("scan", "auto"), backend, dtype)


def in_pieces_and_steps(model: SequenceModel, modes: tuple[str, str], backend: Backend, dtype: str) -> None:
    v = as_arrays(backend, dtype, parameters(model) | {"u": Draw(4).real(BATCH, 12, 3)})

    def run(v: SimpleNamespace) -> Any:
        params = params_of(v, model)
        _, state = model.apply(params, v.u[:, :5, :], return_state=True, mode=modes[0])
        _, state = model.apply(params, v.u[:, 5:9, :], state=state, return_state=True, mode=modes[1])
        step = model.stepper(params)
        for k in range(9, 12):
            y, state = step(v.u[:, k, :], state)
        return y

    wanted = sequence_truth(model, rounded(backend, v))
    wanted = wanted[:, -1] if model.pool is None else wanted
    assert_close(backend.run(run, v), wanted, backend, dtype, function="models.SequenceModel", terms=64 * 12)


@pytest.mark.parametrize("cls", LANGUAGE_MODELS, ids=lambda cls: cls.__name__)
@pytest.mark.dtypes("float32")
def test_language_models(cls: Any, backend: Backend, dtype: str):
    """Logits and the states of all blocks, of prompts at once and one token on."""
    model = cls(7, H, 2, BLOCKS[cls.layer], tied=cls is not Mamba2LM)
    d, lengths = Draw(6), np.asarray([9, 4])
    given = {"ids": d.generator.integers(0, 7, (BATCH, 9)), "next": np.asarray([3, 1]), "lengths": lengths}
    v = as_arrays(backend, dtype, language_parameters(model) | given)

    def run(v: SimpleNamespace) -> Any:
        params = params_of(v, model)
        y, state = model.apply(params, v.ids, lengths=v.lengths, return_state=True)
        return y[:, :4, :], state, model.step(params, v.next, state)[0]

    y, state, following = backend.run(run, v)
    values = rounded(backend, v)
    params = params_of(values, model)
    wanted, last = language_truth(model, params, values.ids, lengths=values.lengths)
    options = {"function": f"models.{cls.__name__}", "terms": 64 * 9}
    assert_close(y, wanted[:, :4], backend, dtype, **options)
    for i, found in enumerate(state):
        for actual, expected in zip(found[1:], last[i][1:], strict=True):
            assert_close(actual, expected, backend, dtype, **options)
    for i, n in enumerate(lengths):
        ids = np.concatenate([values.ids[i, :n], values.next[i : i + 1]])[None]
        assert_close(following[i, :], language_truth(model, params, ids)[0][0, -1], backend, dtype, **options)
