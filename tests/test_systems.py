"""Systems as records: what they hold, how they are validated, and as pytrees of JAX and PyTorch."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest

import reference
import ssm_core
from ssm_core import DPLR, Dense, Diagonal, Rational
from ssm_core.systems import records


def some_systems() -> dict[str, Any]:
    one = np.ones(2)
    return {
        "Dense": Dense(-np.eye(2), one, one),
        "Diagonal": Diagonal(-one, one, one, np.asarray(1.0), conj_pairs=True),
        "discrete": Diagonal(one / 2, one, discrete=True),
        "DPLR": DPLR(-one, np.ones((1, 2)), np.ones((1, 2)), one, one),
        "Rational": Rational(one, one),
    }


@pytest.mark.parametrize("name", some_systems())
def test_systems_are_frozen_and_compare_by_identity(name: str):
    system = some_systems()[name]
    with pytest.raises(dataclasses.FrozenInstanceError):
        system.D = 1.0
    assert system == system
    assert system != dataclasses.replace(system)
    assert hash(system) == hash(system)


def test_defaults():
    system = Diagonal(np.ones(2), np.ones(2))
    assert (system.C, system.D, system.conj_pairs, system.discrete) == (None, None, False, False)
    assert Dense(np.eye(2), np.ones(2)).discrete is False
    assert Rational(np.ones(2), np.ones(2)).discrete is True


@pytest.mark.parametrize("name", some_systems())
def test_systems_are_pickled(name: str):
    system = some_systems()[name]
    copy = pickle.loads(pickle.dumps(system))
    assert type(copy) is type(system)
    for field in dataclasses.fields(system):
        np.testing.assert_array_equal(getattr(copy, field.name), getattr(system, field.name))


@pytest.mark.parametrize("kind", [tuple, list])
@pytest.mark.parametrize("members", [2, 3, 4])
def test_tuples_are_dense_systems(members: int, kind: type, xp: Any):
    full = [xp.eye(2), xp.ones(2), xp.ones(2), 0.5]
    for dt in (None, 0.1):
        system = records.as_system("f", kind(full[:members]), dt)
        assert isinstance(system, Dense)
        assert system.discrete == (dt is None)
        assert [getattr(system, n) for n in "ABCD"[:members]] == full[:members]
    assert system.C is (full[2] if members > 2 else None)


def test_a_tuple_without_dt_is_discrete_in_the_form_of_this_library():
    A, B, C, D = np.asarray([[0.5]]), np.ones(1), np.ones(1), 10.0
    y, _ = ssm_core.scan((A, B, C, D), np.asarray([1.0, 0.0, 0.0]))
    np.testing.assert_allclose(y, [11.0, 0.5, 0.25])


@pytest.mark.parametrize("conj_pairs", [False, True])
@pytest.mark.parametrize(("P", "M"), [(None, None), (2, None), (None, 3), (2, 3)])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_ports_and_batch(batch: tuple[int, ...], P: int | None, M: int | None, conj_pairs: bool):
    for system in (
        reference.diagonal(P=P, M=M, batch=batch, conj_pairs=conj_pairs),
        reference.dense(P=P, M=M, batch=batch),
    ):
        system, _ = records.validated("f", system)
        rank = records.batch_rank(system)
        assert rank == len(batch)
        assert records.inputs(system, rank) == P
        assert records.outputs(system, rank) == M
        assert records.is_real(system) == (conj_pairs or isinstance(system, Dense))


def test_half_precision_becomes_float32():
    system = Diagonal(*(np.ones(2, np.float16) for _ in range(3)), D=1.0)
    system, _ = records.validated("f", system)
    assert {x.dtype for x in (system.poles, system.B, system.C)} == {np.dtype(np.float32)}
    assert system.D == 1.0


def test_validation_changes_no_dtype_that_can_be_computed_with(xp: Any):
    given = Diagonal(xp.ones(2, dtype=xp.complex64), xp.ones(2, dtype=xp.float32), xp.ones(2, dtype=xp.float64))
    system, found = records.validated("f", given)
    assert found is xp
    assert [x.dtype for x in (system.poles, system.B, system.C)] == [xp.complex64, xp.float32, xp.float64]


one, eye = np.ones(2), np.eye(2)
MISFITS = {
    "matrix not square": (Dense(np.ones((2, 3)), one), r"A of a Dense system must be \(\.\.\., N, N\) \(A: \(2, 3\)"),
    "matrix of one axis": (Dense(one, one), r"A of a Dense system must be"),
    "poles of no axis": (Diagonal(np.asarray(1.0), one), r"poles of a Diagonal system must be \(\.\.\., N\)"),
    "states of B": (Diagonal(one, np.ones(3)), r"B has 3 states but poles has 2 poles .*one B entry per stored pole"),
    "states of C": (Dense(eye, one, np.ones(3)), r"C has 3 states but A has 2 states .*one C entry per stored state"),
    "rows of C": (Dense(eye, one, np.ones((2, 3))), "C has 3 states but A has 2 states"),
    "axes missing": (Diagonal(np.ones((3, 2)), one), r"B has 1 axes, but poles has 1 batch .*2 or 3.*poles\[None\]"),
    "axes surplus": (Diagonal(one, np.ones((2, 1, 1))), r"B has 3 axes, but poles has 0 batch axes"),
    "batch": (Diagonal(np.ones((3, 2)), np.ones((4, 2))), r"do not broadcast \(poles: \(3,\), B: \(4,\)\)"),
    "direct term": (Diagonal(one, one, one, np.ones(3)), r"D has 1 axes but needs 0 .*D: \(3,\)"),
    "size of the direct term": (Diagonal(one, one, np.ones((3, 2)), np.ones(2)), r"D"),
    "low rank": (DPLR(one, one, np.ones((1, 2)), one), r"P has 1 axes, but poles has 0 batch axes, so P needs 2"),
    "Rational denominator of no axis": (Rational(one, np.asarray(1.0)), "denominator"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_misfits(name: str):
    system, message = MISFITS[name]
    with pytest.raises(ssm_core.ShapeError, match=f"^f: .*{message}"):
        records.validated("f", system)


@pytest.mark.parametrize("size", [(), (1,), (3,)])
def test_sizes_of_one_broadcast(size: tuple[int, ...]):
    poles = np.full((1, 2), 0.5)
    B = np.ones((*size, 2)) if size else np.ones((1, 2))
    K = ssm_core.kernel(Diagonal(poles, B, np.ones((3, 2)), discrete=True), 4)
    assert K.shape == (3, 4)


def test_validation_is_not_in_the_constructor():
    marker = object()
    assert Diagonal(marker, marker).poles is marker


@pytest.mark.parametrize("name", some_systems())
def test_pytree_of_jax(name: str):
    jax = pytest.importorskip("jax")
    given = records.map_arrays(jax.numpy.asarray, some_systems()[name])
    leaves, tree = jax.tree.flatten(given)
    assert len(leaves) == sum(getattr(given, n) is not None for n in given.ARRAYS)
    copy = jax.tree.unflatten(tree, leaves)
    assert all(getattr(copy, f.name) is getattr(given, f.name) for f in dataclasses.fields(given))
    doubled = jax.tree.map(lambda x: 2 * x, given)
    assert type(doubled) is type(given)
    assert doubled.discrete == given.discrete


def test_systems_pass_through_jit_vmap_and_grad_of_jax():
    jax = pytest.importorskip("jax")
    fields = [np.full((3, 2), x, np.float32) for x in (-0.5, 1.0, 2.0)]

    def total(system: Diagonal) -> Any:
        return ssm_core.kernel(system, 5, dt=0.1).sum()

    wanted = [total(Diagonal(*(x[i] for x in fields))) for i in range(3)]
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(total)))(Diagonal(*map(jax.numpy.asarray, fields)))
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    assert isinstance(slope, Diagonal)
    assert slope.D is None
    assert slope.poles.shape == (3, 2)


@pytest.mark.parametrize("name", some_systems())
def test_pytree_of_torch(name: str):
    torch = pytest.importorskip("torch")
    from torch.utils import _pytree as pytree

    given = records.map_arrays(torch.from_numpy, some_systems()[name])
    leaves, spec = pytree.tree_flatten(given)
    assert len(leaves) == sum(getattr(given, n) is not None for n in given.ARRAYS)
    copy = pytree.tree_unflatten(leaves, spec)
    assert all(getattr(copy, f.name) is getattr(given, f.name) for f in dataclasses.fields(given))
    doubled = pytree.tree_map(lambda x: 2 * x, given)
    assert type(doubled) is type(given)
    assert doubled.discrete == given.discrete


def test_systems_pass_through_vmap_and_grad_of_torch():
    torch = pytest.importorskip("torch")
    system = Diagonal(*(torch.full((3, 2), x) for x in (-0.5, 1.0, 2.0)), conj_pairs=True)

    def total(system: Diagonal) -> Any:
        return ssm_core.kernel(system, 5, dt=0.1).sum()

    alone = torch.stack([total(records.map_arrays(lambda x, i=i: x[i], system)) for i in range(3)])
    torch.testing.assert_close(torch.func.vmap(total)(system), alone)
    slope = torch.func.grad(lambda s: torch.func.vmap(total)(s).sum())(system)
    assert isinstance(slope, Diagonal)
    assert (slope.D, slope.conj_pairs) == (None, True)
    assert slope.poles.shape == (3, 2)
