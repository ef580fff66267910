"""The form of the linear scan that accelerators run in JAX: on the CPU, forced, and lowered for a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")

import jax.numpy as jnp  # noqa: E402

from ssm_core import linear_scan  # noqa: E402
from ssm_core.backends.jax import blocks  # noqa: E402
from ssm_core.backends.jax import scans as backend  # noqa: E402


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@contextmanager
def forced(form: str) -> Iterator[None]:
    """Both forms traced, of which the CPU runs its own; or the blocks, which it would not run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend.jax, "default_backend", lambda: "gpu")
        patch.setattr(backend, "SHORTEST", 1)
        if form == "blocks":
            patch.setattr(blocks, "SHORTEST", 5)
            patch.setattr(blocks, "STEPS", 2)
            patch.setattr(backend.lax, "platform_dependent", lambda *given, cpu, default: default(*given))
        backend._solution.clear_cache()
        yield
    backend._solution.clear_cache()


FORMS = ("blocks", "chosen when lowered")


def draw(*shape: int, dtype: str = "float64", seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-0.9, 0.9, shape)
    return jnp.asarray(x + 0.4j * rng.uniform(-1, 1, shape) if dtype == "complex128" else x)


def arrays(length: int, constant: bool, dtype: str) -> tuple[Any, Any, Any]:
    return (
        draw(1 if constant else length, 3, dtype=dtype),
        draw(length, 3, dtype=dtype, seed=1),
        draw(3, dtype=dtype, seed=2),
    )


def close(found: Any, wanted: Any) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-10), found, wanted)


KINDS = pytest.mark.parametrize(
    ("dtype", "constant", "reverse"),
    [("float64", False, False), ("float64", True, True), ("complex128", False, True), ("complex128", True, False)],
)


@KINDS
@pytest.mark.parametrize("late", [False, True])
def test_values(late: bool, dtype: str, constant: bool, reverse: bool):
    """Blocks of blocks, whole or filled up, with time in front and in the middle."""
    for length in (1, 101, 1040):
        a, b, first = arrays(length, constant, dtype)
        wanted = backend._loop(a, b, first, reverse, late)
        close(blocks.in_blocks(a, b, first, axis=0, reverse=reverse, late=late), wanted)
        middle = (x[None] for x in (a, b, first))
        close(blocks.in_blocks(*middle, axis=1, reverse=reverse, late=late)[0], wanted)


def derivatives(inputs: tuple[Any, ...], reverse: bool) -> dict[str, Any]:
    turned, every = tuple(jnp.conj(x) + 0.3 for x in inputs), (0, 1, 2)

    def f(a: Any, b: Any, first: Any) -> Any:
        x = linear_scan(a, b, axis=0, initial=first, reverse=reverse)
        return jnp.sum(jnp.abs(x) ** 2 * jnp.cos(jnp.arange(x.size).reshape(x.shape)))

    def slope(*inputs: Any) -> Any:
        return sum(jnp.sum((x * y).real) for x, y in zip(jax.grad(f, every)(*inputs), turned, strict=True))

    def all_of_them(*inputs: Any) -> dict[str, Any]:
        found = {
            "forward": jax.jvp(f, inputs, turned),
            "reverse": jax.grad(f, every)(*inputs),
            "reverse over reverse": jax.grad(slope, every)(*inputs),
            "forward over reverse": jax.jvp(jax.grad(f, every), inputs, turned)[1],
        }
        return found if jnp.iscomplexobj(inputs[0]) else found | {"hessian": jax.hessian(f, every)(*inputs)}

    return jax.jit(all_of_them, compiler_options={"xla_backend_optimization_level": 0})(*inputs)


@KINDS
def test_derivatives(dtype: str, constant: bool, reverse: bool):
    inputs = arrays(11, constant, dtype)
    wanted = derivatives(inputs, reverse)
    for form in FORMS:
        with forced(form):
            close(derivatives(inputs, reverse), wanted)


def test_other_axes():
    """With the state before the first step of a shape of its own, and gates that broadcast."""
    b, a, first = draw(2, 11, 3), draw(2, 1, 3, seed=1), draw(3, seed=2)
    for axis, initial in ((0, first), (1, first), (2, first[0])):
        for gates in (a, draw(1, 11, 1, seed=3), draw(2, 11, 3, seed=4)):

            def values(b: Any, axis: int = axis, initial: Any = initial, gates: Any = gates) -> Any:
                f = partial(linear_scan, axis=axis)
                x, back = jax.vjp(lambda a, b, first: f(a, b, initial=first), gates, b, initial)
                return x, back(b)

            wanted = jax.jit(values)(b)
            with forced("blocks"):
                close(jax.jit(values)(b), wanted)


@KINDS
@pytest.mark.parametrize("length", [1, 9])
def test_time_in_the_middle(length: int, dtype: str, constant: bool, reverse: bool):
    """Values, derivatives and vmap as of the same arrays with time first."""
    a, b, first = arrays(length, constant, dtype)

    def middle(a: Any, b: Any, first: Any) -> Any:
        a, b, first = a[None], jnp.stack([b, 2 * b]), jnp.stack([first, 2 * first])
        return linear_scan(a, b, axis=1, initial=first, reverse=reverse)[1] / 2

    def leading(a: Any, b: Any, first: Any) -> Any:
        return linear_scan(a, b, axis=0, initial=first, reverse=reverse)

    def everything(scan: Any) -> Any:
        def f(*inputs: Any) -> Any:
            return jnp.sum(jnp.abs(scan(*inputs)) ** 3)

        def slope(*inputs: Any) -> Any:
            return sum(jnp.sum(jnp.abs(g) ** 2) for g in jax.grad(f, (0, 1, 2))(*inputs))

        given = (a, b, first)
        mapped = jax.vmap(jax.grad(f, (0, 1, 2)))(*(jnp.stack([x, x / 2]) for x in given))
        return scan(*given), jax.jvp(f, given, given), jax.grad(slope, (0, 1, 2))(*given), mapped

    close(jax.jit(lambda: everything(middle))(), jax.jit(lambda: everything(leading))())


@pytest.mark.parametrize("form", FORMS)
def test_vmap(form: str):
    """Of values and gradients, over inputs, gates, or both."""
    a, b = draw(4, 9, 2), draw(4, 9, 2, seed=1)

    def f(a: Any, b: Any) -> Any:
        return jnp.sum(jnp.sin(linear_scan(a, b, axis=0, reverse=True)))

    for axes, inputs in (((0, 0), (a, b)), ((None, 0), (a[0], b)), ((0, None), (a, b[0])), ((None, 0), (a[0, :1], b))):
        run = jax.vmap(jax.value_and_grad(f, (0, 1)), axes)
        wanted = run(*inputs)
        with forced(form):
            close(jax.jit(run)(*inputs), wanted)


def test_products_that_overflow_meet_no_state():
    """Growing states from a late start, and slopes that are zero before an early end."""
    a, b = jnp.full(4000, 1e10), jnp.zeros(4000).at[3980].set(1.0)
    weights = jnp.zeros(4000).at[19].set(1.0)

    def slope(b: Any) -> Any:
        return jax.grad(lambda b: jnp.sum(weights * linear_scan(a, b, axis=0)))(jnp.zeros_like(b))

    wanted = linear_scan(a, b, axis=0), slope(b)
    assert all(jnp.isfinite(x).all() for x in wanted)
    with forced("blocks"):
        close((linear_scan(a, b, axis=0), slope(b)), wanted)
        started = linear_scan(a, b.at[0].set(1e-200), axis=0)
    assert jnp.isinf(started[-1])


def lowered(platform: str, length: int) -> str:
    f = jax.jit(jax.grad(lambda b: jnp.sum(jnp.sin(linear_scan(0.5, b, axis=0)))))
    return f.trace(jnp.ones((length, 3))).lower(lowering_platforms=(platform,)).as_text()


def test_lowered_for_each_device():
    """A GPU takes the steps of blocks, a CPU the very program that it takes where nothing is chosen."""
    length = 4096
    plain = lowered("cpu", length)
    with forced("chosen when lowered"):
        blocks, loop = lowered("cuda", length), lowered("cpu", length)
    steps = f"dense<{length}> : tensor<i"
    assert steps in plain
    assert steps in loop
    assert steps not in blocks
    assert loop.count("stablehlo.while") == plain.count("stablehlo.while") == 2


def test_nothing_is_chosen_where_there_is_no_accelerator():
    program = jax.make_jaxpr(lambda b: linear_scan(0.5, b, axis=0))(jnp.ones((100, 3)))
    assert jax.default_backend() != "cpu" or "platform_index" not in str(program)
