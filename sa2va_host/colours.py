"""The pixels of an image of Pillow as RGB bytes: its profile applied, what is transparent white, 16 bits cut to 8.

Called by `sa2va_host.media`, strip by strip (`sa2va_host.opening.strips`). Imports NumPy only for arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from . import icc
from .opening import strips

if TYPE_CHECKING:
    from PIL import Image

ToBytes: TypeAlias = "Callable[[Image.Image], bytes]"
"""A part of the image -> its pixels, three bytes each, row by row."""

_DEEP = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I", "F"})
"""Grey with more than 8 bits."""
_FEWER_BITS = {"L;2": 85, "L;4": 17}
"""Grey with 2 or 4 bits, and what Pillow multiplies it with, all but the value that is transparent."""


def to_bytes(image: Image.Image, stored: str, name: str, notes: list[str]) -> ToBytes:
    """How the strips of an image become RGB. ``stored`` is how its file holds a pixel (`sa2va_host.opening.stored_as`).

    What is unusual is added to ``notes``. What it returns raises `InvalidInput` for values that are no colours.
    """
    deep = image.mode in _DEEP
    convert = icc.conversion(image, name, notes, deep=deep)
    if deep:
        return _deep_bytes(image, stored, convert, name, notes)
    if ";16" in stored and image.mode in ("RGB", "RGBA"):
        from .pixels import note_few_bits

        # Pillow keeps the upper 8 of 16 bits.
        note_few_bits(max(high for _, high in image.getextrema()[:3]) << 8, name, notes)  # type: ignore[misc]
    if image.has_transparency_data:
        return _on_white(stored, convert, name)
    mode = icc.source_mode(image)
    if convert is None or mode is None:
        return lambda strip: strip.convert("RGB").tobytes()
    return lambda strip: convert(strip.convert(mode)).tobytes()


def _deep_bytes(
    image: Image.Image, stored: str, convert: icc.Conversion | None, name: str, notes: list[str]
) -> ToBytes:
    import numpy as np
    from PIL import Image as PillowImage

    from .pixels import note_few_bits, of_more_bits, to_rgb, twelve_bits

    transparent = image.info.get("transparency")
    twelve = stored == "I;12"
    if image.mode != "F" and not twelve:
        note_few_bits(max(int(np.asarray(strip).max()) for strip in strips(image)), name, notes)

    def deep_bytes(strip: Image.Image) -> bytes:
        values = of_more_bits(strip, name)
        scaled = twelve_bits(values) if twelve else values
        colours = convert(PillowImage.fromarray(scaled)) if convert else None
        rgb = to_rgb(scaled[:, :, None], name) if colours is None else np.array(colours)
        if isinstance(transparent, int):
            rgb[values == transparent] = 255
        return rgb.tobytes()

    return deep_bytes


def _on_white(stored: str, convert: icc.Conversion | None, name: str) -> ToBytes:
    import numpy as np

    from .pixels import to_rgb

    def white_bytes(strip: Image.Image) -> bytes:
        strip = _with_scaled_key(strip, stored)
        rgba = strip.convert("RGBA")
        if convert is not None:
            grey = icc.source_mode(strip) == "L"
            colours = convert(strip.convert("L") if grey else rgba.convert("RGB"))
            colours.putalpha(rgba.getchannel("A"))
            rgba = colours
        return to_rgb(np.asarray(rgba), name).tobytes()

    return white_bytes


def _with_scaled_key(image: Image.Image, stored: str) -> Image.Image:
    """The image with the value that is transparent at the scale of its pixels; Pillow leaves it as the file has it."""
    key = image.info.get("transparency")
    if isinstance(key, int) and stored in _FEWER_BITS:
        key *= _FEWER_BITS[stored]
    elif isinstance(key, tuple) and ";16" in stored:
        key = tuple(value >> 8 for value in key)
    else:
        return image
    image = image.copy()
    image.info["transparency"] = key
    return image
