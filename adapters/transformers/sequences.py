"""Where the sequences begin and end that a mixer of transformers runs over, for the functions that it calls.

A mixer knows the padding of its batch, the borders of packed sequences and its cache; not all of that reaches the
functions that it computes with. `over_sequences` wraps its forward, and notes it down for them.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ssm_core._arrays.errors import OptionError, ShapeError
from ssm_core._arrays.library import namespace
from ssm_core.functions.short_convolution import last_inputs
from ssm_core.recurrences.segments import starts_of


@dataclass(frozen=True, eq=False)
class Sequences:
    """What cuts the batch of a mixer, by the names that the operators have for it.

    reset    bool (batch, L): a packed sequence begins at that step
    lengths  integer (batch,): what lies beyond is padding
    initial  the state in the cache, which the selective scan of transformers is not given
    """

    reset: Tensor | None = None
    lengths: Tensor | None = None
    initial: Tensor | None = None

    @property
    def cuts(self) -> dict[str, Tensor]:
        return {name: x for name, x in (("reset", self.reset), ("lengths", self.lengths)) if x is not None}


PACKING = ("seq_idx", "cu_seq_lens_q")  # what says that sequences are packed, in the forward of a mixer
_noted = threading.local()  # not a ContextVar, which torch.compile(fullgraph=True) does not trace


def cuts_of(call: dict[str, Any]) -> dict[str, Tensor]:
    """What cuts the sequences of an operator: noted by its mixer, or else `seq_idx` or `cu_seqlens` of the call."""
    sequences = _sequences()
    if sequences is not None:
        return sequences.cuts
    if call.get("seq_idx") is not None:
        return {"reset": _changes(call["seq_idx"])}
    return {} if call.get("cu_seqlens") is None else {"cu_seqlens": call["cu_seqlens"]}


def cached_state(shape: tuple[int, ...]) -> Tensor | None:
    """The state that the mixer's cache holds, where it has this shape."""
    sequences = _sequences()
    state = None if sequences is None else sequences.initial
    return state if state is not None and tuple(state.shape) == shape else None


def _sequences() -> Sequences | None:
    return getattr(_noted, "sequences", None)


def handing_on(original: Callable[..., Any]) -> Callable[..., Any]:
    """The forward of what is given `seq_idx` or `cu_seq_lens_q`, and does not give them to its mixers."""

    @functools.wraps(original)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        packing = {name: kwargs[name] for name in PACKING if kwargs.get(name) is not None}
        if not packing:
            return original(self, *args, **kwargs)
        if self.training and any(getattr(m, "gradient_checkpointing", False) for m in self.modules() if m is not self):
            raise OptionError(
                f"{type(self).__name__}: {' and '.join(packing)} do not reach the blocks that gradient checkpointing "
                "computes again. Call activation_checkpointing_disable(), or give the sequences as rows of a batch."
            )
        before, _noted.packing = getattr(_noted, "packing", {}), packing
        try:
            return original(self, *args, **kwargs)
        finally:
            _noted.packing = before

    return forward


def attending_apart(original: Callable[..., Any]) -> Callable[..., Any]:
    """The forward of a model whose attention, but for flash attention, does not see where packed sequences begin."""
    names = list(inspect.signature(original).parameters)[1:]

    @functools.wraps(original)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = dict(zip(names, args, strict=False)) | kwargs
        given = call.get("input_ids") if call.get("input_ids") is not None else call.get("inputs_embeds")
        starts = None if given is None or call.get("attention_mask") is not None else _borders(given, call)
        if starts is not None and self.config._attn_implementation in ("eager", "sdpa"):
            segment = starts.cumsum(dim=1)
            seen = (segment[:, :, None] == segment[:, None, :]).tril()[:, None]
            call["attention_mask"] = torch.where(seen, 0.0, torch.finfo(self.dtype).min).to(self.dtype)
        return original(self, **call)

    return forward


def over_sequences(original: Callable[..., Any]) -> Callable[..., Any]:
    """The forward of a mixer, right for packed sequences, for padding on any side, and for what its cache then holds.

    With a cache, tokens are moved before their padding, so that what counts is one stretch behind the state.
    """

    @functools.wraps(original)
    def forward(
        self: Any, hidden_states: Tensor, cache_params: Any = None, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> Any:
        return _over(original, self, hidden_states, cache_params, attention_mask, kwargs)

    return forward


def over_sequences_of_attention(original: Callable[..., Any]) -> Callable[..., Any]:
    """`over_sequences` of a mixer that calls its cache as attention does.

    Its maps may have biases, which are no zeros at padding: tokens are moved before their padding without a cache too.
    """

    @functools.wraps(original)
    def forward(
        self: Any,
        hidden_states: Tensor,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        return _over(original, self, hidden_states, past_key_values, attention_mask, kwargs, biased=True)

    return forward


def _over(
    original: Callable[..., Any],
    mixer: Any,
    x: Tensor,
    cache: Any,
    mask: Tensor | None,
    call: dict[str, Any],
    biased: bool = False,
) -> Any:
    L = x.shape[1]
    if L == 1:
        return original(mixer, x, cache, mask, **call)
    initial = None if cache is None else cache.get_recurrent_state(mixer.layer_idx)
    zeros = not biased and cache is not None and cache.get_conv_state(mixer.layer_idx) is None
    order, lengths, reset = None, None, borders(x, call)
    if (biased or cache is not None) and mask is not None and _padded(mask, L, zeros):
        tokens = mask.bool()
        order = torch.argsort((~tokens).to(torch.int8), dim=1, stable=True)
        x = x.take_along_dim(order[..., None], 1)
        mask, lengths = mask.take_along_dim(order, 1), tokens.sum(dim=1)
        reset = None if reset is None else reset.take_along_dim(order, 1)
    sequences = Sequences(reset, lengths, initial)
    if cache is not None and sequences.cuts:
        cache = _EndingWith(cache, sequences)
    before, _noted.sequences = _sequences(), sequences
    try:
        y = original(mixer, x, cache, mask, **call)
    finally:
        _noted.sequences = before
    return y if order is None else y.take_along_dim(order.argsort(dim=1)[..., None], 1)


def borders(hidden_states: Tensor, call: dict[str, Any]) -> Tensor | None:
    """Whether a packed sequence begins at a step, bool (batch, L), by the call of a mixer or what was handed on."""
    return _borders(hidden_states, call | getattr(_noted, "packing", {}))


def _borders(hidden_states: Tensor, call: dict[str, Any]) -> Tensor | None:
    """Whether a packed sequence begins at a step: bool (batch, L)."""
    batch, L = hidden_states.shape[:2]
    if call.get("seq_idx") is not None:
        return _changes(call["seq_idx"])
    cu_seqlens = call.get("cu_seq_lens_q")
    if cu_seqlens is None:
        return None
    if batch != 1:
        raise ShapeError(f"cu_seq_lens_q packs one row, but the batch has {batch}: give seq_idx (batch, L) instead.")
    return starts_of(cu_seqlens, L, namespace("starts_of", cu_seqlens=cu_seqlens))


def _changes(seq_idx: Tensor) -> Tensor:
    return pad(seq_idx[:, 1:] != seq_idx[:, :-1], (1, 0))


def _padded(mask: Tensor, L: int, zeros: bool) -> bool:
    """Whether padding meets a state. Before the first token of a fresh cache it does not, where it leaves zeros."""
    if mask.ndim != 2 or mask.shape[1] != L:
        return False
    return torch.compiler.is_compiling() or not bool((mask[:, -1] if zeros else mask).all())


class _EndingWith:
    """A cache whose short convolutions end with the last token of each row, and begin with that token's sequence."""

    def __init__(self, cache: Any, sequences: Sequences) -> None:
        self._cache, self._sequences = cache, sequences

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def update_conv_state(self, conv_states: Tensor, layer_idx: int, state_idx: int = 0, **kwargs: Any) -> Tensor:
        seen: Tensor = self._cache.update_conv_state(conv_states, layer_idx, state_idx, **kwargs)
        if not self._cache.is_recording_past(layer_idx):
            state, s = self._cache.get_conv_state(layer_idx, state_idx), self._sequences
            n, L = state.shape[-1], conv_states.shape[-1]
            x = pad(seen, (n, 0))[..., -(n + L) :].transpose(1, 2)  # n inputs before the first, as far as there are
            segment = None if s.reset is None else pad(s.reset.cumsum(dim=1), (n, 0))
            state.copy_(last_inputs(x, segment, n, s.lengths, namespace("last_inputs", x=x)))
        return seen
