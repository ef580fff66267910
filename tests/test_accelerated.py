"""Models of transformers with `accelerate` and without: the same numbers, and the right ones where transformers refuses
or errs. Runs where transformers is installed: `nox -s transformers`."""

from __future__ import annotations

import os
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is downloaded

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed: nox -s transformers runs these tests")

import torch
from accelerated import PADDED, RECURRENT, TYPES, gradients, model_of
from transformers.models.mamba2 import modeling_mamba2 as mamba2
from transformers.models.qwen3_next import modeling_qwen3_next as qwen3_next

import ssm_core
from ssm_core.adapters.transformers import MODELS, accelerate, restore

each_type = pytest.mark.parametrize("name", TYPES)
each_padded = pytest.mark.parametrize("name", PADDED)


@pytest.fixture(autouse=True)
def unchanged() -> Any:
    yield
    restore()


def close(found: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    """To the roundings of float32."""
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance * float(wanted.detach().abs().max()) + 1e-9)


def close_gradients(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    largest = max(float(g.abs().max()) for g in wanted.values())
    for name, g in wanted.items():
        torch.testing.assert_close(found[name], g, rtol=1e-4, atol=2e-5 * largest, msg=lambda m, n=name: f"{n}: {m}")


@each_type
def test_the_same_numbers(name: str):
    """Loss and gradients, logits, and generated text with its cached logits; more steps than a chunk has."""
    model = model_of(name)
    ids = torch.randint(2, 43, (2, 37), generator=torch.Generator().manual_seed(0))

    def numbers() -> Any:
        loss = model.train()(ids, labels=ids, use_cache=False).loss
        loss.backward()
        with torch.no_grad():
            logits = model.eval()(ids).logits
            options = {"max_new_tokens": 8, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
            text = model.generate(ids[:, :20], **options)
        return loss.detach(), logits, torch.stack(text.logits), text.sequences, gradients(model)

    *wanted, tokens, of_parameters = numbers()
    with accelerate() as done:
        *found, chosen, slopes = numbers()
    assert not done.left
    assert torch.equal(chosen, tokens)
    for x, y in zip(found, wanted, strict=True):
        close(x, y)
    close_gradients(slopes, of_parameters)


# Padding --------------------------------------------------------------------------------------------------------------

LENGTHS = (23, 2, 14, 9)  # some shorter than the convolution


def turns(name: str) -> tuple[list[Any], Any]:
    """The prompts of four sequences, and what follows them: a turn of three tokens, and single ones."""
    g = torch.Generator().manual_seed(1)
    return [torch.randint(2, 43, (n,), generator=g) for n in LENGTHS], torch.randint(2, 43, (4, 4), generator=g)


def continued(model: Any, name: str, ids: Any, mask: Any, cache: Any) -> tuple[Any, Any]:
    """Logits, and the cache after them; mask (batch, all steps so far)."""
    key = "cache_params" if name in RECURRENT else "past_key_values"
    more = {} if name in RECURRENT else {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]}
    if not (name in RECURRENT and ids.shape[1] == 1):
        more["attention_mask"] = mask[:, -ids.shape[1] :] if name in RECURRENT else mask
    out = model(ids, **{key: cache}, use_cache=True, **more)
    return out.logits, out[key]


def alone(model: Any, name: str, row: Any, then: Any) -> Any:
    """Logits of the last token of a prompt, and of single tokens after it."""
    mask, cache, found = torch.ones(1, 0, dtype=torch.long), None, []
    for ids in (row, *then.unbind()):
        ids = ids.reshape(1, -1)
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        logits, cache = continued(model, name, ids, mask, cache)
        found.append(logits[0, -1])
    return torch.stack(found)


@each_padded
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padded_prompts_are_continued_as_if_alone(name: str, side: str):
    model, (rows, then) = model_of(name).eval(), turns(name)
    wanted = torch.stack([alone(model, name, row, after) for row, after in zip(rows, then, strict=True)])
    L = max(LENGTHS)
    ids, mask = torch.zeros(4, L, dtype=torch.long), torch.zeros(4, L, dtype=torch.long)
    for i, row in enumerate(rows):
        at = slice(L - len(row), L) if side == "left" else slice(len(row))
        ids[i, at], mask[i, at] = row, 1
    with accelerate():
        logits, cache = continued(model, name, ids, mask, None)
        last = torch.tensor(LENGTHS) - 1 if side == "right" else torch.full((4,), L - 1)
        found = [logits[torch.arange(4), last]]
        for k in range(then.shape[1]):
            mask = torch.cat([mask, torch.ones(4, 1, dtype=torch.long)], dim=1)
            logits, cache = continued(model, name, then[:, k : k + 1], mask, cache)
            found.append(logits[:, -1])
    close(torch.stack(found, dim=1), wanted)


@pytest.mark.parametrize("name", ["Mamba", "Mamba2", "Qwen3Next", "KimiLinear"])
@torch.no_grad()
def test_padded_turns_go_on_from_a_cache(name: str):
    """Several tokens at a time, with padding before, behind and between."""
    model, (rows, then) = model_of(name).eval(), turns(name)
    wanted = torch.stack([alone(model, name, row[:2], after)[-1] for row, after in zip(rows, then, strict=True)])
    first = torch.stack([row[:2] for row in rows])
    mask = torch.tensor([[0, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [1, 0, 1, 0, 1, 1]])
    ids = torch.zeros_like(mask)
    ids[mask == 1] = then.reshape(-1)
    with accelerate():
        both = torch.cat([torch.ones_like(first), mask], dim=1)
        _, cache = continued(model, name, first, torch.ones_like(first), None)
        logits, _ = continued(model, name, ids, both, cache)
    last = (mask * torch.arange(6)).argmax(dim=1)
    close(logits[torch.arange(4), last], wanted)


# Packed sequences -----------------------------------------------------------------------------------------------------


def packed(lengths: tuple[int, ...]) -> tuple[Any, dict[str, dict[str, Any]]]:
    """Tokens of several sequences in one row, and how it is said where they end."""
    ids = torch.randint(2, 43, (1, sum(lengths)), generator=torch.Generator().manual_seed(2))
    seq_idx = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None].int()
    ends = torch.tensor([0, *lengths]).cumsum(0).int()
    longest = max(lengths)
    flash = {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}
    return ids, {"seq_idx": {"seq_idx": seq_idx}, "cu_seq_lens": flash}


@each_padded
def test_packed_sequences_are_apart(name: str):
    """As a loop over them, in logits and gradients. Transformers refuses them on a CPU, or lets them leak."""
    model, lengths = model_of(name), (9, 1, 14, 3, 20)
    ids, ways = packed(lengths)
    weights = torch.randn(1, sum(lengths), 43, generator=torch.Generator().manual_seed(3))
    wanted = torch.cat([model(row, use_cache=False).logits for row in ids.split(lengths, dim=1)], dim=1)
    (wanted * weights).sum().backward()
    slopes = gradients(model)
    for given in ways.values():
        with accelerate():
            logits = model(ids, use_cache=False, **given).logits
            with torch.no_grad():
                close(model.eval()(ids, use_cache=True, **given).logits, wanted.detach())
        close(logits, wanted)
        (logits * weights).sum().backward()
        close_gradients(gradients(model), slopes)


def test_the_cache_after_packed_sequences_is_that_of_the_last():
    model, lengths = model_of("Mamba2").eval(), (9, 2)  # the last is shorter than the convolution
    ids, ways = packed(lengths)
    with torch.no_grad(), accelerate():
        cache = model(ids, use_cache=True, **ways["seq_idx"]).cache_params
        found = model(ids[:, :1], cache_params=cache, use_cache=True).logits
        cache = model(ids[:, 9:], use_cache=True).cache_params
        close(found, model(ids[:, :1], cache_params=cache, use_cache=True).logits)


def test_packed_sequences_under_gradient_checkpointing():
    """Right where blocks are given what is packed; refused where they are not, and would compute something else."""
    ids, ways = packed((5, 8))
    model = model_of("Bamba").train()
    model.activation_checkpointing_enable()
    with accelerate():
        found = model(ids, use_cache=False, **ways["seq_idx"], labels=ids).loss
        found.backward()
        slopes = gradients(model)
        model.activation_checkpointing_disable()
        model(ids, use_cache=False, **ways["seq_idx"], labels=ids).loss.backward()
        close_gradients(slopes, gradients(model))
        model = model_of("Mamba").train()
        model.activation_checkpointing_enable()
        with pytest.raises(
            ssm_core.OptionError, match=r"seq_idx do not reach the blocks.*activation_checkpointing_disable"
        ):
            model(ids, use_cache=False, **ways["seq_idx"])


def test_functions_called_by_themselves():
    """With states for each of the packed sequences, as the original kernels have them."""
    g = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(1, 12, 2, 4, generator=g) for _ in range(3))
    decay, beta = -torch.rand(1, 12, 2, generator=g), torch.rand(1, 12, 2, generator=g)
    options = {"output_final_state": True, "use_qk_l2norm_in_kernel": True}
    parts = [qwen3_next.torch_chunk_gated_delta_rule(*(x[:, s] for x in (q, k, v, decay, beta)), **options)
             for s in (slice(5), slice(5, 12))]  # fmt: skip
    with accelerate("qwen3_next"):
        ends = torch.tensor([0, 5, 12])
        y, state = qwen3_next.torch_chunk_gated_delta_rule(q, k, v, decay, beta, cu_seqlens=ends, **options)
    close(y, torch.cat([y for y, _ in parts], dim=1))
    close(state, torch.cat([state for _, state in parts]))


# What is replaced, and what is not ------------------------------------------------------------------------------------


def test_all_of_it_is_put_back():
    before = dict(vars(mamba2)), mamba2.Mamba2Mixer.forward
    outer = accelerate("mamba2")
    assert "transformers.models.mamba2.modeling_mamba2.mamba2_chunk_scan" in outer.replaced
    with accelerate() as inner:
        assert not [place for place in inner.replaced if "mamba2.modeling" in place]
    assert mamba2.mamba2_chunk_scan is not before[0]["mamba2_chunk_scan"]  # the inner one did not put back the outer's
    restore()
    assert (dict(vars(mamba2)), mamba2.Mamba2Mixer.forward) == before
    with pytest.raises(RuntimeError), accelerate("mamba2"):
        raise RuntimeError
    assert dict(vars(mamba2)) == before[0]


def test_what_is_not_as_expected_is_left_with_a_warning(monkeypatch: pytest.MonkeyPatch):
    """A function that is gone, one that takes something else, and a model that there is not."""

    def changed(hidden_states: Any, weight: Any, something_new: Any = None) -> None: ...

    monkeypatch.setattr(mamba2, "causal_conv1d_fn", changed)
    monkeypatch.delattr(mamba2, "mamba2_chunk_scan")
    monkeypatch.setitem(MODELS, "future", MODELS["mamba2"][:1])
    with pytest.warns(UserWarning, match=r"(?s)keeps its own of.*causal_conv1d_fn: it takes .*something_new.*future"):
        done = accelerate("mamba2", "future")
    place = "transformers.models.mamba2.modeling_mamba2."
    assert done.left[f"{place}mamba2_chunk_scan"] == "it is not there"
    assert mamba2.causal_conv1d_fn is changed
    assert f"{place}causal_conv1d_update" in done.replaced
    with pytest.raises(ssm_core.OptionError, match=r"unknown model 'mamba3'. Known: .*'mamba2'"):
        accelerate("mamba3")


def test_what_others_have_replaced_since_stays():
    original = mamba2.causal_conv1d_fn
    accelerate("mamba2")
    try:
        mamba2.causal_conv1d_fn = theirs = lambda *args, **kwargs: None
        with pytest.warns(UserWarning, match="causal_conv1d_fn was replaced once more since accelerate"):
            restore()
        assert mamba2.causal_conv1d_fn is theirs
    finally:
        mamba2.causal_conv1d_fn = original


def test_original_kernels_keep_what_is_not_on_a_cpu(monkeypatch: pytest.MonkeyPatch):
    calls = []
    is_new_implementation = True

    def kernel(hidden_states: Any, weight: Any, bias: Any = None, activation: Any = None, **kwargs: Any) -> Any:
        calls.append(is_new_implementation)
        return hidden_states

    monkeypatch.setattr(mamba2, "causal_conv1d_fn", kernel)
    u, w = torch.ones(1, 2, 3), torch.ones(2, 4)
    with accelerate("mamba2"):
        assert float(mamba2.causal_conv1d_fn(u, w)[0, 0, 2]) == 3
        assert not calls
        mamba2.causal_conv1d_fn(u.to("meta"), w.to("meta"))
    assert calls == [True]
