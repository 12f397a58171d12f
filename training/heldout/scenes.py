"""Pictures and clips of coloured shapes, drawn by signed distances."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.heldout.backdrops import Canvas, random_backdrop
from training.heldout.bodies import (
    Body,
    Patch,
    Pose,
    label,
    least_visible,
    outlined,
    paint,
    random_body,
    render,
)
from training.heldout.colours import difference
from training.heldout.motion import random_motion
from training.scene import COLOURS, SHAPES, Clip, Picture, Thing

_LEAST_VISIBLE = 0.6
_PLAINLY_DIFFERENT = 38.0
_LIMITS = (96, 640)


def random_size(rng: np.random.Generator) -> tuple[int, int]:
    """(height, width): 96 to 640 pixels a side, from square to 16:9, upright or across."""
    aspect = np.exp(rng.uniform(0, np.log(16 / 9)))
    short = np.exp(rng.uniform(np.log(_LIMITS[0]), np.log(_LIMITS[1] / aspect)))
    sides = round(short), min(round(short * aspect), int(round(short) * 16 / 9))
    return sides if rng.random() < 0.5 else sides[::-1]


def draw_picture(rng: np.random.Generator, size: tuple[int, int]) -> Picture:
    """One to six things on a background; each at least half visible. `size` is (height, width)."""
    backdrop = random_backdrop(rng, size)
    bodies, poses, patches = _arrange(rng, size)
    bodies = _set_off(bodies, poses, patches, backdrop, moving=False)
    patches = [render(body, pose) for body, pose in zip(bodies, poses, strict=True)]
    paint(patches, backdrop)
    return Picture(_develop(rng, backdrop), label(patches, size), tuple(body.thing for body in bodies))


def draw_clip(rng: np.random.Generator, size: tuple[int, int], frames: int) -> Clip:
    """One to six things that move, cross, turn, leave and come back; at first half visible or more."""
    backdrop = random_backdrop(rng, size)
    bodies, starts, patches = _arrange(rng, size)
    bodies = _set_off(bodies, starts, patches, backdrop, moving=True)
    tracks = _tracks(rng, bodies, starts, size, frames)
    images, maps = [], []
    for poses in tracks:
        patches = [render(body, pose) for body, pose in zip(bodies, poses, strict=True)]
        canvas = backdrop.copy()
        paint(patches, canvas)
        images.append(_develop(rng, canvas))
        maps.append(label(patches, size))
    return Clip(np.stack(images), np.stack(maps), tuple(body.thing for body in bodies))


def _random_things(rng: np.random.Generator) -> list[Thing]:
    """One to six things from a few colours and shapes, so that some share a name and few share both."""
    count = int(rng.choice(6, p=[0.08, 0.16, 0.22, 0.22, 0.18, 0.14])) + 1
    colours = rng.permutation(COLOURS)[: rng.integers(2, 6)]
    shapes = rng.permutation(SHAPES)[: rng.integers(2, 5)]
    return [Thing(str(rng.choice(shapes)), str(rng.choice(colours))) for _ in range(count)]


def _arrange(rng: np.random.Generator, size: tuple[int, int]) -> tuple[list[Body], list[Pose], list[Patch]]:
    """Bodies and their poses, back to front; a thing for which no room is found is left out."""
    bodies: list[Body] = []
    poses: list[Pose] = []
    patches: list[Patch] = []
    for thing in _random_things(rng):
        body, angle = random_body(rng, thing)
        for _ in range(30):
            radius = min(size) * rng.uniform(0.07, 0.28)
            x, y = (rng.uniform(0.7 * radius, side - 0.7 * radius) for side in (size[1], size[0]))
            pose = Pose(float(x), float(y), float(radius), angle)
            patch = render(body, pose)
            if least_visible([*patches, patch], size) >= _LEAST_VISIBLE:
                bodies.append(body)
                poses.append(pose)
                patches.append(patch)
                break
    return (bodies, poses, patches) if bodies else _arrange(rng, size)


def _set_off(
    bodies: list[Body], poses: list[Pose], patches: list[Patch], backdrop: Canvas, moving: bool
) -> list[Body]:
    """Outline each body too close in colour to what it lies on; when moving, that may be any other."""
    done: list[Body] = []
    for index, (body, patch) in enumerate(zip(bodies, patches, strict=True)):
        behind = [i for i in range(index) if moving or _near(poses[i], poses[index])]
        around = [bodies[i].shade for i in behind]
        place, own = patch.windows(backdrop.shape[:2])
        under = backdrop[place][patch.inside[own]]
        ground = under.mean(axis=0).astype(np.float64)
        blends = difference(body.shade, ground) < _PLAINLY_DIFFERENT
        lost = any(difference(body.shade, shade) < _PLAINLY_DIFFERENT for shade in around)
        r, g, b = (int(value) for value in ground)
        done.append(outlined(body, [*around, (r, g, b)]) if blends or lost else body)
    return done


def _near(first: Pose, second: Pose) -> bool:
    """Whether two bodies may touch."""
    return bool(np.hypot(first.x - second.x, first.y - second.y) < 1.35 * (first.radius + second.radius) + 2)


def _tracks(
    rng: np.random.Generator, bodies: list[Body], starts: list[Pose], size: tuple[int, int], frames: int
) -> list[list[Pose]]:
    """Poses `[frame][thing]` that start at `starts`; in the first quarter each thing stays half visible."""
    early = max(1, frames // 4)
    for _ in range(20):
        tracks = random_motion(rng, starts, size, frames)
        for poses in tracks[:early]:
            patches = [render(body, pose) for body, pose in zip(bodies, poses, strict=True)]
            if least_visible(patches, size) < _LEAST_VISIBLE - 0.05:
                break
        else:
            return tracks
    return [starts] * early + random_motion(rng, starts, size, frames - early)


def _develop(rng: np.random.Generator, canvas: Canvas) -> NDArray[np.uint8]:
    """`[height, width, 3]`: the canvas as bytes, with a trace of sensor noise."""
    noise = rng.normal(0, 2.0, canvas.shape)
    return np.clip(np.rint(canvas + noise), 0, 255).astype(np.uint8)
