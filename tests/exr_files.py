"""OpenEXR files, written where a test needs them by OpenEXR's own package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WHITE, RED, GREY = (1.0, 1.0, 1.0), (0.8, 0.02, 0.02), (0.18, 0.18, 0.18)


def window(x: int, y: int, width: int, height: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """A box as OpenEXR has it, both corners inclusive."""
    return np.array([x, y], np.int32), np.array([x + width - 1, y + height - 1], np.int32)


def rgb(values: NDArray[Any], prefix: str = "") -> dict[str, NDArray[Any]]:
    """`[height, width, 3 or 4]` as channels R, G, B (and A), each after ``prefix``."""
    return {
        f"{prefix}{name}": np.ascontiguousarray(values[:, :, place])
        for place, name in enumerate("RGBA"[: values.shape[2]])
    }


def flat(colour: Sequence[float], size: tuple[int, int] = (6, 8)) -> NDArray[np.float16]:
    """`[height, width, channels]` of one colour."""
    return np.full((*size, len(colour)), colour, np.float16)


def write(path: Path, channels: Mapping[str, Any], **header: Any) -> Path:
    """A file of one part, scan lines unless ``type`` says otherwise."""
    import OpenEXR

    whole = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, **header}
    OpenEXR.File(whole, dict(channels)).write(str(path))
    return path


def write_parts(path: Path, parts: Mapping[str, Mapping[str, Any]]) -> Path:
    """A file of several parts by their names."""
    import OpenEXR

    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(
        [OpenEXR.Part({**header, "name": name}, dict(channels)) for name, channels in parts.items()]
    ).write(str(path))
    return path


def read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The channels of the first part, and its header."""
    import OpenEXR

    with OpenEXR.File(str(path), separate_channels=True) as file:
        return {name: channel.pixels.copy() for name, channel in file.channels().items()}, dict(file.header())


def corners(box: tuple[NDArray[np.int32], NDArray[np.int32]]) -> list[list[int]]:
    """A window of a header as plain numbers."""
    return [corner.tolist() for corner in box]


def pixels(path: Path) -> NDArray[Any]:
    """What OpenCV reads of an image file at its own depth, blue first."""
    import cv2

    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert found is not None, path
    return np.asarray(found)
