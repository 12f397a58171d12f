"""Converts the colours of an image with an embedded ICC profile to sRGB, which the model and our files assume.

Called by `sa2va_host.colours`. LittleCMS does the arithmetic (Pillow's `ImageCms`), with the perceptual intent: every
profile with tables must have the table of that one, and web browsers show it. Profiles of displays, which are a matrix
and curves, have one intent only.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from PIL import Image

Conversion: TypeAlias = "Callable[[Image.Image], Image.Image]"
"""An image of `source_mode` -> the same in sRGB, mode RGB."""

_MODES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK", b"Lab ": "LAB"}
"""The colour spaces of profiles (ICC.1:2022, table 19), with Pillow's modes."""
_WORDS = {"RGB": "RGB", "L": "grey", "CMYK": "CMYK", "LAB": "Lab"}
_COLORANTS = {
    b"rXYZ": (0.4360, 0.2225, 0.0139),
    b"gXYZ": (0.3851, 0.7169, 0.0971),
    b"bXYZ": (0.1431, 0.0606, 0.7141),
}
"""sRGB's primaries in the profile connection space: IEC 61966-2-1, adapted to D50 after Bradford."""
_NEAR = 0.0006
"""How far numbers may be off that are rounded to 16 bits by different makers: less than half a level of 255."""


def source_mode(image: Image.Image) -> str | None:
    """The mode that an image is converted to before its profile is applied: RGB, L, CMYK or LAB; 16-bit grey is L too.

    None for floats and for modes that no file has.
    """
    if image.mode in ("RGB", "RGBA", "RGBX", "P", "PA", "YCbCr"):
        return "RGB"
    if image.mode in ("1", "L", "LA", "I") or image.mode.startswith("I;16"):
        return "L"
    return image.mode if image.mode in ("CMYK", "LAB") else None


def conversion(image: Image.Image, name: str, notes: list[str], *, deep: bool = False) -> Conversion | None:
    """What makes sRGB of the colours of an image, from its `source_mode` or, where `deep`, from mode I;16.

    None where nothing is to be done: there is no profile, or it is sRGB itself. A profile that is broken or belongs to
    another kind of image adds a sentence to ``notes``, and the colours count as sRGB.
    """
    if "icc_profile" not in image.info:
        return None
    profile = image.info["icc_profile"]
    if profile == b"":
        return None
    mode = source_mode(image)
    # Pillow has None for a profile that it could not put together or unpack.
    found = _read(bytes(profile), "I;16" if deep else "") if profile is not None else None
    if found is None or mode is None:
        notes.append(f"The ICC profile of {name} cannot be used; its colours are taken as sRGB.")
        return None
    space, convert = found
    if space != mode:
        notes.append(
            f"The ICC profile of {name} is for {_WORDS[space]} images, and this one is {_WORDS[mode]}; its colours are"
            " taken as sRGB."
        )
        return None
    return convert


@lru_cache(maxsize=8)
def _read(profile: bytes, mode: str) -> tuple[str, Conversion | None] | None:
    """The mode that a profile is for, and what converts to sRGB from that mode or ``mode``; nothing for sRGB itself.

    None where it is broken or of no use, such as one that links two devices.
    """
    space = _MODES.get(profile[16:20])
    if space is None or profile[36:40] != b"acsp":
        return None
    if _is_srgb(profile):
        return space, None
    from PIL import ImageCms

    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode or space,
            "RGB",
            ImageCms.Intent.PERCEPTUAL,
            flags=ImageCms.Flags.NOOPTIMIZE if space == "L" else ImageCms.Flags.HIGHRESPRECALC,
        )
    # Refused by LittleCMS; or Pillow was built without LittleCMS.
    except (ImageCms.PyCMSError, OSError, ValueError, ImportError):
        return None

    def convert(image: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(image, transform)
        assert converted is not None
        return converted

    return space, (_by_table(convert, mode) if space == "L" else convert)


def _by_table(convert: Conversion, mode: str) -> Conversion:
    """The same for grey, by the colours of all values: LittleCMS is off by ten levels for dark grey unless it takes
    ten times as long.
    """
    import numpy as np
    from PIL import Image as PillowImage

    values = np.arange(65536, dtype=np.uint16) if mode else np.arange(256, dtype=np.uint8)
    table = np.asarray(convert(PillowImage.fromarray(values[None])))[0]
    return lambda image: PillowImage.fromarray(table[np.asarray(image)])


def _is_srgb(profile: bytes) -> bool:
    """Whether a profile is sRGB, as nearly every one is, read from its bytes: LittleCMS takes 20 ms for that."""
    try:
        tags = _tags(profile)
        if b"A2B0" in tags:  # tables come before matrix and curves
            return False
        if profile[16:20] == b"GRAY":
            return profile[20:24] == b"XYZ " and _is_srgb_curve(tags[b"kTRC"])
        return all(
            abs(found - wanted) < _NEAR
            for tag, colorant in _COLORANTS.items()
            for found, wanted in zip(_xyz(tags[tag]), colorant, strict=True)
        ) and all(_is_srgb_curve(tags[tag]) for tag in (b"rTRC", b"gTRC", b"bTRC"))
    except (KeyError, struct.error):
        return False


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, 128)
    entries = (struct.unpack_from(">4sII", profile, 132 + 12 * place) for place in range(min(count, 100)))
    return {name: profile[offset : offset + size] for name, offset, size in entries}


def _xyz(tag: bytes) -> tuple[float, ...]:
    return tuple(value / 65536 for value in struct.unpack_from(">3i", tag, 8))


def _is_srgb_curve(tag: bytes) -> bool:
    """Whether a `curv` or `para` tag (ICC.1:2022, 10.6 and 10.18) is the curve of IEC 61966-2-1."""
    if tag[:4] == b"para" and struct.unpack_from(">H", tag, 8) == (3,):
        numbers = [value / 65536 for value in struct.unpack_from(">5i", tag, 12)]
        wanted = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        return all(abs(found - expected) < _NEAR for found, expected in zip(numbers, wanted, strict=True))
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count < 256:  # a gamma, or too few points to tell
            return False
        points = struct.unpack_from(f">{count}H", tag, 12)
        places = range(0, count, count // 64)
        return all(abs(points[place] / 65535 - _linear(place / (count - 1))) < _NEAR for place in places)
    return False


def _linear(encoded: float) -> float:
    return float(encoded / 12.92 if encoded <= 0.04045 else ((encoded + 0.055) / 1.055) ** 2.4)
