"""The picture on the node: what was found, outlined in the colours of the objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from comfy_api.latest import ui

from .tensors import Pictures, to_image

if TYPE_CHECKING:
    from .found_objects import FoundObjects

MOST = 8
"""Pictures of a batch or video that are shown, spread evenly."""
LONGEST_SIDE = 1024
"""Pixels; larger ones are shrunk, which the browser would do anyway."""


def overlays(pictures: Pictures, objects: FoundObjects, threshold: float) -> torch.Tensor:
    """IMAGE of at most `MOST` pictures with their objects brought out."""
    from sa2va_host.masks.masks import overlay

    shown = []
    for index in spread(len(pictures)):
        masks = [objects.mask(each, index, threshold) for each in range(len(objects))]
        shown.append(_shrink(overlay(pictures[index], masks if any(mask.any() for mask in masks) else [])))
    return to_image(shown)


def show(pictures: Pictures, objects: FoundObjects, threshold: float, node: Any) -> Any:
    """The same as the ``ui`` of a node's output. ``node`` is the class that is executed."""
    return ui.PreviewImage(overlays(pictures, objects, threshold), cls=node)


def show_masks(masks: torch.Tensor, node: Any) -> Any:
    """A MASK `[batch, height, width]` as the ``ui`` of a node's output."""
    shown = [_shrink(masks[index].mul(255).byte().numpy()) for index in spread(len(masks))]
    return ui.PreviewMask(torch.from_numpy(np.stack(shown)).float() / 255.0, cls=node)


def spread(count: int) -> Sequence[int]:
    """The places, of so many, that are shown."""
    return range(count) if count <= MOST else [int(each) for each in np.linspace(0, count - 1, MOST)]


def _shrink(picture: Any) -> Any:
    longest = max(picture.shape[:2])
    if longest <= LONGEST_SIDE:
        return picture
    import cv2

    scale = LONGEST_SIDE / longest
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
