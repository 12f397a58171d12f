"""Arrays that are pictures become uint8 RGB, whatever their numbers are.

Called by `sa2va_host.media`, which has looked at their shape. ``name`` is the picture's in messages.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInput

if TYPE_CHECKING:
    from PIL import Image

_OVERSHOOT = 0.01
"""How far a float picture may reach outside 0..1, as resampling filters do, before it counts as a mistake."""


def to_rgb(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """uint8 `[height, width, 3]`, C-contiguous, of uint8, uint16 (0..65535) or float (0..1) with 1, 3 or 4 channels.

    Transparent parts are shown on white. Raises `InvalidInput` for other dtypes and other values.
    """
    values = _eight_bits(array, name)
    if values.shape[2] == 4:
        values = _on_white(values)
    elif values.shape[2] == 1:
        values = np.repeat(values, 3, axis=2)
    return np.ascontiguousarray(values)


def of_more_bits(image: Image.Image, name: str) -> NDArray[Any]:
    """A grey picture of more than 8 bits: 32-bit integers are how some Pillow versions hold 16-bit files."""
    values = np.asarray(image)
    if values.dtype.kind == "i":
        if values.min() < 0 or values.max() > 65535:
            raise InvalidInput(
                f"{name} has 32-bit values outside 0..65535. Convert it to 8 or 16 bits first."
            )
        return values.astype(np.uint16)
    return values


def twelve_bits(values: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Values of 0..4095 as 0..65535."""
    return ((values.astype(np.uint32) * 65535 + 2047) // 4095).astype(np.uint16)


def note_few_bits(brightest: int, name: str, notes: list[str]) -> None:
    """Add a sentence to ``notes`` where 0..65535 seems to hold 12 bits: ``brightest`` is below 1/16, but not black."""
    if 0 < brightest < 65536 // 16:
        notes.append(
            f"{name} has 16 bits, but its brightest value is below 1/16 of white: it is read as nearly black. If it"
            " holds 12 bits, multiply its values by 16 first."
        )


@lru_cache(maxsize=1)
def _upper_bits() -> NDArray[np.uint8]:
    """For each value of 16 bits the nearest of 8."""
    return ((np.arange(65536, dtype=np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _eight_bits(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        eight: NDArray[np.uint8] = _upper_bits()[array]
        return eight
    if array.dtype.kind != "f":
        raise InvalidInput(f"{name} has dtype {array.dtype}; uint8, uint16 or float in 0..1 is needed.")
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        raise InvalidInput(f"{name} has values that are not numbers (NaN or infinite).")
    if low < -_OVERSHOOT or high > 1 + _OVERSHOOT:
        raise InvalidInput(f"{name} is float with values from {low:g} to {high:g}; 0..1 is needed.")
    scaled: NDArray[np.float32] = np.clip(array, 0.0, 1.0).astype(np.float32) * np.float32(255)
    return np.rint(scaled).astype(np.uint8)


def _on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    alpha = rgba[:, :, 3:].astype(np.uint32)
    if alpha.min() == 255:
        return rgba[:, :, :3]
    blended: NDArray[np.uint32] = (rgba[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return blended.astype(np.uint8)
