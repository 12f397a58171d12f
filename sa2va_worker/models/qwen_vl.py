"""What the Qwen vision-language families have in common: M-RoPE positions, and pictures that enter as patches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from .language import Language
from .pictures import Patches


class QwenVLLanguage(Language[Patches]):
    """A Qwen vision-language model; `[SEG]` is read after the final norm."""

    aliases: Mapping[str, str] = {"model.lm_head.weight": "model.model.language_model.embed_tokens.weight"}

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def positions(self, ids: Tensor, pictures: Patches | None) -> tuple[Tensor, int]:
        """M-RoPE positions `[3, 1, tokens]` of a prompt, and the shift of the tokens that follow it."""
        if pictures is None:
            return torch.arange(ids.shape[1], device=ids.device).expand(3, *ids.shape), 0
        kinds = (ids == self.model.config.image_token_id).int()
        positions, shift = self.model.model.get_rope_index(
            input_ids=ids, mm_token_type_ids=kinds, image_grid_thw=pictures.grids.to(ids.device)
        )
        return positions, int(shift[0])

    def hidden(
        self,
        ids: Tensor,
        positions: Tensor,
        pictures: Patches | None = None,
        cache: DynamicCache | None = None,
        **more: Any,
    ) -> tuple[Tensor, Tensor]:
        """As `Language.hidden`; `positions` are `[3, batch, tokens]`."""
        if pictures is not None:
            more["pixel_values"] = pictures.values.to(ids.device)
            more["image_grid_thw"] = pictures.grids.to(ids.device)
        out = self.model.model(
            input_ids=ids,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
            **more,
        )
        return out.last_hidden_state, out.last_hidden_state


def unpack_plain(_config: Mapping[str, Any], name: str, values: Tensor) -> Iterable[tuple[str, Tensor]]:
    """On-disk names of a Qwen vision-language model without SAM2, as transformers writes them now and until 4.51."""
    if name.startswith("visual."):
        name = f"model.{name}"
    elif name.startswith("model.") and not name.startswith(("model.visual.", "model.language_model.")):
        name = f"model.language_model.{name.removeprefix('model.')}"
    yield f"model.{name}", values


def qwen_vl_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a checkpoint's `config.json` the configuration class of its Qwen vision-language model takes.

    The output layer is built apart from the embedding: whether they are one is known from the file.
    """
    ids = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return {
        "text_config": {**config["text_config"], "tie_word_embeddings": False},
        "vision_config": dict(config["vision_config"]),
        "tie_word_embeddings": False,
        **{name: config[name] for name in ids},
    }
