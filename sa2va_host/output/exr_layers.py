"""All objects of an image in one OpenEXR file: a channel for each, called after it.

An object `the-red-circle` has the channel `the_red_circle.A`, which Nuke shows as the alpha of a layer of that name,
and Blender as a pass; Fusion lists it by its whole name. Names hold ASCII letters, digits and underscores alone, which
is what Nuke takes in the name of a layer, and begin with a letter.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sa2va_host import exr
from sa2va_host.exr import ExrDepth
from sa2va_host.light import Window

if TYPE_CHECKING:
    from sa2va_host.video.clip import Frame

    from .layers import Layer

_LONGEST = 60
"""Letters of a name. OpenEXR has room for 255 bytes; Nuke's lists are hard to read long before."""
_NOT_A_LAYER = {"rgba", "rgb", "alpha", "depth", "motion", "mask", "object"}
"""Names that compositing programs have given away, and our own for an object without one: these get a number."""


class ObjectChannels:
    """What the file of one image will hold: each object's name and its probability."""

    def __init__(self, depth: ExrDepth = "half") -> None:
        self._depth: ExrDepth = depth
        self._names: list[str] = []
        self._maps: list[NDArray[np.floating[Any]]] = []

    def add(self, name: str, probability: NDArray[np.float32]) -> None:
        """Append an object. ``probability`` is `[height, width]`, 0..1; the name may be any text."""
        self._names.append(name)
        # As it will be written: a picture may have many objects, and several prompts.
        self._maps.append(probability.astype(np.float16) if self._depth == "half" else probability)

    def __len__(self) -> int:
        return len(self._names)

    def write(self, path: str | os.PathLike[str], *, window: Window) -> Path:
        """Write the file; returns the path. Raises `OSError` as the system does."""
        channels = dict(zip(channel_names(self._names), self._maps, strict=True))
        return exr.write_exr(path, channels, depth=self._depth, window=window)


class LayerFiles:
    """FOLDER/exr-layers/FRAME.exr: one file for each frame. A writer of `sa2va_host.output.recording`."""

    def __init__(self, folder: Path, *, digits: int, resume: bool, depth: ExrDepth) -> None:
        self.path = folder / "exr-layers"
        self._digits = digits
        self._resume = resume
        self._depth: ExrDepth = depth

    def add(self, frame: Frame, layers: Sequence[Layer]) -> None:
        """Write the frame's file. Without objects there is none, since OpenEXR has no file without channels."""
        path = self.path / f"{frame.number:0{self._digits}d}.exr"
        if not layers or (self._resume and path.exists()):
            return
        channels = ObjectChannels(self._depth)
        for layer in layers:
            channels.add(layer.name, layer.probability)
        channels.write(path, window=frame.plate.window() if frame.plate else Window())

    def close(self) -> str:
        """Nothing is left to do: every file is whole already."""
        return ""


def channel_names(names: Sequence[str]) -> list[str]:
    """A channel for each object, in order; no two are the same in any case of letters.

    `["the-red-circle", "2 dogs", "the red circle"]` become `the_red_circle.A`, `object_2_dogs.A`, `the_red_circle_2.A`.
    """
    plain = [_layer_name(name) for name in names]
    used: set[str] = set()
    channels = []
    for base in plain:
        name, number = base, 1
        while name in used or name in _NOT_A_LAYER or (number > 1 and name in plain):
            number += 1
            name = f"{base}_{number}" if base != "object" else f"{base}_{number - 1}"
        used.add(name)
        channels.append(f"{name}.A")
    return channels


def _layer_name(text: str) -> str:
    """The text in small ASCII letters, digits and underscores."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"\W+", "_", ascii_text.lower()).strip("_")[:_LONGEST].rstrip("_")
    if not name:
        return "object"
    return name if name[0].isalpha() else f"object_{name}"
