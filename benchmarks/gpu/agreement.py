"""The functions of every library on the device against the truth, by the cases and tolerances of the conformance suite.

Without pytest, and as far as the time goes: one case of every function first, then the second ones.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

from .record import emit, guarded, left

BACKENDS = {"cuda": ("torch-cuda", "jax-gpu", "cupy"), "cpu": ("torch",)}
DTYPES = {"cuda": ("float32", "complex64", "float64"), "cpu": ("float32",)}


def run(device: str, options: Any) -> None:
    names = BACKENDS[device]
    for i, name in enumerate(names):
        share = left() / (len(names) - i)
        guarded(f"agreement {name}", lambda name=name, share=share: of_backend(name, DTYPES[device], share))


def of_backend(name: str, dtypes: tuple[str, ...], seconds: float) -> None:
    from conformance import backends
    from conformance.tolerances import assert_close

    try:
        backend = backends.load(name)
    except backends.Absent as why:
        emit(f"agreement {name}", not_run=str(why))
        return
    if backend.family == "jax":  # maps of features follow its switches: what is measured here are our own roundings
        backend.module.config.update("jax_default_matmul_precision", "highest")
    end, count, failed = time.time() + 0.9 * seconds, 0, 0
    cases = in_turn() if name != "torch" else in_turn()[:12]
    for dtype, case in itertools.product(dtypes, cases):
        if time.time() > end:
            break
        if dtype not in case.dtypes or dtype not in backend.dtypes:
            continue
        count += 1
        try:
            arrays, values = case.inputs(backend, dtype)
            found, wanted = case.results(backend, arrays), case.expected(values)
            for x, y, half in zip(found, wanted, itertools.cycle(case.half), strict=False):
                assert_close(x, y, backend, dtype, function=case.function, terms=case.terms, half=half)
        except Exception as error:
            failed += 1
            emit(f"agreement {name} {case.label} {dtype}", failed=f"{type(error).__name__}: {error}")
        if count % 50 == 0:
            emit(f"agreement {name} so far", cases=count, failed=failed)
    emit(f"agreement {name}", cases=count, failed=failed)


def in_turn() -> list[Any]:
    """The cases with the first one of every function in front."""
    from conformance.cases import functions, summaries, systems

    by_function: dict[str, list[Any]] = {}
    for case in (*functions.ALL, *systems.ALL, *summaries.ALL):
        by_function.setdefault(case.function, []).append(case)
    rounds = itertools.zip_longest(*by_function.values())
    return [case for cases in rounds for case in cases if case is not None]
