"""From the model's low-resolution logits to probabilities, masks and boxes at the size of the input.

Called by `sa2va_host.results` and by front ends. Knows nothing of files, workers or models; needs no torch.
Works on one mask at a time, so that nothing of full size is held but what is returned.

The arithmetic is upstream's, in its order: logits (a quarter of the tracker's image size) are resized
bilinearly (pixel centres aligned, no antialiasing, also when shrinking) to the tracker's square, *then* the
same way to the input's size, then comes the sigmoid, then ``> threshold``. Merging the two resizes moves 3
to 5 pixels in 1,000.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sa2va_host.errors import InvalidInput
from sa2va_host.extras import has_opencv
from sa2va_host.resizing import bilinear

if TYPE_CHECKING:
    from collections.abc import Sequence

Logits: TypeAlias = NDArray[np.float32]
Probability: TypeAlias = NDArray[np.float32]
"""0..1: the sigmoid of logits."""
Mask: TypeAlias = NDArray[np.bool_]
Box: TypeAlias = tuple[int, int, int, int]
"""``(x0, y0, x1, y1)`` in pixels; ``x1`` and ``y1`` are exclusive."""

_SMALLEST_LOGIT = -math.log(float(np.finfo(np.float32).max))
"""Below it a float32 sigmoid is exactly 0 (the tracker says -1024 where it is sure that there is nothing)."""


def resize(logits: Logits, image_size: int, size: tuple[int, int]) -> Logits:
    """One mask's logits `[h, w]` at the input's size `[height, width]`, by way of the tracker's square."""
    return bilinear(bilinear(logits, (image_size, image_size)), size)


def sigmoid(logits: Logits) -> Probability:
    """Probabilities 0..1, float32, of logits of any shape."""
    result = np.negative(logits, dtype=np.float32)
    with np.errstate(over="ignore"):  # exp overflows to infinity, whose reciprocal is the right answer, 0
        np.exp(result, out=result)
    result += 1.0
    np.reciprocal(result, out=result)
    return result


def threshold_logit(threshold: float) -> float:
    """The logit whose sigmoid is ``threshold``: ``logits > it`` is ``sigmoid(logits) > threshold``.

    Raises `InvalidInput` unless ``0 <= threshold <= 1``.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float, np.integer, np.floating)):
        raise InvalidInput(f"The threshold must be a number from 0 to 1, not {threshold!r}.")
    if not 0.0 <= threshold <= 1.0:  # NaN fails this too
        raise InvalidInput(f"The threshold is a probability from 0 to 1, not {threshold!r}.")
    if threshold == 0.0:
        return _SMALLEST_LOGIT
    if threshold == 1.0:
        return math.inf
    return math.log(threshold) - math.log1p(-threshold)


def probability(logits: Logits, image_size: int, size: tuple[int, int]) -> Probability:
    """float32 `[height, width]`, 0..1, for one mask's logits `[h, w]`."""
    return sigmoid(resize(logits, image_size, size))


def binarise(logits: Logits, image_size: int, size: tuple[int, int], threshold: float = 0.5) -> Mask:
    """bool `[objects, frames, height, width]`: where the probability is above ``threshold``."""
    bound = np.float32(threshold_logit(threshold))
    result = np.empty((*logits.shape[:2], *size), dtype=np.bool_)
    for place, low in _each(logits):
        np.greater(resize(low, image_size, size), bound, out=result[place])
    return result


def box(mask: Mask) -> Box | None:
    """The smallest box around a mask `[height, width]`, or None where the mask is empty."""
    columns = np.flatnonzero(mask.any(axis=0))
    if columns.size == 0:
        return None
    rows = np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def mean_inside(probability: Probability, mask: Mask) -> float:
    """The mean of a map `[height, width]` over the pixels of a mask of its size, 0.0 for an empty mask."""
    inside = probability[mask]
    return float(inside.mean(dtype=np.float64)) if inside.size else 0.0


PALETTE: tuple[tuple[int, int, int], ...] = (
    (0, 200, 255),
    (255, 110, 40),
    (38, 205, 98),
    (255, 200, 0),
    (190, 80, 255),
    (0, 214, 214),
    (255, 82, 168),
    (150, 115, 60),
)
"""Colours that objects are drawn in, in their order; they repeat after the last."""


def overlay(image: NDArray[np.uint8], masks: Mask | Sequence[Mask]) -> NDArray[np.uint8]:
    """The picture `[height, width, 3]` with the objects of `[objects, height, width]` brought out.

    The objects keep their colours and get an outline each, in the colours of `PALETTE`; the rest is greyed
    and darkened. Without objects the image stays as it is. Outlines are smooth where OpenCV draws them, else of whole
    pixels.
    """
    if len(masks) == 0:
        return image.copy()
    image = np.ascontiguousarray(image)  # OpenCV draws into nothing else
    inside = np.logical_or.reduce(masks)
    grey = _luma(image).astype(np.float32) * 0.3 + 18.0
    faded = (grey[:, :, None] + image * np.float32(0.12)).astype(np.uint8)
    result = np.where(inside[:, :, None], image, faded)
    thickness = max(1, round(max(image.shape[:2]) / 220))
    if not has_opencv():
        for index, border in enumerate([_border(mask, thickness) for mask in masks]):
            result[border] = PALETTE[index % len(PALETTE)]
        return result
    import cv2

    outlines = [
        cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0] for mask in masks
    ]
    for index, outline in enumerate(outlines):
        cv2.drawContours(result, outline, -1, PALETTE[index % len(PALETTE)], thickness, cv2.LINE_AA)
    return result


def _luma(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey by BT.601 in fixed point, as OpenCV's `COLOR_RGB2GRAY` has it."""
    if has_opencv():
        import cv2

        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    shares = np.array([9798, 19235, 3735], dtype=np.int32)  # 0.299, 0.587 and 0.114 of 32768
    return ((image @ shares + 16384) >> 15).astype(np.uint8)


def _border(mask: Mask, thickness: int) -> Mask:
    """The outermost pixels of a mask `[height, width]`, as a line of so many pixels."""
    border = mask & near(~np.pad(mask, 1), 1, 1)[1:-1, 1:-1]
    return near(border, thickness // 2, thickness // 2)


def near(mask: Mask, before: int, after: int) -> Mask:
    """The pixels of `[height, width]` that see the mask in a square: from ``before`` pixels left of and above them to
    ``after`` right and below. It is a dilation by counting, whose time does not depend on the size of the square.
    """
    for axis in (0, 1):
        ends = [(0, 0), (0, 0)]
        ends[axis] = (before + 1, after)
        count = np.cumsum(np.pad(mask, ends), axis=axis, dtype=np.int32)
        begin = np.arange(mask.shape[axis])
        mask = np.take(count, begin + before + after + 1, axis) > np.take(count, begin, axis)
    return mask


def cutout(image: NDArray[np.uint8], probability: Probability) -> NDArray[np.uint8]:
    """The object alone, uint8 RGBA `[height, width, 4]`: straight alpha is the probability `[height, width]`.

    Colours are the picture's, and black where alpha is 0, so that nothing of the rest can be brought back.
    """
    alpha = np.rint(probability * np.float32(255)).astype(np.uint8)
    result = np.dstack([image, alpha])
    result[alpha == 0] = 0
    return result


def _each(logits: Logits) -> Iterator[tuple[tuple[int, int], Logits]]:
    for object_index in range(logits.shape[0]):
        for frame in range(logits.shape[1]):
            yield (object_index, frame), logits[object_index, frame]
