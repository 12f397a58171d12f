"""The language side of Qwen3-VL checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from sa2va_worker.attention import configure

from .pictures import Patches
from .qwen_vl import QwenVLLanguage, qwen_vl_settings


class Qwen3VLLanguage(QwenVLLanguage):
    """Qwen3-VL; `[SEG]` is read before the final norm.

    Under the transformers version that Sa2VA-Qwen3-VL was trained with, "the last hidden state" was the last layer's
    output *before* the final norm; newer versions report it after the norm. It is taken here where training took it.
    """

    def __init__(self, config: Mapping[str, Any], attention: str) -> None:
        settings = Qwen3VLConfig(**qwen_vl_settings(config))
        configure(settings, attention)
        super().__init__(Qwen3VLForConditionalGeneration(settings))
        self._before_norm: Tensor | None = None
        self.model.model.language_model.norm.register_forward_pre_hook(self._keep_before_norm)

    def _keep_before_norm(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._before_norm = inputs[0]

    def hidden(
        self,
        ids: Tensor,
        positions: Tensor,
        pictures: Patches | None = None,
        cache: DynamicCache | None = None,
        **more: Any,
    ) -> tuple[Tensor, Tensor]:
        """(states before the final norm, states after it)"""
        _, after = super().hidden(ids, positions, pictures, cache, **more)
        before, self._before_norm = self._before_norm, None
        assert before is not None
        return before, after
