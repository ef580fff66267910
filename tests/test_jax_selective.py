"""The selective scan in blocks, which JAX runs where the device is no CPU: on the CPU, beside the loop of steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")

import jax.numpy as jnp  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402

import ssm_core  # noqa: E402
from ssm_core.backends.jax import selective as backend  # noqa: E402

BATCH, H, N = 2, 6, 3


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@contextmanager
def in_blocks(steps: int = 4) -> Iterator[None]:
    """JAX asked for its device answers that it is a GPU, and blocks are as short as `steps`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "gpu")
        patch.setattr(backend, "STEPS", steps)
        yield


def draw(*shape: int, seed: int) -> Any:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def arrays(length: int, *, paired: bool = False, groups: tuple[int, int] = (1, 3)) -> tuple[Any, ...]:
    """u, dt, A, B, C and the first state; constant rows of no groups."""
    rows = ((BATCH, g, N, length) if g else (H, N) for g in groups)
    A = -jnp.exp(draw(H, N, seed=2)) + (1j * draw(H, N, seed=3) if paired else 0)
    signals = draw(BATCH, H, length, seed=0), jnp.exp(draw(BATCH, H, length, seed=1) - 1)
    first = draw(BATCH, H, N, seed=4) * (1 + 1j if paired else 1)
    return (*signals, A, *(draw(*shape, seed=5 + i) for i, shape in enumerate(rows)), first)


def scan(*given: Any, **options: Any) -> Any:
    *arrays, first = given
    return ssm_core.selective_scan(*arrays, initial=first, return_state=True, **options)


def compiled(f: Callable[..., Any], *given: Any) -> Any:
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 0})(*given)


def close(found: Any, wanted: Any) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-10), found, wanted)


def of_every_kind(given: tuple[Any, ...], **options: Any) -> Any:
    """Values, slopes forward and backward, by a function that nothing has compiled before."""

    def everything(*given: Any) -> Any:
        found, back = jax.vjp(lambda *xs: scan(*xs, **options), *given)
        slopes = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size)).reshape(x.shape).astype(x.dtype), found)
        return found, back(slopes), jax.jvp(lambda *xs: scan(*xs, **options), given, given)[1]

    return compiled(everything, *given)


@pytest.mark.parametrize(("length", "chunk", "paired", "groups"), [
    (7, None, False, (1, 1)),  # one block
    (64, None, False, (1, 3)),
    (65, 3, True, (2, 1)),  # the last block is filled up, and turns have three steps
    (50, 100, False, (0, 0)),
    (33, 1, True, (1, 0)),
])  # fmt: skip
def test_values_and_slopes(length: int, chunk: int | None, paired: bool, groups: tuple[int, int]):
    given = arrays(length, paired=paired, groups=groups)
    cuts = np.random.default_rng(9).random((BATCH, length)) < 0.1
    options = {"reset": jnp.asarray(cuts)} if paired else {}
    wanted = of_every_kind(given, **options)
    with in_blocks():
        close(of_every_kind(given, chunk=chunk, **options), wanted)


def test_blocks_of_many_blocks_and_lengths():
    """The states between blocks are scanned in blocks as well; what lies beyond a length moves nothing."""
    given, lengths = arrays(777), jnp.asarray([0, 700])
    wanted = scan(*given, lengths=lengths)[1]
    with in_blocks():
        close(compiled(lambda *xs: scan(*xs, lengths=lengths)[1], *given), wanted)


def test_slopes_of_slopes_and_vmap():
    given = arrays(21)

    def slope(*given: Any) -> Any:
        return jnp.sum(jax.grad(lambda *xs: jnp.sum(scan(*xs)[0] ** 2), 1)(*given) ** 2)

    def both(*given: Any) -> Any:
        stacked = tuple(jnp.stack([x, x / 2]) for x in given)
        return jax.grad(slope, 2)(*given), jax.vmap(jax.grad(lambda *xs: jnp.sum(scan(*xs)[0] ** 3), 0))(*stacked)

    wanted = compiled(lambda *xs: both(*xs), *given)
    with in_blocks():
        close(compiled(lambda *xs: both(*xs), *given), wanted)


def test_in_shard_map():
    """States of zero, which do not vary along the axis, are carried by loops whose states do."""
    given = arrays(64)[:-1]
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    parts = (P("data"), P("data"), P(), P("data"), P("data"))

    def slopes(*given: Any) -> Any:
        return jax.grad(lambda *xs: jnp.sum(ssm_core.selective_scan(*xs) ** 2), (0, 2))(*given)

    wanted = slopes(*given)
    with in_blocks():
        cut = jax.shard_map(lambda *xs: slopes(*xs), mesh=mesh, in_specs=parts, out_specs=(P("data"), P()))
        close(compiled(cut, *given), wanted)


def test_gates_of_blocks_that_overflow_meet_no_state():
    """A state that grows, from a late start and from the first step: infinite there, zero before."""
    L = 2000
    u, ones = jnp.zeros((1, 1, L)).at[..., L - 9].set(1.0), jnp.ones((1, 1, L))
    wanted = ssm_core.selective_scan(u, ones, jnp.ones((1, 1)), ones, ones)
    with in_blocks(500):
        grown = ssm_core.selective_scan(u, 2 * ones, jnp.ones((1, 1)), ones, ones)
        close(ssm_core.selective_scan(u, ones, jnp.ones((1, 1)), ones, ones), wanted)
        slopes = jax.grad(lambda u: jnp.sum(ssm_core.selective_scan(u, 2 * ones, jnp.ones((1, 1)), ones, ones)))(u)
    assert jnp.isfinite(grown).all()
    assert not jnp.isnan(slopes).any()


def walked(program: Any, times: int = 1) -> Iterator[tuple[int, int]]:
    """Of every operation how often it runs, and the numbers that it makes."""
    for operation in program.eqns:
        name, options = operation.primitive.name, operation.params
        inner = times * options["length"] if name == "scan" else times
        yield times, max((math.prod(x.aval.shape) for x in operation.outvars), default=0)
        for option in jax.tree.leaves(options, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            part = getattr(option, "jaxpr", option)
            if hasattr(part, "eqns"):
                yield from walked(part, inner)


@pytest.mark.parametrize("slopes", [False, True])
def test_turns_and_memory_at_the_size_of_published_measurements(slopes: bool):
    """No array has all states, and no operation runs at every step: 256 steps of 16 blocks, in turns of four."""
    B, D, L, S = 8, 2048, 4096, 16
    shapes = (B, D, L), (B, D, L), (D, S), (B, S, L), (B, S, L)
    given = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]

    def f(*given: Any) -> Any:
        return ssm_core.selective_scan(*given)

    with in_blocks(backend.STEPS):
        call = jax.grad(lambda *xs: f(*xs).sum(), (0, 1, 2, 3, 4)) if slopes else f
        runs, sizes = zip(*walked(jax.make_jaxpr(call)(*given).jaxpr), strict=True)
    assert max(sizes) <= B * D * L
    assert max(runs) <= L // 16 // backend.UNROLL * backend.UNROLL
