"""Laws that hold for all inputs, on inputs that hypothesis chooses."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
import ssm_core
from ssm_core import chunk_summary, convolve, diagonal_scan, discretize, kernel, linear_scan, scan, step

settings.register_profile("ssm_core", derandomize=True, deadline=None, max_examples=30, database=None)
settings.load_profile("ssm_core")

MODES = ("conv", "chunk", "scan", "auto")
lengths = st.integers(1, 90)
seeds = st.integers(0, 2**16)
modes = st.sampled_from(MODES)
systems = st.builds(
    lambda kind, seed, N, P, M: discretize(kind(N, P=P, M=M, seed=seed), 0.1),
    st.sampled_from([reference.diagonal, reference.dense]),
    seeds,
    st.integers(1, 4),
    st.sampled_from([None, 1, 2]),
    st.sampled_from([None, 1, 2]),
)


def signal(system: Any, length: int, seed: int) -> np.ndarray:
    _, B, _ = reference.matrices(system)
    inputs = B.shape[-1:] if system.B.ndim == B.ndim else ()
    return np.random.default_rng(seed).normal(size=(*inputs, length))


def states(system: Any, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=reference.matrices(system)[0].shape[-1])


def close(x: Any, y: Any) -> None:
    np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9)


@given(systems, lengths, seeds, modes, st.floats(-3, 3))
def test_scan_is_linear_in_input_and_state(system: Any, length: int, seed: int, mode: str, c: float):
    u, v = (signal(system, length, seed + i) for i in range(2))
    x, z = (states(system, seed + i) for i in range(2))
    (y1, s1), (y2, s2) = (scan(system, w, initial=s, mode=mode) for w, s in ((u, x), (v, z)))
    y, s = scan(system, u + c * v, initial=x + c * z, mode=mode)
    close(y, y1 + c * y2)
    close(s, s1 + c * s2)


@given(systems, lengths, st.integers(0, 40), seeds, modes)
def test_scan_is_time_invariant(system: Any, length: int, delay: int, seed: int, mode: str):
    u = signal(system, length, seed)
    late = np.concatenate([np.zeros((*u.shape[:-1], delay)), u], axis=-1)
    (y, s), (shifted, t) = scan(system, u, mode=mode), scan(system, late, mode=mode)
    close(shifted[..., delay:], y)
    close(shifted[..., :delay], 0)
    close(t, s)


@given(systems, lengths, seeds, modes, modes, st.data())
def test_splitting_anywhere_changes_nothing(system: Any, length: int, seed: int, first: str, second: str, data: Any):
    u, x = signal(system, length, seed), states(system, seed)
    cut = data.draw(st.integers(0, length))
    y, s = scan(system, u, initial=x)
    head, middle = scan(system, u[..., :cut], initial=x, mode=first)
    tail, end = scan(system, u[..., cut:], initial=middle, mode=second)
    close(np.concatenate([head, tail], axis=-1), y)
    close(end, s)


@given(systems, lengths, seeds, modes)
def test_steps_are_the_scan(system: Any, length: int, seed: int, mode: str):
    u, state = signal(system, min(length, 12), seed), states(system, seed)
    y, s = scan(system, u, initial=state, mode=mode)
    for k in range(u.shape[-1]):
        y_k, state = step(system, u[..., k], state)
        close(y_k, y[..., k])
    close(state, s)


@given(systems, lengths, seeds, modes, st.data())
def test_the_future_does_not_change_the_past(system: Any, length: int, seed: int, mode: str, data: Any):
    u = signal(system, length, seed)
    cut = data.draw(st.integers(0, length))
    other = u.copy()
    other[..., cut:] += signal(system, length, seed + 1)[..., cut:]
    close(scan(system, other, mode=mode)[0][..., :cut], scan(system, u, mode=mode)[0][..., :cut])


@given(systems, lengths, seeds, st.sampled_from(["chunk", "scan"]), st.data())
def test_what_lies_before_a_reset_is_forgotten(system: Any, length: int, seed: int, mode: str, data: Any):
    u, x = signal(system, length, seed), states(system, seed)
    cut = data.draw(st.integers(0, length - 1))
    y, s = scan(system, u, initial=x, reset=np.arange(length) == cut, mode=mode)
    tail, end = scan(system, u[..., cut:])
    close(y[..., cut:], tail)
    close(s, end)


@given(lengths, seeds, st.booleans(), st.booleans(), st.sampled_from([1, 3]))
def test_reversing_twice_changes_nothing(length: int, seed: int, reverse: bool, constant: bool, width: int):
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(-1, 1, (1 if constant else length, width)), rng.normal(size=(length, width))
    x = rng.normal(size=width)
    found = linear_scan(a[::-1], b[::-1], axis=0, initial=x, reverse=not reverse)[::-1]
    close(found, linear_scan(a, b, axis=0, initial=x, reverse=reverse))


@given(lengths, seeds, st.data())
def test_linear_scans_split_anywhere(length: int, seed: int, data: Any):
    rng = np.random.default_rng(seed)
    a, b, x = rng.uniform(-1, 1, (length, 2)), rng.normal(size=(length, 2)), rng.normal(size=2)
    cut = data.draw(st.integers(0, length))
    wanted = linear_scan(a, b, axis=0, initial=x)
    middle = wanted[cut - 1] if cut else x
    close(linear_scan(a[cut:], b[cut:], axis=0, initial=middle), wanted[cut:])
    if cut:
        P, s = chunk_summary(a[:cut], b[:cut], axis=0)
        close(P * x + s, middle)


@given(lengths, seeds, st.integers(1, 100))
def test_diagonal_scans_do_not_depend_on_the_chunk(length: int, seed: int, chunk: int):
    rng = np.random.default_rng(seed)
    u, system = rng.normal(size=length), [rng.uniform(-1, 1, 3) for _ in range(3)]
    for x, y in zip(diagonal_scan(u, *system, chunk=chunk), diagonal_scan(u, *system, chunk=length), strict=True):
        close(x, y)


@given(lengths, seeds)
def test_convolution_commutes_and_is_bilinear(length: int, seed: int):
    u, v, k = np.random.default_rng(seed).normal(size=(3, length))
    close(convolve(u, k), convolve(k, u))
    close(convolve(u + 2 * v, k), convolve(u, k) + 2 * convolve(v, k))
    close(convolve(convolve(u, v), k), convolve(u, convolve(v, k)))


@given(st.integers(0, 60), st.integers(1, 80), seeds)
def test_convolution_is_numpys(length: int, taps: int, seed: int):
    rng = np.random.default_rng(seed)
    u, k = rng.normal(size=length), rng.normal(size=taps)
    close(convolve(u, k), np.convolve(u, k)[:length] if length else u)


@given(st.integers(1, 60), st.integers(1, 80), seeds)
def test_an_anti_causal_kernel_mirrors_a_causal_one(length: int, taps: int, seed: int):
    rng = np.random.default_rng(seed)
    u, k, r = rng.normal(size=length), rng.normal(size=taps), rng.normal(size=taps)
    delayed = np.concatenate([[0.0], r])
    close(convolve(u, k, kernel_reverse=r), convolve(u, k) + convolve(u[::-1], delayed)[::-1])


@given(
    st.sampled_from([reference.diagonal, reference.dense]),
    st.sampled_from(["zoh", "bilinear", "euler", "backward_euler", "dirac"]),
    st.floats(1e-3, 0.2),
    lengths,
    seeds,
)
def test_discretizing_before_or_in_the_kernel(kind: Any, method: str, dt: float, length: int, seed: int):
    system = kind(3, seed=seed)
    K = kernel(system, length, dt=dt, method=method)
    close(K, kernel(discretize(system, dt, method), length))
    impulse = np.zeros(length)
    impulse[0] = 1.0
    y, _ = scan(system, impulse, dt=dt, method=method, mode="scan")
    y[0] -= system.D
    close(K, y)


@given(lengths, seeds, modes)
def test_layers_are_causal(length: int, seed: int, mode: str):
    definition = ssm_core.layers.S4D(2, d_state=4)
    params = {k: p.astype(float) for k, p in definition.initial_parameters(seed).items()}
    u = np.random.default_rng(seed).normal(size=(1, length, 2))
    cut = seed % (length + 1)
    other = u.copy()
    other[:, cut:] += 1.0
    y, z = (definition.apply(params, x, mode=mode) for x in (u, other))
    close(y[:, :cut], z[:, :cut])
