"""OpenEXR frames in: scene-linear light becomes the 8-bit sRGB that models and people see.

Called by `sa2va_host.video.sequence`. Needs the package OpenEXR (`sa2va_host.media.check_exr`); writing is
`sa2va_host.media.write_exr`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sa2va_host.errors import InvalidInput
from sa2va_host.media import Picture


def read_exr(path: Path) -> Picture:
    """uint8 sRGB `[height, width, 3]` of the first part's R, G and B, or of its Y where it is grey.

    Light from 0 to 1 goes through `to_srgb`; what is brighter is white, as in a viewer at exposure 0. The same curve
    for each frame, so that nothing flickers. Alpha is not looked at. Raises `InvalidInput` for what is no such picture.
    """
    channels = _open(path).channels()
    planes = [channels[name].pixels for name in ("RGB", "RGBA") if name in channels]
    if planes:
        light = planes[0][..., :3]
    elif all(name in channels for name in "RGB"):
        light = np.stack([channels[name].pixels for name in "RGB"], axis=2)
    elif "Y" in channels:
        light = np.repeat(channels["Y"].pixels[:, :, None], 3, axis=2)
    else:
        raise InvalidInput(
            f"{path} has the channels {', '.join(sorted(channels))}; R, G and B or Y are needed."
        )
    return to_srgb(light)


def exr_size(path: Path) -> tuple[int, int]:
    """`(height, width)` from the header alone. Raises `InvalidInput` as `read_exr` does."""
    low, high = _open(path, header_only=True).header()["dataWindow"]
    width, height = (int(side) for side in np.asarray(high) - np.asarray(low) + 1)
    return height, width


def to_srgb(light: NDArray[np.floating[Any]]) -> Picture:
    """Linear light of any shape, 1 for white, as uint8 sRGB: the transfer function of IEC 61966-2-1.

    Below 0 and NaN become 0, above 1 and infinity 255.
    """
    clipped = np.clip(np.nan_to_num(light.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
    encoded = np.where(clipped <= 0.0031308, clipped * 12.92, 1.055 * clipped ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(encoded * 255), dtype=np.uint8)


def _open(path: Path, *, header_only: bool = False) -> Any:
    import OpenEXR

    if not path.is_file():
        raise InvalidInput(f"There is no file {path}.")
    try:
        return OpenEXR.File(str(path), header_only=header_only)
    except RuntimeError as error:
        raise InvalidInput(f"{path} is damaged or no OpenEXR picture: {error}.") from error
