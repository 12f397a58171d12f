"""Pictures in and out: anything that is a picture becomes uint8 RGB, and files appear whole or not at all.

Called by the client and the front ends. Knows nothing of models or workers.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from errno import EACCES, EDQUOT, EFBIG, EIO, ENOSPC
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from .errors import ConfigError, InvalidInput
from .protocol.limits import MAX_BUFFER_BYTES, MAX_BUFFERS, MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

Picture: TypeAlias = "NDArray[np.uint8]"
"""RGB `[height, width, 3]`, 0..255."""
Pixels: TypeAlias = "NDArray[np.uint8] | memoryview"
"""The same, or its bytes, C-contiguous, in a view that has this shape."""
Source: TypeAlias = "str | os.PathLike[str] | Image.Image | NDArray[Any] | memoryview"
"""What `read_image` reads: a file's name, or the picture itself."""

_ORIENTATION = 0x0112
"""The EXIF tag; 1 is upright."""
_REFUSED = (ENOSPC, EDQUOT, EFBIG, EACCES)
"""What the system refuses a writer, which OpenEXR tells in words alone."""
_PART = "part"
"""The ending of a file that is not whole yet."""


def read_image(source: Source) -> Picture:
    """The picture as uint8 RGB `[height, width, 3]`, C-contiguous.

    A file or PIL image is turned as its EXIF orientation says, and of an animation it is the first frame.
    Arrays are `[height, width]` or `[height, width, 1, 3 or 4]`: uint8, uint16 (0..65535) or float (0..1).
    Transparent parts are shown on white, as a viewer shows them. A pipe is read to its end. Raises `InvalidInput` for
    everything that is not a picture, and for one of more than 1 GiB.
    """
    import numpy as np

    return np.asarray(read_pixels(source))


def read_pixels(source: Source) -> Pixels:
    """The same, without NumPy where a picture is its file's bytes and needs no arithmetic, as most do."""
    if isinstance(source, (str, os.PathLike)):
        return _read_file(Path(source))
    from PIL import Image

    if isinstance(source, Image.Image):
        with _refusals("The picture"):
            return _from_pil(source, "The picture")
    if isinstance(source, memoryview):
        with _refusals("The picture"):
            if _is_rgb(source):
                _check_size(source.shape or (), "The picture")
                return source
    # Arrays of NumPy, and what can become one, such as a torch tensor.
    if isinstance(source, memoryview) or hasattr(source, "__array__"):
        import numpy as np

        return _from_array(np.asarray(source))
    raise InvalidInput(
        f"A picture is a file name, a PIL image or an array [height, width, 3], not {type(source).__name__}."
    )


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """`(height, width)` of what `read_image` would give for a file, from its header. Raises `InvalidInput` alike."""
    from PIL import Image

    file = Path(path)
    with _refusals(str(file)), Image.open(_stream(file)) as image:
        width, height = image.size
        # To look for the EXIF of a PNG, which hardly has any, Pillow would decode it.
        turned = image.format != "PNG" and image.getexif().get(_ORIENTATION, 1) >= 5
        return (width, height) if turned else (height, width)


def read_images(sources: Iterable[Source]) -> list[Picture]:
    """The pictures of one message, each as `read_image` gives it.

    Raises `InvalidInput` as that does, and for more than 64 pictures or 2 GiB, which is what a message holds
    (`sa2va_host.protocol.limits`).
    """
    pictures: list[Picture] = []
    for source in sources:
        if len(pictures) == MAX_BUFFERS:
            raise InvalidInput(
                f"More than {MAX_BUFFERS} pictures were given.", advice="Ask about fewer at a time."
            )
        pictures.append(read_image(source))
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


def write_exr(path: str | os.PathLike[str], values: NDArray[np.float32]) -> Path:
    """Write `[height, width]` as OpenEXR, 32-bit float, in the channel Y (grey); returns the path.

    Needs the package OpenEXR; `check_exr` says whether it is there.
    """
    import numpy as np
    import OpenEXR

    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    picture = OpenEXR.File(header, {"Y": np.ascontiguousarray(values, dtype=np.float32)})

    def write(stream: IO[bytes]) -> None:
        try:
            picture.write(stream.name)  # by name: only newer versions write to a stream
        except RuntimeError as error:  # what OpenEXR raises for a full disk, too
            known = [number for number in _REFUSED if os.strerror(number) in str(error)]
            raise (OSError(known[0], os.strerror(known[0])) if known else OSError(EIO, str(error))) from error
        # OpenEXR does not notice that its last bytes found no room; then there is none for another byte either.
        end = stream.seek(0, os.SEEK_END)
        stream.write(b"\0")
        stream.flush()
        stream.truncate(end)

    return write_whole(path, write)


def check_exr() -> None:
    """Raises `ConfigError` where the package that writes OpenEXR is not installed."""
    if find_spec("OpenEXR") is None:
        from .machine.commands import extra_command

        raise ConfigError(
            "Files of the kind exr need the package OpenEXR.", advice=f"Run: {extra_command('exr')}"
        )


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
    temporary = target.parent / f".{target.name[:80]}.{os.urandom(4).hex()}.{_PART}"
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


def _read_file(path: Path) -> Pixels:
    from PIL import Image

    with _refusals(str(path)), warnings.catch_warnings():
        # Pillow warns of large pictures and refuses huge ones; the refusal is what counts here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(_stream(path)) as image:
            return _from_pil(image, str(path))


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
    except InvalidInput:
        raise
    except FileNotFoundError as error:
        raise InvalidInput(f"There is no file {name}.") from error
    except PermissionError as error:
        raise InvalidInput(f"{name} may not be read: {error.strerror}.") from error
    except UnidentifiedImageError as error:
        raise InvalidInput(f"{name} is not a picture in a format that Pillow reads.") from error
    except Image.DecompressionBombError as error:
        raise InvalidInput(
            f"{name} has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels. Scale it down first."
        ) from error
    except (OSError, SyntaxError) as error:  # Pillow reports damaged data as either
        raise InvalidInput(f"{name} is damaged or cut short: {error}.") from error
    except Exception as error:  # a name with a null byte; whatever a format's own reader raises
        raise InvalidInput(f"{name} cannot be read: {str(error) or type(error).__name__}.") from error


def _from_pil(image: Image.Image, name: str) -> Pixels:
    image.load()
    upright = _upright(image)
    if upright.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F"):
        from .pixels import of_more_bits

        return _from_array(of_more_bits(upright, name), name)
    if upright.has_transparency_data:
        import numpy as np

        return _from_array(np.asarray(upright.convert("RGBA")), name)
    shape = (upright.height, upright.width, 3)
    _check_size(shape, name)
    return memoryview(upright.convert("RGB").tobytes()).cast("B", shape)


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
    if shape[0] * shape[1] * 3 > MAX_BUFFER_BYTES:
        raise InvalidInput(
            f"{name} has {shape[1]} x {shape[0]} pixels, more than {MAX_BUFFER_BYTES >> 20} MiB as RGB.",
            advice="Scale it down first.",
        )


def _from_array(array: NDArray[Any], name: str = "The picture") -> Picture:
    shape = list(array.shape)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        advice = ""
        if array.ndim == 4:
            advice = " Pass one picture of a batch at a time, or a video to segment_video."
        elif array.ndim == 3 and array.shape[0] in (1, 3, 4):
            advice = " The channels come last: transpose it with array.transpose(1, 2, 0)."
        raise InvalidInput(f"{name} has shape {shape}; [height, width, 3] is needed.{advice}")
    _check_size(array.shape, name)
    from .pixels import to_rgb

    return to_rgb(array, name)
