"""Strange inputs for every public function and layer: each is computed rightly, or refused by the library itself.

    python tests/fuzzing.py --minutes 30 --seed 1 [--only kernel]

A case is an operation, an array library, and up to two of its arguments in a strange form of the tables below;
hypothesis draws cases and makes those that fail small. Right is a result of the shapes and numbers that NumPy's generic
bodies give for the same arguments, and finite where they are. An error that is not the library's own is a bug, and so
is NaN out of numbers. Exit status 1 where there is one.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzzing_calls import CALLS

import ssm_core
from ssm_core import DomainError, SSMError

Values = dict[str, Any]


# What becomes of an array. Those of the first table leave its numbers alone, so that the result is known.
SAME: dict[str, Callable[[Any], Any]] = {
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a,
    "reversed view": lambda a: np.flip(np.flip(a, -1).copy(), -1) if a.ndim else a,
    "fortran": np.asfortranarray,
    "read-only": lambda a: np.lib.stride_tricks.as_strided(a, writeable=False),
    "float32": lambda a: a.astype(np.float32) if a.dtype.kind == "f" else a,
    "int32": lambda a: a.astype(np.int32) if a.dtype.kind == "i" else a,
}
OTHER: dict[str, Callable[[Any], Any]] = {
    "zero": lambda a: a * 0,
    "negative": lambda a: -a if a.dtype != bool else ~a,
    "large": lambda a: a * 1000,
    "nan": lambda a: np.where(np.arange(a.size).reshape(a.shape) == a.size // 2, np.nan, a),
    "inf": lambda a: np.where(np.arange(a.size).reshape(a.shape) == 0, np.inf, a),
    "no batch": lambda a: a[0] if a.ndim else a,
    "more axes": lambda a: a[None],
    "nothing": lambda a: a[..., :0] if a.ndim else a,
    "no rows": lambda a: a[:0] if a.ndim else a,
    "one": lambda a: a[..., :1] if a.ndim else a,
    "one row": lambda a: a[:1] if a.ndim else a,
    "longer": lambda a: np.concatenate([a, a[..., :1]], -1) if a.ndim else a,
    "turned": lambda a: a.T,
    "scalar": lambda a: a.reshape(-1)[0] if a.size else a,
    "number": lambda a: a.reshape(-1)[0].item() if a.size else 0.0,
    "array ()": lambda a: np.asarray(a.reshape(-1)[0]) if a.size else a,
    "float16": lambda a: a.astype(np.float16) if a.dtype.kind == "f" else a,
    "int64": lambda a: a.real.astype(np.int64),
    "uint8": lambda a: np.abs(a).astype(np.uint8),
    "bool": lambda a: a.astype(bool),
    "complex": lambda a: a.astype(np.complex128),
    "longdouble": lambda a: a.real.astype(np.longdouble),
    "big endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "objects": lambda a: a.astype(object),
    "text": lambda a: a.astype(str),
    "dates": lambda a: a.real.astype("datetime64[s]") if a.dtype.kind == "i" else a.astype("U"),
    "list": lambda a: a.tolist(),
    "tuple": lambda a: tuple(a.tolist()) if a.ndim else a,
    "matrix": lambda a: np.matrix(a.reshape(a.shape[0] if a.ndim else 1, -1)) if a.size else a,
    "masked": lambda a: np.ma.masked_array(a, mask=np.zeros(a.shape, bool)),
    "records": lambda a: a.view(np.recarray),
    "None": lambda a: None,
    "string": lambda a: "array",
    "dict": lambda a: {"x": a},
    "function": lambda a: len,
}
OPTIONS: dict[str, Any] = {
    "None": None, "True": True, "False": False, "no": "no", "empty text": "", "bytes": b"zoh", "0": 0, "1": 1, "2": 2,
    "7": 7, "-1": -1, "0.5": 0.5, "2.0": 2.0, "-1.5": -1.5, "nan": np.nan, "inf": np.inf, "1j": 1j,
    "numpy True": np.True_,
    "numpy 2": np.int64(2), "numpy 4": np.uint8(4), "numpy 0.5": np.float32(0.5), "numpy nan": np.float64("nan"),
    "array (2)": np.asarray(2), "array (0.5)": np.asarray(0.5), "array [2]": np.asarray([2]),
    "array [0.5, 1]": np.asarray([0.5, 1.0]),
    "list": [1], "nothing": [], "pair": (0.1, 0.5), "dict": {}, "object": object(), "type": int,
}  # fmt: skip
SPARSE = ("sparse", "of another library")  # made in the library of the case
LIBRARIES = ("numpy", "numpy", "torch", "torch", "jax")


@dataclass(frozen=True)
class Case:
    """An operation in a library with some arguments in strange forms, by their names."""

    operation: str
    library: str
    strange: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.operation} in {self.library}: {', '.join(f'{n} -> {f}' for n, f in self.strange) or 'as it is'}"


class Bug(Exception):
    """Neither a right result nor a refusal."""


@st.composite
def cases(draw: Any, only: str = "", libraries: tuple[str, ...] = LIBRARIES) -> Case:
    """Any case of the operations whose names hold a text."""
    operation = draw(st.sampled_from([name for name in CALLS if only in name]))
    arguments = CALLS[operation].arguments()
    names = draw(st.lists(st.sampled_from(sorted(arguments)), max_size=2, unique=True)) if arguments else []
    strange = []
    for name in names:
        forms = [*SAME, *OTHER, *SPARSE] if isinstance(arguments[name], np.ndarray) else list(OPTIONS)
        strange.append((name, draw(st.sampled_from(forms))))
    return Case(operation, draw(st.sampled_from(libraries)), tuple(sorted(strange)))


def placed(x: Any, library: str) -> Any:
    """NumPy's arrays as arrays of the library; what it cannot hold stays as it is."""
    if isinstance(x, tuple | list) and any(isinstance(one, np.ndarray) for one in x):
        return type(x)(placed(one, library) for one in x)
    if type(x) is not np.ndarray or library == "numpy" or x.dtype.kind not in "fciub" or x.dtype.itemsize > 16:
        return x
    if not x.dtype.isnative or x.dtype == np.longdouble:
        return x
    if library == "torch":
        import torch

        return torch.from_numpy(np.array(x))
    import jax.numpy as jnp

    return jnp.asarray(x)


def special(form: str, x: np.ndarray, library: str) -> Any:
    """Sparse arrays of the library, or a dense one of another."""
    if form == "of another library":
        return placed(x, "torch" if library != "torch" else "numpy")
    if library == "torch" and x.ndim:
        return placed(x, "torch").to_sparse()
    if library == "jax":
        from jax.experimental import sparse

        return sparse.BCOO.fromdense(placed(x, "jax"))
    import scipy.sparse

    return scipy.sparse.csr_array(x.reshape(x.shape[0] if x.ndim else 1, -1))


def given(case: Case, library: str) -> Values:
    """The arguments of a case, in a library."""
    values = CALLS[case.operation].arguments()
    forms = dict(case.strange)
    found = {}
    for name, x in values.items():
        form = forms.get(name)
        if form is None:
            found[name] = placed(x, library)
        elif form in SPARSE:
            found[name] = special(form, x, library)
        elif isinstance(x, np.ndarray):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[name] = placed((SAME | OTHER)[form](x), library)
        else:
            found[name] = OPTIONS[form]
    return found


def arrays_of(x: Any) -> list[np.ndarray]:
    """All arrays and numbers of a result, on the host."""
    if isinstance(x, dict):
        return [a for one in x.values() for a in arrays_of(one)]
    if isinstance(x, tuple | list):
        return [a for one in x for a in arrays_of(one)]
    if is_dataclass(x):
        return [a for f in fields(x) for a in arrays_of(getattr(x, f.name))]
    if isinstance(x, bool | str) or x is None or callable(x):
        return []
    if hasattr(x, "detach"):
        x = x.detach().resolve_conj().resolve_neg()
        x = x.float() if str(x.dtype) == "torch.bfloat16" else x
    return [np.asarray(x)] if not hasattr(x, "to_ss") else []


def outcome(case: Case) -> str:
    """ "right" or "refused"; raises Bug."""
    found: Any = None
    try:
        with np.errstate(all="ignore"):
            values = given(case, case.library)
            found = arrays_of(CALLS[case.operation].call(**values))
    except SSMError as error:
        if not str(error).strip():
            raise Bug(f"{case}: an error without a message") from error
        return "refused"
    except Exception as error:
        if CALLS[case.operation].passes(error):
            return "refused"
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
        raise Bug(f"{case}: {text} [{Path(where.filename).name}:{where.name}]") from error
    check(case, found)
    return "right"


def check(case: Case, found: list[np.ndarray]) -> None:
    """Raise Bug unless the numbers are those of NumPy's generic bodies."""
    if CALLS[case.operation].random:
        return
    try:
        with ssm_core.use_backend("generic"), np.errstate(all="ignore"):
            wanted = arrays_of(CALLS[case.operation].call(**given(case, "numpy")))
    except DomainError:  # a value that only NumPy's arrays are asked for
        return
    except SSMError as error:
        if any(form in SPARSE or form in ("scalar", "big endian", "longdouble", "text") for _, form in case.strange):
            return
        raise Bug(f"{case}: computed, but NumPy refuses: {error}") from error
    if [x.shape for x in found] != [x.shape for x in wanted]:
        raise Bug(f"{case}: shapes {[x.shape for x in found]}, but {[x.shape for x in wanted]} in NumPy")
    forms = {form for _, form in case.strange}
    tolerance = 0.05 if "float16" in forms else 2e-3
    for x, y in zip(found, wanted, strict=True):
        if x.dtype.kind not in "fc":
            continue
        if (x.dtype.kind == "c") != (y.dtype.kind == "c"):
            raise Bug(f"{case}: {x.dtype}, but {y.dtype} in NumPy")
        good = np.isfinite(y)
        if not forms & {"nan", "inf", "large", "numpy nan"} and not good.all() and not CALLS[case.operation].infinite:
            raise Bug(f"{case}: {int((~good).sum())} numbers are not finite")
        size = np.abs(y[good]).max(initial=0.0)
        if size > 1e30 or "large" in forms:  # beyond what single precision carries
            continue
        off = np.abs(np.where(good, x, 0) - np.where(good, y, 0)).max(initial=0.0)
        if not off <= tolerance * max(size, 1e-3):
            raise Bug(f"{case}: off by {off:.2e} of {size:.2e}")


def run(
    minutes: float, seed: int, only: str = "", libraries: tuple[str, ...] = LIBRARIES, rounds: int = sys.maxsize
) -> tuple[Counter, list[str]]:
    """How often each outcome came in so many minutes, at most in so many rounds of examples; the bugs, each once."""
    counts: Counter = Counter()
    known: dict[str, str] = {}
    end = time.monotonic() + 60 * minutes

    def signature(error: Bug) -> str:
        case, _, what = str(error).partition(": ")
        return case.partition(" ")[0] + what.rpartition(": ")[2][-60:]

    for number in range(seed + 1, seed + 1 + rounds):
        if time.monotonic() > end:
            break

        @hypothesis.seed(number)
        @hypothesis.settings(
            max_examples=200, deadline=None, database=None, phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
            suppress_health_check=list(hypothesis.HealthCheck), report_multiple_bugs=False,
            verbosity=hypothesis.Verbosity.quiet,
        )  # fmt: skip
        @hypothesis.given(cases(only, libraries))
        def examples(case: Case) -> None:
            if time.monotonic() > end:
                return
            try:
                counts[outcome(case)] += 1
            except Bug as error:
                if signature(error) not in known:
                    raise

        try:
            examples()
        except Bug as error:
            known[signature(error)] = str(error)
            print(f"bug: {error}", flush=True)
    return counts + Counter(bug=len(known)), list(known.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="operations whose names hold this text")
    parser.add_argument("--library", action="append", choices=sorted(set(LIBRARIES)), help="all of them by default")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    counts, bugs = run(options.minutes, options.seed, options.only, tuple(options.library or LIBRARIES))
    print(f"{len(CALLS)} operations:", ", ".join(f"{n} {what}" for what, n in sorted(counts.items())))
    return 1 if bugs else 0


if __name__ == "__main__":
    sys.exit(main())
