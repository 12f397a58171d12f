"""Draws still scenes and moving ones from a random generator: the same seed gives the same scene."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from training.backgrounds import draw_background
from training.colours import uniform
from training.looks import Look, Pose, covered, draw_angle, draw_look, put, set_apart, stamp
from training.motion import Path, draw_late_path, draw_passing_path, draw_path
from training.scene import COLOURS, SHAPES, Clip, Picture, Thing

COUNTS = (0.08, 0.14, 0.20, 0.22, 0.18, 0.11, 0.07)
"""Chances of 1, 2, ... things in a picture."""
CLIP_COUNTS = (0.15, 0.30, 0.33, 0.22)
LEAST_VISIBLE = 0.45
LEAST_INSIDE = 0.62
LATE_SHARE = 0.18
PASSING_SHARE = 0.3
"""Of the things after a clip's first, those that cross the way of another."""


def draw_picture(rng: np.random.Generator, size: tuple[int, int]) -> Picture:
    """A still scene of `size` (height, width) with one to seven things."""
    canvas = draw_background(rng, size)
    instances = np.zeros(size, np.uint8)
    areas: list[int] = []
    kinds = draw_kinds(rng, _count(rng, COUNTS))
    things = [Thing(*kind) for kind in kinds if _place(rng, canvas, instances, areas, kind)]
    return Picture(_photometric(rng, canvas[None])[0], instances, tuple(things))


def draw_clip(rng: np.random.Generator, size: tuple[int, int], frames: int) -> Clip:
    """A moving scene of `frames` pictures of `size` (height, width) with one to four things."""
    kinds = draw_kinds(rng, _count(rng, CLIP_COUNTS))
    backgrounds = _panned(rng, size, frames)
    looks: list[Look] = []
    paths: list[Path] = []
    first = np.zeros(size, np.uint8)
    canvas, areas = backgrounds[0].copy(), list[int]()
    for shape, colour in kinds:
        look = draw_look(rng, shape, colour)
        unlike = all((old.shape, old.colour) != (shape, colour) for old in looks)
        if looks and unlike and frames > 4 and rng.random() < LATE_SHARE:
            paths.append(draw_late_path(rng, size, frames, _radius(rng, size)))
            looks.append(set_apart(rng, look, paths[-1].poses[-1], backgrounds[-1]))
            areas.append(0)
            continue
        for _ in range(8):
            radius = _radius(rng, size)
            path = _path(rng, size, frames, radius, paths)
            if _fits(first, areas, look, path.poses[0]):
                break
        else:
            continue
        look = set_apart(rng, look, path.poses[0], canvas)
        put(canvas, first, stamp(look, path.poses[0]), look, len(areas))
        looks.append(look)
        paths.append(path)
    return _rendered(rng, backgrounds, looks, paths)


def _path(
    rng: np.random.Generator, size: tuple[int, int], frames: int, radius: float, others: list[Path]
) -> Path:
    angle = draw_angle(rng)
    if not others or rng.random() >= PASSING_SHARE:
        return draw_path(rng, size, frames, radius, angle)
    met = others[int(rng.integers(len(others)))].poses[frames // 2]
    return draw_passing_path(rng, size, frames, radius, angle, (met.x, met.y))


def draw_kinds(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """Shape and colour of `count` things; often some share their shape, their colour or both."""
    kinds = [(_one_of(rng, SHAPES), _one_of(rng, COLOURS)) for _ in range(count)]
    sharing = rng.random()
    if count > 1 and sharing < 0.6:
        alike = min(count, int(rng.integers(2, 4)))
        shape, colour = kinds[0]
        for index in range(1, alike):
            own_shape, own_colour = kinds[index]
            kinds[index] = (
                shape if sharing < 0.25 or sharing >= 0.47 else own_shape,
                colour if sharing >= 0.25 else own_colour,
            )
    return [kinds[index] for index in rng.permutation(count)]


def _place(
    rng: np.random.Generator,
    canvas: NDArray[np.uint8],
    instances: NDArray[np.uint8],
    areas: list[int],
    kind: tuple[str, str],
) -> bool:
    """Draws one more thing on top where it hides no other too much; false where no place was found."""
    look = draw_look(rng, *kind)
    apart = rng.random() < 0.45
    radius = _radius(rng, canvas.shape[:2])
    angle = draw_angle(rng)
    for attempt in range(10):
        pose = _anywhere(rng, canvas.shape, radius * (1 - 0.04 * attempt), angle)
        if _fits(instances, areas, look, pose, apart and attempt < 6):
            look = set_apart(rng, look, pose, canvas)
            put(canvas, instances, stamp(look, pose), look, len(areas))
            return True
    return False


def _anywhere(rng: np.random.Generator, shape: tuple[int, ...], radius: float, angle: float) -> Pose:
    height, width = shape[:2]
    margin = radius * (uniform(rng, (-0.1, 0.6)) if rng.random() < 0.15 else 1.0)
    x = uniform(rng, (margin, max(margin, width - margin)))
    return Pose(x, uniform(rng, (margin, max(margin, height - margin))), radius, angle)


def _fits(
    instances: NDArray[np.uint8], areas: list[int], look: Look, pose: Pose, apart: bool = False
) -> bool:
    """Whether a thing may be drawn here; notes its full area (in pixels) if so."""
    drawn = stamp(look, pose)
    there, taken = covered(instances.shape, drawn)
    full = int((drawn.coverage > 0.5).sum())
    if there is None or int(taken.sum()) < max(12, LEAST_INSIDE * full):
        return False
    below = instances[there]
    hidden = np.bincount(below[taken], minlength=len(areas) + 1)
    if hidden[1:].any():
        if apart:
            return False
        visible = np.bincount(instances.ravel(), minlength=len(areas) + 1)
        for label, area in enumerate(areas, 1):
            if hidden[label] and visible[label] - hidden[label] < LEAST_VISIBLE * area:
                return False
    areas.append(full)
    return True


def _panned(rng: np.random.Generator, size: tuple[int, int], frames: int) -> NDArray[np.uint8]:
    """`[frames, height, width, 3]`: one background, still or slowly moving."""
    if rng.random() < 0.6:
        return np.repeat(draw_background(rng, size)[None], frames, 0)
    height, width = size
    wide = draw_background(rng, (height + height // 3, width + width // 3))
    room = np.array([wide.shape[1] - width, wide.shape[0] - height], np.float64)
    start, end = rng.random(2) * room, rng.random(2) * room
    reach = float(np.abs(end - start).max())
    limit = 0.02 * min(size) * max(1, frames - 1)
    end = start + (end - start) * min(1.0, limit / max(reach, 1e-6))
    centres = np.linspace(start, end, frames) + np.array([width - 1, height - 1]) / 2
    cut = [cv2.getRectSubPix(wide, (width, height), (float(x), float(y))) for x, y in centres]
    return np.asarray(np.stack(cut), np.uint8)


def _rendered(
    rng: np.random.Generator, backgrounds: NDArray[np.uint8], looks: list[Look], paths: list[Path]
) -> Clip:
    images = backgrounds.copy()
    instances = np.zeros(images.shape[:3], np.uint8)
    for frame in range(len(images)):
        for label, (look, path) in enumerate(zip(looks, paths, strict=True), 1):
            put(images[frame], instances[frame], stamp(look, path.poses[frame]), look, label)
    things = tuple(Thing(look.shape, look.colour) for look in looks)
    return Clip(_photometric(rng, images), instances, things)


def _photometric(rng: np.random.Generator, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`[frames, height, width, 3]` as a camera has it: lighting, blur, noise, compression, all mild."""
    if rng.random() < 0.35:
        table = np.linspace(0, 1, 256) ** uniform(rng, (0.88, 1.12))
        table = (table - 0.5) * uniform(rng, (0.86, 1.12)) + 0.5 + uniform(rng, (-0.04, 0.04))
        images = (np.clip(table, 0, 1) * 255 + 0.5).astype(np.uint8)[images]
    blur = uniform(rng, (0.3, 0.9)) if rng.random() < 0.15 else 0.0
    noise = uniform(rng, (2, 9)) if rng.random() < 0.18 else 0.0
    quality = int(rng.integers(35, 95)) if rng.random() < 0.15 else 0
    if not (blur or noise or quality):
        return images
    return np.stack([_worn(rng, image, blur, noise, quality) for image in images])


def _worn(
    rng: np.random.Generator, image: NDArray[np.uint8], blur: float, noise: float, quality: int
) -> NDArray[np.uint8]:
    if blur:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), blur), np.uint8)
    if noise:
        grain = rng.standard_normal(image.shape, np.float32) * np.float32(noise)
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
    if quality:
        _, encoded = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        image = np.ascontiguousarray(np.asarray(decoded, np.uint8)[:, :, ::-1])
    return image


def _radius(rng: np.random.Generator, size: tuple[int, ...]) -> float:
    """In pixels: 6 % to 28 % of the shorter side, most of them 8 % to 20 %."""
    bounds = (0.06, 0.28) if rng.random() < 0.3 else (0.08, 0.20)
    return float(np.exp(uniform(rng, (float(np.log(bounds[0])), float(np.log(bounds[1])))))) * min(size)


def _count(rng: np.random.Generator, chances: tuple[float, ...]) -> int:
    return 1 + int(np.searchsorted(np.cumsum(chances), rng.random() * 0.999))


def _one_of(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]
