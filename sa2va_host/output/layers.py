"""The objects of one frame as they are written: named, with a mask, a probability and a presence.

Between `sa2va_host.video.tracks`, which finds them, and `sa2va_host.output.recording`, which writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sa2va_host.masks.masks import Mask, Probability
from sa2va_host.masks.refine import refine, to_mask
from sa2va_host.masks.refinement import Refinement
from sa2va_host.media import Picture


@dataclass(frozen=True, eq=False, slots=True)
class Layer:
    """One object in one frame. Its place among the layers, and with it its colour, is the same in every frame."""

    name: str
    """A part of file names, its own in the run."""
    probability: Probability
    """float32 `[height, width]`, 0..1, refined."""
    mask: Mask
    """bool `[height, width]`; empty where the object is not in the frame."""
    presence: float | None = None
    """The model's probability, 0..1, that it is in the frame; None where the model has no such score."""
    found: bool = True
    """False for a prompt that nothing was found for: it stands for no object, and has empty files alone."""


def absent_layers(names: Sequence[str], size: tuple[int, int]) -> list[Layer]:
    """A layer that is all 0 for each prompt that nothing was found for; ``size`` is `(height, width)`."""
    nothing = np.zeros(size, np.float32)
    return [Layer(name, nothing, nothing.astype(np.bool_), found=False) for name in names]


def make_layers(
    names: Sequence[str],
    probabilities: NDArray[np.float32],
    presence: NDArray[np.float32] | None,
    picture: Picture,
    *,
    threshold: float = 0.5,
    refinement: Refinement | None = None,
    least_presence: float = 0.0,
) -> list[Layer]:
    """A layer for each of `probabilities` `[objects, height, width]`, refined as `sa2va_host.masks.refine.refine` does.

    An object whose `presence` `[objects]` is below ``least_presence`` is not in the frame: its probability is 0.
    """
    refinement = refinement or Refinement()
    layers = []
    for index, name in enumerate(names):
        there = None if presence is None else float(presence[index])
        if there is not None and there < least_presence:
            nothing = np.zeros(probabilities.shape[1:], np.float32)
            layers.append(Layer(name, nothing, nothing.astype(np.bool_), there))
            continue
        refined = refine(probabilities[index], refinement, threshold, picture)
        layers.append(Layer(name, refined, to_mask(refined, refinement, threshold), there))
    return layers


def resolve_overlaps(layers: Sequence[Layer]) -> list[Layer]:
    """The same without overlaps: a pixel stays with the layer whose probability there is highest, of equal ones the
    first; for the others it is 0.
    """
    if len(layers) < 2:
        return list(layers)
    winner = np.argmax(np.stack([layer.probability for layer in layers]), axis=0)
    return [
        replace(
            layer,
            probability=np.where(winner == index, layer.probability, np.float32(0)),
            mask=layer.mask & (winner == index),
        )
        for index, layer in enumerate(layers)
    ]


def object_names(stems: Sequence[str], counts: Iterable[int]) -> list[str]:
    """A name for each object of each prompt, in order: the prompt's stem, or `the-dogs-1`, `the-dogs-2` of several.

    No two are the same, where the stems differ.
    """
    names: list[str] = []
    for stem, count in zip(stems, counts, strict=True):
        for number in range(1, count + 1):
            name = stem if count == 1 else f"{stem}-{number}"
            while name in names or (name != stem and name in stems):
                name += "-"
            names.append(name)
    return names
