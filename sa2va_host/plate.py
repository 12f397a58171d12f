"""The image file behind an 8-bit image: read again at its full depth, where an output needs that.

Made by front ends and by `sa2va_host.video.sequence`; used by `sa2va_host.output`. The 8-bit image is what the model
sees; a `Plate` holds a path alone, so that a video of plates stays in constant memory.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInput
from .extras import check_opencv
from .image_depth import EXTRA, LINEAR, ORIENTATION, Depth, depth_of, tiff_tags_of
from .light import Light, Window
from .media import check_no_layer
from .resizing import shrink

_MULTIPLIED = 1
"""Of `EXTRA` (ExtraSamples): alpha that the colours are multiplied by."""


@dataclass(frozen=True, eq=False, slots=True)
class Sixteen:
    """An image of 16 bits, as PNG and TIFF hold it: encoded for a display, alpha straight."""

    rgb: NDArray[np.uint16]
    """`[height, width, 3]`, in the colours of ``profile``, else sRGB."""
    alpha: NDArray[np.float32] | None
    """`[height, width]`, 0..1; None where the file has none."""
    profile: bytes | None
    """The ICC profile that the file embeds."""


Deep: TypeAlias = "Light | Sixteen"


@dataclass(frozen=True, eq=False, slots=True)
class Plate:
    """An image file. Nothing is read before it is asked for, and nothing is kept."""

    path: Path
    layer: str | None = None
    """Of OpenEXR, as `sa2va_host.exr.read_exr` takes it."""
    size: tuple[int, int] | None = None
    """`(height, width)` that it is scaled to; None leaves it."""

    def depth(self) -> Depth:
        """What the file is. Raises `InvalidInput` where it cannot be read."""
        if not self.path.is_file():
            return "other"  # a pipe, which was read already
        try:
            return depth_of(self.path)
        except OSError as error:
            raise InvalidInput(f"{self.path} cannot be read: {error.strerror}.") from error

    def is_linear(self) -> bool:
        """Whether its values are light (`Light`), whose cut-outs are OpenEXR."""
        return self.depth() in LINEAR

    def window(self) -> Window:
        """Where its pixels lie in OpenEXR's coordinates; at 0, 0 for other files."""
        if self.depth() != "exr":
            return Window()
        from . import exr

        window = exr.exr_window(self.path, self.layer, str(self.path))
        if self.size is None:
            return window
        height, _ = exr.exr_size(self.path, self.layer, str(self.path))
        return window.scaled(self.size[0] / height)

    def deep(self) -> Deep | None:
        """The image at full depth; None where 8 bits are all that there is. Raises `InvalidInput` as `read_image`."""
        depth = self.depth()
        if depth in LINEAR:
            return self._scaled_light(read_light(self.path, depth, self.layer, str(self.path)))
        if depth == "other":
            return None
        found = _read_sixteen(self.path)
        if found is None or self.size is None:
            return found
        alpha = None if found.alpha is None else shrink(found.alpha, self.size)
        return Sixteen(shrink(found.rgb, self.size), alpha, found.profile)

    def _scaled_light(self, light: Light) -> Light:
        if self.size is None:
            return light
        window = light.window.scaled(self.size[0] / light.rgb.shape[0])
        alpha = None if light.alpha is None else shrink(light.alpha, self.size)
        return Light(shrink(light.rgb, self.size), alpha, window, light.chromaticities)


def light_size(source: Path | io.BytesIO, depth: Depth, layer: str | None, name: str) -> tuple[int, int]:
    """`(height, width)` of what `read_light` would give, from the header."""
    if depth == "exr":
        from .exr import exr_size

        return exr_size(source, layer, name)
    from .float_images import float_size

    check_no_layer(layer, name)
    return float_size(source, "hdr" if depth == "hdr" else "float-tiff", name)


def read_light(source: Path | io.BytesIO, depth: Depth, layer: str | None, name: str) -> Light:
    """The scene-linear image of a file, or of its content, which is of one of the kinds `LINEAR`.

    Raises `InvalidInput` for a damaged one, `ConfigError` where the package that reads OpenEXR is missing.
    """
    if depth == "exr":
        from .exr import read_exr

        return read_exr(source, layer, name)
    from .float_images import read_float

    check_no_layer(layer, name)
    return read_float(source, "hdr" if depth == "hdr" else "float-tiff", name)


def _read_sixteen(path: Path) -> Sixteen | None:
    """None where OpenCV reads no 16 bits of the file."""
    from PIL import Image

    from .float_images import decode, upright

    check_opencv(f"Reading the 16 bits of {path}")
    values = decode(path)
    if values is None or values.dtype != np.uint16:
        return None
    try:
        with Image.open(path, formats=["PNG", "TIFF"]) as image:
            profile, key = image.info.get("icc_profile"), image.info.get("transparency")
            orientation = image.getexif().get(ORIENTATION, 1)
            transparent = image.has_transparency_data
            multiplied = image.format == "TIFF" and _extra(path) == _MULTIPLIED
    except (OSError, SyntaxError):
        return None
    if values.ndim == 2:
        alpha = None if not isinstance(key, int) else (values != key).astype(np.float32)
        values = np.repeat(values[:, :, None], 3, axis=2)
    else:
        is_alpha = transparent and values.shape[2] == 4
        alpha = values[:, :, 3].astype(np.float32) / 65535 if is_alpha else None
    rgb = values[:, :, 2::-1]  # OpenCV has blue first
    if alpha is not None and multiplied:
        straight = rgb / np.where(alpha > 0, alpha, 1)[:, :, None]
        rgb = np.rint(np.minimum(straight, 65535)).astype(np.uint16)
    alpha = None if alpha is None else np.ascontiguousarray(upright(alpha, orientation))
    return Sixteen(np.ascontiguousarray(upright(rgb, orientation)), alpha, profile)


def _extra(path: Path) -> int | None:
    value = tiff_tags_of(path).get(EXTRA)
    first = value[0] if isinstance(value, Sequence) and value else value
    return first if isinstance(first, int) else None
