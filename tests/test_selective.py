"""The selective scan against the recurrence as written, in every combination of its options."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ssm_core
from conformance.truth import gated as truth
from ssm_core import selective_scan

BATCH, H, N, L = 2, 6, 3, 17


def inputs(rows: str = "shared", *, complex_A: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
    r = np.random.default_rng(seed)
    shape = {"constant": (H, N), "shared": (BATCH, N, L), "grouped": (BATCH, 2, N, L)}[rows]

    def draw(*shape: int) -> np.ndarray:
        return r.normal(size=shape) + (1j * r.normal(size=shape) if complex_A else 0)

    A = -r.uniform(0.1, 2, size=(H, N)) + (1j * r.normal(size=(H, N)) if complex_A else 0)
    return {"u": r.normal(size=(BATCH, H, L)), "dt": r.uniform(0.1, 1, size=(BATCH, H, L)), "A": A,
            "B": draw(*shape), "C": draw(*shape)}  # fmt: skip


def loop(v: dict[str, np.ndarray], x: Any = None, discretization: str = "mamba", reset: Any = None) -> Any:
    more = {name: given for name, given in (("initial", x), ("reset", reset)) if given is not None}
    return truth.selective_scan(SimpleNamespace(**v, **more), discretization=discretization)


@pytest.mark.parametrize("rows", ["constant", "shared", "grouped"])
@pytest.mark.parametrize("complex_A", [False, True])
@pytest.mark.parametrize("discretization", ["mamba", "zoh"])
@pytest.mark.parametrize("chunk", [None, 1, 5])
def test_is_the_recurrence(rows: str, complex_A: bool, discretization: str, chunk: int | None, xp: Any):
    v = inputs(rows, complex_A=complex_A)
    arrays = {name: xp.asarray(x) for name, x in v.items()}
    y, state = selective_scan(**arrays, discretization=discretization, chunk=chunk, return_state=True)
    wanted, last = loop(v, discretization=discretization)
    np.testing.assert_allclose(np.asarray(y), wanted, atol=1e-12)
    np.testing.assert_allclose(np.asarray(state), last, atol=1e-12)


def test_everything_around_it():
    v, r = inputs(), np.random.default_rng(1)
    D, bias, z = r.normal(size=H), r.normal(size=H), r.normal(size=(BATCH, H, L))
    y = selective_scan(**v, D=D, dt_bias=bias, dt_softplus=True, z=z)
    steps = np.log1p(np.exp(v["dt"] + bias[:, None]))
    wanted = (loop(v | {"dt": steps})[0] + D[:, None] * v["u"]) * z / (1 + np.exp(-z))
    np.testing.assert_allclose(y, wanted, atol=1e-12)


def test_parts_steps_resets_and_lengths():
    v = inputs()
    whole, last = selective_scan(**v, return_state=True)

    def part(start: int, stop: int, state: Any = None, **options: Any) -> Any:
        cut = {name: x if name == "A" else x[..., start:stop] for name, x in v.items()}
        return selective_scan(**cut, initial=state, return_state=True, **options)

    pieces, state = [], None
    for start, stop in ((0, 7), (7, 8), (8, L)):
        y, state = part(start, stop, state)
        pieces.append(y)
    np.testing.assert_allclose(np.concatenate(pieces, axis=-1), whole, atol=1e-12)
    np.testing.assert_allclose(state, last, atol=1e-12)
    reset = np.zeros((BATCH, L), bool)
    reset[:, 7] = True
    np.testing.assert_allclose(part(0, L, reset=reset)[0][..., 7:], part(7, L)[0], atol=1e-12)
    _, at_lengths = part(0, L, lengths=np.asarray([5, L]))
    np.testing.assert_allclose(at_lengths[0], part(0, 5)[1][0], atol=1e-12)
    np.testing.assert_allclose(at_lengths[1], last[1], atol=1e-12)


@pytest.mark.parametrize("complex_A", [False, True])
@pytest.mark.parametrize("rows", ["constant", "grouped"])
def test_gradients_in_torch(rows: str, complex_A: bool):
    torch = pytest.importorskip("torch")
    v = {
        name: torch.from_numpy(x[..., :4] if x.shape[-1] == L else x)
        for name, x in inputs(rows, complex_A=complex_A).items()
    }
    leaves = {
        name: x[:1].clone() if name in ("u", "dt") or (rows == "grouped" and name in "BC") else x.clone()
        for name, x in v.items()
    }
    values = [x.requires_grad_() for x in leaves.values()]

    def run(*values: Any) -> Any:
        return selective_scan(**dict(zip(leaves, values, strict=True)), chunk=3, return_state=True)

    assert torch.autograd.gradcheck(run, values)


def test_jax_under_jit_equals_numpy():
    jax = pytest.importorskip("jax")
    v = {name: x.astype(np.float32) for name, x in inputs("grouped").items()}
    found = jax.jit(lambda v: selective_scan(**v))({name: jax.numpy.asarray(x) for name, x in v.items()})
    np.testing.assert_allclose(found, selective_scan(**v), atol=1e-5)


def test_half_precision_is_computed_in_single():
    torch = pytest.importorskip("torch")
    v = {name: torch.from_numpy(x).to(torch.bfloat16) for name, x in inputs().items()}
    y, state = selective_scan(**v, return_state=True)
    wanted = selective_scan(**{name: x.float() for name, x in v.items()})
    assert y.dtype == torch.bfloat16
    assert state.dtype == torch.float32
    assert torch.equal(y, wanted.to(torch.bfloat16))


def test_a_million_steps_stay_finite_and_right():
    r = np.random.default_rng(0)
    u, dt = r.normal(size=(1, 1, 10**6)).astype(np.float32), np.full((1, 1, 10**6), 0.01, np.float32)
    A, ones = -np.ones((1, 1), np.float32), np.ones((1, 1), np.float32)
    y = selective_scan(u, dt, A, ones, ones)
    exact = selective_scan(u.astype(float), dt.astype(float), A.astype(float), ones.astype(float), ones.astype(float))
    assert np.abs(y - exact).max() < 1e-5 * np.abs(exact).max()


def test_nothing_gives_nothing():
    v = inputs()
    none = {name: x if name == "A" else x[..., :0] for name, x in v.items()}
    y, state = selective_scan(**none, initial=np.ones((BATCH, H, N)), return_state=True)
    assert y.shape == (BATCH, H, 0)
    np.testing.assert_array_equal(state, 1)


V = inputs()
WRONG: list[tuple[dict[str, Any], type, str]] = [
    ({"u": V["u"][0]}, ssm_core.ShapeError, r"u must be \(batch, H, L\)"),
    ({"u": [1.0]}, ssm_core.DTypeError, "u is a list"),
    ({"u": V["u"].astype(int)}, ssm_core.DTypeError, "u has dtype int64"),
    ({"u": V["u"] + 0j}, ssm_core.DTypeError, "u has dtype complex128, but must be real"),
    ({"dt": V["dt"][..., 1:]}, ssm_core.ShapeError, r"dt must be \(2, 6, 17\)"),
    ({"dt": -V["dt"]}, ssm_core.DomainError, "dt is negative at 204 steps .*dt_softplus=True"),
    ({"dt": V["dt"] * np.nan}, ssm_core.DomainError, "dt holds NaN"),
    ({"A": V["A"][1:]}, ssm_core.ShapeError, r"A must be \(6, N\)"),
    ({"B": V["B"][0]}, ssm_core.ShapeError, r"B must be \(6, 3\), \(2, 3, 17\) or"),
    ({"C": np.ones((BATCH, 4, N, L))}, ssm_core.ShapeError, "4 groups of C do not divide 6 channels"),
    ({"B": V["B"] + 1j}, ssm_core.DTypeError, "B is complex but A is real"),
    ({"D": np.ones(2)}, ssm_core.ShapeError, r"D must be \(6,\)"),
    ({"initial": np.ones((1, H, N))}, ssm_core.ShapeError, r"initial must be \(2, 6, 3\)"),
    ({"initial": 1j * np.ones((BATCH, H, N))}, ssm_core.DTypeError, "initial is complex"),
    ({"reset": np.zeros((BATCH, L))}, ssm_core.DTypeError, "reset has dtype float64"),
    ({"lengths": np.asarray([1, 18])}, ssm_core.DomainError, r"lengths must lie in \[0, 17\]"),
    ({"discretization": "foh"}, ssm_core.OptionError, "unknown discretization 'foh'. Known: 'mamba', 'zoh'"),
]


@pytest.mark.parametrize("row", range(len(WRONG)))
def test_refused(row: int):
    change, error, message = WRONG[row]
    with pytest.raises(error, match=rf"(?s)^selective_scan: .*{message}"):
        selective_scan(**V | change)
