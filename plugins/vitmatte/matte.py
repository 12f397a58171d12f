"""The mask processor ``vitmatte``: soft edges by ViTMatte (Yao et al. 2023), which needs the picture and a trimap.

The trimap is made of the mask by erosion and dilation. Its options mean what they mean in the ComfyUI node packs that
people know, so that settings carry over. Runs in the worker, on its device.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import VitMatteForImageMatting
from transformers.utils.constants import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD

from sa2va_host.errors import InvalidInput, ModelLoadFailed
from sa2va_host.extras import has_opencv
from sa2va_host.masks.masks import near
from sa2va_host.resizing import bilinear, nearest, shrink

_STRIDE = 32
"""Sides are padded to a multiple of this, as ViTMatte's own preprocessing does."""
_ROUNDS = 5
"""Erosion and dilation are repeated, as in the node packs: ``erode`` 6 moves the border by about 15 pixels."""


class VitMatte:
    """The processor on one device; keeps the model that it used last."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._folder = ""

    def __call__(
        self,
        probability: NDArray[np.float32],
        picture: NDArray[np.uint8],
        options: Mapping[str, float | str],
    ) -> NDArray[np.float32]:
        """Alpha float32 `[height, width]` for a mask's probability and its picture.

        Raises `InvalidInput` and `ModelLoadFailed`.
        """
        numbers = {name: float(value) for name, value in options.items() if name != "model"}
        _check(numbers)
        self._load(str(options["model"]))
        height, width = probability.shape
        scale = min(1.0, math.sqrt(numbers["max_megapixels"] * 1e6 / (height * width)))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        trimap = make_trimap(probability, int(numbers["erode"]), int(numbers["dilate"]))
        alpha = self._matte(shrink(picture, size), nearest(trimap, size))
        if scale < 1:
            alpha = bilinear(alpha, (height, width))
        black, white = numbers["black_point"], numbers["white_point"]
        alpha = np.clip((alpha - black) / (white - black), 0.0, 1.0).astype(np.float32)
        known = trimap != 128
        alpha[known] = trimap[known].astype(np.float32) / 255
        return np.asarray(alpha)

    def _load(self, folder: str) -> None:
        if folder == self._folder:
            return
        try:
            processor = Path(folder) / "preprocessor_config.json"
            words = json.loads(processor.read_text(encoding="utf-8")) if processor.is_file() else {}
            model = VitMatteForImageMatting.from_pretrained(
                folder, use_safetensors=True, local_files_only=True
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelLoadFailed(
                f"ViTMatte cannot be loaded from {folder}: {str(error).splitlines()[0]}",
                advice="Fetch it again, or name another folder with the option 'model'.",
            ) from error
        self._mean = np.asarray(words.get("image_mean", IMAGENET_STANDARD_MEAN), np.float32)
        self._std = np.asarray(words.get("image_std", IMAGENET_STANDARD_STD), np.float32)
        self._model = model.to(self._device).eval()  # type: ignore[arg-type]
        self._folder = folder

    @torch.inference_mode()
    def _matte(self, picture: NDArray[np.uint8], trimap: NDArray[np.uint8]) -> NDArray[np.float32]:
        height, width = trimap.shape
        planes = np.zeros((4, _up(height), _up(width)), np.float32)
        planes[:3, :height, :width] = ((picture / np.float32(255) - self._mean) / self._std).transpose(
            2, 0, 1
        )
        planes[3, :height, :width] = trimap / np.float32(255)
        values = torch.from_numpy(planes).unsqueeze(0).to(self._device)
        alphas: torch.Tensor = self._model(values).alphas
        return np.asarray(alphas[0, 0, :height, :width].float().cpu().numpy())


def make_trimap(probability: NDArray[np.float32], erode: int, dilate: int) -> NDArray[np.uint8]:
    """uint8 `[height, width]`: 255 surely inside, 0 surely outside, 128 in between, by the mask at 0.5.

    ``erode`` and ``dilate`` are the sides in pixels of the squares that it is eroded and dilated with.
    """
    mask = probability > 0.5
    trimap = np.full(mask.shape, 128, np.uint8)
    trimap[~_dilated(~mask, erode)] = 255
    trimap[~_dilated(mask, dilate)] = 0
    return trimap


def _dilated(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """A mask after all rounds of dilation with a square, beyond whose borders there is nothing."""
    if not has_opencv():
        before = side // 2
        return near(mask, before * _ROUNDS, (side - 1 - before) * _ROUNDS)
    import cv2

    square = np.ones((side, side), np.uint8)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), square, iterations=_ROUNDS), np.bool_)


def _check(numbers: Mapping[str, float]) -> None:
    for name in ("erode", "dilate"):
        if not 1 <= numbers[name] <= 255:
            raise InvalidInput(f"ViTMatte's {name} is {numbers[name]:g}; 1 to 255 pixels make sense.")
    if not 0 <= numbers["black_point"] < numbers["white_point"] <= 1:
        raise InvalidInput(
            f"ViTMatte's black_point {numbers['black_point']:g} must be below its white_point"
            f" {numbers['white_point']:g}, both from 0 to 1."
        )
    if not 0 < numbers["max_megapixels"] <= 1000:
        raise InvalidInput(f"ViTMatte's max_megapixels is {numbers['max_megapixels']:g}; use 2, for example.")


def _up(side: int) -> int:
    return -(-side // _STRIDE) * _STRIDE
