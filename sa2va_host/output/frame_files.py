"""Outputs that are files of their own for each frame: masks, mattes, cut-outs, label maps.

A writer of `sa2va_host.output.recording`. A file appears whole or not at all, so an interrupted run keeps every
finished one.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sa2va_host import exr, media
from sa2va_host.errors import InvalidInput
from sa2va_host.exr import ExrDepth
from sa2va_host.light import Window
from sa2va_host.masks.masks import PALETTE

from .cutouts import Cutouts

if TYPE_CHECKING:
    from sa2va_host.video.clip import Frame

    from .layers import Layer

_MOST_LABELS = 255


class ObjectFiles:
    """FOLDER/NAME/FRAME.png or .exr: one file for each object and frame, numbered as the frames are."""

    def __init__(
        self,
        folder: Path,
        kind: str,
        *,
        digits: int,
        resume: bool,
        exr_depth: ExrDepth = "half",
        decontaminated: bool = False,
    ) -> None:
        """``kind`` is one of `OBJECT_KINDS`; with ``resume`` files that are there already stay as they are.

        ``exr_depth`` is that of OpenEXR files; ``decontaminated`` is for cut-outs (`sa2va_host.output.cutouts`).
        """
        self.path = folder / kind
        self._kind = kind
        self._digits = digits
        self._resume = resume
        self._exr_depth: ExrDepth = exr_depth
        self._decontaminated = decontaminated

    def add(self, frame: Frame, layers: Sequence[Layer]) -> None:
        """Write the frame's files."""
        suffix, write = self._writer(frame)
        for layer in layers:
            path = self.path / layer.name / f"{frame.number:0{self._digits}d}{suffix}"
            if not (self._resume and path.exists()):
                write(path, layer)

    def _writer(self, frame: Frame) -> tuple[str, Callable[[Path, Layer], object]]:
        """What names end in, and who writes the file of an object in this frame."""
        if self._kind == "masks":
            return ".png", lambda path, layer: media.write_mask(path, layer.mask)
        if self._kind == "exr":
            window = frame.plate.window() if frame.plate else Window()
            return ".exr", lambda path, layer: exr.write_exr(
                path, {"Y": layer.probability}, depth=self._exr_depth, window=window
            )
        if self._kind == "cutout":
            cutouts = Cutouts(
                frame.picture, frame.plate, exr_depth=self._exr_depth, decontaminated=self._decontaminated
            )
            return cutouts.suffix, lambda path, layer: cutouts.write(path, layer.probability)
        return ".png", _write_probability

    def close(self) -> str:
        """Nothing is left to do: every file is whole already."""
        return ""


class LabelMaps:
    """FOLDER/Annotations/CLIP/FRAME.png, as DAVIS and YouTube-VOS have them: 8-bit palette PNGs that hold 0 for the
    background and N for the Nth object; where objects overlap, that with the highest probability.

    Beside them meta.json, as YouTube-VOS has it: for each object its name as `category`, and the frames that show it.
    """

    def __init__(self, folder: Path, clip: str, *, digits: int, resume: bool) -> None:
        self.path = folder / "Annotations" / clip
        self._names: list[str] | None = None
        self._shown: list[array[int]] = []
        self._digits = digits
        self._resume = resume

    def add(self, frame: Frame, layers: Sequence[Layer]) -> None:
        """Write the frame's file. Raises `InvalidInput` for more objects than 8 bits tell apart."""
        from PIL import Image

        if len(layers) > _MOST_LABELS:
            raise InvalidInput(
                f"{len(layers)} objects do not fit into label maps, which hold {_MOST_LABELS}."
            )
        labels = np.zeros(frame.picture.shape[:2], np.uint8)
        best = np.zeros(labels.shape, np.float32)
        for label, layer in enumerate(layers, start=1):
            wins = layer.mask & (layer.probability > best)
            labels[wins] = label
            best[wins] = layer.probability[wins]
        self._note(frame.number, layers, labels)
        path = self.path / f"{self._called(frame.number)}.png"
        if self._resume and path.exists():
            return
        image = Image.fromarray(labels)
        image.putpalette(_palette())
        media.write_whole(path, lambda stream: image.save(stream, format="PNG"))

    def close(self) -> str:
        """Write meta.json about the frames that are there."""
        if self._names is None:
            return ""
        objects = {
            str(label): {"category": name, "frames": list(map(self._called, shown))}
            for label, (name, shown) in enumerate(zip(self._names, self._shown, strict=True), start=1)
        }
        media.write_json(
            self.path.parents[1] / "meta.json", {"videos": {self.path.name: {"objects": objects}}}
        )
        return ""

    def _note(self, number: int, layers: Sequence[Layer], labels: NDArray[np.uint8]) -> None:
        """Remember which objects a frame shows: eight bytes for each, all that grows with the video."""
        if self._names is None:
            self._names = [layer.name for layer in layers]
            self._shown = [array("q") for _ in layers]
        for label in np.unique(labels[labels > 0]):
            self._shown[label - 1].append(number)

    def _called(self, number: int) -> str:
        return f"{number:0{self._digits}d}"


def _palette() -> list[int]:
    """Black, then the colours of the overlay, over and over: 256 times R, G, B."""
    colours = [(0, 0, 0), *(PALETTE[index % len(PALETTE)] for index in range(_MOST_LABELS))]
    return [value for colour in colours for value in colour]


def _write_probability(path: Path, layer: Layer) -> None:
    media.write_image(path, np.rint(layer.probability * np.float32(65535)).astype(np.uint16))


OBJECT_KINDS = ("masks", "probability", "exr", "cutout")
"""- `masks`: 8-bit grey, 255 inside
- `probability`: the probability, 16-bit grey, 65535 for 1
- `exr`: the probability in the channel Y, half or float, in the display window of an OpenEXR frame
- `cutout`: RGBA, the object alone with the probability as its alpha (`sa2va_host.output.cutouts`)
"""
