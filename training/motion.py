"""How things move in a clip: smooth paths of poses, one for each frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.colours import uniform
from training.looks import Pose

SLOWEST, FASTEST = 0.004, 0.07
"""Of the shorter side, per frame; most things are slow."""


@dataclass(frozen=True)
class Path:
    """Where one thing is in every frame."""

    poses: tuple[Pose, ...]


def draw_path(
    rng: np.random.Generator, size: tuple[int, int], frames: int, radius: float, angle: float
) -> Path:
    """A path that starts inside; `radius` in pixels and `angle` in radians are those of the first frame."""
    margin = np.minimum(np.array(size[::-1]) / 2, radius)
    start = margin + rng.random(2) * (np.array(size[::-1]) - 2 * margin)
    steps = np.arange(frames, dtype=np.float64)
    draw = rng.random()
    speed = _speed(rng) * min(size)
    heading = uniform(rng, (0, 2 * np.pi))
    exits = np.concatenate([np.array(size[::-1]) - start, start]) + 1.6 * radius
    if draw < 0.15:
        centres = np.repeat(start[None], frames, 0)
    elif draw < 0.3:
        centres = start + steps[:, None] * speed * _towards(heading)
    elif draw < 0.5:
        centres = _bounced(start + steps[:, None] * speed * _towards(heading), margin, np.array(size[::-1]))
    elif draw < 0.65:
        centres = _curved(rng, start, speed, heading, frames)
    elif draw < 0.75:
        centres = _out_and_back(rng, start, speed, exits, frames)
    else:
        centres = _away_and_back(rng, start, exits, frames)
    return _posed(rng, centres, radius, angle)


def draw_passing_path(
    rng: np.random.Generator,
    size: tuple[int, int],
    frames: int,
    radius: float,
    angle: float,
    other: tuple[float, float],
) -> Path:
    """A path that starts inside, crosses `other` (x, y) and goes on as far beyond it."""
    span = np.array(size[::-1])
    margin = np.minimum(span / 2, radius)
    start = margin + rng.random(2) * (span - 2 * margin)
    middle = np.array(other)
    end = np.clip(2 * middle - start, 0.5 * radius, span - 0.5 * radius)
    begin, met = frames * uniform(rng, (0.05, 0.35)), frames * uniform(rng, (0.5, 0.7))
    steps = np.arange(frames, dtype=np.float64)
    first, then = _eased(steps, begin, met), _eased(steps, met, frames * uniform(rng, (0.85, 1.3)))
    centres = start + first[:, None] * (middle - start) + then[:, None] * (end - middle)
    return _posed(rng, np.asarray(centres, np.float64), radius, angle)


def draw_late_path(rng: np.random.Generator, size: tuple[int, int], frames: int, radius: float) -> Path:
    """A path from outside across a border, which it meets after a quarter of the clip or later."""
    width, height = size[1], size[0]
    inside = np.array([uniform(rng, (0.25, 0.75)) * width, uniform(rng, (0.25, 0.75)) * height])
    side = int(rng.integers(4))
    inwards = _towards(side * np.pi / 2)
    border = inside.copy()
    border[side % 2] = 0.0 if side < 2 else (width, height)[side % 2]
    speed = uniform(rng, (0.015, FASTEST / 2)) * min(size)
    entry = uniform(rng, (0.25, 0.6)) * frames
    drift = _towards(side * np.pi / 2 + np.pi / 2) * uniform(rng, (-0.008, 0.008)) * min(size)
    steps = np.arange(frames, dtype=np.float64)[:, None]
    begin = border - inwards * (radius * 1.3 + 1)
    return _posed(
        rng, begin + (steps - entry) * (inwards * speed + drift), radius, uniform(rng, (0, 2 * np.pi))
    )


def _speed(rng: np.random.Generator) -> float:
    return float(np.exp(uniform(rng, (float(np.log(SLOWEST)), float(np.log(FASTEST))))))


def _eased(steps: NDArray[np.float64], begin: float, end: float) -> NDArray[np.float64]:
    """0 before `begin`, 1 after `end`, half a cosine between."""
    share = np.clip((steps - begin) / max(1e-6, end - begin), 0, 1)
    return np.asarray((1 - np.cos(np.pi * share)) / 2, np.float64)


def _towards(heading: float) -> NDArray[np.float64]:
    return np.array([np.cos(heading), np.sin(heading)])


def _bounced(
    centres: NDArray[np.float64], margin: NDArray[np.float64], size: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The same walk, reflected where it would leave the picture."""
    span = np.maximum(size - 2 * margin, 1.0)
    return np.asarray(margin + span - np.abs((centres - margin) % (2 * span) - span), np.float64)


def _curved(
    rng: np.random.Generator, start: NDArray[np.float64], speed: float, heading: float, frames: int
) -> NDArray[np.float64]:
    headings = heading + np.cumsum(np.full(frames, uniform(rng, (-0.25, 0.25))))
    moves = speed * np.stack([np.cos(headings), np.sin(headings)], 1)
    moves[0] = 0
    return start + np.cumsum(moves, 0)


def _out_and_back(
    rng: np.random.Generator,
    start: NDArray[np.float64],
    speed: float,
    exits: NDArray[np.float64],
    frames: int,
) -> NDArray[np.float64]:
    """Swings towards the nearest border and back; out of view or not by its speed, in pixels a frame.

    `exits` are the ways out of view to the right, down, left and up, in pixels.
    """
    side = int(exits.argmin())
    period = max(8.0, frames * uniform(rng, (0.5, 1.1)))
    reach = min(float(exits[side]), speed * period / np.pi)
    swing = np.abs(reach * np.sin(np.pi * np.arange(frames) / period))
    return np.asarray(start + swing[:, None] * _towards(side * np.pi / 2), np.float64)


def _away_and_back(
    rng: np.random.Generator, start: NDArray[np.float64], exits: NDArray[np.float64], frames: int
) -> NDArray[np.float64]:
    """Waits, leaves by a near border, stays out of view for a while and comes back; `exits` as above."""
    side = int(exits.argsort()[int(rng.random() < 0.3)])
    leave = frames * uniform(rng, (0.05, 0.45))
    gone = leave + max(2.0, frames * uniform(rng, (0.12, 0.35)))
    back = gone + frames * uniform(rng, (0.02, 0.4))
    steps = np.arange(frames, dtype=np.float64)
    away = _eased(steps, leave, gone) - _eased(
        steps, back, back + max(2.0, frames * uniform(rng, (0.12, 0.35)))
    )
    return np.asarray(start + away[:, None] * float(exits[side]) * _towards(side * np.pi / 2), np.float64)


def _posed(rng: np.random.Generator, centres: NDArray[np.float64], radius: float, angle: float) -> Path:
    """Adds a steady turn and a slow change of size to `[frames, 2]` centres."""
    turn = uniform(rng, (-0.12, 0.12)) if rng.random() < 0.6 else 0.0
    growth = uniform(rng, (-0.015, 0.015)) if rng.random() < 0.5 else 0.0
    poses = []
    for frame, (x, y) in enumerate(centres.tolist()):
        size = radius * min(1.4, max(0.7, (1 + growth) ** frame))
        poses.append(Pose(x, y, size, angle + turn * frame))
    return Path(tuple(poses))
