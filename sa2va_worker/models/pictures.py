"""Pictures as the models see them: pixel-exact resizing after upstream's two-step recipe.

Upstream resizes a picture for the language model twice: first as qwen_vl_utils 0.0.14 does, then in the Qwen2-VL
image processor. Doing it in one step gives other pixels or another grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from sa2va_host.errors import InvalidInput

UTILS_FACTOR = 28
UTILS_MIN_PIXELS = 4 * UTILS_FACTOR**2
UTILS_MAX_PIXELS = 16384 * UTILS_FACTOR**2
MAX_ASPECT = 200
DEFAULT_MIN_PIXELS = 512 * 28 * 28
DEFAULT_MAX_PIXELS = 2048 * 28 * 28


def square(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """uint8 `[height, width, 3]` -> `[size, size, 3]` for SAM2: PIL's bicubic, aspect not kept."""
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC))


def utils_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) after qwen_vl_utils' `smart_resize`. Raises `InvalidInput` for extreme aspect ratios."""
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise InvalidInput(
            f"a picture of {width} x {height} pixels is more than {MAX_ASPECT} times as long as wide.",
            advice="Crop it, or pad its shorter side.",
        )
    factor = UTILS_FACTOR
    new = [max(factor, round(side / factor) * factor) for side in (height, width)]
    if new[0] * new[1] > UTILS_MAX_PIXELS:
        scale = math.sqrt(height * width / UTILS_MAX_PIXELS)
        new = [max(factor, math.floor(side / scale / factor) * factor) for side in (height, width)]
    elif new[0] * new[1] < UTILS_MIN_PIXELS:
        scale = math.sqrt(UTILS_MIN_PIXELS / (height * width))
        new = [math.ceil(side * scale / factor) * factor for side in (height, width)]
    return new[0], new[1]


@dataclass(frozen=True)
class Patches:
    """Pictures cut into patches for Qwen's vision tower."""

    values: Tensor
    """float32 `[patches, channels * temporal_patch * patch * patch]`, all pictures one after the other."""
    grids: Tensor
    """int64 `[pictures, 3]`: (1, rows, columns) of patches."""


class QwenPictures:
    """Turns pictures into patches for one checkpoint's vision tower."""

    def __init__(
        self,
        patch: int,
        merge: int,
        temporal_patch: int,
        mean: Sequence[float],
        std: Sequence[float],
        min_pixels: int = DEFAULT_MIN_PIXELS,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> None:
        self._merge = merge
        self._processor = Qwen2VLImageProcessorPil(
            size={"shortest_edge": min_pixels, "longest_edge": max_pixels},
            patch_size=patch,
            merge_size=merge,
            temporal_patch_size=temporal_patch,
            image_mean=list(mean),
            image_std=list(std),
        )

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> Patches:
        """`pictures` uint8 `[height, width, 3]` each, of any size."""
        resized = []
        for picture in pictures:
            height, width = utils_size(*picture.shape[:2])
            resized.append(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
        out = self._processor(images=resized, return_tensors="pt")
        return Patches(out["pixel_values"].to(torch.float32), out["image_grid_thw"])

    def tokens(self, grid: Tensor) -> int:
        """How many language model tokens one picture's grid becomes."""
        return int(grid.prod()) // self._merge**2
