"""Which frames of a video the language model sees, and the tracker is conditioned on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeVar

from sa2va_host.errors import InvalidInput
from sa2va_host.protocol.limits import MAX_BUFFERS

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class KeyFrames:
    """So many of the first frames, as upstream has it, or evenly spread ones, as Sa2VA-i has it."""

    kind: Literal["first", "uniform"]
    count: int

    @classmethod
    def parse(cls, words: object) -> KeyFrames:
        """From ``"first:5"`` or ``"uniform:12"``. Raises `InvalidInput`; more do not fit into one message."""
        kind, _, number = words.partition(":") if isinstance(words, str) else ("", "", "")
        if number.isdecimal() and len(number) < 5 and 0 < int(number) <= MAX_BUFFERS:
            if kind == "first":
                return cls("first", int(number))
            if kind == "uniform":
                return cls("uniform", int(number))
        raise InvalidInput(
            f"key_frames is {words!r}.",
            advice=f"Write 'first:5' or 'uniform:12', or another number from 1 to {MAX_BUFFERS}.",
        )

    def positions(self, length: int | None) -> list[int]:
        """Places in a video of ``length`` frames, ascending from 0.

        The first ones need no length, and may be more than there are frames. Evenly spread ones are those of
        `linspace(0, length - 1, count)`, cut to whole numbers (kumuji/Sa2VA-i, `predict_forward`); fewer in a short
        video. Raises `InvalidInput` where these are asked for and the length is not known.
        """
        if self.kind == "first":
            return list(range(self.count))
        if length is None:
            raise InvalidInput(
                f"Key frames 'uniform:{self.count}' need the video's length, which is not known.",
                advice="Pass a list of frames, say frame_count, or use 'first:5'.",
            )
        import numpy as np

        return sorted(set(np.linspace(0, length - 1, self.count, dtype=int).tolist()))


def pick(
    frames: Iterable[Item], positions: Iterable[int], keep: Callable[[Item], Item] = lambda item: item
) -> Mapping[int, Item]:
    """The items at these places, from one pass up to the last, each as ``keep`` returns it at once. Raises
    `InvalidInput` where there are fewer items.
    """
    wanted = set(positions)
    read = islice(enumerate(frames), max(wanted) + 1)
    found = {place: keep(item) for place, item in read if place in wanted}
    if len(found) < len(wanted):
        raise InvalidInput(
            f"The video ends before frame {max(wanted)}, which was to be a key frame.",
            advice="Say how many frames it really has, or use 'first:5'.",
        )
    return found
