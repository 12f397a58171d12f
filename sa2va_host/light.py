"""Scene-linear images: values that are proportional to light, as OpenEXR, Radiance HDR and float TIFF hold them.

Read by `sa2va_host.exr` and `sa2va_host.float_images`. The model, overlays and masks use the 8-bit sRGB image of
`Light.to_srgb`; EXR cut-outs use the values themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Window:
    """Where an image lies in the coordinates of an OpenEXR file: the corner of its display window, in pixels."""

    x: int = 0
    y: int = 0
    aspect: float = 1.0
    """Width of a pixel divided by its height."""

    def scaled(self, factor: float) -> Window:
        """The window of the same image, scaled by ``factor``; the corner is rounded to whole pixels."""
        return Window(round(self.x * factor), round(self.y * factor), self.aspect)


@dataclass(frozen=True, eq=False, slots=True)
class Light:
    """One scene-linear image, in its display window."""

    rgb: NDArray[np.float32]
    """`[height, width, 3]`, 1 for white, multiplied by ``alpha`` where there is one. May hold NaN and infinity."""
    alpha: NDArray[np.float32] | None = None
    """`[height, width]`, 0..1; None where the file has none."""
    window: Window = Window()
    chromaticities: tuple[float, ...] | None = None
    """The primaries and the white point that an OpenEXR file names (x and y of red, green, blue, white)."""

    def to_srgb(self) -> NDArray[np.uint8]:
        """uint8 sRGB `[height, width, 3]`, as a viewer at exposure 0 shows it; transparent parts on white.

        White is added in linear light, before the curve: `rgb + (1 - alpha)`. What is fully transparent is white, and a
        soft edge has the brightness that it has over a white card.
        """
        if self.alpha is None:
            return to_srgb(self.rgb)
        return to_srgb(self.rgb + (1 - self.alpha)[:, :, None])

    @property
    def is_hidden(self) -> bool:
        """Whether there is colour and the alpha channel is 0 everywhere, as in plates whose alpha was left empty."""
        return self.alpha is not None and not self.alpha.any() and bool(self.rgb.any())


def to_srgb(light: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Linear light of any shape, 1 for white, as uint8 sRGB: the transfer function of IEC 61966-2-1.

    Below 0 and NaN become 0, above 1 and infinity 255.
    """
    values = light.astype(np.float32)  # a copy, on which the rest works in place: plates are large
    np.nan_to_num(values, copy=False, nan=0.0, posinf=1.0, neginf=0.0)
    np.clip(values, 0.0, 1.0, out=values)
    encoded = np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(encoded * 255), dtype=np.uint8)


def scaled_by(rgb: NDArray[np.float32], factor: NDArray[np.float32]) -> NDArray[np.float32]:
    """``rgb`` `[height, width, 3]` times ``factor`` `[height, width]`; 0 where that is 0, also of infinity and NaN."""
    shape = factor[:, :, None]
    return np.multiply(rgb, shape, out=np.zeros_like(rgb), where=shape > 0)


def clean_alpha(alpha: NDArray[Any]) -> NDArray[np.float32]:
    """Alpha as float32 from 0 to 1; NaN is 0."""
    return np.clip(np.nan_to_num(alpha.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
