"""The functions of transformers, with their names for arguments, computed by the operators of this package.

Each has the signature of what it takes the place of, is right for packed sequences, and leaves what only chooses
between implementations aside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, pad, silu, softplus
from transformers.activations import ACT2FN

import ssm_core
from ssm_core._arrays.library import namespace
from ssm_core.functions.short_convolution import short_stepper
from ssm_core.gated.delta_run import step_delta
from ssm_core.gated.state_update import rank_one_update

from .sequences import borders, cached_state, cuts_of

EPSILON = 1e-6  # under the root of the length of a key, as transformers has it


# The short convolution ------------------------------------------------------------------------------------------------


def causal_conv1d_fn(
    hidden_states: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None, **kwargs: Any
) -> Tensor:
    cuts = cuts_of(kwargs)
    cuts.pop("lengths", None)  # no output sees what comes later
    if "reset" in cuts:  # the inputs of the cache come first
        cuts["reset"] = pad(cuts["reset"], (hidden_states.shape[-1] - cuts["reset"].shape[-1], 0))
    y: Any = ssm_core.causal_conv1d(hidden_states, weight, bias, **cuts)
    y = _activated(y, activation)
    if y.requires_grad and y.mT.is_contiguous() and not torch.compiler.is_compiling():
        y.register_hook(_channels_last)
    return y


def _channels_last(dy: Tensor) -> Tensor:
    """The gradient in the order of y: that of its slice has time last, which every pass would read across."""
    return dy.mT.contiguous().mT


def causal_conv1d_update(
    hidden_states: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    u = hidden_states.to(conv_state.dtype)
    before = conv_state[..., conv_state.shape[-1] - weight.shape[-1] + 1 :]  # a tap more is kept than is needed
    if u.shape[-1] == 1:
        y: Any = short_stepper(weight, bias, namespace("causal_conv1d", u=u))(u[..., 0], before)[0][..., None]
    else:
        y = ssm_core.causal_conv1d(u, weight, bias, initial=before)
    conv_state.copy_(torch.cat([conv_state, u], dim=-1)[..., -conv_state.shape[-1] :])
    return _activated(y.to(hidden_states.dtype), activation)


def _activated(y: Tensor, activation: str | None) -> Tensor:
    return y if activation is None else ACT2FN[activation](y)


# Mamba ----------------------------------------------------------------------------------------------------------------


def mamba_selective_scan(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    use_mambapy: bool = False,
    use_associative_scan: bool = False,
    **kwargs: Any,
) -> Tensor | tuple[Tensor, Tensor]:
    options: dict[str, Any] = {"dt_bias": delta_bias, "dt_softplus": delta_softplus, **cuts_of(kwargs)}
    options["initial"] = cached_state((hidden_states.shape[0], *A.shape))
    return ssm_core.selective_scan(hidden_states, dt, A, B, C, D=D, z=z, return_state=return_last_state, **options)


def mamba_selective_state_update(
    state: Tensor,
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    z: Tensor | None = None,
    **kwargs: Any,
) -> Tensor:
    dt = dt if dt_bias is None else dt + dt_bias
    dt = softplus(dt) if dt_softplus else dt
    x = hidden_states.to(state.dtype)
    now, y = rank_one_update(state, dt[..., None] * A, dt * x, B.to(state.dtype), C.to(state.dtype))
    state.copy_(now)
    return _with_skip(y, x, D, z).to(hidden_states.dtype)


def not_fused(*args: Any, **kwargs: Any) -> None:
    """A whole block in one function, which mixers do without where it gives None."""


# Mamba-2 --------------------------------------------------------------------------------------------------------------


def mamba2_chunk_scan(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    return_final_states: bool = False,
    **kwargs: Any,
) -> Tensor | tuple[Tensor, Tensor]:
    options: dict[str, Any] = {"dt_bias": dt_bias, "dt_softplus": dt_softplus, "dt_limit": dt_limit}
    options |= {"D": D, "z": kwargs.get("z"), "initial": initial_states, **cuts_of(kwargs)}
    x = hidden_states.to(torch.promote_types(hidden_states.dtype, torch.float32))  # of what the norm after it is given
    return ssm_core.ssd(x, dt, A, B, C, return_state=return_final_states, **options)


def mamba2_selective_state_update(
    state: Tensor,
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    z: Tensor | None = None,
    **kwargs: Any,
) -> Tensor:
    H, dtype = state.shape[1], state.dtype
    dt = _once(dt) if dt_bias is None else _once(dt) + _once(dt_bias)
    dt, A = softplus(dt) if dt_softplus else dt, _once(_once(A).mT).mT
    x, rows, columns = (v.to(dtype) for v in (hidden_states, B, C))
    rows, columns = (v.repeat_interleave(H // v.shape[1], dim=1) for v in (rows, columns))
    now, y = rank_one_update(state, dt[..., None] * A, dt * x, rows, columns)
    state.copy_(now)
    return _with_skip(y, x, D, z).to(hidden_states.dtype)


def _once(x: Tensor) -> Tensor:
    """One of what the last axis repeats: mixers hand numbers of a head on as views for all of its channels."""
    return x[..., :1] if x.stride(-1) == 0 else x


def _with_skip(y: Tensor, x: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    y = y if D is None else y + D * x
    return y if z is None else y * silu(z)


# Delta rules: one decay a head, and KDA's of every channel ------------------------------------------------------------


def chunk_delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    chunk_size: int = 64,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    dtype = query.dtype
    if use_qk_l2norm_in_kernel:
        query, key = _normalized(query), _normalized(key)
    options: dict[str, Any] = {"initial": initial_state, "return_state": output_final_state, **cuts_of(kwargs)}
    found: Any = ssm_core.gated_delta(query, key, value, g, beta, **options)
    y, state = found if output_final_state else (found, None)
    return y.to(dtype), state


def recurrent_delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    if initial_state is None or query.shape[1] != 1:
        options: dict[str, Any] = {"initial_state": initial_state, "output_final_state": output_final_state, **kwargs}
        options["use_qk_l2norm_in_kernel"] = use_qk_l2norm_in_kernel
        return chunk_delta_rule(query, key, value, g, beta, **options)
    now = {"q": query, "k": key, "v": value, "log_decay": g, "beta": beta}
    now = {name: x[:, 0].to(initial_state.dtype) for name, x in now.items()}
    if use_qk_l2norm_in_kernel:
        now["q"], now["k"] = _normalized(now["q"]), _normalized(now["k"])
    xp = namespace("gated_delta_update", state=initial_state)
    y, state = step_delta(now, initial_state, scale=query.shape[-1] ** -0.5, xp=xp)
    return y[:, None].to(query.dtype), state if output_final_state else None


def _normalized(x: Tensor) -> Tensor:
    """In float32 at least."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return x * torch.rsqrt((x * x).sum(dim=-1, keepdim=True) + EPSILON)


# RecurrentGemma and xLSTM: methods ------------------------------------------------------------------------------------


def rnn_scan(
    self: Any,
    hidden_states: Tensor,
    recurrent_gate: Tensor,
    reset: Tensor,
    recurrent_states: Tensor | None,
    acc_dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    x, gate = hidden_states.to(acc_dtype), (recurrent_gate * ~reset).to(acc_dtype)
    initial = None if recurrent_states is None else recurrent_states.to(x)
    states = ssm_core.linear_scan(gate, x, axis=1, initial=initial)
    return states.to(hidden_states.dtype), states[:, -1].clone()


def mlstm(
    self: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    igate: Tensor,
    fgate: Tensor,
    c_initial: Tensor | None = None,
    n_initial: Tensor | None = None,
    m_initial: Any = None,
    return_last_states: bool | None = None,
    mode: str | None = None,
) -> Any:
    inference = "inference" in (mode or self.config.mode)
    want = inference or (self.config.return_last_states if return_last_states is None else return_last_states)
    q, k, v, log_input, log_decay = (x.transpose(1, 2) for x in (query, key, value, igate, logsigmoid(fgate)))
    initial = None if c_initial is None else (c_initial, n_initial, m_initial[..., 0])
    options: dict[str, Any] = {"normalize": "max", "epsilon": self.config.eps, "initial": initial}
    found: Any = ssm_core.gated_linear_attention(q, k, v, log_decay, log_input=log_input, return_state=want, **options)
    if not want:
        return found.transpose(1, 2)
    y, (c, n, m) = found
    return y.transpose(1, 2), (c, n, m[..., None])


# RWKV and MiniMax: single steps stay theirs ---------------------------------------------------------------------------


def rwkv_linear_attention(original: Callable[..., Any]) -> Callable[..., Any]:
    """Its own kernel, where it has been loaded, keeps what is on a GPU."""

    def rwkv_linear_attention(
        time_decay: Tensor,
        time_first: Tensor,
        key: Tensor,
        value: Tensor,
        state: Any = None,
        return_state: bool = False,
    ) -> tuple[Tensor, Any]:
        has_kernel = key.is_cuda and original.__globals__.get("rwkv_cuda_kernel") is not None
        if key.shape[1] == 1 or has_kernel:
            return original(time_decay, time_first, key, value, state=state, return_state=return_state)
        initial = None if state is None else tuple(x.contiguous() for x in state)
        y, last = ssm_core.rwkv4(key, value, -time_decay.exp(), time_first, initial=initial, return_state=True)
        return y, list(last) if return_state or state is not None else None

    return rwkv_linear_attention


def lightning_attention(original: Callable[..., Any]) -> Callable[..., Any]:
    """Padding neither adds to the state nor lets it decay."""

    def forward(
        self: Any,
        hidden_states: Tensor,
        position_embeddings: Any,
        attention_mask: Tensor | None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        batch, L = hidden_states.shape[:2]
        if L == 1:
            return original(self, hidden_states, position_embeddings, attention_mask, past_key_values, **kwargs)
        qkv, log_decay = self.act_fn(self.qkv_proj(hidden_states)), -self.slope_rate.reshape(-1)
        if attention_mask is not None:
            tokens = attention_mask[..., None].to(qkv.dtype)
            qkv, log_decay = qkv * tokens, log_decay * tokens
        q, k, v = qkv.reshape(batch, L, self.num_attention_heads, 3, self.head_dim).unbind(dim=3)
        initial = None if past_key_values is None else past_key_values.get_linear_cache(self.layer_idx)
        options: dict[str, Any] = {"initial": initial, "reset": borders(hidden_states, kwargs), "scale": 1.0}
        y, state = ssm_core.gated_linear_attention(q, k, v, log_decay, return_state=True, **options)
        y = self.norm(y.reshape(batch, L, -1))
        y, state = self.out_proj(torch.sigmoid(self.output_gate(hidden_states)) * y), state.to(v.dtype)
        if past_key_values is not None:
            past_key_values.set_linear_cache(self.layer_idx, state)
        return y, state

    return forward
