"""Where in a video the model is asked again: every so many frames, or at each cut.

Between two such places lies a shot, which is asked about and tracked as a video of its own. Called by
`sa2va_host.video.tracks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sa2va_host.errors import InvalidInput
from sa2va_host.extras import check_opencv

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sa2va_host.media import Picture, Source

CUT = 0.5
"""Bhattacharyya distance, 0..1, between the colours of two frames from which on a cut lies between them."""
_BINS, _SIDE = (16, 8, 8), 128


def split(frames: Iterable[Source], ask_again: object) -> Iterator[Iterator[Source]] | None:
    """The shots of a video, each to be read before the next; None where ``ask_again`` is ``"never"``.

    ``"every:100"`` makes shots of so many frames, ``"cuts"`` begins one at each cut. Nothing is read before it is asked
    for, and no frame is kept. Raises `InvalidInput` for other words, `ConfigError` where cuts are asked for and OpenCV
    is missing.
    """
    kind, _, number = ask_again.partition(":") if isinstance(ask_again, str) else ("", "", "")
    if ask_again == "never":
        return None
    if kind == "every" and number.isdecimal() and len(number) < 10 and int(number) > 0:
        length = int(number)
        return _shots(enumerate(frames), lambda numbered: numbered[0] // length)
    if ask_again == "cuts":
        check_opencv("Finding the cuts of a video")
        return _shots(_counted_cuts(frames), lambda numbered: numbered[0])
    raise InvalidInput(
        f"ask_again is {ask_again!r}.", advice="Write 'never', 'cuts', or 'every:100' or another number."
    )


def _shots(
    numbered: Iterable[tuple[int, Source]], shot: Callable[[tuple[int, Source]], int]
) -> Iterator[Iterator[Source]]:
    return ((frame for _, frame in members) for _, members in groupby(numbered, shot))


def _counted_cuts(frames: Iterable[Source]) -> Iterator[tuple[int, Picture]]:
    """Each frame, read, with the number of cuts before it."""
    import cv2

    from sa2va_host.media import read_image

    cuts, before = 0, None
    for frame in frames:
        picture = read_image(frame)
        now = _colours(picture)
        cuts += before is not None and cv2.compareHist(before, now, cv2.HISTCMP_BHATTACHARYYA) >= CUT
        before = now
        yield cuts, picture


def _colours(picture: Picture) -> NDArray[Any]:
    """The share of pixels of each hue, saturation and value, in a picture made small."""
    import cv2

    small = cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    hsv = cv2.cvtColor(small, cv2.COLOR_RGB2HSV)
    return cv2.calcHist([hsv], [0, 1, 2], None, list(_BINS), [0, 180, 0, 256, 0, 256])
