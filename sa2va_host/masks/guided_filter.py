"""The guided filter: soft edges of a probability map that follow the picture, without a model.

Called by `sa2va_host.masks.refine`. In each window the map is fitted as a linear function of the picture's colours, so
that it changes where the picture changes. K. He, J. Sun, X. Tang: Guided Image Filtering, IEEE PAMI 35(6), 2013, with a
colour picture as the guide.
"""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sa2va_host.extras import check_opencv

if TYPE_CHECKING:
    from sa2va_host.media import Picture

    from .masks import Probability

_FLAT = 1e-6
"""Variance of the map in a window below which its mean stands for the fit, which could explain no more than that.

It is a standard deviation of 0.001, a quarter of a grey level. Nearly all windows are flat, and the fits are the
costly part.
"""


def guided_filter(probability: Probability, picture: Picture, radius: int, epsilon: float) -> Probability:
    """The map `[height, width]`, float32 0..1, with the edges of the picture `[height, width, 3]`, uint8 RGB.

    ``radius`` is that of the square window, `2 * radius + 1` pixels wide; a map changes up to twice as far from its
    edges. ``epsilon`` is the variance of colours (of 0..1) below which the picture counts as flat and the edge is
    blurred instead of followed. The picture is mirrored at its borders. Raises `ConfigError` where OpenCV is missing.
    """
    check_opencv("The guided filter")
    import cv2

    window = (2 * radius + 1, 2 * radius + 1)

    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.boxFilter(values, -1, window, borderType=cv2.BORDER_REFLECT), dtype=np.float32)

    # Centred on 0, so that the differences of means below keep more of their digits.
    guide = picture.astype(np.float32) / np.float32(255) - np.float32(0.5)
    guide_mean, level = mean(guide), mean(probability)
    edges = mean(probability * probability) - level * level > _FLAT
    colours = guide_mean[edges]
    covariance = mean(guide * probability[:, :, None])[edges] - colours * level[edges][:, None]
    spread = np.empty((len(colours), 3, 3), dtype=np.float32)
    for one, two in combinations_with_replacement(range(3), 2):
        product = mean(guide[:, :, one] * guide[:, :, two])[edges] - colours[:, one] * colours[:, two]
        spread[:, one, two] = spread[:, two, one] = product
    spread += np.float32(epsilon) * np.eye(3, dtype=np.float32)
    slope = np.zeros_like(guide)
    # Solved by elimination: a closed form of the determinant loses all its digits on a grey picture.
    slope[edges] = np.linalg.solve(spread, covariance[:, :, None])[:, :, 0]
    offset = level - _dot(slope, guide_mean)
    fitted = _dot(mean(slope), guide) + mean(offset)
    return np.clip(fitted, 0.0, 1.0, out=fitted)


def _dot(one: NDArray[np.float32], two: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scalar product over the last axis of `[height, width, 3]`."""
    return np.asarray(np.einsum("hwc,hwc->hw", one, two), dtype=np.float32)
