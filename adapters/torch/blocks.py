"""Models of PyTorch's own embedding, norms, linear maps and dropout around layers; definitions compose them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch
from torch import Tensor, nn

from ssm_core import layers, models
from ssm_core._arrays.errors import OptionError
from ssm_core._arrays.library import namespace
from ssm_core.files import pretrained
from ssm_core.files.functions import check_blocks
from ssm_core.layers.parameters import Parameter
from ssm_core.models import generation, sampling
from ssm_core.models.parts import Parts

from .base import BASES, MODULES, Called, module, redraw
from .mixes import mix_module
from .norms import norm_module
from .places import described, layer_of
from .projections import arrays_of, held, innermost, part_at, placed, sharded
from .tokens import Embedding, Head


class Block(nn.Module):
    """norm, mixer, dropout, and maybe a channel mix, each with its residual."""

    def __init__(self, definition: models.Block, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.definition = definition
        norms, mix = definition.norms(), definition.mix()
        self.norm = norm_module(norms["norm"], device, dtype)
        self.add_module(definition.mixer_name, module(definition.mixer(), device=device, dtype=dtype))
        self.channel_norm = None if mix is None else norm_module(norms["channel_norm"], device, dtype)
        self.channel_mix = None if mix is None else mix_module(mix, device, dtype)
        self.dropout = None if definition.dropout is None else nn.Dropout(definition.dropout)

    def forward(self, x: Tensor, **options: Any) -> Any:
        """x (B, L, H) through the block; with return_state (x, state). Options as those of the layer."""
        return self.definition.composed(self._modules | self.layers(), self.dropout).run(x, **options)

    def stepper(self, *, rate: Any = 1.0) -> layers.Stepper:
        """A function (x (B, H), state) -> (x, state)."""
        steps = {name: layer.stepper(rate=rate) for name, layer in self.layers().items()}
        return self.definition.composed(self._modules | steps).step

    def layers(self) -> dict[str, Any]:
        """What has a state, by name."""
        return {name: layer_of(getattr(self, name), self.definition, name) for name in self.definition.layers()}

    def initial_state(self, batch: int) -> Any:
        """The state before the first step."""
        return self.definition.start([layer.initial_state for layer in self.layers().values()])(batch)

    @property
    def mixer_module(self) -> Any:
        """The layer along time."""
        return getattr(self, self.definition.mixer_name)


class ModelModule(Called):
    """What the modules of models share: the definition composes the parts that a subclass has."""

    definition: models.Model

    def __init__(self, definition: models.Model) -> None:
        super().__init__()
        self.definition = definition

    def ends(self) -> tuple[Any, Any, Any]:
        """What makes features of inputs, the blocks, and what makes outputs of features."""
        raise NotImplementedError

    def any_parameter(self) -> Tensor:
        """Any parameter that inputs meet, for its device."""
        weight = getattr(self.ends()[0], "weight", None)
        return placed(weight, self) if isinstance(weight, Tensor) else self.mixers()[0].any_parameter()

    def mixers(self) -> list[Any]:
        """The layers along time."""
        return [block.mixer_module for block in self.ends()[1]]

    def parts(self, blocks: Any) -> Parts:
        """The model around runs or steps of its blocks."""
        enter, _, leave = self.ends()
        return Parts(enter, blocks, leave)

    def forward(
        self,
        u: Tensor,
        *,
        state: Any = None,
        return_state: bool = False,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        rate: Any = 1.0,
        step_scale: Tensor | None = None,
        mode: str = "auto",
        recompute: int | None = None,
    ) -> Any:
        """The outputs for u (B, L, d_input), of a language model logits (B, L, V) for tokens (B, L); with return_state
        (outputs, state). Options as the definition's `apply`."""
        self._check(u)

        def run() -> Any:
            return self.definition.compose(
                u,
                self.parts(self.ends()[1]),
                state=state,
                return_state=return_state,
                lengths=lengths,
                reset=reset,
                cu_seqlens=cu_seqlens,
                rate=rate,
                step_scale=step_scale,
                mode=mode,
                recompute=recompute,
            )

        return self.around(run)

    def around(self, run: Callable[[], Any]) -> Any:
        """What a function of the parts gives, within the calls of those that a tool wraps."""
        return run()

    def arrays(self) -> dict[str, Tensor]:
        """The parameters by name, as they are used: normalized, pruned, shared or replicated ones too."""
        check_blocks(self.definition, len(self.ends()[1]))
        shapes: dict[str, dict[str, tuple[int, ...]]] = {}
        for p in self.definition.parameters():
            owner, _, leaf = p.name.rpartition(".")
            shapes.setdefault(owner, {})[leaf] = p.shape
        found = {o: arrays_of(part_at(self, o), own, f"{self.definition.name}.{o}") for o, own in shapes.items()}
        return {f"{owner}.{leaf}": found[owner][leaf] for owner, own in shapes.items() for leaf in own}

    def described(self) -> dict[str, Tensor]:
        """`arrays` for a file; raises where the module is another function than the definition."""
        return described(self)

    def initial_state(self, batch: int) -> Any:
        """The state before the first step."""
        starts = [block.initial_state for block in self.ends()[1]]
        return self.definition.compose_initial_state(starts, self.any_parameter(), batch)

    def step(self, u_t: Tensor, state: Any, *, rate: Any = 1.0) -> tuple[Tensor, Any]:
        """(outputs, state) of one step u_t (B, d_input), or of tokens (B,). To take many, hold the `stepper`."""
        return self.stepper(rate=rate)(u_t, state)

    def stepper(self, *, rate: Any = 1.0) -> layers.Stepper:
        """A function (u_t, state) -> (y_t, state) that holds what does not change between steps."""
        if sharded(self):
            return self.definition.stepper(self.arrays(), rate=rate)
        steps = [block.stepper(rate=rate) for block in self.ends()[1]]
        return self.definition.compose_stepper(self.parts(steps), self.any_parameter())

    def _check(self, u: Tensor) -> None:
        weight = self.any_parameter()
        given = {} if weight.is_meta else {"weight": weight}  # tools' hooks may bring what they have taken away
        namespace(self.definition.name, **{self.definition.signal: u}, **given)


class SequenceModule(ModelModule):
    """The module of any `ssm_core.models.SequenceModel`."""

    definition: models.SequenceModel

    def __init__(self, definition: models.SequenceModel, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(definition)
        self.encoder = nn.Linear(definition.d_input, definition.d_model, device=device, dtype=dtype)
        self.blocks = nn.ModuleList(Block(block, device, dtype) for block in definition.blocks)
        self.head = nn.Linear(definition.d_model, definition.d_output, device=device, dtype=dtype)

    def ends(self) -> tuple[Any, Any, Any]:
        return self.encoder, self.blocks, self.head

    def parts(self, blocks: Any) -> Parts:
        return replace(super().parts(blocks), own=not hasattr(innermost(self.encoder), "in_features"))


class _Backbone(nn.Module):
    """Embedding, blocks and norms, what blocks share, and the maps between levels."""

    def __init__(self, definition: models.LanguageModel, device: Any, dtype: torch.dtype | None) -> None:
        super().__init__()
        first = definition.first_norm()
        self.embeddings = Embedding(definition.vocab_size, definition.d_model, device=device, dtype=dtype)
        self.first_norm = None if first is None else norm_module(first, device, dtype)
        self.definition = definition
        for name, p in self._shared().items():
            self.register_parameter(name, nn.Parameter(torch.empty(p.shape, device=device, dtype=dtype)))
        self.reset_parameters()
        self.layers = nn.ModuleList(Block(block, device, dtype) for block in definition.blocks)
        self.norm_f = norm_module(definition.last_norm(), device, dtype)
        for name, sizes in definition.maps().items():
            self.add_module(name, nn.Linear(*sizes, device=device, dtype=dtype))

    def _shared(self) -> dict[str, Parameter]:
        """What blocks share, by name."""
        return {p.name.removeprefix("backbone."): p for p in self.definition.shared_parameters()}

    def arrays(self) -> dict[str, Tensor]:
        """The parameters that blocks share, by name."""
        return {name: held(self, name) for name in self._shared()}

    def forward(self, run: Callable[[], Any]) -> Any:
        """What a function of the parts gives: in this call FSDP has them whole."""
        return run()

    def reset_parameters(self) -> None:
        """Draw what blocks share anew."""
        redraw(self, self._shared())


class LanguageModule(ModelModule):
    """The module of any `ssm_core.models.LanguageModel`."""

    if TYPE_CHECKING:
        definition: models.LanguageModel
    else:

        @property
        def definition(self) -> Any:
            """A `models.LanguageModel` of as many tokens as the embedding has, which may have been put there since."""
            known: models.LanguageModel = self._definition
            table = innermost(self.backbone.embeddings) if "backbone" in self._modules else None
            if (n := getattr(table, "num_embeddings", known.vocab_size)) != known.vocab_size:
                self._definition = known = replace(known, vocab_size=n)
            return known

        @definition.setter
        def definition(self, definition: models.LanguageModel) -> None:
            self._definition = definition

    def __init__(self, definition: models.LanguageModel, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(d := definition)
        self.backbone = _Backbone(d, device, dtype)
        self.lm_head = None if d.tied else Head(d.d_model, d.vocab_size, d.head_bias, device=device, dtype=dtype)

    def ends(self) -> tuple[Any, Any, Any]:
        part = self.backbone
        enter, leave = self.definition.compose_ends(part.embeddings, part.first_norm, part.norm_f, self._logits)
        return enter, part.layers, leave

    def any_parameter(self) -> Tensor:
        weight = getattr(self.backbone.embeddings, "weight", None)
        return placed(weight, self) if isinstance(weight, Tensor) else self.mixers()[0].any_parameter()

    def parts(self, blocks: Any) -> Parts:
        shared = {f"backbone.{name}": p for name, p in self.backbone.arrays().items()}
        maps = {name: getattr(self.backbone, name) for name in self.definition.maps()}
        return replace(super().parts(blocks), beside=self.definition.beside(shared), maps=maps)

    def around(self, run: Callable[[], Any]) -> Any:
        return run() if type(self.backbone) is _Backbone else self.backbone(run)

    def _logits(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self._table()) if self.lm_head is None else self.lm_head(x)

    def _table(self) -> Tensor:
        """The embedding (V, H), which is the head too."""
        d, part = self.definition, self.backbone.embeddings
        return arrays_of(part, {"weight": (d.vocab_size, d.d_model)}, f"{d.name}.backbone.embeddings")["weight"]

    def stream(
        self,
        ids: Tensor,
        *,
        lengths: Tensor | None = None,
        padding: str = "right",
        state: Any = None,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        eos: int | Sequence[int] | None = None,
        seed: Any = 0,
    ) -> generation.Stream:
        """An iterator over tokens (B,) that go on from ids (B, L), without gradients. Options as the definition's."""
        definition = self.definition
        namespace(definition.name, ids=ids, lengths=lengths, weight=self.any_parameter())
        choice = sampling.Choice.checked(
            definition.vocab_size,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            eos=eos,
        )
        padded: dict[str, Any] = {"lengths": lengths, "padding": padding}
        with torch.no_grad():
            if sharded(self):
                params = self.arrays()
                logits, state = definition.prefill(params, ids, state=state, **padded)
                step = torch.no_grad()(definition.stepper(params))
            else:
                step = torch.no_grad()(self.stepper())
                logits, state = definition.compose_prefill(ids, self.parts(self.ends()[1]), state=state, **padded)
        return definition.drawn(logits, state, step, choice, seed, ids, **padded)

    def generate(
        self,
        ids: Tensor,
        n_tokens: int,
        *,
        lengths: Tensor | None = None,
        padding: str = "right",
        state: Any = None,
        return_state: bool = False,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        eos: int | Sequence[int] | None = None,
        seed: Any = 0,
    ) -> Any:
        """n_tokens tokens (B, n_tokens) that go on from ids (B, L). Options as the definition's `generate`."""
        generation.check_count(n_tokens, return_state)
        stream = self.stream(
            ids,
            lengths=lengths,
            padding=padding,
            state=state,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            eos=eos,
            seed=seed,
        )
        return generation.taken(stream, n_tokens, return_state)

    @classmethod
    def from_pretrained(
        cls, directory: str | os.PathLike[str], *, device: Any = None, dtype: torch.dtype | None = None
    ) -> Self:
        """The model of a directory with config.json and safetensors files. As `ssm_core.from_pretrained`."""
        return loaded(directory, cls, device=device, dtype=dtype)

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write the directory that `from_pretrained`, and transformers, read. As `ssm_core.save_pretrained`."""
        pretrained.save_pretrained(self.definition, self.described(), directory)


def from_pretrained(
    directory: str | os.PathLike[str], *, device: Any = None, dtype: torch.dtype | None = None
) -> LanguageModule:
    """The model of a Hugging Face directory, of the class that its config.json describes.

    Its parameters are read one at a time, in the dtype asked for. As `ssm_core.from_pretrained`.

    >>> import tempfile
    >>> from ssm_core.adapters.torch import Mamba2LM, from_pretrained
    >>> directory = tempfile.mkdtemp()
    >>> Mamba2LM(10, d_model=8, n_layers=1, layer_options={"head_dim": 4}).save_pretrained(directory)
    >>> type(from_pretrained(directory)).__name__
    'Mamba2LM'
    """
    return loaded(directory, LanguageModule, device=device, dtype=dtype)


Loaded = TypeVar("Loaded", bound=LanguageModule)


def loaded(directory: str | os.PathLike[str], kind: type[Loaded], *, device: Any, dtype: torch.dtype | None) -> Loaded:
    """The model of a directory, of a class that is of this kind: made without storage, then read tensor by tensor."""
    definition, tensors = pretrained.opened(directory)
    written = MODULES.get(definition.name, LanguageModule)
    cls = kind if issubclass(kind, written) else written
    if not issubclass(cls, kind):
        raise OptionError(
            f"{kind.__name__}.from_pretrained: {os.fspath(directory)!r} holds a {definition.name}. Use "
            "adapters.torch.from_pretrained, which picks the class."
        )
    made: Any = cls(**definition.options(), device="meta", dtype=dtype)
    made.definition = definition
    made.to_empty(device=torch.get_default_device() if device is None else device)
    with torch.no_grad():
        for name, p in made.named_parameters():
            flat, first = p.view(-1), 0
            for piece in tensors[name].pieces():
                flat[first : first + len(piece)] = torch.from_numpy(piece)
                first += len(piece)
    return made


BASES[models.SequenceModel] = SequenceModule
BASES[models.LanguageModel] = LanguageModule
