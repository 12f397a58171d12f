"""Regions of a picture that a question is about: boxes or masks that the caller draws, as masks that travel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInput
from .masks.masks import Mask
from .media import to_array
from .protocol.limits import MAX_BUFFERS

MAX_REGIONS = MAX_BUFFERS - 1
"""Of one picture, which travels with them."""
Region: TypeAlias = "NDArray[Any] | Sequence[int]"
"""A mask, bool `[height, width]` at the image's size, array or tensor, or a box `(x0, y0, x1, y1)` in pixels, ends
exclusive.
"""


def region_masks(regions: Sequence[Region], pictures: Sequence[NDArray[Any]]) -> list[Mask]:
    """Each region as bool `[height, width]`. Raises `InvalidInput` unless they lie in the one picture there is, and
    where there are more than `MAX_REGIONS`.
    """
    if regions and len(pictures) != 1:
        raise InvalidInput(
            f"There are {len(pictures)} pictures and {len(regions)} regions.",
            advice="Regions are parts of exactly one picture.",
        )
    if len(regions) > MAX_REGIONS:
        raise InvalidInput(
            f"There are {len(regions)} regions, more than {MAX_REGIONS}.", advice="Ask about fewer at a time."
        )
    return [_mask(region, pictures[0].shape[:2], number) for number, region in enumerate(regions, 1)]


def _mask(region: Region, size: tuple[int, ...], number: int) -> Mask:
    height, width = size
    try:
        array = to_array(region, f"Region {number}")
        values = np.asarray(region) if array is None else array
    except InvalidInput:
        raise
    except (TypeError, ValueError) as error:  # lists of different lengths
        raise _unusable(number, repr(region), height, width) from error
    if values.shape == (4,) and values.dtype.kind in "iu":
        x0, y0, x1, y1 = values.tolist()
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise InvalidInput(
                f"Region {number} is the box {x0},{y0},{x1},{y1}, which is empty or not inside the picture of"
                f" {width} x {height} pixels.",
                advice="Write x0,y0,x1,y1 in pixels, ends exclusive.",
            )
        mask = np.zeros(size, dtype=np.bool_)
        mask[y0:y1, x0:x1] = True
        return mask
    if values.shape != tuple(size) or values.dtype != np.bool_:
        raise _unusable(number, f"{values.dtype} {list(values.shape)}", height, width)
    if not values.any():
        raise InvalidInput(f"Region {number} is an empty mask.", advice="Leave it out.")
    return values


def _unusable(number: int, given: str, height: int, width: int) -> InvalidInput:
    return InvalidInput(
        f"Region {number} is {given}.",
        advice=f"Give a bool mask [{height}, {width}], or a box (x0, y0, x1, y1).",
    )
