"""The families of checkpoints that run natively, in one table: read from `config.json`, never from a name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from sa2va_host.errors import ModelLoadFailed

from .causal import CausalLanguage, unpack_causal
from .checkpoint import Checkpoint
from .internvl import InternVLLanguage, unpack
from .internvl_front import InternVLFront
from .language import Front, Language
from .qwen3_vl import Qwen3VLLanguage
from .qwen25_vl import Qwen25VLLanguage
from .qwen_front import QwenFront, QwenTextFront
from .qwen_vl import unpack_plain

Config = Mapping[str, Any]


def as_stored(_config: Config, name: str, values: Tensor) -> Iterable[tuple[str, Tensor]]:
    """A tensor whose on-disk name is the `Language` module's."""
    yield name, values


@dataclass(frozen=True)
class Family:
    """How the checkpoints of one family are recognised, built and filled."""

    name: str
    """As `ModelInfo.family` says it."""
    part: str
    """The part of `config.json` that describes the language model; empty for the whole, which chats and no more."""
    model_type: str
    """What that part has under `model_type`."""
    language: Callable[[Config, str], Language[Any]]
    """(`config.json`, attention implementation) -> the module, empty."""
    front: Callable[[Checkpoint], Front[Any]]
    unpack: Callable[[Config, str, Tensor], Iterable[tuple[str, Tensor]]] = as_stored
    """(`config.json`, on-disk name, tensor) -> (name in the `Language` module, tensor), several where the file holds
    them fused; SAM2's tensors and `text_hidden_fcs` do not come here.
    """

    @property
    def segments(self) -> bool:
        """Whether SAM2 comes with it."""
        return bool(self.part)


FAMILIES = (
    Family("qwen2", "", "qwen2", CausalLanguage, QwenTextFront, unpack_causal),
    Family("qwen3", "", "qwen3", CausalLanguage, QwenTextFront, unpack_causal),
    Family("qwen3_vl", "", "qwen3_vl", Qwen3VLLanguage, partial(QwenFront, segments=False), unpack_plain),
    Family(
        "qwen2_5_vl", "", "qwen2_5_vl", Qwen25VLLanguage, partial(QwenFront, segments=False), unpack_plain
    ),
    Family("qwen3_vl", "text_config", "qwen3_vl_text", Qwen3VLLanguage, QwenFront),
    Family("qwen2_5_vl", "text_config", "qwen2_5_vl_text", Qwen25VLLanguage, QwenFront),
    Family("internvl", "llm_config", "qwen2", InternVLLanguage, InternVLFront, unpack),
    Family("internvl", "llm_config", "internlm2", InternVLLanguage, InternVLFront, unpack),
)
"""The first that fits is taken; what chats and no more comes first."""


def family(config: Config) -> Family:
    """The family of a checkpoint, by its `config.json`. Raises `ModelLoadFailed` for one we cannot load."""
    for each in FAMILIES:
        if _model_type(config, each.part) == each.model_type:
            return each
    kinds = (_model_type(config, part) for part in ("text_config", "llm_config", ""))
    raise ModelLoadFailed(
        f"this checkpoint's language model ({next(filter(None, kinds), None)!r}) is not supported.",
        advice=f"Checkpoints of these families are: {', '.join(dict.fromkeys(each.name for each in FAMILIES))}.",
    )


def _model_type(config: Config, part: str) -> object:
    """What a part of `config.json`, or with an empty name the whole, says that it is."""
    found = config.get(part) if part else config
    return found.get("model_type") if isinstance(found, Mapping) else None
