"""What is true of a scene in every frame that a question is about: places, sizes and how they compare."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.scene import Clip, Picture, Thing

LARGER = 1.5
"""Least ratio of visible areas for one thing to be called larger than another."""
APART = 0.12
"""Least distance of centres, in shorter sides, for one thing to be called left of (or above) another."""
CLEAR_AREA = 0.0025
"""Least visible share of the picture for a thing to be asked for."""
SIDES = ("left", "right", "top", "bottom")


@dataclass(frozen=True)
class Facts:
    """Measurements of every thing in each of the frames that matter; NaN where a thing is out of sight."""

    things: tuple[Thing, ...]
    area: NDArray[np.float64]
    """`[frames, things]`, share of the picture."""
    extent: NDArray[np.float64]
    """`[frames, things]`, longer side of the visible part's box, in pixels."""
    x: NDArray[np.float64]
    """`[frames, things]`, centre of the visible part in shorter sides of the picture; so is `y`."""
    y: NDArray[np.float64]
    reach: tuple[float, float]
    """Width and height of the picture in its shorter sides."""
    clear: tuple[int, ...]
    """Things that may be asked for: well visible in at least half of the frames, the first of them or not."""
    seen: tuple[int, ...]
    """Things of which anything shows at any time: none of them may be called absent."""

    def matching(self, shape: str | None, colour: str | None) -> tuple[int, ...]:
        """Indices of the seen things of this shape and colour; None fits any."""
        return tuple(
            index
            for index in self.seen
            if shape in (None, self.things[index].shape) and colour in (None, self.things[index].colour)
        )

    def larger(self, one: int, other: int) -> bool:
        """Whether one thing is clearly larger than another in every frame."""
        areas = self.area[:, one] >= LARGER * self.area[:, other]
        return bool((areas & (self.extent[:, one] > self.extent[:, other])).all())

    def beyond(self, one: int, other: int, side: str) -> bool:
        """Whether one thing is always clearly farther to a side (one of `SIDES`) than another."""
        along = self.x if side in ("left", "right") else self.y
        sign = 1.0 if side in ("right", "bottom") else -1.0
        return bool((sign * (along[:, one] - along[:, other]) >= APART).all())

    def beside(self, one: int, other: int, side: str) -> bool:
        """As `beyond`, and the offset is more along that axis than across it."""
        across, along = np.abs(self.y[:, one] - self.y[:, other]), np.abs(self.x[:, one] - self.x[:, other])
        if side in ("top", "bottom"):
            across, along = along, across
        return self.beyond(one, other, side) and bool((along > 1.3 * across).all())

    def in_corner(self, index: int, vertical: str, horizontal: str, depth: float) -> bool:
        """Whether a centre is always within `depth` (share of each side) of a corner of the picture."""
        x, y = self.x[:, index] / self.reach[0], self.y[:, index] / self.reach[1]
        across = x <= depth if horizontal == "left" else x >= 1 - depth
        down = y <= depth if vertical == "top" else y >= 1 - depth
        return bool((across & down).all())


def facts_of_picture(picture: Picture) -> Facts:
    """The facts of a still scene."""
    seen = np.bincount(picture.instances.ravel(), minlength=len(picture.things) + 1)[1:] > 0
    return _measured(picture.things, picture.instances[None], seen)


def facts_of_clip(clip: Clip, seen_frames: int) -> Facts:
    """The facts of a clip's first `seen_frames` frames; what comes into sight later is seen, not clear."""
    counts = np.bincount(clip.instances.ravel(), minlength=len(clip.things) + 1)[1:]
    return _measured(clip.things, clip.instances[:seen_frames], counts > 0)


def _measured(things: tuple[Thing, ...], instances: NDArray[np.uint8], seen: NDArray[np.bool_]) -> Facts:
    frames, height, width = instances.shape
    shorter = min(height, width)
    area, extent, x, y = (np.full((frames, len(things)), np.nan) for _ in range(4))
    for frame in range(frames):
        rows, columns = np.nonzero(instances[frame])
        labels = instances[frame][rows, columns]
        for index in range(len(things)):
            own = labels == index + 1
            if not own.any():
                continue
            down, across = rows[own], columns[own]
            area[frame, index] = len(down) / (height * width)
            extent[frame, index] = max(np.ptp(down), np.ptp(across)) + 1
            x[frame, index] = (across.mean() + 0.5) / shorter
            y[frame, index] = (down.mean() + 0.5) / shorter
    enough = (np.nan_to_num(area) >= CLEAR_AREA).mean(0) >= 0.5
    return Facts(
        things=things,
        area=area,
        extent=extent,
        x=x,
        y=y,
        reach=(width / shorter, height / shorter),
        clear=tuple(np.flatnonzero(enough).tolist()),
        seen=tuple(np.flatnonzero(seen).tolist()),
    )
