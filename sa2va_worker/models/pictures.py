"""Pictures as the models see them: pixel-exact resizing after upstream's two-step recipe.

Upstream resizes a picture for the language model twice: first as qwen_vl_utils 0.0.14 does, then in the Qwen2-VL
image processor. Doing it in one step gives other pixels or another grid. Of that image processor there are two, whose
pixels differ by a level here and there; a checkpoint declares the one it wants (`qwen_processor`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
    Qwen2VLImageProcessorPil,
    smart_resize,
)

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
    """(height, width) after qwen_vl_utils' `smart_resize`.

    Raises `InvalidInput` for aspect ratios above `MAX_ASPECT`, of the image or of this size, which the image processor
    would refuse.
    """
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
    if max(new) > MAX_ASPECT * min(new):
        raise InvalidInput(
            f"an image of {width} x {height} pixels becomes {new[1]} x {new[0]} in multiples of {factor} pixels: "
            f"more than {MAX_ASPECT} times as long as wide.",
            advice="Crop it, or pad its shorter side.",
        )
    return new[0], new[1]


@dataclass(frozen=True)
class Patches:
    """Pictures cut into patches for Qwen's vision tower."""

    values: Tensor
    """float32 `[patches, channels * temporal_patch * patch * patch]`, all pictures one after the other."""
    grids: Tensor
    """int64 `[pictures, 3]`: (1, rows, columns) of patches."""


class _TorchResizing(Qwen2VLImageProcessorPil):
    """`Qwen2VLImageProcessorFast`'s pixels without torchvision, which only calls PyTorch's own resizing."""

    # The class that it extends does not keep to its own base class either.
    def resize(  # type: ignore[override]
        self,
        image: NDArray[np.uint8],
        size: Any,
        resample: Any,  # noqa: ARG002 - `read_processor` refuses any but bicubic
        factor: int,
        **_: Any,
    ) -> NDArray[np.uint8]:
        """uint8 `[3, height, width]` -> uint8 `[3, rows * patch, columns * patch]`."""
        height, width = image.shape[-2:]
        new = smart_resize(height, width, factor, size.shortest_edge, size.longest_edge)
        # On uint8: in float a fifth of the values would come out one level off.
        resized = F.interpolate(
            torch.from_numpy(image)[None], size=new, mode="bicubic", antialias=True, align_corners=False
        )
        return np.asarray(resized[0])


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
        fast: bool = False,
    ) -> None:
        """`fast` gives the pixels of `Qwen2VLImageProcessorFast`, otherwise those of `Qwen2VLImageProcessor`, which
        resizes by Pillow.
        """
        self._merge = merge
        processor = _TorchResizing if fast else Qwen2VLImageProcessorPil
        if fast:
            # It scales mean and deviation to levels, in float32, where the other one scales the pixels to 0..1.
            mean, std = ((np.float32(255) * np.asarray(each, np.float32)).tolist() for each in (mean, std))
        self._processor = processor(
            size={"shortest_edge": min_pixels, "longest_edge": max_pixels},
            patch_size=patch,
            merge_size=merge,
            temporal_patch_size=temporal_patch,
            do_rescale=not fast,
            image_mean=list(mean),
            image_std=list(std),
        )

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> Patches:
        """`pictures` uint8 `[height, width, 3]` each, of any size. Raises `InvalidInput` as `utils_size` does."""
        resized = []
        for picture in pictures:
            height, width = utils_size(*picture.shape[:2])
            resized.append(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
        out = self._processor(images=resized, return_tensors="pt")
        return Patches(out["pixel_values"].to(torch.float32), out["image_grid_thw"])

    def tokens(self, grid: Tensor) -> int:
        """How many language model tokens one picture's grid becomes."""
        return int(grid.prod()) // self._merge**2
