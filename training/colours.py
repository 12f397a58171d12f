"""The six colours as many shades: ranges in hue, saturation and value that a person calls by one name."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rgb = tuple[float, float, float]
"""Red, green and blue in 0..255."""


@dataclass(frozen=True)
class Range:
    """A box of shades: hue in degrees (may be negative), saturation and value in 0..1."""

    hue: tuple[float, float]
    saturation: tuple[float, float]
    value: tuple[float, float]


RANGES: dict[str, tuple[Range, ...]] = {
    "red": (Range((-8, 5), (0.76, 1.0), (0.62, 1.0)), Range((-6, 4), (0.68, 0.8), (0.82, 0.97))),
    "green": (Range((95, 150), (0.5, 1.0), (0.38, 1.0)), Range((105, 145), (0.38, 0.55), (0.6, 0.95))),
    "blue": (
        Range((204, 243), (0.62, 1.0), (0.55, 1.0)),
        Range((218, 240), (0.75, 1.0), (0.38, 0.58)),
        Range((204, 225), (0.48, 0.65), (0.82, 1.0)),
    ),
    "yellow": (Range((50, 62), (0.62, 1.0), (0.9, 1.0)), Range((52, 60), (0.48, 0.65), (0.94, 1.0))),
    "purple": (Range((270, 288), (0.45, 1.0), (0.5, 0.95)), Range((286, 302), (0.55, 1.0), (0.38, 0.62))),
    "orange": (Range((21, 36), (0.8, 1.0), (0.94, 1.0)), Range((25, 35), (0.7, 0.8), (0.97, 1.0))),
}

PALETTE: dict[str, tuple[Rgb, ...]] = {
    "red": (
        (255, 0, 0),
        (255, 0, 0),
        (220, 20, 60),
        (231, 76, 60),
        (192, 57, 43),
        (244, 67, 54),
        (204, 0, 0),
    ),
    "green": (
        (0, 128, 0),
        (0, 255, 0),
        (0, 128, 0),
        (46, 204, 113),
        (39, 174, 96),
        (76, 175, 80),
        (50, 205, 50),
        (34, 139, 34),
    ),
    "blue": (
        (0, 0, 255),
        (0, 0, 255),
        (52, 152, 219),
        (41, 128, 185),
        (33, 150, 243),
        (30, 144, 255),
        (65, 105, 225),
        (0, 0, 139),
    ),
    "yellow": ((255, 255, 0), (255, 255, 0), (241, 196, 15), (255, 215, 0), (255, 235, 59), (250, 220, 40)),
    "purple": (
        (128, 0, 128),
        (128, 0, 128),
        (155, 89, 182),
        (142, 68, 173),
        (156, 39, 176),
        (103, 58, 183),
        (75, 0, 130),
        (138, 43, 226),
    ),
    "orange": (
        (255, 165, 0),
        (255, 165, 0),
        (230, 126, 34),
        (255, 140, 0),
        (255, 152, 0),
        (243, 156, 18),
        (255, 128, 0),
    ),
}
PALETTE_SHARE = 0.35


def uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    """One number between two bounds."""
    return bounds[0] + (bounds[1] - bounds[0]) * rng.random()


def shade(rng: np.random.Generator, colour: str) -> Rgb:
    """One shade of a named colour."""
    if rng.random() < PALETTE_SHARE:
        known = PALETTE[colour]
        return known[int(rng.integers(len(known)))]
    boxes = RANGES[colour]
    box = boxes[int(rng.integers(len(boxes)))] if rng.random() < 0.4 else boxes[0]
    return from_hsv(uniform(rng, box.hue), uniform(rng, box.saturation), uniform(rng, box.value))


def sibling(rng: np.random.Generator, base: Rgb, colour: str) -> Rgb:
    """Another shade of the same hue as `base`, lighter or darker, that keeps its colour name."""
    hue, saturation, value = to_hsv(base)
    boxes = RANGES[colour]
    floor = min(value, *(box.value[0] for box in boxes))
    darkest, brightest = max(floor, value * 0.72), min(1.0, value * 1.3)
    palest = max(saturation * 0.85, min(saturation, *(box.saturation[0] for box in boxes)))
    darker = rng.random() * (value - darkest) > rng.random() * (brightest - value)
    bounds = (darkest, value) if darker else (value, brightest)
    return from_hsv(hue, uniform(rng, (palest, saturation)), uniform(rng, bounds))


def from_hsv(hue: float, saturation: float, value: float) -> Rgb:
    """Hue in degrees, saturation and value in 0..1, to red, green and blue in 0..255."""
    red, green, blue = colorsys.hsv_to_rgb(hue / 360 % 1.0, saturation, value)
    return red * 255, green * 255, blue * 255


def to_hsv(colour: Rgb) -> tuple[float, float, float]:
    """Red, green and blue in 0..255 to hue in degrees, saturation and value in 0..1."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in colour))
    return hue * 360, saturation, value


def distance(pixels: NDArray[np.float32], colour: Rgb) -> NDArray[np.float32]:
    """How different `[n, 3]` pixels look from a colour, about 0..765 (a weighted distance in RGB)."""
    other = np.asarray(colour, np.float32)
    mean_red = (pixels[:, 0] + other[0]) / 2
    squares = (pixels - other) ** 2
    weighted = (2 + mean_red / 256) * squares[:, 0] + 4 * squares[:, 1] + (3 - mean_red / 256) * squares[:, 2]
    return np.asarray(np.sqrt(weighted), np.float32)
