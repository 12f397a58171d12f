"""Pictures in and out: anything that is a picture becomes uint8 RGB, and files appear whole or not at all.

Called by the client and the front ends. Knows nothing of models or workers.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeAlias

from . import opening
from .colours import to_bytes
from .discovery import expanded
from .errors import InvalidInput, Sa2VAError
from .image_depth import LINEAR, depth_of
from .protocol.limits import MAX_BUFFER_BYTES, MAX_BUFFERS, MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from .image_depth import Depth

Picture: TypeAlias = "NDArray[np.uint8]"
"""RGB `[height, width, 3]`, 0..255."""
Pixels: TypeAlias = "NDArray[np.uint8] | memoryview"
"""The same, or its bytes, C-contiguous, in a view that has this shape."""


class SupportsArray(Protocol):
    """What NumPy can make an array of, such as a torch tensor."""

    def __array__(self, *arguments: Any) -> NDArray[Any]: ...


class SupportsRead(Protocol):
    """A binary file object, as far as it is used."""

    def read(self, size: int, /) -> bytes | None: ...


FileContent: TypeAlias = "bytes | bytearray | memoryview | SupportsRead"
Source: TypeAlias = "str | os.PathLike[str] | FileContent | Image.Image | NDArray[Any] | SupportsArray"
"""What `read_image` reads: a file's name, a file's content, or the image itself."""

_ORIENTATION = 0x0112
"""The EXIF tag; 1 is upright."""
_PIECE = 1 << 20
"""How many bytes are read from a file object at a time."""
_PART = "part"
"""The ending of a file that is not whole yet."""
_PART_BYTES = 80
"""How much of a file's name its temporary one keeps: with what is added it stays below a file system's 255 bytes."""


def read_image(source: Source, *, layer: str | None = None, notes: list[str] | None = None) -> Picture:
    """The image as uint8 RGB `[height, width, 3]`, C-contiguous.

    A file is its name (`~` is the home folder), its content (`bytes`, `bytearray`, a `memoryview` of one dimension) or
    a binary file object, which is read to its end and stays open. Files and PIL images are turned as their EXIF
    orientation says, and their colours converted to sRGB from an embedded ICC profile (`sa2va_host.icc`); of an
    animation the first frame is read.
    Arrays and torch tensors, on any device, are `[height, width]` or `[height, width, 1, 3 or 4]`: uint8, uint16
    (0..65535) or float (0..1). Transparent parts are shown on white, as a viewer shows them. A pipe is read to its end.

    Files of scene-linear light (OpenEXR, Radiance HDR, float TIFF) go through the curve of sRGB as
    `sa2va_host.light.Light.to_srgb` says; ``layer`` chooses among those of an OpenEXR file (`sa2va_host.exr.read_exr`).

    Sentences about what is unusual are appended to ``notes``: a profile that cannot be used, a JPEG without its end
    mark, an animation, 16 bits that hold 12. Raises `InvalidInput` for everything that is not an image, for one of more
    than 1 GiB as RGB, and for a layer that is not there; `ConfigError` where the package for OpenEXR is missing.
    """
    import numpy as np

    return np.asarray(read_pixels(source, layer=layer, notes=notes))


def read_pixels(source: Source, *, layer: str | None = None, notes: list[str] | None = None) -> Pixels:
    """The same, without NumPy where an image is its file's bytes and needs no arithmetic, as most do."""
    said: list[str] = [] if notes is None else notes
    if isinstance(source, (str, os.PathLike)):
        with _refusals(os.fspath(source)):
            path = expanded(source)
        return _read_file(path, layer, said)
    if isinstance(source, memoryview) and not _is_content(source):
        check_no_layer(layer, "The image")
        with _refusals("The picture"):
            if _is_rgb(source):
                _check_size(source.shape or (), "The picture")
                return source
    content = _content(source)
    if content is not None:
        return _read_content(content[0], layer, content[1], said)
    check_no_layer(layer, "The image")
    from PIL import Image

    if isinstance(source, Image.Image):
        with _refusals("The picture"), opening.own_bound("The picture"):
            return _from_pil(source, "The picture", said)
    array = to_array(source, "The picture")
    if array is None:
        raise InvalidInput(
            "An image is a file's name, a file's content (bytes or a binary file object), a PIL image, or an array or"
            f" tensor [height, width, 3], not {type(source).__name__}."
        )
    return _from_array(array, "The picture", said)


def to_array(source: Any, name: str) -> NDArray[Any] | None:
    """An array of NumPy of one, of a torch tensor on any device, or of what else has `__array__` or is a `memoryview`.

    None for anything else. bfloat16, which NumPy has not, becomes float32. ``name`` is the value's in messages. Raises
    `InvalidInput` where the conversion fails.
    """
    import numpy as np

    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    with _refusals(name):
        if torch is not None and isinstance(source, torch.Tensor):
            tensor = source.detach()
            if tensor.dtype == torch.bfloat16:
                tensor = tensor.float()
            return np.asarray(tensor.cpu().resolve_conj().resolve_neg().numpy())
        if isinstance(source, memoryview) or hasattr(source, "__array__"):
            return np.asarray(source)
    return None


def image_size(path: str | os.PathLike[str], *, layer: str | None = None) -> tuple[int, int]:
    """`(height, width)` of what `read_image` would give for a file, from its header. Raises `InvalidInput` alike."""
    file = Path(path)
    name = str(file)
    with _refusals(name):
        depth = depth_of(file) if file.is_file() else "other"
        if depth in LINEAR:
            from .plate import light_size

            return light_size(file, depth, layer, name)
        check_no_layer(layer, name)
    with _refusals(name), opening.own_bound(name), opening.opened(_stream(file), name) as image:
        width, height = image.size
        # To look for the EXIF of a PNG, which hardly has any, Pillow would decode it.
        turned = image.format != "PNG" and image.getexif().get(_ORIENTATION, 1) >= 5
        return (width, height) if turned else (height, width)


def read_images(sources: Iterable[Source], *, notes: list[str] | None = None) -> list[Picture]:
    """The images of one message, each as `read_image` gives it, with its ``notes``.

    Raises `InvalidInput` as that does, and for more than 64 pictures or 2 GiB, which is what a message holds
    (`sa2va_host.protocol.limits`).
    """
    pictures: list[Picture] = []
    for source in sources:
        if len(pictures) == MAX_BUFFERS:
            raise InvalidInput(
                f"More than {MAX_BUFFERS} pictures were given.", advice="Ask about fewer at a time."
            )
        pictures.append(read_image(source, notes=notes))
        if sum(picture.nbytes for picture in pictures) > MAX_MESSAGE_BYTES:
            raise InvalidInput(
                f"The first {len(pictures)} pictures take more than {MAX_MESSAGE_BYTES >> 20} MiB together.",
                advice="Scale them down, or ask about fewer at a time.",
            )
    return pictures


def write_image(path: str | os.PathLike[str], picture: NDArray[np.uint8] | NDArray[np.uint16]) -> Path:
    """Write a PNG; returns the path.

    uint8 `[height, width, 3]` (RGB), `[height, width, 4]` (RGBA, straight alpha) or `[height, width]` (grey), or
    uint16 `[height, width]` (16-bit grey). Raises `InvalidInput` for anything else, and for what PNG cannot hold.
    """
    from . import png

    encoded = png.encode(picture)
    return write_whole(path, lambda stream: stream.write(encoded))


def write_mask(path: str | os.PathLike[str], mask: NDArray[np.bool_]) -> Path:
    """Write a mask `[height, width]` as an 8-bit grey PNG, 255 where it is true; returns the path."""
    from . import png

    encoded = png.encode_mask(mask)
    return write_whole(path, lambda stream: stream.write(encoded))


def write_overlay(
    path: str | os.PathLike[str], picture: Picture, masks: NDArray[np.bool_] | Sequence[NDArray[np.bool_]]
) -> Path:
    """Write the picture with the masks `[objects, height, width]` drawn on it as PNG; returns the path."""
    from .masks.masks import overlay

    return write_image(path, overlay(picture, masks))


def write_whole(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> Path:
    """Make the file at `path` from what `write` puts into a stream; it appears complete or not at all.

    Missing folders are made; a device or a pipe takes it as it comes. Raises `OSError` as the system does (read-only
    folder, full disk).
    """
    target = Path(path)
    if target.is_char_device() or target.is_fifo():
        with target.open("wb") as stream:
            write(stream)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    kept = os.fsencode(target.name)[:_PART_BYTES].decode(errors="ignore")  # never half a letter
    temporary = target.parent / f".{kept}.{os.urandom(4).hex()}.{_PART}"
    try:
        with temporary.open("xb") as stream:
            write(stream)
        temporary.replace(target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(target), None  # what the caller asked for
        raise
    return target


def write_json(path: str | os.PathLike[str], document: Any, *, indent: int | None = None) -> Path:
    """Write a JSON document, UTF-8; returns the path. A file's name that is no UTF-8 is told in JSON's escapes."""
    content = json.dumps(document, indent=indent, ensure_ascii=False).encode(errors="backslashreplace")
    return write_whole(path, lambda stream: stream.write(content))


def remove_parts(folder: Path, *, inside: bool = False) -> None:
    """Remove what killed processes left of `write_whole` in a folder, and ``inside`` of the folders in it. Nobody else
    may be writing there.
    """
    pattern = f".*.{'[0-9a-f]' * 8}.{_PART}"
    for rest in list(folder.rglob(pattern) if inside else folder.glob(pattern)):
        rest.unlink(missing_ok=True)


def _read_file(path: Path, layer: str | None, notes: list[str]) -> Pixels:
    with _refusals(str(path)):
        return _read_opened(_stream(path), layer, str(path), notes)


def _read_content(content: bytes, layer: str | None, name: str, notes: list[str]) -> Pixels:
    with _refusals(name):
        if not content:
            raise InvalidInput(f"{name} is empty (0 bytes).")
        return _read_opened(io.BytesIO(content), layer, name, notes)


def _read_opened(file: Path | io.BytesIO, layer: str | None, name: str, notes: list[str]) -> Pixels:
    depth = depth_of(file)
    if depth in LINEAR:
        return _read_light(file, depth, layer, name, notes)
    check_no_layer(layer, name)
    with opening.own_bound(name), opening.opened(file, name) as image:
        opening.note_further_images(image, name, notes)
        return _from_pil(image, name, notes)


def _is_content(view: memoryview) -> bool:
    """Whether a view holds a file's bytes: an image itself has two dimensions or three."""
    try:
        return view.ndim == 1 and view.itemsize == 1
    except ValueError:  # released
        return False


def _content(source: object) -> tuple[bytes, str] | None:
    """The bytes of a file that is in memory or open, and what to call it; None for anything else."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return (
            (bytes(source), "The image")
            if not isinstance(source, memoryview) or _is_content(source)
            else None
        )
    if not callable(getattr(source, "read", None)):
        return None
    file: Any = source
    given = getattr(file, "name", None)
    name = given if isinstance(given, str) else "The image"
    with _refusals(name):
        # Whoever has just written into a BytesIO stands at its end.
        if callable(getattr(file, "seekable", None)) and file.seekable():
            file.seek(0)
        content = bytearray()
        while len(content) <= MAX_BUFFER_BYTES and (
            piece := file.read(_PIECE)
        ):  # sockets give less than asked for
            if isinstance(piece, str):
                advice = "Open it in binary mode: open(path, 'rb')."
                raise InvalidInput(f"{name} was opened as text.", advice=advice)
            content += piece
        return bytes(content), name


def _read_light(
    source: Path | io.BytesIO, depth: Depth, layer: str | None, name: str, notes: list[str]
) -> Picture:
    """A scene-linear image as sRGB."""
    from .plate import light_size, read_light

    _check_size(light_size(source, depth, layer, name), name)
    light = read_light(source, depth, layer, name)
    if light.is_hidden:
        notes.append(
            f"The alpha of {name} is 0 everywhere, so the model sees white. Fill it with 1 if the image is opaque."
        )
    return light.to_srgb()


def check_no_layer(layer: str | None, name: str) -> None:
    """Raises `InvalidInput` where a layer is named of a file that is not OpenEXR."""
    if layer is not None:
        raise InvalidInput(
            f"{name} has no layers, which only OpenEXR files have.", advice="Leave out --layer."
        )


def _stream(path: Path) -> Path | io.BytesIO:
    """What Pillow opens: the file, or the content of a pipe, in which it could not go back."""
    if path.is_dir():
        raise InvalidInput(f"{path} is a folder; a picture file is needed.")
    if path.is_fifo():
        with path.open("rb") as pipe:
            content = pipe.read(MAX_BUFFER_BYTES)
    elif path.exists() and not path.is_file():
        raise InvalidInput(f"{path} is a device or a socket; a picture file or a pipe is needed.")
    elif path.stat().st_size:
        return path
    else:
        content = b""
    if not content:
        raise InvalidInput(f"{path} is empty (0 bytes).")
    return io.BytesIO(content)


@contextlib.contextmanager
def _refusals(name: str) -> Iterator[None]:
    """Turn what Pillow and the system raise where there is no picture to be had into `InvalidInput`."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except Sa2VAError:
        raise
    except FileNotFoundError as error:
        raise InvalidInput(f"There is no file {name}.") from error
    except PermissionError as error:
        raise InvalidInput(f"{name} may not be read: {error.strerror}.") from error
    except UnidentifiedImageError as error:
        raise InvalidInput(f"{name} is not in an image format that is read here.") from error
    except Image.DecompressionBombError as error:
        raise InvalidInput(
            f"{name} has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels. Scale it down first."
        ) from error
    except (OSError, SyntaxError) as error:  # Pillow reports damaged data as either
        raise InvalidInput(f"{name} is damaged or cut short: {error}.") from error
    except Exception as error:  # a name with a null byte; whatever a format's own reader raises
        raise InvalidInput(f"{name} cannot be read: {str(error) or type(error).__name__}.") from error


def _from_pil(image: Image.Image, name: str, notes: list[str]) -> Pixels:
    opening.check_size(image.height, image.width, name)
    stored = opening.stored_as(image)
    upright = _upright(opening.loaded(image, name, notes))
    _check_size((upright.height, upright.width, 3), name)
    convert = to_bytes(upright, stored, name, notes)
    content: bytes | bytearray = b""
    size = upright.width * upright.height * 3
    place = 0
    for strip in opening.strips(upright):
        rgb = convert(strip)
        if len(rgb) == size:
            content = rgb
            break
        content = content or bytearray(size)
        content[place : place + len(rgb)] = rgb  # type: ignore[index]
        place += len(rgb)
    return memoryview(content).cast("B", (upright.height, upright.width, 3))


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says."""
    if image.getexif().get(_ORIENTATION, 1) == 1:
        return image
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _is_rgb(view: memoryview) -> bool:
    shape = view.shape or ()
    return view.format == "B" and len(shape) == 3 and shape[2] == 3 and view.c_contiguous and 0 not in shape


def _check_size(shape: tuple[int, ...], name: str) -> None:
    """``shape`` begins with height and width."""
    if 0 in shape:
        raise InvalidInput(f"{name} has shape {list(shape)}: no pixels.")
    opening.check_size(shape[0], shape[1], name)


def _from_array(array: NDArray[Any], name: str, notes: list[str]) -> Picture:
    shape = list(array.shape)
    if array.dtype == "uint16" and array.size:
        from .pixels import note_few_bits

        note_few_bits(int(array.max()), name, notes)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        advice = ""
        if array.ndim == 4:
            advice = " Pass one picture of a batch at a time, or a video to segment_video."
        elif array.ndim == 3 and array.shape[0] in (1, 3, 4):
            advice = " The channels come last: use array.transpose(1, 2, 0), or tensor.permute(1, 2, 0)."
        raise InvalidInput(f"{name} has shape {shape}; [height, width, 3] is needed.{advice}")
    _check_size(array.shape, name)
    from .pixels import to_rgb

    return to_rgb(array, name)
