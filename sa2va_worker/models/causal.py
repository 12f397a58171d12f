"""Language models that read words alone: Qwen2, Qwen2.5 (the same architecture) and Qwen3."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from transformers import (
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from .language import Language

_KINDS: Mapping[str, tuple[type[PreTrainedConfig], type[PreTrainedModel]]] = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}


class CausalLanguage(Language[None]):
    """A model that sees nothing.

    Its output layer is built apart from the embedding: whether they are one is known from the file.
    """

    aliases: Mapping[str, str] = {"model.lm_head.weight": "model.model.embed_tokens.weight"}

    def __init__(self, config: Mapping[str, Any], attention: str) -> None:
        super().__init__()
        settings_class, model_class = _KINDS[config["model_type"]]
        settings = settings_class.from_dict({**config, "tie_word_embeddings": False})
        settings._attn_implementation = attention  # noqa: SLF001 - its public setter needs a built model
        self.model = model_class(settings)

    def hidden(
        self,
        ids: Tensor,
        positions: Tensor,
        pictures: None = None,
        cache: DynamicCache | None = None,
        **more: Any,
    ) -> tuple[Tensor, Tensor]:
        """As `Language.hidden`, both the states after the final norm."""
        del pictures
        out = self.model.model(
            input_ids=ids,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
            **more,
        )
        return out.last_hidden_state, out.last_hidden_state


def unpack_causal(_config: Mapping[str, Any], name: str, values: Tensor) -> Iterable[tuple[str, Tensor]]:
    """On-disk names of a causal language model: those of transformers' class."""
    yield f"model.{name}", values
