"""Files as images of Pillow, with our limit on their size, formats of optional libraries, and JPEG without an end mark.

Called by `sa2va_host.media`. Changes nothing that other users of Pillow in this process see: neither
`Image.MAX_IMAGE_PIXELS` nor `ImageFile.LOAD_TRUNCATED_IMAGES`, which are global.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .discovery import is_readable, missing_library
from .endings import CAMERA_RAW, VIDEOS
from .errors import InvalidInput
from .protocol.limits import MAX_BUFFER_BYTES

if TYPE_CHECKING:
    from PIL import Image

STRIP_PIXELS = 4 << 20
"""How many pixels are converted at a time, so that a large image is in memory once, not once for each step."""
FORMATS = (
    "PNG", "JPEG", "MPO", "BMP", "GIF", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000", "TGA", "PCX", "ICO", "DIB", "ICNS",
    "PSD", "QOI", "SGI", "DDS",
)  # fmt: skip
"""Pillow's names of the formats that are read, by content, whatever a file is called. Not all that Pillow knows: it
hands PostScript to Ghostscript, for one, which runs what is in the file.
"""
_HEIF = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
_AVIF = frozenset({b"avif", b"avis"})
_ANIMATED = frozenset({"GIF", "PNG", "WEBP", "AVIF"})
_JXL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")

_reading = threading.local()
_lock = threading.Lock()
_asked = threading.Event()
"""Whether Pillow asks here. Not looked up in Pillow: a process may hold two copies of this package."""


def check_size(height: int, width: int, name: str) -> None:
    """Raises `InvalidInput` for an image of more than 1 GiB as RGB."""
    if height * width * 3 > MAX_BUFFER_BYTES:
        raise InvalidInput(
            f"{name} has {width} x {height} pixels, more than {MAX_BUFFER_BYTES >> 20} MiB as RGB.",
            advice="Scale it down first.",
        )


@contextlib.contextmanager
def own_bound(name: str) -> Iterator[None]:
    """While it lasts, Pillow asks `check_size` on this thread whether an image is too large, wherever it asks.

    Other threads keep Pillow's own limit.
    """
    _let_pillow_ask()
    before = getattr(_reading, "name", None)
    _reading.name = name
    try:
        yield
    finally:
        _reading.name = before


def _let_pillow_ask() -> None:
    from PIL import Image

    with _lock:
        pillows: Callable[..., None] | None = getattr(Image, "_decompression_bomb_check", None)
        if pillows is None or _asked.is_set():
            return

        def check(size: tuple[int, int], *more: Any, **named: Any) -> None:
            name = getattr(_reading, "name", None)
            if name is None:
                pillows(size, *more, **named)
            else:
                check_size(size[1], size[0], name)

        _asked.set()
        Image._decompression_bomb_check = check  # noqa: SLF001 - the only place that all formats come through


def opened(file: Path | io.BytesIO, name: str) -> Image.Image:
    """The image of a file, of which only the header is read. Within `own_bound`; raises what Pillow raises, and
    `InvalidInput` where another program or a library is needed.
    """
    from PIL import Image, UnidentifiedImageError

    suffix = file.suffix.lower() if isinstance(file, Path) else ""
    if suffix in CAMERA_RAW:
        raise InvalidInput(
            f"{name} holds a camera's raw data, of which only the preview could be read.",
            advice="Convert it to TIFF, PNG or JPEG first.",
        )
    try:
        image = _open(file)
    except UnidentifiedImageError:
        head = _head(file)
        if format_ := _register(head, name):
            image = Image.open(file, formats=[format_])
        elif suffix in VIDEOS or _is_video(head):
            from .machine.commands import sa2va_command

            raise InvalidInput(
                f"{name} is a video file, not an image.", advice=f"Use `{sa2va_command('video')}`."
            ) from None
        else:
            raise
    try:
        check_size(image.height, image.width, name)
    except InvalidInput:
        image.close()
        raise
    return image


def _open(file: Path | io.BytesIO) -> Image.Image:
    """Open a file of one of `FORMATS`. Raises `UnidentifiedImageError` for any other."""
    from PIL import Image, UnidentifiedImageError

    Image.preinit()
    common = [each for each in FORMATS if each in Image.OPEN]
    try:
        return Image.open(file, formats=common)
    except UnidentifiedImageError:
        Image.init()
        rare = [each for each in FORMATS if each in Image.OPEN and each not in common]
        if not rare:
            raise
        return Image.open(file, formats=rare)


def loaded(image: Image.Image, name: str, notes: list[str]) -> Image.Image:
    """The image with its pixels in memory, of a JPEG without its end mark a new one. Raises as Pillow does."""
    stream = getattr(image, "fp", None)
    if image.format in ("JPEG", "MPO") and stream is not None and (content := _without_end_mark(stream)):
        image = _completed(content)
        notes.append(f"{name} lacks the mark that ends a JPEG file; its pixels are all there.")
    image.load()
    return image


def note_further_images(image: Image.Image, name: str, notes: list[str]) -> None:
    """Say so where a file holds more than the one image that is read."""
    if image.format in _ANIMATED and getattr(image, "is_animated", False):
        from .machine.commands import sa2va_command

        notes.append(
            f"{name} is animated, and its first frame is read. `{sa2va_command('video')}` reads them all."
        )
    elif image.format == "TIFF" and getattr(image, "is_animated", False):
        notes.append(f"{name} holds several images, of which the first one is read.")


def stored_as(image: Image.Image) -> str:
    """How the file stores a pixel, in Pillow's words: `RGB;16B`, `L;4`. Empty once the pixels are in memory."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    if isinstance(arguments, tuple):
        arguments = arguments[0] if arguments else ""
    return arguments if isinstance(arguments, str) else ""


def strips(image: Image.Image) -> Iterator[Image.Image]:
    """The image from top to bottom in pieces of `STRIP_PIXELS`, most images in one."""
    rows = max(1, STRIP_PIXELS // image.width)
    if rows >= image.height:
        yield image
        return
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def _without_end_mark(stream: IO[bytes]) -> bytes:
    """The content of a JPEG file that lacks its end mark, else nothing."""
    from . import jpeg

    stream.seek(0, os.SEEK_END)
    stream.seek(max(0, stream.tell() - 2))
    if stream.read(2) == jpeg.END:
        return b""
    stream.seek(0)
    content = stream.read(MAX_BUFFER_BYTES)
    return b"" if jpeg.is_ended(content) else content


def _completed(content: bytes) -> Image.Image:
    """The image of a JPEG file of which the end mark alone is missing. Raises `OSError` where more is."""
    from PIL import Image

    from .jpeg import with_end_mark

    cut = OSError("the JPEG data ends too early")
    files = with_end_mark(content)
    if not files:
        raise cut
    complete, *others = (Image.open(io.BytesIO(file), formats=["JPEG", "MPO"]) for file in files)
    complete.load()
    for other in others:
        other.load()
        # One strip of each at a time.
        if any(
            one.tobytes() != two.tobytes() for one, two in zip(strips(complete), strips(other), strict=True)
        ):
            raise cut
        other.close()
    return complete


def _head(file: Path | io.BytesIO) -> bytes:
    if isinstance(file, Path):
        with file.open("rb") as stream:
            return stream.read(64)
    return file.getvalue()[:64]


def _register(head: bytes, name: str) -> str:
    """Pillow's name of the format that reads this, with a library that was added; empty where there is none. Raises
    `InvalidInput` where the library is not installed.
    """
    brands = _brands(head)
    if brands & _HEIF:
        suffix, kind = ".heic", "HEIC"
    elif brands & _AVIF:
        suffix, kind = ".avif", "AVIF"
    elif head.startswith(_JXL):
        suffix, kind = ".jxl", "JPEG XL"
    else:
        return ""
    if not is_readable(suffix):
        raise InvalidInput(
            f"{name} is a {kind} image, which this installation cannot read.",
            advice=f"Run: {missing_library(suffix)}",
        )
    if suffix == ".heic":
        import pillow_heif

        pillow_heif.register_heif_opener()
        return "HEIF"
    if suffix == ".jxl":
        import pillow_jxl  # noqa: F401 - its import adds it to Pillow

        return "JXL"
    return ""


def _brands(head: bytes) -> set[bytes]:
    """The brands of a file in the ISO base media format: ISO/IEC 14496-12, 4.3."""
    if head[4:8] != b"ftyp":
        return set()
    box = head[: int.from_bytes(head[:4], "big")]
    return {box[8:12], *(box[place : place + 4] for place in range(16, len(box) - 3, 4))}


def _is_video(head: bytes) -> bool:
    return (
        bool(_brands(head))
        or head.startswith((b"\x1a\x45\xdf\xa3", b"FLV\x01", b"\0\0\x01\xba", b"\0\0\x01\xb3"))
        or (head.startswith(b"RIFF") and head[8:12] == b"AVI ")
    )
