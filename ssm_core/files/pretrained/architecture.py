"""What an architecture is in the directories of Hugging Face: its entries of config.json, and its names of tensors.

Every other file of this folder but `directory` describes architectures and enters them with `registered`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..._arrays.errors import OptionError
from ...models import LanguageModel
from ..stored import Stored

Config = dict[str, Any]


def as_they_are(config: Config, tensors: Any) -> tuple[Config, Any]:
    """Where files and models have the same layouts."""
    return config, tensors


@dataclass(frozen=True)
class Architecture:
    """Both ways between a directory and a definition.

    model_type    in config.json
    model         what it is here, for the table of the documentation
    definition    (config, whether the head is the embedding) -> the model; raises KeyError for an entry that lacks
    describes     whether a model is one of this architecture
    config        model -> its own entries of config.json; raises OptionError for what they cannot say
    their_name    our name of a parameter -> that of the tensor
    their_shape   (name of the tensor, our shape) -> its shape there, of as many numbers in the same order
    sizes         entries that are whole numbers of at least 1, where they are given
    optional      entries of this kind that may be null
    numbers       entries that are positive numbers
    flags         entries that are true or false
    unsaid        options of the blocks that the format has no entry for; an entry of our own holds them
    other_names   tensors that have had another name: that name, and the one of today
    transposed    whether the tensor of that name is the transpose of our parameter
    prepared      (config, tensors by name) -> the same as this architecture has them, where there are other layouts
    written       the inverse of `prepared`, of what is saved: (config, tensors) -> the same as files have them
    entries       all other entries that the definition reads; with them, what is unknown is refused
    fixed         entries that models here have in some ways only
    passed        entries that do not change what a model computes
    """

    model_type: str
    definition: Callable[[Config, bool], LanguageModel]
    describes: Callable[[LanguageModel], bool]
    config: Callable[[LanguageModel], Config]
    their_name: Callable[[str], str]
    their_shape: Callable[[str, tuple[int, ...]], tuple[int, ...]] = lambda name, shape: shape
    sizes: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    unsaid: tuple[str, ...] = ()
    other_names: Mapping[str, str] = field(default_factory=dict)
    transposed: Callable[[str], bool] = lambda name: False
    prepared: Callable[[Config, dict[str, Stored]], tuple[Config, dict[str, Stored]]] = as_they_are
    written: Callable[[Config, dict[str, np.ndarray]], tuple[Config, dict[str, np.ndarray]]] = as_they_are
    entries: tuple[str, ...] | None = None
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    passed: tuple[str, ...] = ()
    model: str = "`LanguageModel`"

    def check(self, config: Config) -> None:
        """Raise for entries that are of the wrong type, unknown, or that no model can have."""
        if self.entries is not None:
            read = {
                *_SIZES,
                *_FLAGS,
                *self.sizes,
                *self.optional,
                *self.numbers,
                *self.flags,
                *self.entries,
                *self.fixed,
            }
            unknown = sorted(config.keys() - read - {*self.passed} - PASSED)
            if unknown:
                raise OptionError(
                    f"entries without meaning for model_type {self.model_type!r}: {', '.join(unknown)}. Known: "
                    f"{', '.join(sorted(read))}."
                )
        for name, known in self.fixed.items():
            if name in config and not any(config[name] is x or config[name] == x for x in known):
                raise OptionError(f"{name} = {config[name]!r} must be {' or '.join(map(repr, known))}.")
        for name in (*_SIZES, *self.sizes, *self.optional):
            if config.get(name) is None and name in self.optional:
                continue
            if name in config and not is_size(config[name]):
                raise OptionError(f"{name} = {config[name]!r} must be a whole number of at least 1.")
        for name in self.numbers:
            if name in config and not (_is_number(config[name], int, float) and 0 < config[name] < 1e6):
                raise OptionError(f"{name} = {config[name]!r} must be a positive number.")
        for name in (*_FLAGS, *self.flags):
            if name in config and not isinstance(config[name], bool):
                raise OptionError(f"{name} = {config[name]!r} must be true or false.")


_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers")  # of all architectures
_FLAGS = ("tie_word_embeddings",)
# Entries that transformers writes for every model, none of which changes what is computed of tokens.
PASSED = frozenset(
    {
        *("ssm_core", "model_type", "architectures", "transformers_version", "torch_dtype", "dtype"),
        *("auto_map", "_name_or_path", "name_or_path", "_attn_implementation_autoset", "_commit_hash"),
        *("use_cache", "use_return_dict", "initializer_range", "max_position_embeddings", "bos_token_id"),
        *("eos_token_id", "pad_token_id", "sep_token_id", "cls_token_id", "unk_token_id", "mask_token_id"),
        *("decoder_start_token_id", "tokenizer_class", "prefix", "return_dict", "output_hidden_states"),
        *("output_attentions", "output_scores", "return_dict_in_generate", "problem_type", "id2label"),
        *("label2id", "num_labels", "task_specific_params", "finetuning_task", "is_decoder"),
        *("is_encoder_decoder", "add_cross_attention", "cross_attention_hidden_size", "tie_encoder_decoder"),
        *("pruned_heads", "chunk_size_feed_forward", "torchscript", "use_bfloat16", "tf_legacy_loss"),
        *("max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups"),
        *("diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty"),
        *("length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids"),
        *("num_return_sequences", "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values"),
        *("exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens"),
    }
)

_ARCHITECTURES: dict[str, Architecture] = {}


def registered(architecture: Architecture) -> Architecture:
    """Enter an architecture, so that its directories are read and written."""
    _ARCHITECTURES[architecture.model_type] = architecture
    return architecture


def architectures() -> dict[str, Architecture]:
    """All by their model types: those that the files of this folder describe, and those entered elsewhere."""
    package = importlib.import_module(__package__ or "")
    for file in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(file.name)
    return dict(sorted(_ARCHITECTURES.items()))


def is_size(x: Any) -> bool:
    """Whether an entry can be a size."""
    return _is_number(x, int) and 1 <= x < 2**31


def _is_number(x: Any, *kinds: type) -> bool:
    return isinstance(x, kinds) and not isinstance(x, bool)
