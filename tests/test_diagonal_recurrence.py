"""The diagonal recurrence that gives outputs only, against the loop that defines it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ssm_core import diagonal_scan

L, N = 9, 3


def draw(*shape: int, complex_: bool = False, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, shape)
    return x + 1j * rng.uniform(-1, 1, shape) if complex_ else x


def loop(
    u: np.ndarray,
    Ab: np.ndarray,
    Bb: np.ndarray,
    C: np.ndarray,
    *,
    initial: Any = 0.0,
    reset: Any = None,
    conj_pairs: bool = False,
    per_step: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """x_k = Ab x_{k-1} + Bb u_k, y_k = C x_k, one step after another."""
    tails = {"Ab": 1, "Bb": 1 + Bb.ndim - Ab.ndim, "C": 1 + C.ndim - Ab.ndim}
    fields = {"Ab": Ab, "Bb": Bb, "C": C}

    def at(name: str, k: int) -> np.ndarray:
        x = fields[name]
        if not per_step:
            return x
        time = x.ndim - 1 - tails[name]
        return np.take(x, 0 if x.shape[time] == 1 else k, axis=time)

    x, steps = initial, []
    for k in range(u.shape[-1]):
        if reset is not None:
            x = np.where(reset[..., k, None], 0, x)
        drive = (at("Bb", k) @ u[..., k, None])[..., 0] if tails["Bb"] == 2 else at("Bb", k) * u[..., k, None]
        x = at("Ab", k) * x + drive
        y = (at("C", k) @ x[..., None])[..., 0] if tails["C"] == 2 else np.sum(at("C", k) * x, axis=-1)
        steps.append(2 * y.real if conj_pairs else y)
    return np.stack(steps, axis=-1), x


def check(xp: Any, *arrays: np.ndarray, **options: Any) -> None:
    y, state = loop(*arrays, **options)
    given = {k: xp.asarray(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    for chunk in (None, 4):
        found = diagonal_scan(*map(xp.asarray, arrays), **given, chunk=chunk)
        for x, wanted in zip(found, (y, state), strict=True):
            assert x.shape == wanted.shape
            np.testing.assert_allclose(np.asarray(x), wanted, rtol=1e-11, atol=1e-13, err_msg=f"chunk={chunk}")


@pytest.mark.parametrize("conj_pairs", [False, True])
@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize(("P", "M"), [(None, None), (2, None), (None, 4), (2, 4)])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_constant_gates(
    batch: tuple[int, ...], P: int | None, M: int | None, complex_: bool, conj_pairs: bool, xp: Any
):
    inputs, outputs = (() if P is None else (P,)), (() if M is None else (M,))
    u = draw(*batch, *inputs, L, complex_=complex_ and not conj_pairs)
    Ab, Bb, C = (draw(*batch, *s, complex_=complex_, seed=i) for i, s in enumerate([(N,), (N, *inputs), (*outputs, N)]))
    check(xp, u, Ab, Bb, C, conj_pairs=conj_pairs)
    check(xp, u, Ab, Bb, C, conj_pairs=conj_pairs, initial=draw(*batch, N, complex_=complex_, seed=5))


@pytest.mark.parametrize("moving", [("Ab",), ("Bb",), ("C",), ("Ab", "Bb", "C")])
@pytest.mark.parametrize(("P", "M"), [(None, None), (2, 4)])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_gates_per_step(batch: tuple[int, ...], P: int | None, M: int | None, moving: tuple[str, ...], xp: Any):
    inputs, outputs = (() if P is None else (P,)), (() if M is None else (M,))
    u = draw(*batch, *inputs, L)
    shapes = {"Ab": (N,), "Bb": (N, *inputs), "C": (*outputs, N)}
    arrays = [
        draw(*batch, L if name in moving else 1, *shape, complex_=True, seed=i)
        for i, (name, shape) in enumerate(shapes.items())
    ]
    check(xp, u, *arrays, per_step=True, conj_pairs=True, initial=draw(*batch, N, complex_=True))


@pytest.mark.parametrize("chunk", [1, 2, 4, L - 1, L, 100])
def test_every_chunk(chunk: int, xp: Any):
    arrays = [draw(L), *(draw(N, seed=i) for i in range(3))]
    for found, wanted in zip(diagonal_scan(*map(xp.asarray, arrays), chunk=chunk), loop(*arrays), strict=True):
        np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("per_step", [False, True])
def test_resets(per_step: bool, xp: Any):
    reset = np.zeros((2, L), bool)
    reset[0, [0, 4, 5]] = reset[1, L - 1] = True
    arrays = [draw(2, *((L,) if per_step else ()), N, seed=i) for i in range(3)]
    check(xp, draw(2, L), *arrays, per_step=per_step, reset=reset, initial=draw(2, N))


def test_a_reset_cuts_the_sequence():
    u, Ab, Bb, C = draw(L), draw(N), draw(N, seed=1), draw(N, seed=2)
    y, state = diagonal_scan(u, Ab, Bb, C, initial=np.ones(N), reset=np.arange(L) == 4)
    head, _ = diagonal_scan(u[:4], Ab, Bb, C, initial=np.ones(N))
    tail, last = diagonal_scan(u[4:], Ab, Bb, C)
    np.testing.assert_allclose(y, np.concatenate([head, tail]))
    np.testing.assert_allclose(state, last)


@pytest.mark.parametrize(
    ("u", "system", "state", "reset"),
    [
        ((4, L), (N,), None, None),
        ((L,), (4, N), None, None),
        ((1, L), (4, N), (4, N), (1, L)),
        ((L,), (N,), (4, N), None),
        ((L,), (N,), None, (4, L)),
        ((3, 1, L), (4, N), (1, N), (3, 4, L)),
        ((0, L), (N,), None, None),
        ((3, L), (1, N), (3, N), None),
    ],
)
def test_broadcasting(u: Any, system: Any, state: Any, reset: Any, xp: Any):
    options = {} if state is None else {"initial": draw(*state)}
    if reset is not None:
        options["reset"] = draw(*reset) > 0.5
    batch = np.broadcast_shapes(u[:-1], system[:-1], (state or (N,))[:-1], (reset or (L,))[:-1])
    signal = np.broadcast_to(draw(*u), (*batch, L)).copy()
    y, last = loop(signal, *(draw(*system, seed=i) for i in range(3)), **options)
    given = {k: xp.asarray(v) for k, v in options.items()}
    found = diagonal_scan(xp.asarray(draw(*u)), *(xp.asarray(draw(*system, seed=i)) for i in range(3)), **given)
    for x, wanted in zip(found, (y, last), strict=True):
        np.testing.assert_allclose(np.asarray(x), wanted, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("split", [1, 4, 8])
def test_state_out_and_state_in(split: int, xp: Any):
    u, *system = (xp.asarray(x) for x in (draw(L), *(draw(N, complex_=True, seed=i) for i in range(3))))
    y, last = diagonal_scan(u, *system)
    head, state = diagonal_scan(u[:split], *system)
    tail, end = diagonal_scan(u[split:], *system, initial=state)
    np.testing.assert_allclose(np.concatenate([np.asarray(head), np.asarray(tail)]), np.asarray(y), rtol=1e-12)
    np.testing.assert_allclose(np.asarray(end), np.asarray(last), rtol=1e-12)


def test_no_steps(xp: Any):
    y, state = diagonal_scan(xp.ones((2, 0)), xp.ones(N), xp.ones(N), xp.ones((4, N)), initial=xp.full(N, 2.0))
    assert y.shape == (2, 4, 0)
    np.testing.assert_array_equal(np.asarray(state), np.full((2, N), 2))


def test_no_steps_of_a_real_signal_give_the_dtype_of_many():
    system = [draw(N, complex_=True, seed=i) for i in range(3)]
    for conj_pairs in (False, True):
        dtypes = [diagonal_scan(np.ones(n), *system, conj_pairs=conj_pairs)[0].dtype for n in (0, 1)]
        assert dtypes[0] == dtypes[1]


@pytest.mark.parametrize(
    ("u", "gate", "y", "state"),
    [
        ("float16", "float32", "float16", "float32"),
        ("float16", "float16", "float16", "float32"),
        ("float32", "float32", "float32", "float32"),
        ("float32", "float64", "float64", "float64"),
        ("float32", "complex64", "float32", "complex64"),
    ],
)
def test_dtypes(u: str, gate: str, y: str, state: str):
    system = [draw(N, seed=i).astype(gate) for i in range(3)]
    found = diagonal_scan(draw(L).astype(u), *system, conj_pairs=gate.startswith("c"))
    assert [x.dtype for x in found] == [y, state]


def test_states_are_not_kept():
    import tracemalloc

    u, system = np.ones(20_000), [np.full(64, 0.5) for _ in range(3)]
    diagonal_scan(u[:8], *system)
    tracemalloc.start()
    diagonal_scan(u, *system, chunk=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * u.nbytes  # all states would be 64


def test_gradients_do_not_depend_on_the_chunk():
    torch = pytest.importorskip("torch")
    arrays = [torch.tensor(draw(*s, seed=i), requires_grad=True) for i, s in enumerate([(L,), (N,), (N,), (N,), (N,)])]

    def slopes(chunk: int) -> Any:
        y, state = diagonal_scan(*arrays[:4], initial=arrays[4], chunk=chunk)
        return torch.autograd.grad((y**2).sum() + state.sum(), arrays)

    for x, y in zip(slopes(2), slopes(L), strict=True):
        torch.testing.assert_close(x, y)
