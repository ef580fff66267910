"""Language models of PyTorch's own embedding, norm and linear map around the blocks of Mamba."""

from __future__ import annotations

import os
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ssm_core import layers, models
from ssm_core._arrays.errors import OptionError
from ssm_core._arrays.library import namespace
from ssm_core.files import pretrained
from ssm_core.models import generation

from .mamba import MIXERS


class _Block(nn.Module):
    """norm, mixer; the model adds the residual."""

    def __init__(self, definition: models.LanguageModel, device: Any, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(definition.d_model, eps=definition.epsilon, device=device, dtype=dtype)
        self.mixer = MIXERS[definition.layer](**definition.block().options(), device=device, dtype=dtype)

    def forward(self, x: Tensor, **options: Any) -> Any:
        return self.mixer(self.norm(x), **options)

    def stepper(self) -> layers.Stepper:
        step = self.mixer.stepper()
        return lambda x, state: step(self.norm(x), state)


class _Embedding(nn.Embedding):
    """Drawn like the definition draws it, whenever it is; takes bytes and other integers too."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=models.language_model.EMBEDDING_STD)

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids if ids.dtype in (torch.int32, torch.int64) else ids.long())


class _Head(nn.Linear):
    """Drawn like the definition draws it, whenever it is."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=models.language_model.EMBEDDING_STD)


class _Backbone(nn.Module):
    """Embedding, blocks and last norm."""

    def __init__(self, definition: models.LanguageModel, device: Any, dtype: torch.dtype | None) -> None:
        super().__init__()
        d = definition
        self.embeddings = _Embedding(d.vocab_size, d.d_model, device=device, dtype=dtype)
        self.layers = nn.ModuleList(_Block(d, device, dtype) for _ in range(d.n_layers))
        self.norm_f = nn.RMSNorm(d.d_model, eps=d.epsilon, device=device, dtype=dtype)


class LanguageModule(nn.Module):
    """What the language models share."""

    definition: models.LanguageModel
    kind: ClassVar[type[models.LanguageModel]]

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 256,
        n_layers: int = 4,
        *,
        layer_options: dict[str, Any] | None = None,
        tied: bool = True,
        epsilon: float = 1e-05,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.definition = self.kind(vocab_size, d_model, n_layers, layer_options or {}, tied, epsilon)
        self.backbone = _Backbone(self.definition, device, dtype)
        self.lm_head = None if tied else _Head(d_model, vocab_size, bias=False, device=device, dtype=dtype)

    def forward(
        self,
        ids: Tensor,
        *,
        state: Any = None,
        return_state: bool = False,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        mode: str = "auto",
        recompute: int | None = None,
    ) -> Any:
        """Logits (B, L, V) from ids (B, L); with return_state (logits, state). Options as the definition's `apply`."""
        namespace(self.definition.name, ids=ids, embeddings=self.backbone.embeddings.weight)
        return self.definition.compose(
            ids, *self._parts(), state=state, return_state=return_state, lengths=lengths, reset=reset,
            cu_seqlens=cu_seqlens, mode=mode, recompute=recompute,
        )  # fmt: skip

    def arrays(self) -> dict[str, Tensor]:
        """The parameters by name."""
        return dict(self.named_parameters())

    def initial_state(self, batch: int) -> Any:
        """The states of all blocks."""
        return self.definition.initial_state(self.arrays(), batch)

    def step(self, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
        """(logits (B, V), state) from ids (B,) and the state before them. To take many steps, hold the `stepper`."""
        return self.stepper()(ids, state)

    def stepper(self) -> layers.Stepper:
        """A function (ids, state) -> (logits, state) that holds what does not change between steps."""
        embed, _, norm, head = self._parts()
        blocks: Any = self.backbone.layers
        steps = [block.stepper() for block in blocks]

        def step(ids: Tensor, state: Any) -> tuple[Tensor, Any]:
            namespace(f"{self.definition.name}.step", ids=ids, embeddings=self.backbone.embeddings.weight)
            self.definition.check_step(ids, state)
            return self.definition.compose_step(ids, state, embed, steps, norm, head)

        return step

    @torch.no_grad()
    def generate(
        self,
        ids: Tensor,
        n_tokens: int,
        *,
        lengths: Tensor | None = None,
        padding: str = "right",
        state: Any = None,
        return_state: bool = False,
        **options: Any,
    ) -> Any:
        """n_tokens tokens (B, n_tokens) that go on from ids (B, L). Options as the definition's `generate`."""
        namespace(self.definition.name, ids=ids, lengths=lengths, embeddings=self.backbone.embeddings.weight)
        prompt = self.definition.compose_prefill(ids, *self._parts(), lengths=lengths, padding=padding, state=state)
        tokens, state = generation.generate(*prompt, self.stepper(), n_tokens, **options)
        return (tokens, state) if return_state else tokens

    @classmethod
    def from_pretrained(
        cls, directory: str | os.PathLike[str], *, device: Any = None, dtype: torch.dtype | None = None
    ) -> Self:
        """The model of a directory with config.json and safetensors files. As `ssm_core.from_pretrained`."""
        definition, tensors = pretrained.read(directory)
        if not isinstance(definition, cls.kind):
            raise OptionError(f"{cls.__name__}.from_pretrained: {os.fspath(directory)!r} holds a {definition.name}.")
        loaded = cls(**definition.options(), device=device, dtype=dtype)
        loaded.load_state_dict({name: torch.from_numpy(x) for name, x in tensors.items()})
        return loaded

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write the directory that `from_pretrained`, and transformers, read. As `ssm_core.save_pretrained`."""
        pretrained.save_pretrained(self.definition, self.arrays(), directory)

    def _parts(self) -> tuple[Any, Any, Any, Any]:
        backbone, head = self.backbone, self.lm_head
        if head is None:
            return backbone.embeddings, backbone.layers, backbone.norm_f, self._tied_head
        return backbone.embeddings, backbone.layers, backbone.norm_f, head

    def _tied_head(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.backbone.embeddings.weight)


class MambaLM(LanguageModule):
    """The language model of Mamba. Options as `ssm_core.models.MambaLM`.

    >>> import torch
    >>> model = MambaLM(vocab_size=10, d_model=8, n_layers=2)
    >>> model(torch.tensor([[1, 2, 3]])).shape, model.generate(torch.tensor([[1, 2, 3]]), 5).shape
    (torch.Size([1, 3, 10]), torch.Size([1, 5]))
    """

    kind = models.MambaLM


class Mamba2LM(LanguageModule):
    """The language model of Mamba-2. Options as `ssm_core.models.Mamba2LM`.

    >>> import torch
    >>> Mamba2LM(vocab_size=10, d_model=8, n_layers=2, layer_options={"head_dim": 4})(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 10])
    """

    kind = models.Mamba2LM


class Mamba3LM(LanguageModule):
    """The language model of Mamba-3. Options as `ssm_core.models.Mamba3LM`.

    >>> import torch
    >>> Mamba3LM(vocab_size=10, d_model=8, n_layers=2, layer_options={"head_dim": 4})(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 10])
    """

    kind = models.Mamba3LM
