"""Everything that can be run here. `nox` alone checks a change, `nox -s full` runs every test, `nox -l` lists the rest.

Each session lives in an environment of its own, which later runs reuse, and installs the versions of
`constraints.txt`. What follows `--` goes to the program that the session runs.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["short"]

ROOT = Path(__file__).parent
CONSTRAINTS = (ROOT / "constraints.txt").as_uri()  # as a URI it may hold spaces
FRAMEWORKS = "torch,flax,equinox"
USER_CODE = "tests/typing/user_code.py"
WORKERS = ("--numprocesses=auto", "--maxprocesses=8", "--dist=worksteal")
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
# Without most optimizations, those of LLVM too, and the emitters of MLIR, XLA compiles in half the time, which is most
# of what the full tier spends on JAX: it runs each program once. The site's examples in JAX take a sixth less time with
# it. The short tier and `nox -s conformance` leave XLA as users have it.
QUICK = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false"
)
# A backend whose framework is absent cannot be imported for its doctests: skipped, and reported so.
EVERYTHING = ("--doctest-modules", "--doctest-ignore-import-errors", "ssm_core", "tests", "docs", "conformance")


def install(session: nox.Session, *requirements: str) -> None:
    """Install at the pinned versions, those of the build backend included."""
    env = {"PIP_CONSTRAINT": CONSTRAINTS, "PIP_BUILD_CONSTRAINT": CONSTRAINTS}
    session.install(*requirements, env=env)


def pytest(session: nox.Session, *arguments: str, **env: str) -> None:
    """With the programs that JAX compiled in earlier runs, which it finds by their text and its version.

    Every worker computes in one thread: those of several that wait for each other take the time of all.
    """
    own = {
        "JAX_COMPILATION_CACHE_DIR": str((session.cache_dir / "jax").resolve()),  # tests change folders
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        **(dict.fromkeys(ONE_THREAD, "1") if WORKERS[0] in arguments else {}),
    }
    session.run("pytest", *arguments, env=own | env)


def pyright(session: nox.Session) -> None:
    """On a sample of user code: arrays go in, and the same arrays come out."""
    session.run("basedpyright", "--level=error", "--pythonpath", str(Path(session.bin) / "python"), USER_CODE)


def sphinx(session: nox.Session, builder: str, *arguments: str) -> None:
    """Every warning is an error: a link that leads nowhere, a docstring that cannot be read.

    As many processes as there are cores read, write and run examples, each of them in one thread. They are forks, which
    other systems than Linux do not allow where frameworks are loaded. An example trains for seconds, of which XLA's
    optimizations would be a part.
    """
    jobs = "auto" if sys.platform == "linux" else "1"
    options = ("-W", "--keep-going", "-q", "-j", jobs, "-b", builder, *arguments)
    env = {"XLA_FLAGS": QUICK, **dict.fromkeys(ONE_THREAD, "1")}
    session.run("sphinx-build", *options, "docs", f"docs/_build/{builder}", env=env)


def interpreted(session: nox.Session, *arguments: str) -> None:
    """Tests of the Triton kernels, in a process of their own: Triton reads the switch when it is imported."""
    tests = sorted(str(path) for path in Path("tests").glob("test_triton*.py"))
    pytest(session, *(arguments or (*WORKERS, *tests)), TRITON_INTERPRET="1")


@nox.session
def short(session: nox.Session) -> None:
    """What every change is checked with: rules, types, documentation, and the tests that `conftest.py` calls short.

    What follows `--` goes to pytest here and in `full`: with `--once=FILE` in both, each test runs in one of them.
    """
    install(session, "-e", f".[{FRAMEWORKS},docs,test]", "ruff", "mypy", "basedpyright")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    pyright(session)
    sphinx(session, "dummy", "-D", "plot_gallery=0")  # reads all pages and looks up their links, and writes none
    pytest(session, "--tier=short", *WORKERS, *EVERYTHING, *session.posargs)


@nox.session
def full(session: nox.Session) -> None:
    """All tests: of the Triton kernels through Triton's interpreter, then all others, and which took longest."""
    install(session, "-e", ".[demo,test]", "accelerate", "lightning", *(["triton"] if sys.platform == "linux" else []))
    if sys.platform == "linux":
        interpreted(session)
    others = ("--durations=50", "--ignore-glob=*/test_triton*.py", *EVERYTHING, *session.posargs)
    pytest(session, *others, *WORKERS, XLA_FLAGS=QUICK)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and format. `ruff check --fix . && ruff format .` repairs most of what it reports."""
    install(session, "ruff")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Mypy on the package, and mypy and pyright on a sample of user code.

    In the package the objects of the frameworks count as Any, whether they are installed or not.
    """
    install(session, "-e", f".[{FRAMEWORKS}]", "mypy", "basedpyright")
    session.run("mypy", *session.posargs)
    if not session.posargs:
        session.run("mypy", "--config-file=", "--strict", USER_CODE)
        pyright(session)


@nox.session
def adapters(session: nox.Session) -> None:
    """Write the adapters' modules from the definitions of layers and models; `-- --check` compares them."""
    install(session, "-e", ".")
    session.run("python", "adapters/generate.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, docs/_build/html/index.html, with the gallery's pictures, and check its inner links.

    `nox -s docs -- -D plot_gallery=0` leaves out the examples, which take most of the time.
    """
    install(session, "-e", f".[{FRAMEWORKS},docs]")
    sphinx(session, "html", *session.posargs)
    session.run("python", "docs/check_links.py", "docs/_build/html")


@nox.session
def tests(session: nox.Session) -> None:
    """Unit tests, doctests, the code of the docs, and conformance on every backend that is here, in one run of pytest.

    `nox -s tests -- tests/test_kernels.py -k diagonal` runs a selection, `nox -s tests -- --tier=short` the short tier.
    """
    install(session, "-e", ".[demo,test]")
    pytest(session, *(session.posargs or (*WORKERS, *EVERYTHING)))


@nox.session
def triton(session: nox.Session) -> None:
    """The Triton kernels, on small arrays through Triton's interpreter, and compiled: no GPU is needed."""
    if sys.platform != "linux":
        session.skip("Triton has no wheels for this system")
    install(session, "-e", ".[torch,test]", "triton")
    interpreted(session, *session.posargs)


@nox.session
def minimums(session: nox.Session) -> None:
    """The short tier with the lowest versions that pyproject.toml declares. PyPI's old builds of PyTorch bring CUDA."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [
        *project["dependencies"],
        *(r for e in (*FRAMEWORKS.split(","), "test") for r in project["optional-dependencies"][e]),
    ]
    lowest = Path(session.create_tmp()).resolve() / "lowest.txt"
    lowest.write_text("\n".join(requirement.replace(">=", "==") for requirement in declared) + "\n", encoding="utf-8")
    session.install("-e", f".[{FRAMEWORKS},test]", env={"PIP_CONSTRAINT": lowest.as_uri()})
    pytest(session, *(session.posargs or ("--tier=short", *WORKERS, *EVERYTHING)))


@nox.session
def conformance(session: nox.Session) -> None:
    """The suite that any array library can be held against, with its report.

    `nox -s conformance -- --require torch` fails where torch cannot run.
    `nox -s conformance -- --generic --backend torch` runs without fast paths.
    `nox -s conformance -- --install mparray --namespace mparray` installs a library and runs the suite on it.
    """
    parser = argparse.ArgumentParser(prog="nox -s conformance --", allow_abbrev=False, add_help=False)
    parser.add_argument("--install", action="append", default=[], metavar="REQUIREMENT")
    options, rest = parser.parse_known_args(session.posargs)
    install(session, "-e", f".[{FRAMEWORKS},test]", *options.install)
    session.run("pytest", "conformance", *rest)


@nox.session
def packaging(session: nox.Session) -> None:
    """Build the sdist, the wheel from the sdist, and import the wheel in a fresh environment."""
    install(session, "-e", ".[test]")
    session.run("pytest", "tests/test_packaging.py", *session.posargs)


@nox.session
def transformers(session: nox.Session) -> None:
    """Hugging Face's transformers: models loaded and saved both ways, and its own made fast. Skipped tests fail."""
    install(session, "-e", ".[transformers,test]")
    tests = (
        *sorted(str(path) for path in Path("tests").glob("test_transformers*.py")),
        "tests/test_accelerated.py",
        "docs/test_docs.py::test_code_runs[transformers]",
    )
    session.run("pytest", "--no-skips", *(session.posargs or tests))


@nox.session
def onnx(session: nox.Session) -> None:
    """Steps and sequences exported to ONNX, and run by onnxruntime. Skipped tests fail: nothing has run then."""
    install(session, "-e", ".[torch,test]", "onnx", "onnxruntime", "onnxscript")
    session.run("pytest", "--no-skips", "tests/test_onnx.py", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Strange inputs for every function and layer on NumPy, PyTorch and JAX: right, refused, or a bug, which fails.

    `nox -s fuzz -- --minutes 30 --seed 1 --only kernel` tries operations of that name for half an hour.
    """
    install(session, "-e", f".[{FRAMEWORKS},test]")
    session.run("python", "tests/fuzzing.py", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Train an S4D classifier of handwritten digits in PyTorch and in Flax, and run it in plain NumPy.

    `nox -s demo -- --mnist FILE` trains on sequential MNIST: an .npz with x_train, y_train, x_test, y_test.
    """
    install(session, "-e", ".[demo]")
    session.run("python", "docs/examples/digits.py", *session.posargs, env={"MPLBACKEND": "agg"})


@nox.session
def language(session: nox.Session) -> None:
    """Train a language model of bytes in PyTorch for two minutes, and let PyTorch, Flax and NumPy write on from it."""
    install(session, "-e", ".[demo]")
    session.run("python", "docs/examples/language.py", *session.posargs)


@nox.session
def audio(session: nox.Session) -> None:
    """Train SaShiMi and an isotropic S4D on sound in ten minutes on a CPU, and make sound step by step in NumPy.

    `nox -s audio -- --data FILE` learns a WAV file, a folder of them or an .npz of clips instead of a plucked string.
    """
    install(session, "-e", ".[demo]")
    session.run("python", "docs/examples/audio.py", *session.posargs, env={"MPLBACKEND": "agg"})


@nox.session
def results(session: nox.Session) -> None:
    """Train published comparisons anew: numbers as JSON, and a picture. `nox -s results` prints their names.

    `nox -s results -- parity --small --framework flax` trains in the sizes that a CPU allows, in Flax.
    `nox -s results -- mnist --data FOLDER` reads data sets from a folder; docs/results.md says what they must hold.
    """
    install(session, "-e", ".[demo]")
    session.run("python", "-m", "benchmarks.results", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Time and memory beside other ways to compute the same, in one run. `nox -s bench -- --list` names the jobs."""
    install(session, "-e", ".[demo]", "scipy", "transformers", "mambapy")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(venv_backend="none")
def gpu(session: nox.Session) -> None:
    """All that wants a GPU, in eight minutes, with the PyTorch, Triton, JAX and CuPy that are installed here.

    `nox -s gpu -- --minutes 8 --out FOLDER`; without nox `python -m benchmarks.gpu`. It needs `array_api_compat` beside
    them, and installs nothing. Without a GPU it runs in miniature.
    """
    session.run("python", "-m", "benchmarks.gpu", *session.posargs)
