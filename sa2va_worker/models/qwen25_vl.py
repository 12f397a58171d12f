"""The language side of Qwen2.5-VL checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from sa2va_worker.attention import configure

from .qwen_vl import QwenVLLanguage, qwen_vl_settings


class Qwen25VLLanguage(QwenVLLanguage):
    """Qwen2.5-VL; `[SEG]` is read after the final norm, as training did."""

    def __init__(self, config: Mapping[str, Any], attention: str) -> None:
        settings = Qwen2_5_VLConfig(**qwen_vl_settings(_nested(config)))
        configure(settings, attention)
        super().__init__(Qwen2_5_VLForConditionalGeneration(settings))


def _nested(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings with those of the text in a part of their own; early checkpoints have them at the top."""
    if "text_config" in config:
        return config
    text = {name: value for name, value in config.items() if name not in {"vision_config", "model_type"}}
    return {**config, "text_config": text}
