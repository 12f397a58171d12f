"""How the things of a clip move: each from where it stands, calm in the first fifth, then on its way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.heldout.bodies import Pose

Path = NDArray[np.float64]
"""`[frames, 2]`: offsets (x, y) in pixels from the start."""
Times = NDArray[np.float64]
"""`[frames]`: 0 at the first frame to 1 at the last."""


def random_motion(
    rng: np.random.Generator, starts: list[Pose], size: tuple[int, int], frames: int
) -> list[list[Pose]]:
    """Poses `[frame][thing]`; of two things or more, one often passes another. `size` is (height, width)."""
    time = np.arange(frames) / max(1, frames - 1)
    paths = [_random_path(rng, start, size, time) for start in starts]
    if len(starts) > 1 and rng.random() < 0.7:
        mover, other = (int(index) for index in rng.permutation(len(starts))[:2])
        paths[mover] = _passing(starts[mover], starts[other], size, time)
        paths[other] = _sway(rng, starts[other], time)
    spins = rng.uniform(-0.1, 0.1, len(starts)) * (rng.random(len(starts)) < 0.6)
    swells = rng.uniform(0, 0.12, len(starts))
    return [
        [
            Pose(
                start.x + float(path[frame, 0]),
                start.y + float(path[frame, 1]),
                start.radius * (1 + float(swell * np.sin(2 * np.pi * time[frame]))),
                start.angle + frame * float(spin * np.sqrt(time[frame])),
            )
            for start, path, spin, swell in zip(starts, paths, spins, swells, strict=True)
        ]
        for frame in range(frames)
    ]


def _random_path(rng: np.random.Generator, start: Pose, size: tuple[int, int], time: Times) -> Path:
    kind = rng.choice(["still", "sway", "drift", "loop", "trip"], p=[0.1, 0.2, 0.25, 0.2, 0.25])
    if kind == "still":
        return np.zeros((len(time), 2))
    if kind == "sway":
        return _sway(rng, start, time)
    if kind == "drift":
        return _drift(rng, start, size, time)
    if kind == "loop":
        return _loop(rng, start, size, time)
    return _trip(start, size, time)


def _ease(time: Times, begin: float, end: float) -> NDArray[np.float64]:
    """0 before `begin`, 1 after `end`, smooth between."""
    share = np.clip((time - begin) / (end - begin), 0, 1)
    return np.asarray(share * share * (3 - 2 * share))


def _sway(rng: np.random.Generator, start: Pose, time: Times) -> Path:
    """To and fro by at most half a radius."""
    reach = start.radius * rng.uniform(-0.5, 0.5, 2)
    return np.asarray(np.sin(2 * np.pi * rng.uniform(0.7, 2.0) * time)[:, None] * reach)


def _drift(rng: np.random.Generator, start: Pose, size: tuple[int, int], time: Times) -> Path:
    """Straight on, turned back at the sides of the picture."""
    speed = rng.uniform(0.3, 1.1) * min(size)
    angle = rng.uniform(0, 2 * np.pi)
    steps = np.cos(angle), np.sin(angle)
    columns = []
    for origin, side, step in zip((start.x, start.y), size[::-1], steps, strict=True):
        low, high = 0.7 * start.radius, side - 0.7 * start.radius
        along = np.mod(origin - low + speed * step * time, 2 * (high - low))
        columns.append(low + np.minimum(along, 2 * (high - low) - along) - origin)
    return np.stack(columns, axis=1)


def _loop(rng: np.random.Generator, start: Pose, size: tuple[int, int], time: Times) -> Path:
    """Once around an ellipse through the start, towards the middle of the picture."""
    middle = np.array([size[1] / 2 - start.x, size[0] / 2 - start.y]) * rng.uniform(0.6, 1.0)
    turn = 2 * np.pi * rng.choice([-1.0, 1.0]) * time
    sideways = np.array([-middle[1], middle[0]]) * rng.uniform(0.4, 1.0)
    return np.asarray((1 - np.cos(turn))[:, None] * middle + np.sin(turn)[:, None] * sideways)


def _trip(start: Pose, size: tuple[int, int], time: Times) -> Path:
    """Out of the picture by the nearest side, and back."""
    away = 1.6 * start.radius
    exits = [
        np.array([-start.x - away, 0]),
        np.array([size[1] - start.x + away, 0]),
        np.array([0, -start.y - away]),
        np.array([0, size[0] - start.y + away]),
    ]
    nearest = min(exits, key=lambda way: float(np.abs(way).sum()))
    share = _ease(time, 0.2, 0.5) - _ease(time, 0.6, 0.95)
    return np.asarray(share[:, None] * nearest)


def _passing(mover: Pose, other: Pose, size: tuple[int, int], time: Times) -> Path:
    """Across the other thing and out on its far side, as far as the picture allows."""
    here, there = np.array([mover.x, mover.y]), np.array([other.x, other.y])
    limit = np.array([size[1], size[0]]) - 0.5 * mover.radius
    end = np.clip(2 * there - here, 0.5 * mover.radius, limit)
    first, second = _ease(time, 0.2, 0.55)[:, None], _ease(time, 0.55, 0.9)[:, None]
    return np.asarray(first * (there - here) + second * (end - there))
