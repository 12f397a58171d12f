"""How one thing looks: its outline in its own coordinates, its filling, and how it is put on a canvas."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from training.colours import Rgb, distance, shade, sibling, uniform

SUPERSAMPLING = 4
FIXED_POINT_BITS = 4
TEXTURE_SIDE = 48
NEAR = 110.0
"""Below this colour distance, a thing and what lies behind it are too alike."""
REACH = {"circle": 1.0, "square": 1.2, "triangle": 1.28, "star": 1.28}
"""Distance from centre to the farthest corner, in radii: so that shapes of one radius look alike in size."""


@dataclass(frozen=True)
class Look:
    """A thing's appearance, the same in every frame of a clip."""

    shape: str
    colour: str
    corners: NDArray[np.float32]
    """`[corners, 2]`, x and y in radii around the centre."""
    base: Rgb
    texture: NDArray[np.uint8]
    """`[TEXTURE_SIDE, TEXTURE_SIDE, 3]`, RGB, covering -1.3..1.3 radii on both axes."""
    edge: Rgb | None
    """Colour of the thin line along the border, inside the shape."""
    edge_width: float
    """In radii."""
    shadow: float
    """Darkness of the drop shadow, 0 for none."""


@dataclass(frozen=True)
class Pose:
    """Where a thing is: centre and radius in pixels, rotation in radians."""

    x: float
    y: float
    radius: float
    angle: float


@dataclass(frozen=True)
class Stamp:
    """A thing drawn on its own small square, whose top left pixel is at (`left`, `top`) of the canvas."""

    left: int
    top: int
    coverage: NDArray[np.float32]
    """`[side, side]`: the share of each pixel that the thing covers."""
    colours: NDArray[np.float32]
    """`[side, side, 3]`, RGB."""

    def moved(self, left: int, top: int) -> Stamp:
        """The same drawing with its top left pixel elsewhere."""
        return replace(self, left=left, top=top)


def draw_look(rng: np.random.Generator, shape: str, colour: str) -> Look:
    """A random appearance for a thing of this shape and colour."""
    base = shade(rng, colour)
    edge: Rgb | None = None
    if rng.random() < 0.22:
        edge = ((0, 0, 0), (255, 255, 255), (base[0] * 0.45, base[1] * 0.45, base[2] * 0.45))[
            int(rng.integers(3))
        ]
    return Look(
        shape=shape,
        colour=colour,
        corners=_corners(rng, shape),
        base=base,
        texture=_texture(rng, base, colour),
        edge=edge,
        edge_width=uniform(rng, (0.06, 0.13)),
        shadow=uniform(rng, (0.2, 0.55)) if rng.random() < 0.15 else 0.0,
    )


def _corners(rng: np.random.Generator, shape: str) -> NDArray[np.float32]:
    if shape == "circle":
        turns, reach = np.arange(48) / 48, np.ones(48)
    elif shape == "square":
        turns, reach = np.arange(4) / 4 + 0.125, np.ones(4)
    elif shape == "star":
        turns, reach = np.arange(10) / 10 - 0.25, np.tile([1.0, uniform(rng, (0.38, 0.55))], 5)
    else:
        return _triangle(rng)
    points = np.stack([np.cos(turns * 2 * np.pi), np.sin(turns * 2 * np.pi)], 1) * reach[:, None]
    return np.asarray(points * REACH[shape], np.float32)


def _triangle(rng: np.random.Generator) -> NDArray[np.float32]:
    """Equilateral, isosceles or right-angled, centred on the middle of its corners."""
    draw = rng.random()
    if draw < 0.5:
        height = 0.866
        points = np.array([[-0.5, height], [0.5, height], [0.0, 0.0]])
    elif draw < 0.8:
        points = np.array([[-0.5, 1.0], [0.5, 1.0], [0.0, 0.0]]) * [1.0, uniform(rng, (0.65, 1.3))]
    else:
        points = np.array([[0.0, 0.0], [0.0, 1.0], [uniform(rng, (0.75, 1.0)), 1.0]])
    points = points - points.mean(0)
    return np.asarray(points / np.linalg.norm(points, axis=1).max() * REACH["triangle"], np.float32)


def _texture(rng: np.random.Generator, base: Rgb, colour: str) -> NDArray[np.uint8]:
    side = TEXTURE_SIDE
    draw = rng.random()
    if draw < 0.45:
        return np.full((side, side, 3), base, np.uint8)
    other = np.asarray(sibling(rng, base, colour), np.float32)
    if draw < 0.65:
        share = np.broadcast_to(np.linspace(0, 1, side, dtype=np.float32)[None], (side, side))
    elif draw < 0.77:
        period = int(rng.integers(6, 18))
        share = np.broadcast_to(
            (np.arange(side) % period < period / 2).astype(np.float32)[None], (side, side)
        )
    elif draw < 0.87:
        period = int(rng.integers(8, 16))
        axis = (np.arange(side) % period - (period - 1) / 2) ** 2
        share = (axis[:, None] + axis[None] < (period * uniform(rng, (0.22, 0.36))) ** 2).astype(np.float32)
    else:
        cells = int(rng.integers(5, 25))
        share = np.clip(cv2.resize(rng.random((cells, cells), np.float32), (side, side)), 0, 1)
    start = np.asarray(base, np.float32)
    return (start + (other - start) * share[:, :, None]).astype(np.uint8)


def draw_angle(rng: np.random.Generator) -> float:
    """A rotation in radians; often upright or nearly so."""
    if rng.random() < 0.4:
        return uniform(rng, (-0.12, 0.12)) if rng.random() < 0.5 else 0.0
    return uniform(rng, (0, 2 * np.pi))


def stamp(look: Look, pose: Pose) -> Stamp:
    """Draws a thing on a square just large enough."""
    half = int(np.ceil(pose.radius * REACH[look.shape])) + 2
    left, top, side = int(np.floor(pose.x)) - half, int(np.floor(pose.y)) - half, 2 * half + 1
    centre = np.array([pose.x - left, pose.y - top], np.float32)
    turn = _rotation(pose.angle)
    corners = look.corners @ turn.T * pose.radius + centre
    fine = np.zeros((side * SUPERSAMPLING, side * SUPERSAMPLING), np.uint8)
    fixed = np.round((corners * SUPERSAMPLING - 0.5) * (1 << FIXED_POINT_BITS)).astype(np.int32)
    cv2.fillPoly(fine, [fixed], 255, cv2.LINE_8, FIXED_POINT_BITS)
    colours = _filling(look, pose, centre, side)
    if look.edge is not None:
        line = np.zeros_like(fine)
        width = max(1.2, look.edge_width * pose.radius) * 2 * SUPERSAMPLING
        cv2.polylines(line, [fixed], True, 255, max(1, round(width)), cv2.LINE_8, FIXED_POINT_BITS)
        share = _averaged(line)[:, :, None]
        colours += (np.asarray(look.edge, np.float32) - colours) * share
    return Stamp(left, top, _averaged(fine), colours)


def _rotation(angle: float) -> NDArray[np.float32]:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)


def _averaged(fine: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A supersampled mask to shares in 0..1 at one value a pixel."""
    side = fine.shape[0] // SUPERSAMPLING
    small = cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32) * np.float32(1 / 255)


def _filling(look: Look, pose: Pose, centre: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """`[side, side, 3]`: the thing's texture turned and scaled as the thing is."""
    scale = TEXTURE_SIDE / (2.6 * pose.radius)
    matrix = _rotation(-pose.angle) * scale
    offset = np.float32(TEXTURE_SIDE / 2) - matrix @ centre
    warp = np.concatenate([matrix, offset[:, None]], 1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    turned = cv2.warpAffine(look.texture, warp, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(turned, np.float32)


def put(
    canvas: NDArray[np.uint8], instances: NDArray[np.uint8], drawn: Stamp, look: Look, label: int
) -> None:
    """Paints a stamp over `[height, width, 3]` and its label over `[height, width]`, both in place."""
    if look.shadow:
        _put_shadow(canvas, drawn, look.shadow)
    there, here = _overlap(instances.shape, drawn)
    if there is None:
        return
    share = drawn.coverage[here]
    behind = canvas[there].astype(np.float32)
    canvas[there] = (behind + (drawn.colours[here] - behind) * share[:, :, None] + np.float32(0.5)).astype(
        np.uint8
    )
    instances[there][share > 0.5] = label


def covered(shape: tuple[int, ...], drawn: Stamp) -> tuple[tuple[slice, slice] | None, NDArray[np.bool_]]:
    """The part of the canvas under a stamp, and the pixels of it that the thing takes."""
    there, here = _overlap(shape, drawn)
    return there, drawn.coverage[here] > 0.5


def _overlap(shape: tuple[int, ...], drawn: Stamp) -> tuple[tuple[slice, slice] | None, tuple[slice, slice]]:
    side = drawn.coverage.shape[0]
    top, left = max(0, drawn.top), max(0, drawn.left)
    bottom, right = min(shape[0], drawn.top + side), min(shape[1], drawn.left + side)
    if top >= bottom or left >= right:
        return None, (slice(0, 0), slice(0, 0))
    here = (slice(top - drawn.top, bottom - drawn.top), slice(left - drawn.left, right - drawn.left))
    return (slice(top, bottom), slice(left, right)), here


def _put_shadow(canvas: NDArray[np.uint8], drawn: Stamp, darkness: float) -> None:
    reach = max(1, drawn.coverage.shape[0] // 14)
    padded = cv2.copyMakeBorder(drawn.coverage, reach, reach, reach, reach, cv2.BORDER_CONSTANT, value=0)
    soft = np.asarray(cv2.GaussianBlur(padded, (0, 0), reach * 0.5), np.float32)
    # Moved by its own blur's reach down and right, so that only a rim shows beside the thing.
    cast = Stamp(drawn.left, drawn.top, soft, drawn.colours)
    there, here = _overlap(canvas.shape, cast)
    if there is not None:
        canvas[there] = (canvas[there] * (1 - darkness * soft[here])[:, :, None]).astype(np.uint8)


def set_apart(rng: np.random.Generator, look: Look, pose: Pose, canvas: NDArray[np.uint8]) -> Look:
    """The same thing in another shade, or with an edge, where it is too much like what lies around it."""
    points = look.corners if len(look.corners) > 5 else np.concatenate([look.corners, _middles(look.corners)])
    around = points @ _rotation(pose.angle).T * (pose.radius * 1.12) + np.array([pose.x, pose.y], np.float32)
    height, width = canvas.shape[:2]
    columns = np.clip(around[:, 0], 0, width - 1).astype(np.intp)
    rows = np.clip(around[:, 1], 0, height - 1).astype(np.intp)
    pixels = canvas[rows, columns].astype(np.float32)
    if look.edge is not None and _alike(pixels, look.edge) < 0.3:
        return look
    for _ in range(4):
        if _alike(pixels, look.base) < 0.25:
            return look
        base = shade(rng, look.colour)
        look = replace(look, base=base, texture=_texture(rng, base, look.colour), edge=None)
    edges: tuple[Rgb, ...] = ((0, 0, 0), (255, 255, 255))
    edge = min(edges, key=lambda candidate: _alike(pixels, candidate))
    return replace(look, edge=edge, edge_width=max(0.08, look.edge_width))


def _alike(pixels: NDArray[np.float32], colour: Rgb) -> float:
    return float((distance(pixels, colour) < NEAR).mean())


def _middles(corners: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((corners + np.roll(corners, 1, 0)) / 2, np.float32)
