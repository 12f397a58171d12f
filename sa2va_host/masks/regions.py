"""Masks in the forms that other tools exchange: COCO's compressed run lengths, and polygons.

Called by `sa2va_host.output.saving` and front ends. Run lengths are exact, holes included, whoever reads them. Polygons
are exact by the even-odd and the nonzero rule; readers that unite all polygons of an object, as pycocotools does, fill
the holes of a mask that has some.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from sa2va_host.errors import InvalidInput
from sa2va_host.extras import check_opencv

from .masks import Mask


class RunLengths(TypedDict):
    """COCO's compressed RLE: `{"size": [height, width], "counts": text}`.

    The counts are the lengths of runs of 0 and 1 in turn, down the columns one after the other, packed into printable
    ASCII as pycocotools does it.
    """

    size: list[int]
    counts: str


def encode(mask: Mask) -> RunLengths:
    """The run lengths of a mask, bool `[height, width]`."""
    from pycocotools import mask as coco

    packed = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in mask.shape], "counts": packed["counts"].decode("ascii")}


def decode(runs: Mapping[str, object]) -> Mask:
    """The mask, bool `[height, width]`, of `RunLengths`, which may come from elsewhere.

    Raises `InvalidInput` for what is not COCO's compressed form or does not fill its size. Not done by pycocotools,
    which leaves the rest of short runs as it was in memory, and dies of a size that it cannot allocate.
    """
    match runs:
        case {"size": [int(height), int(width)], "counts": str(text)} if height > 0 and width > 0:
            lengths = _unpack(text)
        case _:
            raise InvalidInput('Run lengths are {"size": [height, width], "counts": text}.')
    if min(lengths, default=0) < 0 or sum(lengths) != height * width:
        raise InvalidInput(f"The run lengths are damaged: they do not fill {height} x {width} pixels.")
    inside = np.arange(len(lengths)) % 2 == 1
    return np.repeat(inside, lengths).reshape(width, height).T


def _unpack(text: str) -> list[int]:
    """The lengths that COCO's counts stand for (`rleFrString` in its maskApi.c).

    A number is groups of 5 bits, the lowest first, each a character from "0" on; 32 says that more follow, 16 in the
    last one that it is negative. From the fourth on it is the difference to the length before the last.
    """
    lengths: list[int] = []
    value = bits = 0
    for character in text:
        group = ord(character) - ord("0")
        if not 0 <= group < 64 or bits > 30:
            raise InvalidInput(f"The run lengths are damaged: {character!r} does not belong there.")
        value |= (group & 31) << bits
        bits += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << bits
        lengths.append(value + lengths[-2] if len(lengths) > 2 else value)
        value = bits = 0
    if bits:
        raise InvalidInput("The run lengths are cut short.")
    return lengths


def polygons(mask: Mask, tolerance: float = 0.0) -> list[list[int]]:
    """The outlines of a mask, bool `[height, width]`: `[[x0, y0, x1, y1, ...], ...]`, pixel corners.

    Of a ring of 3 x 3 pixels: `[[0, 0, 3, 0, 3, 3, 0, 3], [1, 1, 1, 2, 2, 2, 2, 1]]`, the part and its hole.

    Coordinates are those of COCO: of corners, not centres, so `(0, 0)` is the picture's corner and one pixel at its
    top left is `[0, 0, 1, 0, 1, 1, 0, 1]`. Edges follow the pixels' sides. Parts run clockwise on the screen, their
    holes counterclockwise, each from corner to corner without repeating the first: filled by the even-odd or the
    nonzero rule they give the mask back, and their signed areas add up to its number of pixels. Parts are 8-connected,
    holes 4-connected. COCO's own tools know no holes in polygons: pycocotools unites the outlines, so that a hole is
    filled. For masks with holes use `encode`, which COCO's tools read exactly.

    ``tolerance``, in pixels, leaves out the corners that change an outline by no more than that (Douglas and Peucker
    1973, as OpenCV's `approxPolyDP` does it): of a circle tens are left instead of hundreds. 0 is exact. An outline
    that would be left without an area (a speck, a line) stays exact, and neighbouring outlines may cross by as much as
    the tolerance. Raises `InvalidInput` for a negative tolerance or one that is no number, `ConfigError` where OpenCV
    is missing.
    """
    check_tolerance(tolerance)
    check_opencv("Outlining masks as polygons")
    import cv2

    # OpenCV's outlines run through the centres of border pixels. With every pixel doubled, the two coordinates
    # 2x and 2x + 1 of a pixel x tell its sides apart: they round up to the corners x and x + 1.
    doubled = mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    outlines, _ = cv2.findContours(doubled, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    corners = (_corners((np.asarray(outline[:, 0], dtype=np.int32) + 1) // 2) for outline in outlines)
    return [_simplified(points, tolerance).ravel().tolist() for points in corners]


def check_tolerance(tolerance: float) -> None:
    """Raises `InvalidInput` for what is no tolerance of `polygons`: 0 or more, in pixels."""
    if not 0 <= tolerance < float("inf"):  # NaN fails this too
        raise InvalidInput(
            f"The polygon tolerance is {tolerance}.", advice="Use pixels: 0 is exact, 1 is usual."
        )


def _simplified(points: NDArray[np.int32], tolerance: float) -> NDArray[np.int32]:
    """A closed outline `[n, 2]` with fewer points, in the same direction."""
    if not tolerance:
        return points
    import cv2

    fewer = np.asarray(cv2.approxPolyDP(points[:, None], tolerance, closed=True), dtype=np.int32)[:, 0]
    return fewer if len(fewer) >= 3 and cv2.contourArea(fewer[:, None]) > 0 else points


def _corners(points: NDArray[np.int32]) -> NDArray[np.int32]:
    """The points `[n, 2]` at which a closed rectilinear outline turns, the other way round."""
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    is_level = points[:, 1] == np.roll(points, 1, axis=0)[:, 1]
    turns = np.flatnonzero(is_level != np.roll(is_level, -1))
    return points[turns[::-1]]
