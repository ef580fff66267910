"""Running systems: every mode is the loop that defines the system, and stepping is the same again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import reference
from ssm_core import Diagonal, discretize, scan, step

MODES = ("conv", "chunk", "scan", "auto")
KINDS = {"diagonal": reference.diagonal, "dense": reference.dense}
PORTS = [((), None, None), ((2,), 2, None), ((), None, 3), ((2,), 2, 3)]
DT = 0.1


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def converted(options: dict[str, Any], xp: Any) -> dict[str, Any]:
    return {k: xp.asarray(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}


def check(found: tuple[Any, Any], wanted: tuple[Any, Any], message: str = "", tolerance: float = 1e-10) -> None:
    for x, y in zip(found, wanted, strict=True):
        assert x.shape == y.shape, message
        np.testing.assert_allclose(np.asarray(x), y, rtol=tolerance, atol=tolerance, err_msg=message)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("batch", "P", "M"), PORTS)
def test_definition(batch: tuple[int, ...], P: int | None, M: int | None, mode: str, kind: Any, xp: Any):
    system = kind(3, P=P, M=M, batch=batch)
    u = draw(*batch, *(() if P is None else (P,)), 20)
    initial = draw(*batch, 3, seed=1) + 0j
    discrete = discretize(system, DT)
    given = reference.arrays_of(system, xp)
    check(scan(given, xp.asarray(u), dt=DT, mode=mode), reference.run(discrete, u), "from zero")
    found = scan(given, xp.asarray(u), dt=DT, mode=mode, initial=xp.asarray(initial))
    check(found, reference.run(discrete, u, initial), "from a state")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 64, 65, 128, 150])
def test_lengths_around_chunks(length: int, mode: str, kind: Any):
    system, u = discretize(kind(3), DT), draw(length)
    check(scan(system, u, mode=mode, initial=np.ones(3)), reference.run(system, u, np.ones(3)))


@pytest.mark.parametrize("method", ["zoh", "bilinear", "euler", "backward_euler", "dirac"])
@pytest.mark.parametrize("mode", MODES)
def test_methods(mode: str, method: str, kind: Any):
    system, u = kind(3), draw(20)
    found = scan(system, u, dt=DT, method=method, mode=mode)
    check(found, reference.run(discretize(system, DT, method), u))


def test_gbt_takes_alpha(kind: Any):
    wanted = scan(kind(), draw(9), dt=DT, method="bilinear")
    check(scan(kind(), draw(9), dt=DT, method="gbt", alpha=0.5), wanted)


@pytest.mark.parametrize("mode", MODES)
def test_steps_of_time_per_channel_and_state(mode: str):
    system, u = reference.diagonal(3, batch=(2,)), draw(2, 20)
    for dt in (np.asarray([0.1, 0.2]), np.linspace(0.1, 0.6, 6).reshape(2, 3)):
        check(scan(system, u, dt=dt, mode=mode), reference.run(discretize(system, dt), u))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("system", "u", "state"),
    [((), (4,), ()), ((4,), (), ()), ((), (), (4,)), ((1,), (4,), (4,)), ((2,), (3, 1), (1, 2)), ((2, 1), (2,), ())],
)
def test_broadcasting(system: Any, u: Any, state: Any, mode: str, kind: Any):
    given = discretize(kind(3, batch=system), DT)
    signal, initial = draw(*u, 10), draw(*state, 3)
    batch = np.broadcast_shapes(system, u, state)
    wanted = reference.run(given, np.broadcast_to(signal, (*batch, 10)), np.broadcast_to(initial, (*batch, 3)))
    check(scan(given, signal, initial=initial, mode=mode), wanted)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("batch", [(), (1,), (0,)])
def test_empty_batches(batch: tuple[int, ...], mode: str, kind: Any, xp: Any):
    system = reference.arrays_of(discretize(kind(3, batch=batch), DT), xp)
    y, state = scan(system, xp.ones((2, 0, 5)), mode=mode)
    assert (y.shape, state.shape) == ((2, 0, 5), (2, 0, 3))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("P", "M"), [(None, None), (2, 3)])
def test_no_steps(P: int | None, M: int | None, mode: str, kind: Any, xp: Any):
    system = reference.arrays_of(discretize(kind(3, P=P, M=M), DT), xp)
    u = xp.ones((4, *(() if P is None else (P,)), 0))
    y, state = scan(system, u, mode=mode, initial=xp.asarray(np.arange(3.0)))
    assert y.shape == (4, *(() if M is None else (M,)), 0)
    np.testing.assert_array_equal(np.asarray(state), np.broadcast_to(np.arange(3.0), (4, 3)))


@pytest.mark.parametrize("mode", MODES)
def test_no_states(mode: str):
    for system in (reference.diagonal(0), reference.dense(0)):
        u = draw(2, 5)
        y, state = scan(replace(system, discrete=True), u, mode=mode)
        np.testing.assert_allclose(y, system.D * u)
        assert state.shape == (2, 0)


@pytest.mark.parametrize("mode", ["chunk", "scan", "auto"])
@pytest.mark.parametrize(("P", "M"), [(None, None), (2, 3)])
@pytest.mark.parametrize("length", [10, 70])
def test_resets(length: int, P: int | None, M: int | None, mode: str, kind: Any, xp: Any):
    system = discretize(kind(3, P=P, M=M), DT)
    u = draw(2, *(() if P is None else (P,)), length)
    reset = np.random.default_rng(2).uniform(size=(2, length)) < 0.1
    reset[0, 0] = reset[1, -1] = True
    found = scan(
        reference.arrays_of(system, xp), xp.asarray(u), mode=mode, reset=xp.asarray(reset), initial=xp.ones((2, 3))
    )
    check(found, reference.run(system, u, np.ones((2, 3)), reset))


@pytest.mark.parametrize("mode", ["chunk", "scan", "auto"])
def test_a_reset_shared_by_the_batch(mode: str):
    system, u = discretize(reference.diagonal(3), DT), draw(4, 50)
    reset = np.arange(50) % 7 == 3
    check(scan(system, u, reset=reset, mode=mode), reference.run(system, u, reset=reset))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("P", "M", "dtype"), [(None, None, "int32"), (2, 3, "uint8")])
def test_lengths(P: int | None, M: int | None, dtype: str, mode: str, kind: Any, xp: Any):
    system, lengths = discretize(kind(3, P=P, M=M), DT), [0, 1, 40, 69, 70]
    u = draw(5, *(() if P is None else (P,)), 70)
    initial = draw(5, 3)
    y, state = scan(
        reference.arrays_of(system, xp), xp.asarray(u), mode=mode, initial=xp.asarray(initial),
        lengths=xp.asarray(lengths, dtype=getattr(xp, dtype)),
    )  # fmt: skip
    for b, n in enumerate(lengths):
        if n == 0:
            np.testing.assert_allclose(np.asarray(state)[b], initial[b], atol=1e-12)
        else:
            wanted = reference.run(system, u[b, ..., :n], initial[b])
            check((np.asarray(y)[b, ..., :n], np.asarray(state)[b]), wanted, f"length {n}")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", ["zoh", "bilinear"])
def test_one_length_for_one_sequence(method: str, mode: str, kind: Any):
    system, u, initial = kind(3), draw(20), draw(3)
    y, state = scan(system, u, dt=DT, method=method, mode=mode, initial=initial, lengths=np.asarray(7))
    check((y[:7], state), reference.run(discretize(system, DT, method), u[:7], initial))


@pytest.mark.parametrize("mode", ["chunk", "scan", "auto"])
def test_lengths_and_resets(mode: str, kind: Any):
    system, lengths = discretize(kind(3), DT), np.asarray([3, 40, 70])
    u, reset = draw(3, 70), np.zeros((3, 70), bool)
    reset[0, 5] = reset[1, 20] = reset[2, 69] = True  # the first lies beyond the length
    y, state = scan(system, u, mode=mode, lengths=lengths, reset=reset, initial=np.ones((3, 3)))
    for b, n in enumerate(lengths):
        check((y[b, :n], state[b]), reference.run(system, u[b, :n], np.ones(3), reset[b, :n]))


@pytest.mark.parametrize("mode", MODES)
def test_input_beyond_the_lengths_has_no_influence(mode: str, kind: Any):
    system, u = discretize(kind(3), DT), draw(2, 20)
    other = u.copy()
    other[:, 12:] = 1e6
    lengths = np.asarray([12, 5])
    found = scan(system, other, mode=mode, lengths=lengths)
    wanted = scan(system, u, mode=mode, lengths=lengths)
    check((found[0][:, :5], found[1]), (wanted[0][:, :5], wanted[1]))


@pytest.mark.parametrize("mode", ["scan", "chunk", "auto"])
@pytest.mark.parametrize("shape", [(20,), (2, 20)])
def test_steps_of_their_own_duration(shape: tuple[int, ...], mode: str, xp: Any):
    system, u = reference.diagonal(3), draw(2, 20)
    scale = np.broadcast_to(np.random.default_rng(0).uniform(0.5, 2.0, shape), (2, 20))
    for b in range(2):
        x, outputs = np.zeros(3), []
        for k in range(20):
            y, x = reference.run(discretize(system, scale[b, k] * DT), u[b, k : k + 1], x)
            outputs.append(y[0])
        given = xp.asarray(scale if len(shape) == 2 else scale[0].copy())
        y, state = scan(reference.arrays_of(system, xp), xp.asarray(u), dt=DT, mode=mode, step_scale=given)
        if len(shape) == 2 or b == 0:
            check((np.asarray(y)[b], np.asarray(state)[b]), (np.asarray(outputs), x))


def test_equal_durations_are_another_dt():
    system, u = reference.diagonal(3), draw(30)
    found = scan(system, u, dt=DT, step_scale=np.full(30, 2.0))
    check(found, scan(system, u, dt=2 * DT))


def test_a_stretched_step_per_state():
    system, u, dt = reference.diagonal(3), draw(30), np.asarray([0.1, 0.2, 0.3])
    check(scan(system, u, dt=dt, step_scale=np.full(30, 1.5)), scan(system, u, dt=1.5 * dt))


@pytest.mark.parametrize("mode", MODES)
def test_the_output_sees_the_input_of_its_step(mode: str):
    y, _ = scan((np.asarray([[0.5]]), np.ones(1), np.ones(1)), np.asarray([1.0, 0.0]), mode=mode)
    np.testing.assert_allclose(y, [1.0, 0.5])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("D", [2.0, 1, np.asarray(2.0)])
def test_direct_terms_that_are_numbers(D: Any, mode: str, kind: Any):
    system, u = discretize(kind(3, D=False), DT), draw(10)
    y, _ = scan(replace(system, D=D), u, mode=mode)
    np.testing.assert_allclose(y, reference.run(system, u)[0] + D * u, rtol=1e-10)


@pytest.mark.parametrize("mode", MODES)
def test_complex_signals_through_a_complex_system(mode: str):
    system = discretize(reference.diagonal(3, conj_pairs=False), DT)
    u = draw(40) + 1j * draw(40, seed=1)
    check(scan(system, u, mode=mode), reference.run(system, u))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("system", "u", "y", "state"),
    [
        ("float32", "float32", "float32", "float32"),
        ("float32", "float16", "float16", "float32"),
        ("float64", "float32", "float64", "float64"),
        ("complex64", "float32", "float32", "complex64"),
        ("complex64", "float64", "float64", "complex128"),
        ("complex128", "float32", "float64", "complex128"),
    ],
)
def test_dtypes(system: str, u: str, y: str, state: str, mode: str):
    arrays = [np.full(2, 0.5).astype(system) for _ in range(3)]
    given = Diagonal(*arrays, conj_pairs=system.startswith("c"), discrete=True)
    found = scan(given, np.ones(200, u), mode=mode)
    assert [x.dtype for x in found] == [y, state]


@pytest.mark.parametrize("mode", MODES)
def test_inputs_are_left_alone(mode: str, kind: Any):
    system, u, initial = discretize(kind(3), DT), draw(2, 40), draw(2, 3)
    arrays = [u, initial, *(getattr(system, n) for n in system.ARRAYS if isinstance(getattr(system, n), np.ndarray))]
    copies = [x.copy() for x in arrays]
    for x in arrays:
        x.flags.writeable = False
    scan(system, u, initial=initial, mode=mode)
    for x, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(x, copy)


@pytest.mark.parametrize("mode", MODES)
def test_any_memory_layout(mode: str, kind: Any):
    system, u = discretize(kind(3), DT), draw(40, 6)
    view = u.T[::2, ::-1]
    check(scan(system, view, mode=mode), scan(system, view.copy(), mode=mode))


@pytest.mark.parametrize(("batch", "P", "M"), PORTS)
def test_stepping(batch: tuple[int, ...], P: int | None, M: int | None, kind: Any, xp: Any):
    system = kind(3, P=P, M=M, batch=batch)
    u = draw(*batch, *(() if P is None else (P,)), 6)
    wanted = reference.run(discretize(system, DT), u)
    for given, options in ((system, {"dt": DT}), (discretize(system, DT), {})):
        given = reference.arrays_of(given, xp)
        state, outputs = xp.zeros((*batch, 3), dtype=xp.complex128), []
        for k in range(6):
            y, state = step(given, xp.asarray(u[..., k]), state, **options)
            outputs.append(np.asarray(y))
        check((np.stack(outputs, axis=-1), state), wanted)


def test_methods_of_steps(kind: Any):
    u = np.asarray(1.5)
    for method, alpha in (("bilinear", None), ("gbt", 0.3)):
        found = step(kind(3), u, np.ones(3), dt=DT, method=method, alpha=alpha)
        wanted = reference.run(discretize(kind(3), DT, method, alpha=alpha), u[None], np.ones(3))
        check(found, (wanted[0][0], wanted[1]))


@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_every_mode_agree(mode: str, kind: Any):
    torch = pytest.importorskip("torch")

    def slopes(mode: str) -> Any:
        system = reference.arrays_of(kind(3), torch)
        arrays = [*(getattr(system, n) for n in system.ARRAYS), torch.tensor(draw(20)), torch.tensor(draw(3)) + 0j]
        for x in arrays:
            x.requires_grad_()
        y, state = scan(system, arrays[-2], dt=DT, initial=arrays[-1], mode=mode)
        return torch.autograd.grad((y.abs() ** 2).sum() + state.abs().sum(), arrays)

    for x, y in zip(slopes(mode), slopes("scan"), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)
