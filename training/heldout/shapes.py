"""Shapes as signed distance functions, in units of their radius: negative inside, positive outside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
"""`[height, width]`."""


@dataclass(frozen=True)
class Figure:
    """One shape of radius about 1 around the origin, y pointing down."""

    corners: tuple[tuple[float, float], ...]
    """(x, y) in order around the outline; none for a circle."""
    rounding: float = 0.0
    """Radius of the rounded corners."""

    @property
    def reach(self) -> float:
        """Distance of the farthest point from the origin."""
        if not self.corners:
            return 1.0
        return max(float(np.hypot(x, y)) for x, y in self.corners) + self.rounding

    def distance(self, x: Plane, y: Plane) -> Plane:
        """Signed distance of each point from the outline."""
        if not self.corners:
            return np.asarray(np.hypot(x, y) - 1, np.float32)
        return np.asarray(_polygon_distance(self.corners, x, y) - self.rounding, np.float32)


def random_figure(rng: np.random.Generator, shape: str) -> tuple[Figure, float]:
    """A variant of the shape, and the angle (radians) it stands at.

    Squares stay within 25 degrees of upright, since one on its corner may be called a diamond. The radii are
    such that shapes of one nominal radius look about equally large.
    """
    rounding = float(rng.choice([0.0, 0.0, 0.04, 0.08]))
    free = float(rng.uniform(-np.pi, np.pi))
    if shape == "circle":
        return Figure(()), free
    if shape == "square":
        half = 0.92 - rounding
        corners = ((-half, -half), (half, -half), (half, half), (-half, half))
        tilt = float(rng.choice([0.0, 1.0]) * rng.uniform(-25, 25))
        return Figure(corners, rounding), float(np.radians(tilt))
    if shape == "triangle":
        width, height = rng.uniform(0.9, 1.15), rng.uniform(0.9, 1.15)
        points = _ring(3, 1.3 - 2 * rounding) * np.array([width, height])
        upright = rng.random() < 0.4
        return Figure(_corners(points), rounding), 0.0 if upright else free
    if shape == "star":
        points = _ring(10, 1.32 - 2 * rounding)
        points[1::2] *= rng.uniform(0.40, 0.52)
        upright = rng.random() < 0.4
        return Figure(_corners(points), rounding), float(rng.uniform(-0.2, 0.2)) if upright else free
    raise ValueError(f"unknown shape {shape!r}")


def _ring(count: int, radius: float) -> NDArray[np.float64]:
    """`[count, 2]`: points (x, y) evenly around a circle, the first at the top."""
    angles = 2 * np.pi * np.arange(count) / count - np.pi / 2
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _corners(points: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), float(y)) for x, y in points)


def _polygon_distance(corners: tuple[tuple[float, float], ...], x: Plane, y: Plane) -> Plane:
    """Exact signed distance to a simple polygon: the nearest edge, and the even-odd rule for the sign."""
    squared = np.full(x.shape, np.inf, np.float32)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey = bx - ax, by - ay
        wx, wy = x - np.float32(ax), y - np.float32(ay)
        along = np.clip((wx * np.float32(ex) + wy * np.float32(ey)) / np.float32(ex * ex + ey * ey), 0, 1)
        squared = np.minimum(squared, (wx - along * np.float32(ex)) ** 2 + (wy - along * np.float32(ey)) ** 2)
        if ey != 0:
            inside ^= ((y >= ay) != (y >= by)) & (wx < wy * np.float32(ex / ey))
    return np.asarray(np.sqrt(squared) * np.where(inside, -1, 1), np.float32)
