"""The image processor that a Qwen checkpoint declares.

It is read as transformers 4.57 reads it, which upstream's code runs under: what is not set has the class's default. One
thing is different. With torchvision installed, 4.57 takes the fast processor for `Qwen2VLImageProcessor` too; here that
name means the one that resizes with Pillow, with which such a checkpoint was trained and saved.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from sa2va_host.errors import ModelLoadFailed

from .checkpoint import Checkpoint

PILLOW, FAST = "Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast"
IS_FAST: Mapping[str, bool] = {
    PILLOW: False,
    "Qwen2VLImageProcessorPil": False,  # its name in transformers 5
    "Qwen2_5_VLImageProcessor": False,  # its name in the first checkpoints of Qwen2.5-VL, up to transformers 4.49
    FAST: True,
}
FIXED: Mapping[str, object] = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "resample": 3,  # PIL.Image.Resampling.BICUBIC
    "rescale_factor": 1 / 255,
}
"""What both processors do here; a checkpoint that declares anything else is refused."""


@dataclass(frozen=True)
class QwenProcessor:
    """What is declared."""

    fast: bool
    """Whether it resizes as PyTorch does (`Qwen2VLImageProcessorFast`), not as Pillow does."""
    mean: tuple[float, float, float]
    """Of red, green and blue, 0..1."""
    std: tuple[float, float, float]
    """The same, above 0."""


def read_processor(checkpoint: Checkpoint, sizes: Mapping[str, int]) -> QwenProcessor:
    """Read the folder's declaration. `sizes` are the vision tower's, by the names that the processor has for them.

    Raises `ModelLoadFailed` for a processor that is not one of `IS_FAST`, for one that does something else than
    `FIXED`, cuts other patches than the vision tower takes, or is code of the checkpoint's own, and where nothing is
    declared.
    """
    file, settings = checkpoint.image_processor()
    auto_map = settings.get("auto_map")
    if isinstance(auto_map, dict) and "AutoImageProcessor" in auto_map:
        raise ModelLoadFailed(
            f"{checkpoint.folder / file} names an image processor of the checkpoint's own code, which is not run.",
            advice="Read that code; if you trust it, give --trust-remote-code.",
        )
    kind = settings.get("image_processor_type") or checkpoint.config.get("image_processor_type")
    fast = IS_FAST.get(kind) if isinstance(kind, str) else None
    if fast is None:
        named = f"names the image processor {reprlib.repr(kind)}" if kind else "names no image processor"
        raise ModelLoadFailed(
            f"{checkpoint.folder / file} {named}; this model takes {PILLOW} or {FAST}.",
            advice="Set image_processor_type to the one of the two that the checkpoint was trained with.",
        )
    for name, wanted in {**FIXED, **sizes}.items():
        value = settings.get(name)
        if value is not None and value != wanted:
            raise checkpoint.unusable(name, value, repr(wanted), file)
    mean, std = (_colours(checkpoint, file, settings, name) for name in ("image_mean", "image_std"))
    if 0 in std:
        raise checkpoint.unusable("image_std", list(std), "three numbers above 0", file)
    return QwenProcessor(fast, mean, std)


def _colours(
    checkpoint: Checkpoint, file: str, settings: Mapping[str, Any], name: str
) -> tuple[float, float, float]:
    values = settings.get(name)
    if values is None:
        values = list(getattr(Qwen2VLImageProcessorPil, name))
    fits = isinstance(values, list) and len(values) == 3
    if not (fits and all(isinstance(each, (int, float)) and 0 <= each <= 1 for each in values)):
        raise checkpoint.unusable(name, values, "three numbers from 0 to 1", file)
    red, green, blue = values
    return red, green, blue
