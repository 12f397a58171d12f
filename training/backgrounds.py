"""What lies behind the things: plain colours, gradients, noise, and crops of photographs."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.colours import from_hsv, uniform

Image = NDArray[np.uint8]
"""`[height, width, 3]`, RGB."""

# Coins and the like are left out: they would be circles that nobody drew.
PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "brick.png",
    "grass.png",
    "gravel.png",
    "motorcycle_left.png",
    "camera.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
)
LONGEST_SIDE = 480
SHARES = {"plain": 0.34, "gradient": 0.16, "photograph": 0.36, "noise": 0.14}


@lru_cache(maxsize=1)
def photographs() -> tuple[Image, ...]:
    """The photographs that scikit-image carries, at most `LONGEST_SIDE` pixels long; none without it."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        return ()
    folder = Path(spec.origin).parent / "data"
    loaded = (
        cv2.imread(str(folder / name), cv2.IMREAD_COLOR) for name in PHOTOGRAPHS if (folder / name).is_file()
    )
    return tuple(_shrunk(photograph) for photograph in loaded if photograph is not None)


def _shrunk(photograph: NDArray[np.generic]) -> Image:
    factor = min(1.0, LONGEST_SIDE / max(photograph.shape[:2]))
    small = cv2.resize(
        np.asarray(photograph, np.uint8), None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA
    )
    return np.ascontiguousarray(small[:, :, ::-1], np.uint8)


def draw_background(rng: np.random.Generator, size: tuple[int, int]) -> Image:
    """A background of `size` (height, width)."""
    kind = tuple(SHARES)[int(np.searchsorted(np.cumsum(tuple(SHARES.values())), rng.random() * 0.999))]
    if kind == "photograph" and photographs():
        return _photograph(rng, size)
    if kind == "plain":
        return np.full((*size, 3), _any_colour(rng), np.uint8)
    if kind == "gradient":
        return _gradient(rng, size)
    return _noise(rng, size)


def _any_colour(rng: np.random.Generator) -> NDArray[np.float32]:
    draw = rng.random()
    if draw < 0.2:
        return np.full(3, 255, np.float32)
    if draw < 0.3:
        return np.full(3, uniform(rng, (0, 25)), np.float32)
    if draw < 0.5:
        return np.full(3, uniform(rng, (30, 250)), np.float32)
    if draw < 0.8:
        return np.asarray(
            from_hsv(uniform(rng, (0, 360)), uniform(rng, (0.05, 0.3)), uniform(rng, (0.6, 1))), np.float32
        )
    return np.asarray(
        from_hsv(uniform(rng, (0, 360)), uniform(rng, (0.2, 0.8)), uniform(rng, (0.15, 0.9))), np.float32
    )


def _gradient(rng: np.random.Generator, size: tuple[int, int]) -> Image:
    corners = np.stack([_any_colour(rng) for _ in range(2)])
    angle = uniform(rng, (0, 2 * np.pi))
    rows = np.linspace(-1, 1, size[0], dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, size[1], dtype=np.float32)[None]
    along = (rows * np.float32(np.sin(angle)) + columns * np.float32(np.cos(angle))) / np.float32(
        2.83
    ) + np.float32(0.5)
    return _between(np.asarray(along, np.float32), corners)


def _noise(rng: np.random.Generator, size: tuple[int, int]) -> Image:
    """Smooth noise of several octaves between two or four colours."""
    total = np.zeros(size, np.float32)
    cells, weight = int(rng.integers(2, 6)), 1.0
    falloff = uniform(rng, (0.4, 0.9))
    for _ in range(int(rng.integers(2, 5))):
        coarse = rng.random((cells, cells), np.float32)
        total += cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC) * np.float32(weight)
        cells, weight = cells * 2, weight * falloff
    low, high = float(total.min()), float(total.max())
    along = np.asarray((total - low) / max(high - low, 1e-6), np.float32)
    return _between(along, np.stack([_any_colour(rng) for _ in range(2)]))


def _between(along: NDArray[np.float32], ends: NDArray[np.float32]) -> Image:
    """`[height, width]` positions in 0..1 to colours between two ends."""
    steps = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    table = (ends[0] + (ends[1] - ends[0]) * steps).astype(np.uint8)
    return np.ascontiguousarray(table[np.clip(along * 255, 0, 255).astype(np.uint8)])


def _photograph(rng: np.random.Generator, size: tuple[int, int]) -> Image:
    available = photographs()
    photograph = available[int(rng.integers(len(available)))]
    height, width = photograph.shape[:2]
    scale = min(height / size[0], width / size[1]) * uniform(rng, (0.35, 1.0))
    rows, columns = max(2, int(size[0] * scale)), max(2, int(size[1] * scale))
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    crop = photograph[top : top + rows, left : left + columns]
    method = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
    picture = cv2.resize(crop, size[::-1], interpolation=method)
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    return _restyled(rng, np.ascontiguousarray(picture, np.uint8))


def _restyled(rng: np.random.Generator, picture: Image) -> Image:
    """A photograph, perhaps rotated in hue, with less colour, darker or lighter, or blurred."""
    if rng.random() < 0.35:
        hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
        hsv[:, :, 0] = (hsv[:, :, 0].astype(np.uint16) + int(rng.integers(180))) % 180
        picture = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)
    if rng.random() < 0.4:
        grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        share = uniform(rng, (0.3, 1.0))
        picture = np.asarray(cv2.addWeighted(picture, 1 - share, grey, share, 0), np.uint8)
    if rng.random() < 0.35:
        contrast = uniform(rng, (0.4, 1.0))
        picture = np.asarray(
            cv2.convertScaleAbs(picture, alpha=contrast, beta=uniform(rng, (0, 255 * (1 - contrast))))
        )
    if rng.random() < 0.3:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), uniform(rng, (0.6, 3.0))), np.uint8)
    return picture
