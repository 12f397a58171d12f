"""What is plainly true of a drawn scene: measured on the instance map, with a margin that leaves no doubt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.scene import Thing

Extreme = Literal["largest", "smallest", "left", "right", "top", "bottom"]
EXTREMES: tuple[Extreme, ...] = ("largest", "smallest", "left", "right", "top", "bottom")

_AREA_FACTOR = 1.6
_EXTENT_FACTOR = 1.22
_CENTRE_GAP = 0.10
_EDGE_GAP = 0.02


@dataclass(frozen=True)
class Look:
    """The visible part of one thing in one view."""

    area: int
    """Pixels."""
    extent: float
    """Pixels: the longer side of its bounding box."""
    centre: tuple[float, float]
    """Mean (x, y), as shares of the picture's width and height."""
    low: tuple[float, float]
    """Left and top edge, as shares."""
    high: tuple[float, float]
    """Right and bottom edge, as shares."""


@dataclass(frozen=True)
class Facts:
    """The things of a scene and how each looks in each view: one view for a picture, several for a clip."""

    things: tuple[Thing, ...]
    views: tuple[tuple[Look | None, ...], ...]
    """`[view][thing]`; None where no pixel of the thing is visible."""

    def matching(self, colour: str | None, shape: str | None) -> tuple[int, ...]:
        """Indices of the things of this colour and this shape, None standing for any."""
        return tuple(
            index
            for index, thing in enumerate(self.things)
            if colour in (None, thing.colour) and shape in (None, thing.shape)
        )

    def shown(self, indices: Sequence[int]) -> bool:
        """Whether all these things are visible in every view."""
        return all(view[index] is not None for view in self.views for index in indices)

    def extreme(self, members: Sequence[int], which: Extreme) -> int | None:
        """The member that is the largest, leftmost and so on beyond doubt in every view, if there is one."""
        if len(members) < 2 or not self.shown(members):
            return None
        for index in members:
            others = [other for other in members if other != index]
            if all(self._beats(view, index, other, which) for view in self.views for other in others):
                return index
        return None

    @staticmethod
    def _beats(view: tuple[Look | None, ...], index: int, other: int, which: Extreme) -> bool:
        mine, theirs = view[index], view[other]
        return mine is not None and theirs is not None and _TESTS[which](mine, theirs)


def _larger(mine: Look, theirs: Look) -> bool:
    return mine.area > _AREA_FACTOR * theirs.area and mine.extent > _EXTENT_FACTOR * theirs.extent


def _before(mine: Look, theirs: Look, axis: int) -> bool:
    """Further to the left (axis 0) or the top (axis 1), by the centre and by both edges."""
    return (
        mine.centre[axis] < theirs.centre[axis] - _CENTRE_GAP
        and mine.low[axis] < theirs.low[axis] - _EDGE_GAP
        and mine.high[axis] < theirs.high[axis] - _EDGE_GAP
    )


_TESTS: dict[Extreme, Callable[[Look, Look], bool]] = {
    "largest": _larger,
    "smallest": lambda mine, theirs: _larger(theirs, mine),
    "left": lambda mine, theirs: _before(mine, theirs, 0),
    "right": lambda mine, theirs: _before(theirs, mine, 0),
    "top": lambda mine, theirs: _before(mine, theirs, 1),
    "bottom": lambda mine, theirs: _before(theirs, mine, 1),
}


def measure(things: tuple[Thing, ...], instances: NDArray[np.uint8]) -> Facts:
    """Facts from the instance maps `[views, height, width]`."""
    return Facts(things, tuple(tuple(_look(view == k + 1) for k in range(len(things))) for view in instances))


def _look(mask: NDArray[np.bool_]) -> Look | None:
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return None
    height, width = mask.shape
    left, right, top, bottom = columns.min(), columns.max() + 1, rows.min(), rows.max() + 1
    return Look(
        len(rows),
        float(max(right - left, bottom - top)),
        (float(columns.mean() + 0.5) / width, float(rows.mean() + 0.5) / height),
        (float(left) / width, float(top) / height),
        (float(right) / width, float(bottom) / height),
    )
