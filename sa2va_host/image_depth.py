"""Which image files hold more than 8 bits, by their first bytes. Imports neither NumPy nor OpenCV.

Called by `sa2va_host.media` for every file, and by `sa2va_host.plate`.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

Depth: TypeAlias = Literal["exr", "hdr", "float-tiff", "png16", "tiff16", "other"]
"""`exr`, `hdr` and `float-tiff` are scene-linear, `png16` and `tiff16` hold 16-bit colours; of others 8 bits count."""
LINEAR = ("exr", "hdr", "float-tiff")

_EXR = b"\x76\x2f\x31\x01"
_HDR = (b"#?RADIANCE", b"#?RGBE")
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_BITS = 24
"""Where IHDR, which is always the first chunk, holds the bits of a channel."""
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""Little and big endian, TIFF and BigTIFF."""
_HEAD = 32

WIDTH, HEIGHT, BITS, PHOTOMETRIC, ORIENTATION, PLANES, EXTRA, FORMAT = 256, 257, 258, 262, 274, 284, 338, 339
"""The TIFF tags that are looked at (TIFF 6.0, section 8)."""
_FLOAT = 3
"""Of `FORMAT` (SampleFormat)."""
_GREY, _RGB = 1, 2
"""Of `PHOTOMETRIC`: BlackIsZero and RGB."""


def depth_of(source: Path | io.BytesIO) -> Depth:
    """What a file, or its content, is. Raises `OSError` as the system does; what is no image is `other`."""
    with _reading(source) as stream:
        head = stream.read(_HEAD)
        if head.startswith(_EXR):
            return "exr"
        if head.startswith(_HDR):
            return "hdr"
        if head.startswith(_PNG):
            return "png16" if head[_PNG_BITS : _PNG_BITS + 1] == b"\x10" else "other"
        if head.startswith(_TIFF):
            return _tiff_depth(tiff_tags(stream))
    # What calls itself EXR and is nothing else is a damaged EXR, not a format that Pillow lacks.
    return "exr" if isinstance(source, Path) and source.suffix.lower() == ".exr" else "other"


def tiff_tags(stream: IO[bytes]) -> dict[int, Any]:
    """The tags of a TIFF's first image; none where the file is damaged."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    stream.seek(0)
    head = stream.read(8)
    try:
        if b"+" in head[2:4]:  # BigTIFF, whose header is twice as long
            head += stream.read(8)
        directory = ImageFileDirectory_v2(head)
        stream.seek(directory.next)
        directory.load(stream)
        return {tag: directory[tag] for tag in directory}
    except Exception:  # noqa: BLE001 - whoever reads the image says what is wrong with it
        return {}


def tiff_tags_of(source: Path | io.BytesIO) -> dict[int, Any]:
    """`tiff_tags` of a file or its content."""
    with _reading(source) as stream:
        return tiff_tags(stream)


def _tiff_depth(tags: dict[int, Any]) -> Depth:
    bits, formats = _as_tuple(tags.get(BITS, 1)), _as_tuple(tags.get(FORMAT, 1))
    if _FLOAT in formats:
        return "float-tiff"
    plain = tags.get(PHOTOMETRIC) in (_GREY, _RGB) and tags.get(PLANES, 1) == 1 and set(formats) == {1}
    return "tiff16" if set(bits) == {16} and plain else "other"


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


@contextlib.contextmanager
def _reading(source: Path | io.BytesIO) -> Iterator[IO[bytes]]:
    """The stream from its beginning; content is left at its beginning, too."""
    if isinstance(source, io.BytesIO):
        source.seek(0)
        yield source
        source.seek(0)
        return
    with source.open("rb") as stream:
        yield stream
