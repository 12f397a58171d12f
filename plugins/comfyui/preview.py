"""The picture on the node: what was found, outlined in the colours of the objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from comfy_api.latest import ui

from .colours import draw
from .tensors import Pictures, shrink, to_image

if TYPE_CHECKING:
    from sa2va_host.masks.masks import Mask
    from sa2va_host.media import Picture

    from .found_objects import FoundObjects

MOST = 8
"""Pictures of a batch or video that are shown, spread evenly."""
LONGEST_SIDE = 1024
"""Pixels; larger ones are shrunk, which the browser would do anyway."""


def overlays(pictures: Pictures, objects: FoundObjects, threshold: float) -> torch.Tensor:
    """IMAGE of at most `MOST` pictures with their objects brought out."""
    shown = []
    for index in spread(len(pictures)):
        masks = [_small(objects.mask(each, index, threshold)) for each in range(len(objects))]
        shown.append(draw(pictures.shrunk(index, LONGEST_SIDE), masks))
    return to_image(shown)


def show(pictures: Pictures, objects: FoundObjects, threshold: float, node: Any) -> Any:
    """The same as the ``ui`` of a node's output. ``node`` is the class that is executed."""
    return ui.PreviewImage(overlays(pictures, objects, threshold), cls=node)


def show_masks(masks: torch.Tensor, node: Any) -> Any:
    """A MASK `[batch, height, width]` as the ``ui`` of a node's output."""
    shown = [shrink(masks[index].numpy(), LONGEST_SIDE) for index in spread(len(masks))]
    return ui.PreviewMask(torch.from_numpy(np.stack(shown)), cls=node)


def show_objects(pictures: Sequence[Picture], node: Any) -> Any:
    """Painted masks, uint8 RGB `[height, width, 3]`, as the ``ui`` of a node's output."""
    return ui.PreviewImage(to_image([shrink(each, LONGEST_SIDE) for each in pictures]), cls=node)


def spread(count: int) -> Sequence[int]:
    """The places, of so many, that are shown."""
    return range(count) if count <= MOST else [int(each) for each in np.linspace(0, count - 1, MOST)]


def _small(mask: Mask) -> Mask:
    """The mask where most of the pixels are inside that one of the shown picture stands for."""
    return shrink(mask.astype(np.uint8) * 255, LONGEST_SIDE) > 127
