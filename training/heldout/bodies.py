"""Coloured bodies and how they are painted into a picture and its instance map."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.heldout.backdrops import Canvas
from training.heldout.colours import RGB, SHADES, difference, tint
from training.heldout.shapes import Figure, Plane, random_figure
from training.scene import Thing

FillKind = Literal["flat", "linear", "radial", "stripes", "dots", "mottled"]

_FILLS: tuple[FillKind, ...] = ("flat", "flat", "flat", "linear", "radial", "stripes", "dots", "mottled")
_OUTLINES: tuple[RGB, ...] = ((0, 0, 0), (255, 255, 255), (60, 60, 64), (225, 225, 225))


@dataclass(frozen=True)
class Fill:
    """What the inside looks like, in the body's own coordinates (it turns with the body)."""

    kind: FillKind
    angle: float
    """Direction, radians."""
    pitch: float
    """Cycles per radius of stripes and mottling; dots are twice as fine, so that none passes for a circle."""

    def level(self, x: Plane, y: Plane) -> Plane:
        """-1 (dark) to 1 (light) at each point, in units of the radius."""
        u = x * np.cos(self.angle) + y * np.sin(self.angle)
        v = y * np.cos(self.angle) - x * np.sin(self.angle)
        k = 2 * np.pi * self.pitch
        out = np.zeros_like(u)
        match self.kind:
            case "flat":
                pass
            case "linear":
                out = u
            case "radial":
                out = 1 - 1.8 * np.hypot(x + 0.3, y + 0.3)
            case "stripes":
                out = np.clip(4 * np.sin(k * u), -1, 1)
            case "dots":
                out = np.clip(6 * (np.cos(2 * k * u) + np.cos(2 * k * v) - 0.9), -1, 1)
            case "mottled":
                along = np.sin(k * u + 2 * np.sin(0.7 * k * v))
                out = 0.6 * (along + np.sin(1.7 * k * v + 2 * np.cos(0.6 * k * u)))
        return np.asarray(out, np.float32)


@dataclass(frozen=True)
class Pose:
    """Where a body is: centre (pixels, may lie outside the picture), radius (pixels), turn (radians)."""

    x: float
    y: float
    radius: float
    angle: float


@dataclass(frozen=True)
class Body:
    """A thing's full looks, apart from where it is."""

    thing: Thing
    figure: Figure
    shade: RGB
    fill: Fill
    outline: RGB | None
    outline_width: float
    """In radii."""


@dataclass(frozen=True)
class Patch:
    """A body drawn at a pose: a window of pixels whose upper left corner is (top, left) of the picture."""

    top: int
    left: int
    distance: Plane
    """`[height, width]`: pixels from the outline, negative inside."""
    colour: Canvas
    """`[height, width, 3]`, 0..255."""

    @cached_property
    def inside(self) -> NDArray[np.bool_]:
        """`[height, width]`: the body's pixels, hidden or not, whether in the picture or not."""
        return self.distance <= 0

    def windows(self, size: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The part inside a picture of this (height, width): where in the picture, where in the patch."""
        rows, columns = self.distance.shape
        top, bottom = np.clip([self.top, self.top + rows], 0, size[0]).tolist()
        left, right = np.clip([self.left, self.left + columns], 0, size[1]).tolist()
        own = slice(top - self.top, bottom - self.top), slice(left - self.left, right - self.left)
        return (slice(top, bottom), slice(left, right)), own


def random_body(rng: np.random.Generator, thing: Thing) -> tuple[Body, float]:
    """A body for the thing and the angle (radians) it stands at."""
    figure, angle = random_figure(rng, thing.shape)
    kind = _FILLS[rng.integers(len(_FILLS))]
    fill = Fill(kind, float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.9, 2.2)))
    shades = SHADES[thing.colour]
    outline = _OUTLINES[rng.integers(len(_OUTLINES))] if rng.random() < 0.3 else None
    shade = shades[rng.integers(len(shades))]
    return Body(thing, figure, shade, fill, outline, float(rng.uniform(0.05, 0.11))), angle


def outlined(body: Body, around: list[RGB]) -> Body:
    """The body with a line around it that stands out best against its own fill and the colours around it."""
    best = max(_OUTLINES, key=lambda line: min(difference(line, colour) for colour in [*around, body.shade]))
    return replace(body, outline=best, outline_width=max(body.outline_width, 0.08))


def render(body: Body, pose: Pose) -> Patch:
    """The body at this pose, on as many pixels as it needs."""
    reach = body.figure.reach * pose.radius + 2
    left, top = int(np.floor(pose.x - reach)), int(np.floor(pose.y - reach))
    side = int(np.ceil(2 * reach)) + 1
    dx = (np.arange(left, left + side) + 0.5 - pose.x)[None, :].astype(np.float32) / np.float32(pose.radius)
    dy = (np.arange(top, top + side) + 0.5 - pose.y)[:, None].astype(np.float32) / np.float32(pose.radius)
    cos, sin = np.float32(np.cos(pose.angle)), np.float32(np.sin(pose.angle))
    x, y = dx * cos + dy * sin, dy * cos - dx * sin
    distance = body.figure.distance(x, y) * np.float32(pose.radius)
    colour = tint(body.thing.colour, body.shade, body.fill.level(x, y))
    if body.outline is not None:
        width = max(1.0, body.outline_width * pose.radius)
        line = np.clip(distance + width + 0.5, 0, 1)[..., None]
        colour = colour * (1 - line) + np.asarray(body.outline, np.float32) * line
    return Patch(top, left, distance, colour.astype(np.float32))


def paint(patches: list[Patch], canvas: Canvas) -> None:
    """Draw the patches over the canvas, later ones in front, with smooth edges."""
    for patch in patches:
        place, own = patch.windows(canvas.shape[:2])
        cover = np.clip(0.5 - patch.distance[own], 0, 1)[..., None]
        canvas[place] = canvas[place] * (1 - cover) + patch.colour[own] * cover


def label(patches: list[Patch], size: tuple[int, int]) -> NDArray[np.uint8]:
    """`[height, width]`: the instance map of the patches, later ones in front; a pixel is its centre's."""
    instances = np.zeros(size, np.uint8)
    for index, patch in enumerate(patches):
        place, own = patch.windows(size)
        instances[place][patch.inside[own]] = index + 1
    return instances


def least_visible(patches: list[Patch], size: tuple[int, int]) -> float:
    """The smallest share of any patch's pixels that is in the picture and not hidden, 0..1."""
    shown = np.bincount(label(patches, size).ravel(), minlength=len(patches) + 1)[1:]
    return min(int(count) / int(patch.inside.sum()) for count, patch in zip(shown, patches, strict=True))
