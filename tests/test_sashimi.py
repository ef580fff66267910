"""SaShiMi: steps are runs, whatever the level; levels below rest; weights and numbers of the original."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import DomainError, DTypeError, OptionError, ShapeError
from ssm_core.files import importers
from ssm_core.models import SaShiMi

Golden = Callable[[str], dict[str, np.ndarray]]
S4D: dict[str, Any] = {"layer": "S4D", "layer_options": {"d_state": 4}}
SMALL: dict[str, Any] = {"vocab_size": 11, "d_model": 4, "n_layers": 1, "pool": (2, 3), **S4D}
FORMS: dict[str, dict[str, Any]] = {
    "two levels": {"n_layers": 2},
    "unet": {"unet": True, "n_layers": 2},
    "unet without channel mixes": {"unet": True, "channel_mix": None, "expand": 1},
    "isotropic": {"pool": ()},
    "gated": {"channel_mix": "gated_mlp", "tied": True, "pool": (4,)},
    "S4": {"layer": "S4", "pool": (2,)},
    "Mamba": {"layer": "Mamba", "layer_options": {"d_state": 3}},
    "RWKV7": {"layer": "RWKV7", "layer_options": {"head_dim": 4, "decay_rank": 2, "a_rank": 2, "gate_rank": 2}},
    "LocalAttention": {"layer": "LocalAttention", "layer_options": {"heads": 1, "window": 3}, "pool": (2,)},
}


def made(**options: Any) -> tuple[SaShiMi, dict[str, np.ndarray]]:
    """A model and parameters that are moved off their zeros."""
    model = SaShiMi(**SMALL | options)
    draw = np.random.default_rng(0)
    first = model.initial_parameters(xp=np, dtype=np.float64)
    return model, {name: p + 0.1 * draw.standard_normal(p.shape) for name, p in first.items()}


def sound(batch: int = 2, length: int = 15) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 11, (batch, length))


def leaves(state: Any) -> list[np.ndarray]:
    return [x for part in state for x in leaves(part)] if isinstance(state, tuple | list) else [state]


def close(actual: Any, expected: Any, limit: float = 1e-9) -> None:
    for a, b in zip(leaves(actual), leaves(expected), strict=True):
        assert np.asarray(a).dtype.kind == np.asarray(b).dtype.kind
        np.testing.assert_allclose(a, b, atol=limit * max(np.abs(b).max(initial=0), 1), rtol=0)


def stepped(model: SaShiMi, params: Any, ids: np.ndarray, state: Any) -> tuple[np.ndarray, list[Any]]:
    """Logits, and the states before every step and behind the last."""
    step, found, states = model.stepper(params), [], [state]
    for k in range(ids.shape[1]):
        logits, state = step(ids[:, k], state)
        found.append(logits)
        states.append(state)
    return np.stack(found, axis=1), states


# Runs and steps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_steps_are_the_run_cut_anywhere(form: str):
    """15 samples are no whole number of pooled steps, 1 is less than one."""
    (model, params), ids = made(**FORMS[form]), sound()
    logits, last = model.apply(params, ids, return_state=True)
    by_steps, states = stepped(model, params, ids, model.initial_state(params, 2))
    close(by_steps, logits)
    close(states[-1], last)
    for cut in (0, 1, 7):
        first, between = model.apply(params, ids[:, :cut], return_state=True)
        close(between, states[cut])
        second, end = model.apply(params, ids[:, cut:], state=between, return_state=True)
        close(np.concatenate([first, second], axis=1), logits)
        close(end, last)


def test_sequences_at_different_samples():
    """Lengths leave every row where it ended, and rows go on side by side, in steps and in runs."""
    (model, params), ids, lengths = made(), sound(4), np.asarray([0, 5, 15, 99])
    padded, state = model.apply(params, ids, lengths=lengths[:3][[0, 1, 2, 2]], return_state=True)
    whole, states = stepped(model, params, ids, model.initial_state(params, 4))
    for b, n in enumerate((0, 5, 15, 15)):
        close(padded[b, :n], whole[b, :n])
        close([x[b] for x in leaves(state)], [x[b] for x in leaves(states[n])])
    by_steps, ends = stepped(model, params, ids[:, :7], state)
    logits, end = model.apply(params, ids[:, :7], state=state, return_state=True)
    close(by_steps, logits)
    close(ends[-1], end)
    alone = model.apply(params, np.concatenate([ids[1:2, :5], ids[1:2, :7]], axis=1))
    close(logits[1], alone[0, 5:])


@pytest.mark.parametrize("form", ["two levels", "unet"])
def test_samples_are_foretold_from_earlier_ones_alone(form: str):
    (model, params), ids = made(**FORMS[form]), sound(1)
    for k in (0, 5, 6, 14):
        other = ids.copy()
        other[0, k] = (other[0, k] + 1) % 11
        change = np.abs(model.apply(params, other) - model.apply(params, ids)).max(axis=(0, 2))
        assert change[:k].max(initial=0) < 1e-12 < change[k]


def test_what_is_generated_is_what_the_run_foretells():
    (model, params), prompt = made(), sound(2, 3)
    tokens = model.generate(params, prompt, 20)
    ids = np.concatenate([prompt, tokens], axis=1)
    np.testing.assert_array_equal(np.argmax(model.apply(params, ids)[:, 2:-1], axis=-1), tokens)
    drawn = model.generate(params, prompt, 20, temperature=1.0, seed=3)
    np.testing.assert_array_equal(drawn, model.generate(params, prompt, 20, temperature=1.0, seed=3))
    assert (drawn != tokens).any()
    stream = model.stream(params, prompt, temperature=1.0, seed=3)
    np.testing.assert_array_equal(np.stack([next(stream) for _ in range(20)], axis=1), drawn)


@pytest.mark.parametrize("form", [{}, {"unet": True}])
def test_levels_below_rest(form: dict[str, Any]):
    """Of 48 steps with pools of 4 and 4 the level below goes on in every fourth, the lowest in every sixteenth."""
    model, params = made(pool=(4, 4), n_layers=2, **form)
    calls: Counter[int] = Counter()

    def counted(layer: Any, own: Any, rate: Any) -> Any:
        step = layer.stepper(own, rate=rate)

        def counting(u: Any, state: Any) -> Any:
            calls[layer.d_model] += 1
            return step(u, state)

        return counting

    step, state, moments = model.stepper_of(params, 1.0, counted), model.initial_state(params, 1), set()
    for sample in sound(1, 48)[0]:
        moments.add(model.moment(state))
        _, state = step(np.asarray([sample]), state)
    assert moments == {(False, False), (True, False), (True, True)}  # one program each for a compiler
    blocks = 4 if form else 2
    assert calls == {4: blocks * 48, 8: blocks * 12, 16: 2 * 3}


def test_a_broken_state_breaks_its_own_row():
    (model, params), ids = made(), sound()
    state = model.apply(params, ids[:, :5], return_state=True)[1]
    (buffer, stored), *rest = state[-1]
    buffer = buffer.copy()
    buffer[0] = np.nan
    logits, after = model.apply(params, ids, state=(*state[:-1], ((buffer, stored), *rest)), return_state=True)
    assert np.isnan(logits[0]).all()
    close(logits[1], model.apply(params, ids, state=state)[1])
    assert after[-1][-1].tolist() == [2, 2]


# Frameworks and files -------------------------------------------------------------------------------------------------


def test_the_same_tokens_in_every_framework(tmp_path: Path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    jax = pytest.importorskip("jax", reason="jax is not installed")
    from ssm_core import adapters

    module = adapters.torch.SaShiMi(**SMALL | {"pool": (2,), "layer": "RGLRU", "layer_options": {}}, dropout=0.5).eval()
    adapters.torch.save(module, tmp_path / "model.safetensors")
    model, params = ssm_core.load(tmp_path / "model.safetensors")
    assert model == module.definition
    prompt, options = sound(2, 4), {"temperature": 1.0, "seed": 1}
    tokens = model.generate(params, prompt, 7, **options)
    np.testing.assert_array_equal(module.generate(torch.from_numpy(prompt), 7, **options).numpy(), tokens)
    flax = adapters.flax.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(np.asarray(flax.generate(jax.numpy.asarray(prompt), 7, **options)), tokens)
    step, state = jax.jit(flax.stepper()), flax.initial_state(2)  # which cannot know which levels go on
    for k in range(4):
        logits, state = step(jax.numpy.asarray(prompt[:, k]), state)
    close(np.asarray(logits), model.apply(params, prompt)[:, -1], 1e-5)


# The original ---------------------------------------------------------------------------------------------------------

ORIGINALS = ("sashimi_nplr_H3_n1_pool2_L16", "sashimi_diag_H2_n2_pool2_3_L24", "sashimi_diag_unet_H2_n1_pool4_L20")


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_original(name: str, golden: Golden):
    """Their features in are an embedding with a row a sample, their features out the first logits."""
    numbers = golden(name)
    (B, L, H), x = numbers["x"].shape, numbers["x"]
    config = json.loads(str(numbers["config_json"]))
    t = {f"model.{n.removeprefix('sd.')}": v for n, v in numbers.items() if n.startswith("sd.")}
    head = np.eye(B * L, H), np.zeros(B * L)
    options = {"length": 0} if config["mode"] == "nplr" else {}
    model, params = importers.from_sashimi(t, embedding=x.reshape(-1, H), head=head, vocab_size=B * L, **options)
    given = {"pool": tuple(config["pool"])} | {n: config[n] for n in ("n_layers", "expand", "ff")}
    assert {n: model.options()[n] for n in given} == given
    ids = np.arange(B * L).reshape(B, L)
    close(model.apply(params, ids)[..., :H], numbers["y"])
    close(stepped(model, params, ids, model.initial_state(params, B))[0][..., :H], numbers["y_step"])


def test_two_originals_are_never_mixed(golden: Golden):
    """Whatever of the second one is missing."""
    t = {n.removeprefix("sd."): v for n, v in golden(ORIGINALS[0]).items() if n.startswith("sd.")}
    for n in t:
        mixed = {f"a.{name}": x for name, x in t.items() if name != n} | {f"b.{n}": t[n]}
        with pytest.raises(OptionError, match="several layers"):
            importers.from_sashimi(mixed, length=0)
        with pytest.raises(OptionError, match="several layers"):
            importers.from_sashimi({f"a.{name}": x for name, x in t.items()} | {f"b.{n}": t[n]}, length=0)


def test_half_precision(golden: Golden):
    """Of PyTorch, with what is around the blocks, which trains."""
    torch = pytest.importorskip("torch")
    t = {n.removeprefix("sd."): torch.from_numpy(v) for n, v in golden(ORIGINALS[1]).items() if n.startswith("sd.")}
    H = len(t["norm.weight"])
    around = [torch.randn(shape, requires_grad=True) for shape in ((5, H), (5, H), (5,))]
    half, whole = (
        importers.from_sashimi(
            {n: x.to(kind).to(end) for n, x in t.items()},
            embedding=around[0].to(kind).to(end),
            head=(around[1].to(kind).to(end), around[2].to(kind).to(end)),
            vocab_size=5,
        )
        for kind, end in ((torch.bfloat16, torch.bfloat16), (torch.bfloat16, torch.float32))
    )
    assert half[0] == whole[0]
    for name, x in whole[1].items():
        assert half[1][name].dtype == np.float32
        np.testing.assert_array_equal(half[1][name], x)


def test_tensors_that_are_no_sashimi(golden: Golden):
    numbers = golden(ORIGINALS[0])
    t = {n.removeprefix("sd."): v for n, v in numbers.items() if n.startswith("sd.")}
    model, params = importers.from_sashimi(t, length=0)
    assert params["lm_head.weight"].shape == (256, 3)
    assert model.apply(params, np.asarray([[128]])).shape == (1, 1, 256)
    for missing, message in (
        ("norm.weight", "missing"),
        ("d_layers.0.linear.bias", "missing"),
        ("c_layers.1.layer.ff.2.bias", "missing"),
        ("c_layers.0.layer.layer.kernel.C", "missing"),
    ):
        with pytest.raises(OptionError, match=message):
            importers.from_sashimi({n: v for n, v in t.items() if n != missing}, length=0)
    with pytest.raises(OptionError, match="surplus"):
        importers.from_sashimi(t | {"encoder.weight": np.zeros((2, 3))}, length=0)
    with pytest.raises(OptionError):
        importers.from_sashimi({n: v for n, v in t.items() if not n.startswith("c_layers")}, length=0)
    with pytest.raises(DTypeError, match="not a dict"):
        importers.from_sashimi([], length=0)


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": 4}, r"pool = 4 must be a tuple of whole numbers, such as \(4, 4\)"),
        ({"pool": (4, 1)}, "pool = 1 must be a whole number of at least 2"),
        ({"expand": 0}, "expand = 0 must be a whole number"),
        ({"ff": 1.5}, "ff = 1.5 must be a whole number"),
        ({"ff": 0}, "ff = 0 .* Use channel_mix=None"),
        ({"unet": 1}, "unet = 1 must be True or False"),
        ({"dropout": 1.0}, r"dropout = 1.0 must lie in \[0, 1\)"),
        ({"channel_mix": "RWKV"}, "channel_mix"),
    ],
)
def test_options(options: dict[str, Any], message: str):
    with pytest.raises(OptionError, match=f"^SaShiMi: .*{message}"):
        SaShiMi(**SMALL | options)


def test_runs_that_pools_cannot_have():
    (model, params), ids = made(), sound()
    for name, given in (
        ("reset", np.zeros(ids.shape, bool)), ("cu_seqlens", np.asarray([0, 15])), ("step_scale", np.ones(ids.shape))
    ):  # fmt: skip
        with pytest.raises(OptionError, match=rf"^SaShiMi: {name} cannot be had with pool = \(2, 3\).*lengths="):
            model.apply(params, ids[:1] if name == "cu_seqlens" else ids, **{name: given})
    isotropic, own = made(pool=())
    packed = isotropic.apply(own, ids[:1], cu_seqlens=np.asarray([0, 6, 15]))
    close(packed[:, 6:], isotropic.apply(own, ids[:1, 6:]))
    both_ways, others = made(layer_options={"d_state": 4, "bidirectional": True})
    assert both_ways.apply(others, ids[:, :12]).shape == (2, 12, 11)
    with pytest.raises(ShapeError, match=r"multiple of 6, the product of pool = \(2, 3\).*Pad the clips"):
        both_ways.apply(others, ids)
    state = model.initial_state(params, 2)
    with pytest.raises(
        ShapeError, match=r"2 pairs of the pools and their count, \(2, 2, 4\), .*\(2,\)\. Start from initial_state"
    ):
        model.apply(params, ids, state=(*state[:-1], state[-1][:1]))
    with pytest.raises(ShapeError, match="tuple of 4 layer states"):
        model.step(params, ids[:, 0], state[:-1])
    with pytest.raises(DomainError, match=r"tokens must lie in \[0, 11\)"):
        model.apply(params, ids + 11)


# Quantization ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["mu_law", "linear"])
def test_quantization_of_the_original(law: str, golden: Golden):
    numbers = golden("quantization")
    np.testing.assert_array_equal(ssm_core.quantize(numbers["x"], law=law, minmax=True), numbers[law])
    close(ssm_core.dequantize(np.arange(256), law=law, dtype=np.float64), numbers[f"{law}_heard"], 1e-7)


@pytest.mark.parametrize("law", ["mu_law", "linear"])
@pytest.mark.parametrize("levels", [2, 256, 65536])
def test_what_is_heard_is_quantized_alike(law: str, levels: int):
    q = np.arange(levels)
    np.testing.assert_array_equal(
        ssm_core.quantize(ssm_core.dequantize(q, law=law, levels=levels), law=law, levels=levels), q
    )


def test_quantization_at_its_ends():
    assert ssm_core.quantize(np.asarray([-9.0, -1.0, 0.0, 1.0, 9.0])).tolist() == [0, 0, 128, 255, 255]
    silent = ssm_core.quantize(np.full((1, 4), 0.3), minmax=True)
    assert silent.tolist() == [[128] * 4]
    assert ssm_core.dequantize(np.asarray([128], np.uint8)).tolist() == [0]
    for error, message, call in (
        (OptionError, "unknown law 'a_law'", lambda: ssm_core.quantize(np.zeros(3), law="a_law")),
        (OptionError, "levels = 1 must be", lambda: ssm_core.dequantize(np.zeros(3, int), levels=1)),
        (DomainError, r"in \[0, 256\) \(smallest: 0, largest: 256", lambda: ssm_core.dequantize(np.asarray([0, 256]))),
        (DomainError, r"in \[0, 16\) \(smallest: -1", lambda: ssm_core.dequantize(np.asarray([-1]), levels=16)),
        (ShapeError, "at least one sample", lambda: ssm_core.quantize(np.zeros((2, 0)), minmax=True)),
        (DomainError, "x holds NaN or inf", lambda: ssm_core.quantize(np.asarray([np.nan]))),
        (DTypeError, "levels of sound are integers", lambda: ssm_core.dequantize(np.zeros(3))),
        (DTypeError, "int16", lambda: ssm_core.quantize(np.zeros(3, np.int16))),
    ):
        with pytest.raises(error, match=message):
            call()


def test_states_that_are_none():
    """Pools of another batch or kind, and lists of numbers."""
    model = SaShiMi(11, 4, 1, layer_options={"d_state": 4})
    params, ids = model.initial_parameters(), np.ones((2, 16), int)
    state = model.initial_state(params, 2)
    (*pools, count) = state[-1]
    for bad, error, message in (
        (model.initial_state(params, 3), ShapeError, r"\(2, 4, 4\).*initial_state\(2\)"),
        ((*state[:-1], (*pools, count + 0.5)), DTypeError, "count of the pools has dtype float64"),
        ((*state[:-1], (*pools, count.tolist())), DTypeError, "is a int, not an array"),
        ((*state[:-1], (*[(b + 1j, s) for b, s in pools], count)), DTypeError, "pool_0 has dtype complex"),
        ((state[0].tolist(), *state[1:]), DTypeError, "is a complex, not an array"),
    ):
        for call in (lambda s: model.apply(params, ids, state=s), lambda s: model.step(params, ids[:, 0], s)):
            with pytest.raises(error, match=message):
                call(bad)
