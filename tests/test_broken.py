"""What is not finite has no effect outside of its own sequence, or on its past; states are copies; dtypes promote."""

import numpy as np
import pytest
from small import NAMES, small

import ssm_core
from ssm_core import layers, models
from ssm_core.functions.special import softplus

torch = pytest.importorskip("torch")

L, FIRST = 40, 10
SHORT = ("RWKVChannelMix", "LocalAttention")  # a state of the last inputs alone
IN_JAX = (
    *("S4D", "S5", "Mamba", "Mamba2", "Mamba3", "GLA", "GatedDeltaNet", "MLSTM", "RWKV4", "RGLRU", "LocalAttention"),
)  # one of every recurrence


def made(name, to=torch.as_tensor):
    definition = small(name)
    return definition, {k: to(v) for k, v in definition.initial_parameters().items()}


def modes(definition):
    return getattr(definition, "modes", ("conv", "chunk", "scan"))


def with_gradients(params):
    return {k: v.clone().requires_grad_() for k, v in params.items()}


def leaves(state):
    return [leaf for x in state for leaf in leaves(x)] if isinstance(state, tuple) else [state]


def finite(*values):
    return all(bool(torch.isfinite(x).all()) for x in leaves(values))


def spoilt(state, bad):
    """Counts stay what they are."""
    if isinstance(state, tuple):
        return tuple(spoilt(x, bad) for x in state)
    return torch.full_like(state, bad) if state.is_floating_point() or state.is_complex() else state


@pytest.fixture
def u():
    return torch.randn(1, L, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
def test_resets_keep_out_inputs_and_states(name, u):
    definition, params = made(name)
    reset = torch.arange(L)[None] == FIRST
    for mode in set(modes(definition)) - {"conv"}:
        wanted = definition.apply(params, u[:, FIRST:], mode=mode)
        for bad in (float("nan"), float("inf")):
            before = spoilt(definition.initial_state(params, 1), bad)
            dirty = torch.where(torch.arange(L)[None, :, None] < FIRST, bad, u).requires_grad_()
            for x, state in ((dirty, None), (u, before)):
                own = with_gradients(params)
                y, last = definition.apply(own, x, state=state, reset=reset, mode=mode, return_state=True)
                assert state is not None or torch.isnan(y[:, :FIRST]).all()
                assert torch.isnan(y[:, : 1 if name in SHORT else FIRST]).all()
                assert finite(last)
                torch.testing.assert_close(y[:, FIRST:], wanted, rtol=1e-3, atol=1e-4)
                y[:, FIRST:].square().sum().backward()
                assert finite(*(p.grad for p in own.values() if p.grad is not None))
            assert finite(dirty.grad)


@pytest.mark.parametrize("name", NAMES)
def test_the_past_and_neighbors_are_not_touched(name, u):
    definition, params = made(name)
    dirty, cu = u.clone(), torch.tensor([0, 10, 20, 20, L])
    dirty[:, 10:20] = float("nan")
    for mode in modes(definition):
        own = with_gradients(params)
        y = definition.apply(own, dirty, mode=mode)
        assert finite(y[:, :10])
        assert torch.isnan(y[:, 10:]).all()
        packed, last = definition.apply(own, dirty, mode=mode, cu_seqlens=cu, return_state=True)
        for x in leaves(last):
            assert finite(x[0], x[2], x[3])
        apart = torch.cat([packed[:, :10], packed[:, 20:]], 1)
        (y[:, :10].square().sum() + apart.square().sum()).backward()
        assert finite(apart, *(p.grad for p in own.values() if p.grad is not None))


def test_resets_in_jax_and_numpy(u):
    jax = pytest.importorskip("jax")
    u = np.asarray(u.numpy()).copy()
    u[:, :FIRST] = np.nan
    reset = np.arange(L)[None] == FIRST
    for name in NAMES:
        definition, params = made(name, np.asarray)
        y = definition.apply(params, u, reset=reset)
        assert np.isfinite(y[:, FIRST:]).all()
        assert np.isnan(y[:, :FIRST]).all()
    for name in IN_JAX:
        definition, params = made(name, jax.numpy.asarray)

        def loss(p, x, definition=definition):
            return (definition.apply(p, x, reset=jax.numpy.asarray(reset))[:, FIRST:] ** 2).sum()

        found = jax.jit(jax.grad(loss, (0, 1)))(params, jax.numpy.asarray(u))
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(found))


@pytest.mark.parametrize("to", [np.asarray, torch.as_tensor])
def test_lengths_of_layers_without_states(to, u):
    """Hyena and S4ND: what lies beyond, and what stands beside."""
    tall = np.asarray(u.numpy().reshape(1, 8, 5, 4))
    for definition, x, n in (
        (layers.Hyena(4, L), u.numpy(), (30,)),
        (layers.S4ND(4, d_state=4), tall, (6, 3)),
        (layers.S4ND(4, d_state=4, bidirectional=False), tall, (6, 3)),
    ):
        params = {k: to(v) for k, v in definition.initial_parameters().items()}
        kept = (slice(None), *map(slice, n))
        dirty = np.full_like(x, np.nan)
        dirty[kept] = x[kept]
        lengths = to(np.asarray([n] if len(n) > 1 else n))
        wanted = definition.apply(params, to(np.ascontiguousarray(x[kept])))
        np.testing.assert_allclose(definition.apply(params, to(dirty), lengths=lengths)[kept], wanted, atol=1e-5)
        if to is not torch.as_tensor:
            continue
        own, dirty = with_gradients(params), to(dirty).requires_grad_()
        definition.apply(own, dirty, lengths=lengths)[kept].square().sum().backward()
        assert finite(dirty.grad, *(p.grad for p in own.values() if p.grad is not None))
    definition = layers.Hyena(4, L)
    params = {k: to(v) for k, v in definition.initial_parameters().items()}
    dirty = u.numpy().copy()
    dirty[:, 10:20] = np.nan
    y = definition.apply(params, to(dirty), cu_seqlens=to(np.asarray([0, 10, 20, L])))
    assert np.isfinite(np.asarray(y))[:, [*range(10), *range(20, L)]].all()
    assert np.isfinite(np.asarray(definition.apply(params, to(dirty)))[:, :10]).all()


def test_functions():
    """Gates, rows and inputs before a reset, in every operator; one channel does not touch another."""
    g = np.random.default_rng(0)
    reset = np.arange(L)[None] == FIRST
    x, rows, dt = g.normal(size=(1, L, 2, 3)), g.normal(size=(1, L, 1, 4)), g.uniform(0.1, 1, (1, L, 2))
    dirty = [np.where(np.arange(L).reshape(1, L, *(1,) * (v.ndim - 2)) < FIRST, np.nan, v) for v in (x, dt, rows, rows)]
    A = -np.ones(2)
    for call in (
        lambda x, dt, B, C, **o: ssm_core.ssd(x, dt, A, B, C, **o),
        lambda x, dt, B, C, **o: ssm_core.mamba3_scan(x, dt, A, B, C, trap=dt, angles=dt[..., None], **o),
    ):
        y, state = call(*dirty, reset=reset, return_state=True)
        wanted, last = call(*(v[:, FIRST:] for v in (x, dt, rows, rows)), return_state=True)
        np.testing.assert_allclose(y[:, FIRST:], wanted, atol=1e-12)
        np.testing.assert_allclose(state[-1], last[-1], atol=1e-12)
    u, steps = (np.moveaxis(v, 1, -1) for v in (dirty[0][:, :, :, 0], dirty[1]))
    y = ssm_core.selective_scan(u, steps, -np.ones((2, 4)), np.ones((2, 4)), np.ones((2, 4)), reset=reset)
    assert np.isfinite(y[..., FIRST:]).all()
    assert np.isnan(y[..., :FIRST]).all()
    one = u.copy()
    one[0, 1] = 1.0
    y = ssm_core.scan(ssm_core.Diagonal(-np.ones(1), np.ones(1), np.ones(1)), one, dt=0.1, reset=reset[:, None])[0]
    assert np.isfinite(y[0, 1]).all()
    assert np.isnan(y[0, 0, :FIRST]).all()
    y, last = ssm_core.causal_conv1d(one, np.ones((2, 3)), reset=reset, return_state=True)
    assert np.isfinite(y[0, 1]).all()
    assert np.isfinite(y[..., FIRST:]).all()
    assert np.isfinite(last).all()


def test_models_and_their_states(u):
    module = pytest.importorskip("ssm_core.adapters").torch
    for pool in (None, "mean", "last"):
        model = module.SequenceModel(4, 2, d_model=4, n_layers=2, layer_options={"d_state": 4}, pool=pool)
        dirty, cu = u.clone(), torch.tensor([0, 10, L])
        dirty[:, :10] = float("nan")
        y = model(dirty, cu_seqlens=cu)
        kept = y[:, 10:] if pool is None else y[1:]
        kept.square().sum().backward()
        assert finite(kept, *(p.grad for p in model.parameters()))
        assert torch.isnan(y[:, :10] if pool is None else y[:1]).all()
    ids = torch.arange(8)[None]
    for model in (
        module.MambaLM(10, d_model=4, n_layers=2, layer_options={"d_state": 4}),
        module.RWKV7LM(10, d_model=4, n_layers=2, layer_options={"head_dim": 4}),
        module.LanguageModel(10, d_model=8, n_layers=1, layer="LocalAttention", layer_options={"heads": 2}),
        module.LanguageModel(10, d_model=4, n_layers=1, layer="MLSTM", layer_options={"heads": 2}),
    ):
        state = tuple(spoilt(s, float("nan")) for s in model.initial_state(1))
        torch.testing.assert_close(model(ids, state=state, reset=ids == 0), model(ids))


@pytest.mark.parametrize("name", NAMES)
def test_states_hold_their_own_numbers(name, u):
    definition, params = made(name)
    cu = torch.tensor([0, 10, L])
    with torch.no_grad():
        found = [definition.apply(params, u, mode=m, return_state=True)[1] for m in modes(definition)]
        found.append(definition.apply(params, u, cu_seqlens=cu, return_state=True)[1])
        found.append(definition.step(params, u[:, 0], definition.initial_state(params, 1))[1])
    for state in found:
        for x in leaves(state):
            assert x.untyped_storage().nbytes() <= x.numel() * x.element_size()


@pytest.mark.parametrize(
    "model",
    [
        models.SaShiMi(11, 4, 1, pool=(2, 2), layer_options={"d_state": 4}),
        models.SequenceModel(4, 2, d_model=4, n_layers=1, layer_options={"d_state": 4}, pool="last"),
        models.SequenceModel(4, 2, d_model=4, n_layers=1, layer_options={"d_state": 4}, pool="mean"),
        models.MambaLM(11, 4, 1, {"d_state": 2}),
    ],
    ids=lambda model: model.name,
)
def test_states_of_models_hold_their_own_numbers(model, u):
    """What a pool has computed for the steps to come is a row or two of all the rows of its run."""
    params = {k: torch.as_tensor(v) for k, v in model.initial_parameters().items()}
    x = u if isinstance(model, models.SequenceModel) else torch.arange(L)[None] % 11
    with torch.no_grad():
        found = [model.apply(params, x, return_state=True)[1]]
        found.append(model.apply(params, x, lengths=torch.tensor([L - 3]), return_state=True)[1])
        found.append(model.step(params, x[:, 0], found[0])[-1])
    for state in found:
        for x in leaves(state):
            assert x.untyped_storage().nbytes() <= x.numel() * x.element_size()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("to", [np.asarray, torch.as_tensor])
def test_dtypes_promote_alike_at_every_length(name, to):
    definition, params = made(name, to)
    found = set()
    for n in (1, 65, 130):
        for mode in modes(definition):
            y, last = definition.apply(params, to(np.ones((1, n, 4))), mode=mode, return_state=True)
            found.add(tuple(str(x.dtype) for x in (y, *leaves(last))))
    y, last = definition.step(params, to(np.ones((1, 4))), definition.initial_state(params, 1))
    found.add(tuple(str(x.dtype) for x in (y, *leaves(last))))
    assert len(found) == 1
    assert all("64" in d or "128" in d or "int" in d for d in next(iter(found)))


@pytest.mark.parametrize("name", ["S4D", "Mamba", "Mamba2", "Mamba3"])
def test_steps_under_autocast(name, u):
    definition, params = made(name)
    state, wanted = definition.initial_state(params, 1), definition.initial_state(params, 1)
    with torch.autocast("cpu", torch.bfloat16):
        step = definition.stepper(params)
        for k in range(5):
            y, state = step(u[:, k], state)
    for k in range(5):
        y_k, wanted = definition.step(params, u[:, k], wanted)
    torch.testing.assert_close(y.float(), y_k, rtol=0.05, atol=0.05)


def test_tokens_that_are_none():
    definition = layers.MambaLM(10, 4, 1, {"d_state": 2})
    first = definition.initial_parameters()
    for token in (-1, 10):
        with pytest.raises(ssm_core.DomainError, match="tokens must lie"):
            definition.apply({k: torch.from_numpy(v) for k, v in first.items()}, torch.tensor([[1, token]]))
    jax = pytest.importorskip("jax")
    params = {k: jax.numpy.asarray(v) for k, v in first.items()}
    with pytest.raises(ssm_core.DomainError, match="tokens must lie"):
        definition.generate(params, jax.numpy.asarray([[1, 10]]), 3)
    run = jax.jit(definition.apply)
    found = [np.asarray(run(params, jax.numpy.asarray([[1, token]])))[0, 1] for token in (-1, 10, 9)]
    assert np.isfinite(found).all()
    assert (found[0] == found[1]).all()
    assert (found[0] != found[2]).any()


def test_softplus_in_double_precision_keeps_its_tail():
    x = np.linspace(20, 40, 41)
    for to in (np.asarray, torch.as_tensor):
        np.testing.assert_array_equal(np.asarray(softplus(to(x)) > to(x)), np.logaddexp(0, x) > x)
        np.testing.assert_allclose(np.asarray(softplus(to(x))), np.logaddexp(0, x), rtol=1e-15)


def test_vmap_over_first_states_of_equal_sizes():
    """Batch, channels and states of one size: the mapped axis is none of them."""
    system = ssm_core.Diagonal(*(torch.linspace(-1, -0.1, 9).reshape(3, 3) for _ in "PBC"))
    u, first = torch.ones(3, 5), torch.arange(27.0).reshape(3, 3, 3)

    def run(x):
        return ssm_core.scan(system, u, dt=0.1, initial=x, mode="scan")[0]

    torch.testing.assert_close(torch.func.vmap(run)(first), torch.stack([run(x) for x in first]))


@pytest.mark.parametrize("per_step", [False, True])
def test_diagonal_scan_before_a_reset(per_step):
    """In values and gradients, of the signal and of the first state, in several sequences."""
    r = np.random.default_rng(0)
    u, first = torch.as_tensor(r.normal(size=(2, L))), torch.as_tensor(r.normal(size=(2, 3)))
    reset = torch.zeros(2, L, dtype=torch.bool)
    reset[0, FIRST] = True
    gate = torch.full((2, L, 3) if per_step else (3,), 0.9, dtype=torch.float64, requires_grad=True)
    one = torch.ones(gate.shape, dtype=torch.float64)

    def run(u, first):
        return ssm_core.diagonal_scan(u, gate, one, one, initial=first, reset=reset, per_step=per_step)

    bad, bad_first = u.clone(), first.clone()
    bad[0, 3], bad_first[0] = float("nan"), float("inf")
    (y, last), (wanted, wanted_last) = run(bad, bad_first), run(u, first)
    assert y[0, :FIRST].isnan().all()
    torch.testing.assert_close(y[0, FIRST:], wanted[0, FIRST:])
    torch.testing.assert_close((y[1], last), (wanted[1], wanted_last))
    y[:, FIRST:].sum().backward()
    assert gate.grad.isfinite().all()
