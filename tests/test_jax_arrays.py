"""NumPy's batches in JAX, and channels that several devices share."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from small import options_of, small

from ssm_core import MixedArraysError, adapters, layers, models
from tests import processes

jnp = pytest.importorskip("jax.numpy")
nnx = pytest.importorskip("flax.nnx")

U = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)
LENGTHS, IDS = np.asarray([3, 6]), np.asarray([[1, 2, 3], [4, 5, 6]])
SHARDED = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from ssm_core import layers
mesh = Mesh(np.array(jax.devices()), ("channels",))
assert mesh.size == 2
def put(x):
    axis = max((a for a, n in enumerate(x.shape) if n % 2 == 0), default=None)
    return jax.device_put(x, NamedSharding(mesh, P(*("channels" if a == axis else None for a in range(x.ndim)))))
u = np.random.default_rng(0).normal(size=(2, 70, 8)).astype("f4")
for layer in (layers.S4D(8, d_state=4), layers.S4(8, d_state=4), layers.Mamba2(8, d_state=4, head_dim=4)):
    params = layer.initial_parameters()
    shared, wanted = {name: put(p) for name, p in params.items()}, layer.apply(params, u)
    def loss(p, u):
        return (layer.apply(p, u) ** 2).sum()
    for found in (layer.apply(shared, put(u)), jax.jit(layer.apply)(shared, put(u))):
        assert np.abs(np.asarray(found) - wanted).max() < 1e-4, layer.name
    assert all(np.isfinite(g).all() for g in jax.jit(jax.grad(loss))(shared, put(u)).values())
"""


@pytest.mark.parametrize("name", ["S4D", "S5", "Mamba2"])
def test_batches_of_numpy(name: str):
    """In runs with masks and states, steps and modules, as in JAX's own functions."""
    layer = small(name)
    host = layer.initial_parameters()
    params = {k: jnp.asarray(p) for k, p in host.items()}
    state = layer.initial_state(host, 2)
    wanted, last = layer.apply(host, U, state=state, lengths=LENGTHS, return_state=True)
    found, _ = layer.apply(params, U, state=state, lengths=LENGTHS, return_state=True, rate=np.asarray(1.0))
    assert type(found).__module__.startswith("jax")
    np.testing.assert_allclose(np.asarray(found)[1], wanted[1], atol=1e-5)
    y, _ = layer.step(params, U[:, 0], last)
    np.testing.assert_allclose(np.asarray(y), layer.step(host, U[:, 0], last)[0], atol=1e-5)
    module = getattr(adapters.flax, name)(4, **options_of(name), rngs=nnx.Rngs(0))
    assert module(U, reset=U[..., 0] > 0).shape == U.shape
    assert module.step(U[:, 0], last)[0].shape == (2, 4)


def test_batches_of_numpy_in_models():
    model = adapters.flax.SequenceModel(4, 2, 4, 1, rngs=nnx.Rngs(0))
    assert model(U, lengths=LENGTHS).shape == (2, 2)
    definition = models.MambaLM(7, 4, 1, {"d_state": 2})
    host = definition.initial_parameters()
    params = {k: jnp.asarray(p) for k, p in host.items()}
    np.testing.assert_allclose(np.asarray(definition.apply(params, IDS)), definition.apply(host, IDS), atol=1e-5)
    assert definition.generate(params, IDS, 2, lengths=np.asarray([2, 3])).shape == (2, 2)
    module = adapters.flax.MambaLM(7, 4, 1, layer_options={"d_state": 2}, rngs=nnx.Rngs(0))
    assert module(IDS).shape == (2, 3, 7)
    assert module.generate(IDS, 2).shape == (2, 2)


def test_batches_of_numpy_stay_an_error_in_torch_and_functions():
    torch = pytest.importorskip("torch")
    with pytest.raises(MixedArraysError, match="u: numpy"):
        adapters.torch.S4D(4, d_state=4)(U)
    layer = layers.Mamba(4, d_state=4)
    params = {k: torch.from_numpy(p) for k, p in layer.initial_parameters().items()}
    with pytest.raises(MixedArraysError, match="numpy"):
        layer.apply(params, U)


def test_channels_that_two_devices_share():
    """XLA's FFT on a CPU fails on spectra that it has laid out for several devices, unless they are rows."""
    env = processes.of_jax(2)
    done = subprocess.run([sys.executable, "-c", SHARDED], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-800:]


def test_tracers_are_asked_once_where_they_lie():
    """JAX searches all that was traced before, to say that one lies nowhere: long programs would be traced for ever."""
    import jax

    from ssm_core._arrays import library

    def traced(x):
        assert library.device(x) is None
        assert library.place(x) is None
        assert x.__class__ in library._nowhere
        return x

    x = jax.jit(traced)(jnp.ones(2))
    assert library.place(x) == library.device(x) == x.device
