"""Backgrounds: plain, gradients and softened photographs, all too pale in colour to be taken for a thing."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Canvas = NDArray[np.float32]
"""`[height, width, 3]`, RGB, 0..255."""

_NEUTRALS = (
    (255, 255, 255),
    (236, 236, 232),
    (200, 200, 204),
    (140, 140, 140),
    (86, 88, 92),
    (36, 38, 44),
    (8, 8, 10),
    (235, 225, 206),
    (212, 222, 230),
    (222, 212, 216),
    (128, 116, 104),
    (176, 184, 172),
)
_PHOTOGRAPHS = (
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    ("matplotlib", "mpl-data/sample_data/jacksboro_fault_dem.npz"),
)
_PARTS = {"grace_hopper.jpg": (150, 130, 512, 570)}
"""The part (left, top, right, bottom) to use of a photograph: without the flag, whose stars are stars too."""


def random_backdrop(rng: np.random.Generator, size: tuple[int, int]) -> Canvas:
    """A background of this (height, width) in pixels."""
    kind = rng.choice(["plain", "gradient", "photograph"], p=[0.3, 0.25, 0.45])
    if kind == "plain":
        return np.ones((*size, 3), np.float32) * _neutral(rng)
    if kind == "gradient":
        return _gradient(rng, size)
    return _photograph(rng, size)


def _neutral(rng: np.random.Generator) -> Canvas:
    return np.asarray(_NEUTRALS[rng.integers(len(_NEUTRALS))], np.float32)


def _gradient(rng: np.random.Generator, size: tuple[int, int]) -> Canvas:
    """Two neutral colours blended along a line or from a centre outwards."""
    y, x = np.meshgrid(np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1]), indexing="ij")
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        share = (x * np.cos(angle) + y * np.sin(angle)) / (2 * np.sqrt(2)) + 0.5
    else:
        share = np.hypot(x - rng.uniform(-0.5, 0.5), y - rng.uniform(-0.5, 0.5)) / 2.2
    weight = np.clip(share, 0, 1)[..., None].astype(np.float32)
    return np.asarray(_neutral(rng) * (1 - weight) + _neutral(rng) * weight, np.float32)


def _photograph(rng: np.random.Generator, size: tuple[int, int]) -> Canvas:
    """A random cut-out of a photograph, a little blurred, with most of its colour and contrast taken out."""
    height, width = size
    photo = photographs()[rng.integers(len(_PHOTOGRAPHS))]
    if rng.random() < 0.5:
        photo = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scale = rng.uniform(0.45, 1.0) * min(photo.width / width, photo.height / height)
    left = rng.uniform(0, photo.width - width * scale)
    top = rng.uniform(0, photo.height - height * scale)
    box = (left, top, left + width * scale, top + height * scale)
    cut = photo.resize((width, height), Image.Resampling.BILINEAR, box=box)
    cut = cut.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.012) * min(size)))
    pixels = np.asarray(cut, np.float32)
    grey = pixels.mean(axis=2, keepdims=True)
    muted = grey + rng.uniform(0.15, 0.4) * (pixels - grey)
    flat = rng.uniform(80, 180) + rng.uniform(0.35, 0.7) * (muted - muted.mean())
    return np.asarray(np.clip(flat, 0, 255), np.float32)


@cache
def photographs() -> tuple[Image.Image, ...]:
    """The pictures that come inside the scikit-learn and matplotlib packages, RGB."""
    return tuple(_load(_inside(package, name)) for package, name in _PHOTOGRAPHS)


def _inside(package: str, name: str) -> Path:
    spec = find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or []
    for folder in folders:
        if (path := Path(folder) / name).is_file():
            return path
    raise FileNotFoundError(f"the second generator draws on {name} of the package {package}: install it")


def _load(path: Path) -> Image.Image:
    """The picture in the file; a grid of elevations is lit from the upper left, like a relief map."""
    if path.suffix != ".npz":
        photo = Image.open(path).convert("RGB")
        return photo.crop(_PARTS.get(path.name, (0, 0, *photo.size)))
    with np.load(path) as data:
        elevation = data["elevation"].astype(np.float64)
    down, across = np.gradient(elevation)
    light = (down + across) / np.hypot(down, across).std()
    return Image.fromarray(np.clip(128 + 45 * light, 0, 255).astype(np.uint8)).convert("RGB")
