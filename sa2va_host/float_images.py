"""Radiance HDR and float TIFF, read by OpenCV as scene-linear light.

Called by `sa2va_host.plate`. OpenEXR has `sa2va_host.exr`.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInput
from .extras import check_opencv
from .image_depth import BITS, EXTRA, HEIGHT, ORIENTATION, PLANES, WIDTH, tiff_tags_of
from .light import Light, clean_alpha, scaled_by

_HDR_HEAD = 65536
"""Bytes in which the header of a Radiance file ends."""
_RESOLUTION = re.compile(rb"\n\n([-+][XY]) (\d+) ([-+][XY]) (\d+)\n")
_XYZ = b"32-bit_rle_xyze"
_SILENT = 0
"""OpenCV's `LOG_LEVEL_SILENT`."""
_STRAIGHT = 2
"""Of `EXTRA` (ExtraSamples): alpha that the colours are not multiplied by; everything else counts as multiplied."""


def float_size(source: Path | io.BytesIO, depth: Literal["hdr", "float-tiff"], name: str) -> tuple[int, int]:
    """`(height, width)` from the header alone. Raises `InvalidInput` for what `read_float` cannot read."""
    if depth == "hdr":
        return _hdr_size(source, name)
    tags = tiff_tags_of(source)
    try:
        height, width = int(tags[HEIGHT]), int(tags[WIDTH])
        bits = tags[BITS]
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"{name} is a damaged TIFF: its header names no size.") from error
    if set(bits if isinstance(bits, tuple) else (bits,)) - {32, 64}:
        raise InvalidInput(
            f"{name} is a TIFF of floats with {bits[0] if isinstance(bits, tuple) else bits} bits, which is not read.",
            advice="Save it with 32-bit floats, or as OpenEXR.",
        )
    if tags.get(PLANES, 1) != 1:
        raise InvalidInput(
            f"{name} is a float TIFF that holds its channels one after the other (planar), which is not read.",
            advice="Save it with interleaved channels, or as OpenEXR.",
        )
    return (width, height) if int(tags.get(ORIENTATION, 1)) >= 5 else (height, width)


def read_float(source: Path | io.BytesIO, depth: Literal["hdr", "float-tiff"], name: str) -> Light:
    """The image, upright. Raises `InvalidInput` for a damaged file, and for forms that OpenCV does not read,
    `ConfigError` where OpenCV is missing.
    """
    float_size(source, depth, name)
    check_opencv(f"Reading {name}, a {'Radiance HDR' if depth == 'hdr' else 'TIFF of floats'},")
    values = decode(source)
    if values is None or values.dtype.kind != "f":
        raise InvalidInput(f"{name} is damaged or cut short.")
    with np.errstate(over="ignore"):  # what 32 bits cannot hold is infinite, and shown as white
        values = values.astype(np.float32, copy=False)
    if values.ndim == 2:
        values = np.repeat(values[:, :, None], 3, axis=2)
    if values.shape[2] not in (3, 4):
        raise InvalidInput(f"{name} has {values.shape[2]} channels; 1, 3 or 4 are needed.")
    tags = tiff_tags_of(source) if depth == "float-tiff" else {}
    values = upright(values, int(tags.get(ORIENTATION, 1)))
    rgb = np.ascontiguousarray(values[:, :, 2::-1])  # OpenCV has blue first
    if values.shape[2] == 3:
        return Light(rgb)
    alpha = clean_alpha(values[:, :, 3])
    extra = tags.get(EXTRA, 0)
    if _STRAIGHT in (extra if isinstance(extra, tuple) else (extra,)):
        rgb = scaled_by(rgb, alpha)
    return Light(rgb, alpha)


def decode(source: Path | io.BytesIO) -> NDArray[Any] | None:
    """What OpenCV reads of a file or its content at full depth, blue first; None where it cannot. Needs OpenCV."""
    import cv2

    with _quiet():
        try:
            if isinstance(source, Path):
                content = np.fromfile(
                    source, np.uint8
                )  # not by name: on Windows OpenCV opens ASCII names alone
            else:
                content = np.frombuffer(source.getbuffer(), np.uint8)
            return cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
        except cv2.error:
            return None


def upright(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """An image `[height, width, ...]` turned as its EXIF or TIFF orientation (1 to 8) says."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
        orientation = {5: 1, 6: 2, 7: 3, 8: 4}.get(orientation, 1)
    return values[:: -1 if orientation in (3, 4) else 1, :: -1 if orientation in (2, 3) else 1]


def _hdr_size(source: Path | io.BytesIO, name: str) -> tuple[int, int]:
    if isinstance(source, Path):
        with source.open("rb") as stream:
            head = stream.read(_HDR_HEAD)
    else:
        head = bytes(source.getbuffer()[:_HDR_HEAD])
    found = _RESOLUTION.search(head.replace(b"\r\n", b"\n"))
    if found is None:
        raise InvalidInput(f"{name} is a damaged Radiance file: its header names no size.")
    if _XYZ in head[: found.start()]:
        raise InvalidInput(
            f"{name} is a Radiance file of XYZ colours, which are not read.",
            advice="Save it as RGB, or as OpenEXR.",
        )
    if (found[1], found[3]) != (b"-Y", b"+X"):
        raise InvalidInput(
            f"{name} is a Radiance file that is turned or mirrored, which is not read.",
            advice="Save it upright, or as OpenEXR.",
        )
    return int(found[2]), int(found[4])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """OpenCV prints what is wrong with a file, which our own error says."""
    import cv2

    # OpenCV 4 has the function of the same meaning at its top, and its levels are the same numbers.
    log: Any = getattr(cv2.utils, "logging", cv2)
    before = log.setLogLevel(_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(before)
