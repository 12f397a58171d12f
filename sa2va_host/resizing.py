"""Resizing of masks and images: by OpenCV where it is installed, else by NumPy with the same results.

Called by `sa2va_host.masks.masks`, by `sa2va_host.video.clip`, `sa2va_host.plate` and front ends.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .extras import has_opencv

_Number = TypeVar("_Number", bound=np.generic)

_ROWS = 64
"""Rows of the result that NumPy makes at a time, so that no intermediate of full size is held."""


def bilinear(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """float32 `[h, w]` at ``size`` `[height, width]`: pixel centres aligned, borders repeated, no antialiasing.

    From 2 x 2 pixels on, NumPy's result has the bits of OpenCV 5's wheels for x86 with AVX2, which resize with Intel's
    IPP. Other builds and versions of OpenCV differ from these and each other by up to 1e-4 of the difference of two
    neighbours.
    """
    if not has_opencv():
        return _bilinear(np.asarray(values, dtype=np.float32), size)
    import cv2

    wide = np.ascontiguousarray(values, dtype=np.float32)
    resized = cv2.resize(wide, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.float32).reshape(size)


def shrink(values: NDArray[_Number], size: tuple[int, int]) -> NDArray[_Number]:
    """`[h, w]` or `[h, w, channels]`, uint8, uint16 or float32, at a smaller ``size`` `[height, width]`: each pixel is
    the mean of the area that it covers. NumPy's result differs from OpenCV's by 1 at most, floats by their last digits.
    """
    if not has_opencv():
        return _mean(values, size)
    import cv2

    wide: NDArray[Any] = values
    small: NDArray[Any] = cv2.resize(wide, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return small.reshape(*size, *values.shape[2:]).astype(
        values.dtype, copy=False
    )  # a single channel is dropped


def nearest(values: NDArray[_Number], size: tuple[int, int]) -> NDArray[_Number]:
    """`[h, w]` at ``size`` `[height, width]` without new values, as OpenCV's `INTER_NEAREST` takes them."""
    rows, columns = (np.arange(new) * old // new for old, new in zip(values.shape[:2], size, strict=True))
    return values[np.ix_(rows, columns)]


def longest_side(height: int, width: int, longest: int) -> tuple[int, int]:
    """`(height, width)` of an image that is scaled down until its longer side has so many pixels."""
    scale = longest / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _bilinear(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    if values.shape == size:
        return values.copy()
    left, right, across = _neighbours(values.shape[1], size[1])
    upper, lower, down = _neighbours(values.shape[0], size[0])
    result = np.empty(size, dtype=np.float32)
    for start in range(0, size[0], _ROWS):
        part = slice(start, start + _ROWS)
        needed, places = np.unique(np.stack([upper[part], lower[part]]), return_inverse=True)
        rows = values[needed]
        strip = _between(rows[:, left], rows[:, right], across)
        above, below = places.reshape(2, -1)
        result[part] = _between(strip[above], strip[below], down[part, None])
    return result


def _neighbours(length: int, wanted: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For each of the ``wanted`` pixels the two that it lies between, and how far it is from the first, 0..1."""
    position = np.clip((np.arange(wanted) + 0.5) * (length / wanted) - 0.5, 0, length - 1)
    first = position.astype(np.intp)
    return first, np.minimum(first + 1, length - 1), (position - first).astype(np.float32)


def _between(
    one: NDArray[np.float32], two: NDArray[np.float32], weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """`one + (two - one) * weight` with a fused multiply and add: float64 holds the product of two float32 exactly."""
    result: NDArray[np.float64] = np.multiply(two - one, weight, dtype=np.float64)
    result += one
    return result.astype(np.float32)


def _mean(values: NDArray[_Number], size: tuple[int, int]) -> NDArray[_Number]:
    work = values.astype(np.float64)
    for axis in (0, 1):
        work = np.moveaxis(_mean_of_rows(np.moveaxis(work, axis, 0), size[axis]), 0, axis)
    if values.dtype.kind in "ui":
        halves = values.shape[:2] == (2 * size[0], 2 * size[1])  # OpenCV rounds them up there, else to even
        work = np.floor(work + 0.5) if halves else np.rint(work)
    return np.ascontiguousarray(work, dtype=values.dtype)


def _mean_of_rows(rows: NDArray[np.float64], wanted: int) -> NDArray[np.float64]:
    """The weighted means of neighbouring rows, of `[length, ...]` to `[wanted, ...]`."""
    length = len(rows)
    if length == wanted:
        return rows
    begins = np.arange(wanted) * (length / wanted)
    ends = begins + length / wanted
    first = begins.astype(np.intp)
    total = np.zeros((wanted, *rows.shape[1:]))
    for step in range(int(np.ceil(length / wanted)) + 1):
        place = first + step
        covered = np.minimum(ends, place + 1) - np.maximum(begins, place)
        # Not by a weight of 0: an infinite neighbour would make it NaN.
        inside = np.flatnonzero((covered > 1e-9) & (place < length))
        weight = covered[inside].reshape(-1, *[1] * (rows.ndim - 1))
        total[inside] += rows[place[inside]] * weight
    total /= length / wanted
    return total
