"""InternVL: a vision tower whose features, four patches to a token, stand in the prompt of a Qwen2 or an InternLM2."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    InternVLConfig,
    InternVLForConditionalGeneration,
    PreTrainedConfig,
    Qwen2Config,
)

from sa2va_host.errors import ModelLoadFailed
from sa2va_worker.attention import configure

from . import internlm2
from .internvl_vision import unpack_vision, vision_config
from .language import Language
from .tiles import Tiles

PIXEL_SHUFFLE = "v2"
"""The `ps_version` that every Sa2VA has; the first version left features transposed."""

_VISION, _PROJECTOR, _LANGUAGE = "vision_model.", "mlp1.", "language_model."
_PROJECTOR_LAYERS = {"0": "layer_norm", "1": "linear_1", "3": "linear_2"}


class InternVLLanguage(Language[Tiles]):
    """Sa2VA's language side for the InternVL families. `[SEG]` is read after the final norm."""

    aliases: Mapping[str, str] = {"model.lm_head.weight": "model.model.language_model.embed_tokens.weight"}

    def __init__(self, config: Mapping[str, Any], attention: str) -> None:
        super().__init__()
        version = config.get("ps_version", "v1")
        if version != PIXEL_SHUFFLE:
            raise ModelLoadFailed(
                f"ps_version is {version!r} in config.json; only {PIXEL_SHUFFLE!r} is supported.",
                advice="Use a Sa2VA checkpoint.",
            )
        settings = InternVLConfig(
            vision_config=vision_config(config["vision_config"]),
            text_config=_text_config(config["llm_config"]),
            downsample_ratio=config.get("downsample_ratio", 0.5),
            vision_feature_layer=config.get("select_layer", -1),
            tie_word_embeddings=False,
        )
        configure(settings, attention)
        self.model = InternVLForConditionalGeneration(settings)

    def hidden(
        self,
        ids: Tensor,
        positions: Tensor,
        pictures: Tiles | None = None,
        cache: DynamicCache | None = None,
        **more: Any,
    ) -> tuple[Tensor, Tensor]:
        """The states after the final norm, twice, `[batch, tokens, hidden]`."""
        language = self.model.model.language_model
        embeddings = language.get_input_embeddings()(ids)
        if pictures is not None:
            places = (ids == pictures.image_token).unsqueeze(-1).to(embeddings.device)
            embeddings = embeddings.masked_scatter(places, self.features(pictures).to(embeddings))
        out = language(
            inputs_embeds=embeddings,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
            **more,
        )
        return out.last_hidden_state, out.last_hidden_state

    def features(self, tiles: Tiles) -> Tensor:
        """What stands in the prompt for pictures, `[tokens, hidden]`: all tokens of every tile, then those of the last
        tile once more for each region that covers them.
        """
        vision = self.model.model.vision_tower
        values = tiles.values.to(vision.device, vision.dtype)
        seen: Tensor = self.model.get_image_features(values).pooler_output
        regions = [] if tiles.regions is None else [seen[-1][cells.flatten()] for cells in tiles.regions]
        return torch.cat([seen.flatten(0, 1), *regions])


def unpack(config: Mapping[str, Any], name: str, values: Tensor) -> Iterable[tuple[str, Tensor]]:
    """(on-disk name, tensor) -> (name in `InternVLLanguage`, tensor), several where the file holds them fused."""
    llm = config["llm_config"]
    if name.startswith(_VISION):
        for part, tensor in unpack_vision(name.removeprefix(_VISION), values):
            yield f"model.model.vision_tower.{part}", tensor
    elif name.startswith(_PROJECTOR):
        layer, _, leaf = name.removeprefix(_PROJECTOR).partition(".")
        yield f"model.model.multi_modal_projector.{_PROJECTOR_LAYERS.get(layer, layer)}.{leaf}", values
    elif llm["model_type"] == internlm2.MODEL_TYPE:
        for part, tensor in internlm2.unpack_language(llm, name.removeprefix(_LANGUAGE), values):
            yield _language_name(part), tensor
    else:
        yield _language_name(name.removeprefix(_LANGUAGE)), values


def _language_name(name: str) -> str:
    """A name in a causal language model -> in `InternVLLanguage`, which keeps the output layer apart."""
    return (
        f"model.model.language_model.{name.removeprefix('model.')}"
        if name.startswith("model.")
        else f"model.{name}"
    )


def _text_config(stored: Mapping[str, Any]) -> PreTrainedConfig:
    """transformers' configuration for a checkpoint's `llm_config`."""
    if stored["model_type"] == internlm2.MODEL_TYPE:
        return internlm2.llama_config(stored)
    # The dtype there is the one of its training; the model's is chosen where it is built.
    return Qwen2Config(
        **{name: value for name, value in stored.items() if name not in {"dtype", "torch_dtype"}}
    )
