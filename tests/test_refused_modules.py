"""What users get wrong in the modules of the frameworks, and between frameworks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wrong import ENDS, LAYER, STATE, STRICT, U, Z, two

from ssm_core import (
    Diagonal,
    DTypeError,
    MixedArraysError,
    OptionError,
    ShapeError,
    SSMError,
    adapters,
    convolve,
    diagonal_scan,
    discretize,
    frequency_response,
    kernel,
    linear_scan,
    scan,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


class Torch:
    def __init__(self) -> None:
        torch = pytest.importorskip("torch")
        self.adapter, self.xp = adapters.torch, torch
        self.layer = adapters.torch.S4D(4, d_state=8)
        self.both = adapters.torch.S4D(4, d_state=8, bidirectional=True)
        self.model = adapters.torch.SequenceModel(3, 2, d_model=4, n_layers=1, layer_options={"d_state": 8})

    def make(self, cls: str, *args: Any, **options: Any) -> Any:
        return getattr(self.adapter, cls)(*args, **options)


class Flax(Torch):
    def __init__(self) -> None:
        jnp, nnx = pytest.importorskip("jax.numpy"), pytest.importorskip("flax.nnx")
        self.adapter, self.xp, self.rngs = adapters.flax, jnp, nnx.Rngs(0)
        self.layer = self.make("S4D", 4, d_state=8)
        self.both = self.make("S4D", 4, d_state=8, bidirectional=True)
        self.model = self.make("SequenceModel", 3, 2, d_model=4, n_layers=1, layer_options={"d_state": 8})

    def make(self, cls: str, *args: Any, **options: Any) -> Any:
        return super().make(cls, *args, **options, rngs=self.rngs)


@pytest.fixture(scope="module", params=[Torch, Flax])
def framework(request: pytest.FixtureRequest) -> Torch:
    return request.param()


# (call of (framework f, signal u (2, 6, 4), signal z (2, 6, 3)), error, message)
MODULES: list[tuple[Callable[..., Any], type, str]] = [
    (lambda f, u, z: f.make("S4D", 0), OptionError, "^S4D: d_model = 0"),
    (lambda f, u, z: f.make("S4D", 4, d_state=7), OptionError, "^S4D: d_state = 7 is odd"),
    (lambda f, u, z: f.make("S4D", 4, init="x"), OptionError, "^S4D: unknown init 'x'. Known: 'legs'"),
    (lambda f, u, z: f.make("S4D", 4, activation="x"), OptionError, "^S4D: unknown activation 'x'. Known: 'gelu'"),
    (lambda f, u, z: f.make("SequenceModel", 0, 1), OptionError, "^SequenceModel: d_input = 0"),
    (lambda f, u, z: f.make("SequenceModel", 1, 1, pool="x"), OptionError, "^SequenceModel: unknown pool 'x'. Known"),
    (lambda f, u, z: f.make("SequenceModel", 1, 1, layer="x"), OptionError, "unknown layer 'x'. Known: 'DLinOSS'"),
    (lambda f, u, z: f.make("SequenceModel", 1, 1, layer_options={"x": 1}), OptionError, "'?x'?"),
    (lambda f, u, z: f.layer(None), DTypeError, "^S4D: .*(u is a NoneType|no array)"),
    (lambda f, u, z: f.layer([1.0]), DTypeError, "^S4D: u is a list"),
    (lambda f, u, z: f.layer(U), MixedArraysError, r"^S4D: .*libraries \(u: numpy"),
    (lambda f, u, z: f.layer(STRICT), MixedArraysError, r"^S4D: .*libraries \(u: array_api_strict"),
    (lambda f, u, z: f.layer(u[0]), ShapeError, r"^S4D: u must be \(B, L, 4\)"),
    (lambda f, u, z: f.layer(u[..., :2]), ShapeError, r"^S4D: u must be \(B, L, 4\)"),
    (lambda f, u, z: f.layer(u > 0), DTypeError, "^S4D: u has dtype bool"),
    (lambda f, u, z: f.layer(u + 0j), DTypeError, "^S4D: u has dtype complex64, but must be real"),
    (lambda f, u, z: f.layer(u, state=u), ShapeError, r"^S4D: state must be \(2, 4, 4\)"),
    (lambda f, u, z: f.layer(u, state=STATE), MixedArraysError, "^S4D: .*state: numpy"),
    (lambda f, u, z: f.layer(u, state=0.0), DTypeError, "^S4D: state is a float"),
    (lambda f, u, z: f.layer(u, lengths=[1, 2]), DTypeError, "^S4D: lengths is a list"),
    (lambda f, u, z: f.layer(u, lengths=ENDS), MixedArraysError, "^S4D: .*lengths: numpy"),
    (
        lambda f, u, z: f.layer(u, lengths=u[:, 0, 0]),
        DTypeError,
        "^S4D: lengths has dtype .*float32, but must",
    ),
    (lambda f, u, z: f.layer(u, reset=u[..., 0]), DTypeError, "^S4D: reset has dtype .*float32, but must be bool"),
    (lambda f, u, z: f.layer(u, reset=u[..., 0] > 0, mode="conv"), OptionError, "^S4D: mode 'conv' cannot restart"),
    (lambda f, u, z: f.layer(u, mode="fft"), OptionError, "^S4D: unknown mode 'fft'. Known"),
    (lambda f, u, z: f.layer(u, rate=-1), SSMError, "^S4D: rate = -1"),
    (lambda f, u, z: f.layer(u, rate="x"), SSMError, "^S4D: rate"),
    (lambda f, u, z: f.layer(u, step_scale=u[:, :5, 0]), ShapeError, r"^S4D: step_scale must be \(2, 6\)"),
    (lambda f, u, z: f.layer.initial_state(-1), OptionError, "^S4D: batch"),
    (lambda f, u, z: f.layer.initial_state("a"), OptionError, "^S4D: batch"),
    (lambda f, u, z: f.layer.step(u[:, 0], None), DTypeError, r"^S4D\.step: state is a NoneType"),
    (
        lambda f, u, z: f.layer.step(u[:, 0], f.layer.initial_state(1)),
        ShapeError,
        r"^S4D\.step: state must be \(2, 4, 4\)",
    ),
    (lambda f, u, z: f.layer.step(u[:, 0], STATE), MixedArraysError, r"^S4D\.step: .*state: numpy"),
    (lambda f, u, z: f.layer.step(U[:, 0], f.layer.initial_state(2)), MixedArraysError, r"^S4D\.step: .*u_t: numpy"),
    (lambda f, u, z: f.layer.step([1.0], f.layer.initial_state(2)), DTypeError, r"^S4D\.step: u_t is a list"),
    (
        lambda f, u, z: f.layer.step(u[:, 0] > 0, f.layer.initial_state(2)),
        DTypeError,
        r"^S4D\.step: u_t has dtype",
    ),
    (lambda f, u, z: f.layer.step(u, f.layer.initial_state(2)), ShapeError, r"^S4D\.step: u_t must be \(B, 4\)"),
    (lambda f, u, z: f.layer.stepper(rate=0), SSMError, "^S4D: rate = 0"),
    (lambda f, u, z: f.layer.kernel(0), OptionError, "^S4D: length = 0"),
    (lambda f, u, z: f.layer.kernel(2.5), OptionError, "^S4D: length = 2.5"),
    (lambda f, u, z: f.both(u, return_state=True), OptionError, "^S4D: a bidirectional layer"),
    (lambda f, u, z: f.both.stepper(), OptionError, "^S4D: a bidirectional layer"),
    (lambda f, u, z: f.both.initial_state(2), OptionError, "^S4D: a bidirectional layer"),
    (lambda f, u, z: f.model(None), DTypeError, "^SequenceModel: .*(u is a NoneType|no array)"),
    (lambda f, u, z: f.model([1.0]), DTypeError, "^SequenceModel: u is a list"),
    (lambda f, u, z: f.model(Z), MixedArraysError, r"^SequenceModel: .*u: numpy"),
    (lambda f, u, z: f.model(z[0]), ShapeError, r"^SequenceModel: u must be \(B, L, 3\) \(u: \(6, 3\)\)"),
    (lambda f, u, z: f.model(z[..., :2]), ShapeError, r"^SequenceModel: u must be \(B, L, 3\) \(u: \(2, 6, 2\)\)"),
    (lambda f, u, z: f.model(z > 0), DTypeError, "^SequenceModel: u has dtype bool"),
    (lambda f, u, z: f.model(z + 0j), DTypeError, "^SequenceModel: u has dtype complex64, but must be real"),
    (lambda f, u, z: f.model(z, mode="fft"), OptionError, "unknown mode 'fft'. Known"),
    (lambda f, u, z: f.model(z, state=0.0), SSMError, "^SequenceModel: state"),
    (lambda f, u, z: f.model(z, state=()), SSMError, "^SequenceModel: state"),
    (lambda f, u, z: f.model.step(z[:, 0], None), SSMError, r"^SequenceModel(\.step)?: state"),
    (lambda f, u, z: f.model.step(z[:, 0, :2], f.model.initial_state(2)), ShapeError, r"^SequenceModel\.step: u"),
    (lambda f, u, z: f.model.step(z[:, 0], f.model.initial_state(1)), ShapeError, "state must be"),
    (lambda f, u, z: f.model.initial_state(-1), OptionError, "batch"),
    (lambda f, u, z: f.adapter.save(None, "nowhere"), SSMError, "^save: .*NoneType"),
    (lambda f, u, z: f.adapter.save(LAYER, "nowhere"), SSMError, "^save: "),
    (lambda f, u, z: f.adapter.save(object(), "nowhere"), SSMError, "^save: .*object"),
]


@pytest.mark.parametrize("row", range(len(MODULES)), ids=lambda i: f"{i}-{MODULES[i][2][:40]}")
def test_refused_by_modules(row: int, framework: Torch):
    call, error, message = MODULES[row]
    if error is MixedArraysError and "numpy" in message and framework.xp.__name__ == "jax.numpy":
        pytest.skip("JAX takes NumPy's arrays for its own")
    u, z = (framework.xp.asarray(x) for x in (U, Z))
    with pytest.raises(error, match=f"(?s){message}"):
        call(framework, u, z)
    assert not Path("nowhere").exists()


def test_missing_files(framework: Torch, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="missing"):
        framework.adapter.load(tmp_path / "missing")
    (tmp_path / "text").write_text("this is no safetensors file")
    with pytest.raises(OptionError, match=r"^load: '.*text' is no safetensors file"):
        framework.adapter.load(tmp_path / "text")


def test_frameworks_are_not_mixed():
    torch, jnp = pytest.importorskip("torch"), pytest.importorskip("jax.numpy")
    x, y, z = torch.ones(2), jnp.ones(2), two
    for first, second in ((x, y), (y, x), (x, z), (z, x), (y, z), (z, y)):
        for call in (
            lambda a, b: linear_scan(a, b, axis=0),
            convolve,
            lambda a, b: kernel(Diagonal(a, b, b, discrete=True), 4),
            lambda a, b: scan(Diagonal(a, a, a, discrete=True), b),
            lambda a, b: discretize(Diagonal(a, a), b),
            lambda a, b: diagonal_scan(b, a, a, a),
            lambda a, b: frequency_response(Diagonal(a, a, a), b),
        ):
            with pytest.raises(MixedArraysError, match=r"arrays of several libraries \(.*(torch|jax|numpy)"):
                call(first, second)
