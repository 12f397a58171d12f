"""Objects in their colours: the same ones in every preview and output, by `sa2va_host.masks.masks.PALETTE`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from .tensors import Pictures, fill_image
from .watch import check_interrupt

if TYPE_CHECKING:
    from sa2va_host.masks.masks import Mask
    from sa2va_host.media import Picture

    from .found_objects import FoundObjects


def colour(place: int) -> tuple[int, int, int]:
    """RGB of the object at this place among all that were found."""
    from sa2va_host.masks.masks import PALETTE

    return PALETTE[place % len(PALETTE)]


def draw(picture: Picture, found: Sequence[Mask], opacity: float = 0.0) -> Picture:
    """The picture uint8 RGB `[height, width, 3]` with its objects outlined, and the rest darkened.

    ``found`` has a mask bool `[height, width]` for each object; ``opacity``, 0..1, is how strongly its colour fills it.
    A picture without any of them stays as it is.
    """
    from sa2va_host.masks.masks import overlay

    if not any(mask.any() for mask in found):
        return picture
    shown = overlay(picture, found)
    for place, mask in enumerate(found if opacity else ()):
        fill = np.asarray(colour(place), np.float32) * opacity
        shown[mask] = np.rint(shown[mask] * (1.0 - opacity) + fill).astype(np.uint8)
    return shown


def paint(result: Mask, found: Sequence[Mask], places: Sequence[int]) -> Picture:
    """A mask bool `[height, width]` as RGB: in the colours of the objects where it is on, else white; black outside.

    ``places`` are those of the objects, whose masks are ``found``.
    """
    shown = np.where(result[:, :, None], np.uint8(255), np.uint8(0)).repeat(3, axis=2)
    for place, mask in zip(places, found, strict=True):
        shown[mask & result] = colour(place)
    return shown


def overlay_image(pictures: Pictures, objects: FoundObjects, threshold: float) -> torch.Tensor:
    """IMAGE of all pictures with their objects outlined."""
    drawn = (
        draw(picture, [objects.mask(each, index, threshold) for each in range(len(objects))])
        for index, picture in enumerate(pictures)
    )
    return fill_image(drawn, (len(pictures), *pictures.size, 3))


def cut_out_image(pictures: Pictures, objects: FoundObjects, threshold: float) -> torch.Tensor:
    """IMAGE `[batch, height, width, 4]` of what was found, with the rest transparent."""
    result = torch.empty((len(pictures), *pictures.size, 4))
    for index, target in enumerate(result):
        check_interrupt()
        target.copy_(pictures.cut_out(index, torch.from_numpy(objects.union(index, threshold)).float()))
    return result
