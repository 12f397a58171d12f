"""OpenEXR in and out: layers, parts and windows of a file to one image, and channels to a file.

Needs the package OpenEXR (`sa2va_host.extras.check_exr`). An image has the *display* window: what the data window does
not cover is black, and transparent where the layer has alpha; what lies outside the display window (overscan) is cut
off.
"""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from errno import EACCES, EDQUOT, EFBIG, EIO, ENOSPC
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import media
from .errors import InvalidInput
from .extras import check_exr
from .light import Light, Window, clean_alpha
from .protocol.limits import MAX_BUFFER_BYTES

ExrDepth: TypeAlias = Literal["half", "float"]
"""16-bit half floats or 32-bit floats."""

MAIN = "rgba"
"""What `layer` calls the channels R, G and B without a layer's name, unless a layer has that name itself."""
_COLOURS = {"r": 0, "red": 0, "g": 1, "green": 1, "b": 2, "blue": 2, "a": 3, "alpha": 3}
"""Last words of channel names: `beauty.R` as most write it, `beauty.red` as Nuke does, `beauty.r` as in Cryptomatte."""
_GREY = "y"
_VECTOR = {"x", "z"}
"""Beside them a Y is the second component of a vector, not grey."""
_CHROMA = {"ry", "by"}
_CRYPTOMATTE = re.compile(r"cryptomatte/[^/]+/name")
"""The attributes that name the layers which hold Cryptomatte's ids (Cryptomatte specification 1.2)."""
_DEEP = ("deepscanline", "deeptile")
_HALF_MAX = float(np.finfo(np.float16).max)
_REFUSED = (ENOSPC, EDQUOT, EFBIG, EACCES)
"""What the system refuses a writer, which OpenEXR reports in words alone."""
_LISTED = 20
"""Layers that an error lists."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """One image in a file: which channels of which part it is made of."""

    name: str
    """As the user names it; empty for the main channels."""
    part: int
    channels: tuple[str, ...]
    """R, G and B, or Y alone."""
    alpha: str | None
    is_image: bool
    """False for Cryptomatte's ids, which are never taken unless they are named."""


def exr_size(source: Path | io.BytesIO, layer: str | None, name: str) -> tuple[int, int]:
    """`(height, width)` of what `read_exr` would give, from the header. Raises as `read_exr` does."""
    with _opened(source, name, header_only=True) as file:
        return _display(_chosen(file, layer, name)[1], name)[2:]


def exr_window(source: Path | io.BytesIO, layer: str | None, name: str) -> Window:
    """Where the image lies, from the header. Raises as `read_exr` does."""
    with _opened(source, name, header_only=True) as file:
        return _window(_chosen(file, layer, name)[1], name)


def read_exr(source: Path | io.BytesIO, layer: str | None, name: str) -> Light:
    """One layer of a file, in the display window.

    ``layer`` is a layer, a part or a view (`beauty`, `ViewLayer.Combined`, `right`), or the end of such a name where
    that is enough (`Combined`). None takes the plain channels R, G and B, else the only layer that has R, G and B, else
    grey (Y). ``name`` is the file's in messages. Raises `InvalidInput` for a damaged file, for deep and for subsampled
    data, and where the layer is not there or must be chosen; then it lists the layers. Raises `ConfigError` without the
    package.
    """
    with _opened(source, name, header_only=True) as file:
        found, header = _chosen(file, layer, name)
        x, y, height, width = _display(header, name)
        _check_data(header, name)
        # Once the file is closed its headers are empty.
        part, window, primaries = header.get("name"), _window(header, name), header.get("chromaticities")
    with _opened(source, name) as file:
        # A part that cannot be read is left out, and those after it move up.
        parts = [one for one in file.parts if part is None or one.header.get("name") == part]
        if len(parts) != 1:
            raise InvalidInput(f"{name} is damaged or cut short: its pixels cannot be read.")
        channels = parts[0].channels
        (left, top), _ = (corner.tolist() for corner in parts[0].header["dataWindow"])

        def placed(channel: str, values: NDArray[np.float32]) -> None:
            pixels = channels[channel].pixels
            _copy(pixels, values, (top - y, left - x))

        rgb = np.zeros((height, width, 3), np.float32)
        for index in range(3):
            placed(found.channels[index % len(found.channels)], rgb[:, :, index])
        alpha = None
        if found.alpha is not None:
            alpha = np.zeros((height, width), np.float32)
            placed(found.alpha, alpha)
            alpha = clean_alpha(alpha)
    return Light(rgb, alpha, window, None if primaries is None else tuple(map(float, primaries)))


def write_exr(
    path: str | os.PathLike[str],
    channels: Mapping[str, NDArray[np.floating[Any]]],
    *,
    depth: ExrDepth = "half",
    window: Window | None = None,
    chromaticities: Sequence[float] | None = None,
) -> Path:
    """Write channels, each `[height, width]`, as OpenEXR (scan lines, ZIP); returns the path.

    The display and the data window are the image's, from the corner of ``window`` on (default: 0, 0). Half floats hold
    at most 65504; what is finite and beyond becomes that. Raises `OSError` as the system does, and
    `ConfigError` without the package.
    """
    check_exr()
    import OpenEXR

    window = window or Window()
    height, width = next(iter(channels.values())).shape
    corners = (
        np.array([window.x, window.y], np.int32),
        np.array([window.x + width - 1, window.y + height - 1], np.int32),
    )
    header: dict[str, Any] = {
        "compression": OpenEXR.ZIP_COMPRESSION,
        "type": OpenEXR.scanlineimage,
        "dataWindow": corners,
        "displayWindow": corners,
        "pixelAspectRatio": float(window.aspect),
    }
    if chromaticities is not None:
        header["chromaticities"] = tuple(chromaticities)
    image = OpenEXR.File(header, {name: _converted(values, depth) for name, values in channels.items()})

    def write(stream: IO[bytes]) -> None:
        try:
            image.write(stream.name)  # by name: only newer versions write to a stream
        except RuntimeError as error:  # what OpenEXR raises for a full disk, too
            known = [number for number in _REFUSED if os.strerror(number) in str(error)]
            raise (OSError(known[0], os.strerror(known[0])) if known else OSError(EIO, str(error))) from error
        # OpenEXR does not notice that its last bytes found no room; then there is none for another byte either.
        end = stream.seek(0, os.SEEK_END)
        stream.write(b"\0")
        stream.flush()
        stream.truncate(end)

    return media.write_whole(path, write)


def _converted(values: NDArray[np.floating[Any]], depth: ExrDepth) -> NDArray[np.floating[Any]]:
    if depth == "float":
        return np.ascontiguousarray(values, np.float32)
    bounded = np.where(np.isfinite(values), np.clip(values, -_HALF_MAX, _HALF_MAX), values)
    return np.ascontiguousarray(bounded, np.float16)


def _copy(data: NDArray[Any], display: NDArray[np.float32], offset: tuple[int, int]) -> None:
    """Copy a data window into a display window, in which its corner is at ``offset`` (row, column)."""
    (row, column), (height, width) = offset, data.shape
    top, left = max(row, 0), max(column, 0)
    bottom, right = min(row + height, display.shape[0]), min(column + width, display.shape[1])
    if top < bottom and left < right:
        display[top:bottom, left:right] = data[top - row : bottom - row, left - column : right - column]


def _window(header: Mapping[str, Any], name: str) -> Window:
    x, y, _, _ = _display(header, name)
    aspect = float(header.get("pixelAspectRatio", 1.0))
    return Window(x, y, aspect if 0 < aspect < float("inf") else 1.0)


def _display(header: Mapping[str, Any], name: str) -> tuple[int, int, int, int]:
    """`(x, y, height, width)` of the display window."""
    (left, top), (right, bottom) = (corner.tolist() for corner in header["displayWindow"])
    if right < left or bottom < top:
        raise InvalidInput(f"{name} has an empty display window.")
    return left, top, bottom - top + 1, right - left + 1


def _check_data(header: Mapping[str, Any], name: str) -> None:
    """Raises `InvalidInput` for a data window that does not fit into memory, before room is made for it."""
    (left, top), (right, bottom) = (corner.tolist() for corner in header["dataWindow"])
    if (right - left + 1) * (bottom - top + 1) * 3 > MAX_BUFFER_BYTES:
        raise InvalidInput(
            f"{name} has a data window of {right - left + 1} x {bottom - top + 1} pixels, more than"
            f" {MAX_BUFFER_BYTES >> 20} MiB as RGB.",
            advice="Crop it first.",
        )


def _chosen(file: Any, layer: str | None, name: str) -> tuple[_Layer, Mapping[str, Any]]:
    """The layer that is meant, and the header of its part."""
    headers = [part.header for part in file.parts]
    flat = [header for header in headers if _storage(header) not in _DEEP]
    if not flat:
        raise InvalidInput(
            f"{name} holds deep data, which is not read.", advice="Flatten it first (in Nuke: DeepToImage)."
        )
    layers = _layers(headers)
    found = _default(layers, headers, name) if layer is None else _named(layers, layer, headers[0], name)
    header = headers[found.part]
    used = {*found.channels, found.alpha}
    if any(one.name in used and (one.xSampling, one.ySampling) != (1, 1) for one in header["channels"]):
        raise InvalidInput(
            f"{name} has subsampled channels, which are not read.", advice="Save it at full resolution."
        )
    return found, header


def _layers(headers: Sequence[Mapping[str, Any]]) -> list[_Layer]:
    """Every layer with R, G and B, then every grey one, in the order of the file."""
    coloured, grey = [], []
    for part, header in enumerate(headers):
        if _storage(header) in _DEEP:
            continue
        ids = [str(header[key]) for key in header if _CRYPTOMATTE.fullmatch(key)]
        part_name = str(header.get("name", "")) if len(headers) > 1 else ""
        for prefix, channels in _by_prefix([one.name for one in header["channels"]]).items():
            name = _layer_name(part_name, prefix)
            is_image = not any(re.fullmatch(rf"{re.escape(one)}\d*", prefix or name) for one in ids)
            colours: dict[int, str] = {}
            for word, channel in channels.items():
                if word in _COLOURS:
                    colours.setdefault(_COLOURS[word], channel)
            if colours.keys() >= {0, 1, 2}:
                rgb = colours[0], colours[1], colours[2]
                coloured.append(_Layer(name, part, rgb, colours.get(3), is_image))
            elif _GREY in channels and not channels.keys() & (_VECTOR | _CHROMA):
                grey.append(_Layer(name, part, (channels[_GREY],), colours.get(3), is_image))
    return coloured + grey


def _by_prefix(channels: Sequence[str]) -> dict[str, dict[str, str]]:
    """`{"beauty": {"r": "beauty.R", ...}}`: what stands before the last dot, and after it in small letters."""
    found: dict[str, dict[str, str]] = {}
    for channel in channels:
        prefix, _, word = channel.rpartition(".")
        found.setdefault(prefix, {}).setdefault(word.lower(), channel)
    return found


def _layer_name(part: str, prefix: str) -> str:
    """Programs write the part's name before its channels (`diffuse`: `diffuse.R`), or only once (`diffuse`: `R`)."""
    if not part or prefix == part or prefix.startswith(f"{part}."):
        return prefix
    return f"{part}.{prefix}" if prefix else part


def _default(layers: Sequence[_Layer], headers: Sequence[Mapping[str, Any]], name: str) -> _Layer:
    images = [one for one in layers if one.is_image]
    coloured = [one for one in images if len(one.channels) == 3]
    for candidates in (coloured, images):
        plain = [one for one in candidates if one.name == ""]
        named_so = [one for one in candidates if one.name.lower() == MAIN]
        for several in (plain, named_so, candidates):
            if len(several) == 1:
                return several[0]
        if candidates:
            raise InvalidInput(
                f"{name} has several layers: {_list(candidates)}.", advice="Choose one with --layer (layer=)."
            )
    channels = sorted({one.name for header in headers for one in header["channels"]})
    words = {channel.rpartition(".")[2].lower() for channel in channels}
    if words >= _CHROMA:
        raise InvalidInput(
            f"{name} holds luminance and chroma (Y, RY, BY), which are not read.", advice="Save it as RGB."
        )
    shown = ", ".join(channels[:_LISTED]) + (" ..." if len(channels) > _LISTED else "")
    raise InvalidInput(f"{name} has the channels {shown}; R, G and B or Y are needed.")


def _named(layers: Sequence[_Layer], wanted: str, header: Mapping[str, Any], name: str) -> _Layer:
    """The one layer that ``wanted`` means: by its whole name first, then in any case, then by its end."""
    lower = wanted.lower()
    # The first view of a stereo file has plain channels.
    plain = {MAIN, *(str(view).lower() for view in list(header.get("multiView", ()))[:1])}
    tests = (
        [one for one in layers if one.name == wanted],
        [one for one in layers if one.name.lower() == lower],
        [one for one in layers if one.name == "" and lower in plain],
        [one for one in layers if one.name.lower().endswith(f".{lower}")],
        [one for one in layers if one.name.lower().startswith(f"{lower}.")],
    )
    for found in tests:
        if len(found) == 1:
            return found[0]
        if found:
            raise InvalidInput(f"{name} has several layers called {wanted!r}: {_list(found)}.")
    raise InvalidInput(
        f"{name} has no layer {wanted!r} with R, G and B or Y.",
        advice=f"It has {_list(layers)}." if layers else "It has none.",
    )


def _list(layers: Sequence[_Layer]) -> str:
    names = [one.name or MAIN for one in layers]
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def _storage(header: Mapping[str, Any]) -> str:
    return str(getattr(header.get("type"), "name", ""))


@contextmanager
def _opened(source: Path | io.BytesIO, name: str, *, header_only: bool = False) -> Iterator[Any]:
    """An `OpenEXR.File`, with every channel by itself."""
    check_exr()
    import OpenEXR

    with _as_file(source) as path:
        if not path.is_file():
            raise InvalidInput(f"There is no file {name}.")
        try:
            with _quiet():
                file = OpenEXR.File(str(path), separate_channels=True, header_only=header_only)
        except (RuntimeError, ValueError, MemoryError) as error:
            raise InvalidInput(f"{name} is damaged or not an OpenEXR image: {error}.") from error
        if not file.parts:
            raise InvalidInput(f"{name} is damaged or cut short: its pixels cannot be read.")
        with file:
            yield file


@contextmanager
def _as_file(source: Path | io.BytesIO) -> Iterator[Path]:
    """Older versions of OpenEXR read from named files alone."""
    if isinstance(source, Path):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="sa2va-") as folder:
        path = Path(folder) / "content.exr"
        path.write_bytes(source.getbuffer())
        yield path


_PRINTING = threading.Lock()


class _OthersOnly:
    """Standard output without what the thread that made this prints."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._thread = threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As `TextIO.write`."""
        if threading.get_ident() == self._thread or self._stream is None:
            return len(text)
        return int(self._stream.write(text))


@contextmanager
def _quiet() -> Iterator[None]:
    """OpenEXR prints a warning about damaged pixels to standard output, where documents of `--json` go."""
    others: Any = _OthersOnly(sys.stdout)
    with _PRINTING, redirect_stdout(others):
        yield
