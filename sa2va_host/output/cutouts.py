"""Objects alone, with their probability as alpha, at the depth that the image has.

Called by `sa2va_host.output.saving` and `sa2va_host.output.frame_files`:

- of 8-bit images and videos: 8-bit PNG, straight alpha
- of 16-bit PNG and TIFF: 16-bit PNG, straight alpha, the file's own colours and its ICC profile
- of OpenEXR, Radiance HDR and float TIFF: OpenEXR, R, G, B and A, *premultiplied*, the file's own light, in the display
  window of an OpenEXR file

Where the image has alpha of its own, the cut-out's alpha of the latter two is the product of both. Colours are 0 where
the probability is 0, so that nothing of the rest can be brought back.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sa2va_host import exr, media, png
from sa2va_host.errors import InvalidInput
from sa2va_host.exr import ExrDepth
from sa2va_host.light import Light, scaled_by
from sa2va_host.masks import masks
from sa2va_host.masks.decontaminate import decontaminate
from sa2va_host.masks.masks import Probability
from sa2va_host.plate import Deep, Plate, Sixteen


def cut_out(
    picture: media.Picture, probability: Probability, *, decontaminated: bool = False
) -> NDArray[np.uint8]:
    """uint8 RGBA `[height, width, 4]`, straight alpha, as `masks.cutout`; ``decontaminated`` frees its soft edges of
    the background's colour.
    """
    cut = masks.cutout(picture, probability)
    if decontaminated:
        colours = np.rint(decontaminate(picture, probability)).astype(np.uint8)
        cut[:, :, :3] = np.where(cut[:, :, 3:] > 0, colours, np.uint8(0))
    return cut


class Cutouts:
    """The cut-outs of one image. Its file is read once, when the first is written; several threads may write."""

    def __init__(
        self,
        picture: media.Picture,
        plate: Plate | None,
        *,
        exr_depth: ExrDepth = "half",
        decontaminated: bool = False,
    ) -> None:
        """``picture`` is what 8-bit cut-outs show. ``decontaminated`` frees soft edges of the background's colour."""
        self._picture = picture
        self._plate = plate
        self._exr_depth = exr_depth
        self._decontaminated = decontaminated
        self._lock = threading.Lock()
        self._deep: Deep | None = None
        self._is_read = plate is None
        self.suffix = ".exr" if plate is not None and plate.is_linear() else ".png"
        """What the names of the files end in."""

    def write(self, path: str | os.PathLike[str], probability: Probability) -> Path:
        """Write the object of a probability `[height, width]`; returns the path.

        Raises `InvalidInput` where the image's file was replaced meanwhile, or cannot be read any more.
        """
        deep = self._read()
        if isinstance(deep, Light):
            return self._write_light(path, deep, probability)
        if isinstance(deep, Sixteen):
            return self._write_sixteen(path, deep, probability)
        return media.write_image(
            path, cut_out(self._picture, probability, decontaminated=self._decontaminated)
        )

    def _read(self) -> Deep | None:
        with self._lock:
            if not self._is_read and self._plate is not None:
                deep = self._plate.deep()
                if deep is not None and deep.rgb.shape[:2] != self._picture.shape[:2]:
                    raise InvalidInput(f"{self._plate.path} has changed its size since it was read.")
                self._deep, self._is_read = deep, True
            return self._deep

    def _write_light(self, path: str | os.PathLike[str], light: Light, probability: Probability) -> Path:
        alpha = probability if light.alpha is None else probability * light.alpha
        if self._decontaminated:
            own = np.ones_like(alpha) if light.alpha is None else light.alpha
            with np.errstate(over="ignore"):
                straight = light.rgb / np.where(own > 0, own, 1)[:, :, None]
            rgb = scaled_by(decontaminate(straight, probability), alpha)
        else:
            rgb = scaled_by(light.rgb, probability)
        channels = {name: rgb[:, :, index] for index, name in enumerate("RGB")}
        return exr.write_exr(
            path,
            {**channels, "A": alpha},
            depth=self._exr_depth,
            window=light.window,
            chromaticities=light.chromaticities,
        )

    def _write_sixteen(
        self, path: str | os.PathLike[str], sixteen: Sixteen, probability: Probability
    ) -> Path:
        whole = probability if sixteen.alpha is None else probability * sixteen.alpha
        alpha = np.rint(whole * np.float32(65535)).astype(np.uint16)
        rgb: NDArray[np.uint16] = sixteen.rgb
        if self._decontaminated:
            rgb = np.rint(decontaminate(rgb, probability)).astype(np.uint16)
        cut = np.dstack([rgb, alpha])
        cut[alpha == 0] = 0
        encoded = png.encode(cut, profile=sixteen.profile)
        return media.write_whole(path, lambda stream: stream.write(encoded))
