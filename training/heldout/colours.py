"""Colour names and the shades that anybody would call by them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RGB = tuple[int, int, int]

SHADES: dict[str, tuple[RGB, ...]] = {
    "red": ((228, 26, 28), (255, 10, 10), (200, 22, 30), (176, 12, 22), (238, 48, 48)),
    "green": ((0, 158, 64), (34, 139, 34), (52, 196, 60), (10, 112, 44), (104, 208, 76)),
    "blue": ((24, 64, 220), (0, 92, 204), (28, 34, 176), (46, 118, 236), (64, 146, 244)),
    "yellow": ((255, 230, 0), (250, 218, 24), (255, 238, 72), (242, 214, 10)),
    "purple": ((132, 18, 160), (116, 30, 152), (150, 60, 204), (100, 20, 132), (162, 76, 212)),
    "orange": ((255, 138, 0), (246, 124, 18), (255, 148, 34), (240, 116, 4)),
}
"""RGB, 0..255."""

_RANGES: dict[str, tuple[float, float]] = {
    "red": (0.78, 0.08),
    "green": (0.75, 0.18),
    "blue": (0.75, 0.18),
    "yellow": (0.94, 0.35),
    "purple": (0.78, 0.14),
    "orange": (0.94, 0.10),
}
"""How far a shade may be darkened (a factor) and lightened (a share of white) and keep its name."""


def tint(colour: str, shade: RGB, level: NDArray[np.float32]) -> NDArray[np.float32]:
    """`[..., 3]`, 0..255: the shade made darker where `level` (`[...]`, -1..1) is negative, else lighter."""
    dark, light = _RANGES[colour]
    base = np.asarray(shade, np.float32)
    down = np.clip(-level, 0, 1)[..., None] * (1 - dark)
    up = np.clip(level, 0, 1)[..., None] * light
    return np.asarray(base * (1 - down) + (255 - base) * up, np.float32)


def lab(rgb: NDArray[np.float64] | RGB) -> NDArray[np.float64]:
    """`[3]`: CIE L*a*b* (D65) of one sRGB colour (`[3]`, 0..255)."""
    value = np.asarray(rgb, np.float64) / 255
    linear = np.where(value > 0.04045, ((value + 0.055) / 1.055) ** 2.4, value / 12.92)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ linear / np.array([0.9505, 1.0, 1.089])
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def difference(first: NDArray[np.float64] | RGB, second: NDArray[np.float64] | RGB) -> float:
    """CIE76 distance of two sRGB colours: about 2 is just seen, over 40 is plainly another colour."""
    return float(np.linalg.norm(lab(first) - lab(second)))
