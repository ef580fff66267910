"""The CUDA sources of the backend of CuPy, compiled as C++ for the processor, and the very code that launches them.

A small module stands for CuPy: NumPy's functions, and kernels whose threads take turns from barrier to barrier.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from cuda_on_processor import COMPILER, Array, CudaError, Device, Elsewhere, OutOfMemoryError, RawModule, imported

import ssm_core
from ssm_core.gated.selective import _selective_scan
from ssm_core.recurrences.segments import Segments

if COMPILER is None:
    pytest.skip("no g++ to compile CUDA sources for the processor", allow_module_level=True)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Any:
    RawModule.folder = tmp_path_factory.mktemp("cuda")
    return imported()


@pytest.fixture(scope="module")
def scans(backend: Any) -> Any:
    return backend.scans


def draw(*shape: int, dtype: str = "float64", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-0.8, 0.8, shape)
    return (x + 0.6j * rng.uniform(-1, 1, shape) if np.dtype(dtype).kind == "c" else x).astype(dtype).view(Array)


def plain(*arrays: np.ndarray) -> list[np.ndarray]:
    return [np.asarray(x) for x in arrays]


def check(scans: Any, a: np.ndarray, b: np.ndarray, initial: np.ndarray | None = None, **options: Any) -> None:
    wanted = ssm_core.linear_scan(*plain(a, b), initial=None if initial is None else plain(initial)[0], **options)
    a = a.reshape((1,) * (b.ndim - a.ndim) + a.shape)
    options["axis"] %= b.ndim
    found = scans.linear_scan(a, b, initial, reverse=options.pop("reverse", False), **options)
    with b.device:
        assert scans.PROGRAM.kernels(b.dtype) is not None
    assert found.dtype == b.dtype
    precision = 1e-4 if b.dtype.char in "fF" else 1e-11
    np.testing.assert_allclose(found, wanted, rtol=precision, atol=precision)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_scan(dtype: str, constant: bool, reverse: bool, scans: Any):
    """One block and several, lengths around those that are loaded ahead, columns that fill no group of threads."""
    for length, width in ((1, 3), (7, 300), (16, 2), (130, 5), (1000, 1), (777, 30)):
        a, b = draw(1 if constant else length, width, dtype=dtype), draw(length, width, dtype=dtype, seed=1)
        check(scans, a, b, axis=0, reverse=reverse)
        check(scans, a, b, draw(width, dtype=dtype, seed=2), axis=0, reverse=reverse)


def test_blocks_of_blocks(scans: Any, monkeypatch: pytest.MonkeyPatch):
    """The states after the blocks are scanned in blocks again."""
    assert scans.PROGRAM.kernels(np.dtype("float64")) is not None
    monkeypatch.setattr(scans, "SHORTEST", 4)
    launched: list[int] = []
    scan = scans._scan
    monkeypatch.setattr(scans, "_scan", lambda *arguments: launched.append(len(arguments[2])) or scan(*arguments))
    check(scans, draw(333, 2), draw(333, 2, seed=1), draw(2, seed=2), axis=0)
    assert launched == [333, 67, 14, 3]  # steps, of blocks of 5


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_every_axis_and_any_strides(axis: int, reverse: bool, scans: Any):
    """Also of memory that is turned, stepped over, or read backwards: more axes than a kernel takes, and fewer."""
    full = draw(8, 6, 10, 6)
    for b in (full, full[::2, ::-1, ::3], full.transpose(2, 0, 3, 1), full.transpose(1, 3, 0, 2)[:, ::-1]):
        a = draw(*b.shape, seed=1)
        check(scans, a, b, axis=axis, reverse=reverse)
        check(scans, a.T.copy().T[::-1], b, draw(*np.delete(b.shape, axis), seed=2), axis=axis, reverse=reverse)


def test_states_in_the_order_of_the_input(scans: Any):
    b = draw(5, 70, 3).transpose(1, 0, 2)
    assert scans.linear_scan(b, b, None, axis=0, reverse=True).strides == b.strides


@pytest.mark.parametrize("gate", [(1, 1), (1, 3), (150, 1), (2, 1, 3), (2, 150, 1), (1,)], ids=str)
def test_gates_and_states_that_broadcast(gate: tuple[int, ...], scans: Any):
    b = np.broadcast_to(draw(150, 3), (2, 150, 3), subok=True)
    check(scans, draw(*gate), b, draw(3, seed=2), axis=1)


def test_gates_that_overflow_their_products(scans: Any):
    a, b = np.full(400, 1.5, np.float32).view(Array), np.zeros(400, np.float32).view(Array)
    b[390] = 1
    check(scans, a, b, axis=0)


@pytest.mark.parametrize(("shape", "axis", "constant", "pieces"), [
    ((4096, 4096), 0, False, 8),
    ((8, 4096, 2048), 1, False, 1),
    ((8, 4096, 2048), 1, True, 2),  # half as much is under way
    ((8, 1536, 8192), 2, False, 1),
    ((8, 512, 8192), 2, False, 8),
    ((8, 1536, 8192), 2, True, 1),
])  # fmt: skip
def test_time_is_split_where_columns_leave_a_device_idle(
    shape: tuple[int, ...], axis: int, constant: bool, pieces: int, backend: Any, monkeypatch: pytest.MonkeyPatch
):
    """On 132 multiprocessors: three passes over memory, five where time is split."""
    monkeypatch.setattr(backend.compiled, "_multiprocessors", lambda device: 132)
    scans = backend.scans
    launched: list[int] = []

    def kernel(grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
        length, steps = arguments[5:7]
        launched.append(-(-length // steps))

    b = np.broadcast_to(np.zeros((), "f4"), shape)
    b = np.lib.stride_tricks.as_strided(b, shape, np.empty((1, *shape[1:]), "f4").strides)
    b = np.moveaxis(b, axis, 0)
    scans._scan([kernel] * 4, b[:1] if constant else b, b, np.empty(b.shape[1:], "f4"), b)
    assert launched[-1] == pieces


@pytest.mark.usefixtures("untried")
def test_staged_kernels_are_tried_too(scans: Any, monkeypatch: pytest.MonkeyPatch):
    class Broken(RawModule):
        def get_function(self, name: str) -> Any:
            work = super().get_function(name)
            return work if name.endswith("false>") else lambda grid, block, arguments: None

    monkeypatch.setattr(scans.cp, "RawModule", Broken)
    with pytest.warns(UserWarning, match="kernels for float64 disagree"):
        assert scans.PROGRAM.kernels(np.dtype("float64")) is None


def test_nothing_in_nothing_out(scans: Any):
    for shape in ((0, 3), (3, 0)):
        assert scans.linear_scan(draw(*shape), draw(*shape), None, axis=0, reverse=False).shape == shape


@pytest.mark.usefixtures("untried")
def test_all_is_made_on_the_device_of_the_arrays(scans: Any, monkeypatch: pytest.MonkeyPatch):
    """Which need not be the current one; kernels are loaded and tried for every device."""
    places: set[int] = set()
    for name in ("empty", "empty_like", "zeros", "broadcast_to", "ascontiguousarray", "RawModule"):
        make = getattr(scans.cp, name)
        monkeypatch.setattr(
            scans.cp, name, lambda *given, make=make, **options: places.add(Device().id) or make(*given, **options)
        )
    b, first = draw(300, 3, seed=1).view(Elsewhere), draw(3).view(Elsewhere)
    for initial in (None, first):
        check(scans, b, b, initial, axis=0)
    assert places == {1}
    assert Device().id == 0


@pytest.fixture
def untried(backend: Any) -> Iterator[None]:
    """Before the first use of the kernels."""
    backend.compiled._tried.cache_clear()
    yield
    backend.compiled._tried.cache_clear()


def again(scans: Any) -> Any:
    return scans.linear_scan(draw(70, 3), draw(70, 3), None, axis=0, reverse=False)


@pytest.mark.usefixtures("untried")
def test_kernels_are_tried_again_after_what_passes(scans: Any, monkeypatch: pytest.MonkeyPatch):
    wanted = np.asarray(ssm_core.linear_scan(*plain(draw(70, 3), draw(70, 3)), axis=0))
    with monkeypatch.context() as patch:
        patch.setattr(scans.cp.cuda, "get_current_stream", lambda: SimpleNamespace(is_capturing=lambda: True))
        with pytest.warns(UserWarning, match=r"cannot be tried now \(a CUDA graph is being captured"):
            np.testing.assert_allclose(again(scans), wanted, rtol=1e-12)
    with monkeypatch.context() as patch:
        patch.setattr(scans.cp, "RawModule", Mock(side_effect=OutOfMemoryError("512 bytes")))
        with pytest.warns(UserWarning, match=r"cannot be tried now \(OutOfMemoryError: 512 bytes"):
            np.testing.assert_allclose(again(scans), wanted, rtol=1e-12)
    again(scans)
    assert scans.PROGRAM.kernels(np.dtype("float64")) is not None


@pytest.mark.usefixtures("untried")
def test_nothing_replaces_kernels_on_a_device_that_has_failed(scans: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scans.cp, "RawModule", Mock(side_effect=RuntimeError("illegal address")))
    monkeypatch.setattr(Device, "synchronize", Mock(side_effect=CudaError("illegal address")))
    with pytest.raises(RuntimeError, match=r"device 0 failed .*illegal address.* Start the process again"):
        again(scans)


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize("problem", ["fail", "disagree"])
def test_kernels_with_a_problem_are_turned_off_with_a_warning(
    problem: str, scans: Any, monkeypatch: pytest.MonkeyPatch
):
    class Broken(RawModule):
        def get_function(self, name: str) -> Any:
            if problem == "fail":
                raise RuntimeError("no such instruction")
            return lambda grid, block, arguments: None

    monkeypatch.setattr(scans.cp, "RawModule", Broken)
    b = draw(70, 3)
    with pytest.warns(UserWarning, match=f"kernels for float64 {problem}"):
        found = scans.linear_scan(b, b, None, axis=0, reverse=True)
    wanted = ssm_core.linear_scan(*plain(b, b), axis=0, reverse=True)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def check_selective(backend: Any, batch: int, H: int, L: int, N: int, dtype: str, groups: tuple[int, int]):
    """Groups of 0: constant rows. Signals lie in any order, time last too; the last sequence begins anew within."""
    u, rows = draw(batch, L, H, dtype=dtype).transpose(0, 2, 1), iter((1, 2))
    dt = draw(batch, H, L, dtype=dtype, seed=3) ** 2
    A = -(draw(H, N, dtype=dtype, seed=4) ** 2) - np.asarray(0.1, dtype)
    B, C = (draw(*((batch, g, N, L) if g else (H, N)), dtype=dtype, seed=next(rows)) for g in groups)
    first, reset = draw(batch, H, N, dtype=dtype, seed=5), np.zeros((batch, L), bool).view(Array)
    reset[-1, L // 2 :: 7] = True
    options = {"discretization": "mamba", "chunk": None}
    for begins, order in ((None, "K"), (reset, "K"), (reset, "C")):
        arrays = (u.copy(order), dt, A, B, C)
        found = backend.selective.selective_scan(*arrays, state=first, segments=Segments(L, begins), **options)
        segments = Segments(L, None if begins is None else plain(begins)[0])
        wanted = _selective_scan(*plain(*arrays), state=plain(first)[0], segments=segments, **options)
        for one, other in zip(found, wanted, strict=True):
            assert one.dtype == u.dtype
            np.testing.assert_allclose(one, other, **({"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else TIGHT))


TIGHT = {"rtol": 1e-11, "atol": 1e-12}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("groups", [(1, 1), (2, 3), (0, 1), (1, 0), (0, 0)], ids=str)
def test_selective_scan(groups: tuple[int, int], dtype: str, backend: Any):
    """One block and several, lengths around those that are loaded ahead, states that fill no power of two."""
    for batch, L, N in ((1, 1, 1), (2, 17, 3), (3, 150, 16), (1, 400, 5)):
        check_selective(backend, batch, 6, L, N, dtype, groups)


def test_selective_scan_leaves_other_rules_and_many_states(backend: Any):
    u = draw(1, 2, 9)
    for N, rule in ((3, "zoh"), (65, "mamba")):
        A, state = draw(2, N), draw(1, 2, N)
        options = {"segments": Segments(9), "discretization": rule, "chunk": None}
        assert backend.selective.selective_scan(u, u**2, A, A, A, state=state, **options) is NotImplemented


@pytest.mark.usefixtures("untried")
def test_selective_kernels_that_disagree_are_turned_off_with_a_warning(backend: Any, monkeypatch: pytest.MonkeyPatch):
    class Broken(RawModule):
        def get_function(self, name: str) -> Any:
            return lambda grid, block, arguments: None

    monkeypatch.setattr(backend.scans.cp, "RawModule", Broken)
    u, A, options = draw(1, 2, 9), draw(2, 3), {"discretization": "mamba", "chunk": None}
    with pytest.warns(UserWarning, match="selective_scan: the kernels for float64 disagree"):
        found = backend.selective.selective_scan(u, u**2, A, A, A, state=draw(1, 2, 3), segments=Segments(9), **options)
    assert found is NotImplemented
