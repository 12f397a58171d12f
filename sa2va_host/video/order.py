"""The order of single images by the numbers in their names, and what those numbers say of time.

Called by `sa2va_host.video.sequence`. Looks at names alone; opens no file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from itertools import pairwise, product
from pathlib import Path
from typing import TypeAlias

from sa2va_host.errors import InvalidInput

_RUN = re.compile(r"(\d+)")
_DECIMAL = re.compile(r"(?<!\d)(?<!\d[.,])(\d+)[.,](\d+)(?!\d)(?![.,]\d)")
"""A whole number and its decimals. Three or more numbers with points between them are a version or a time of day."""
_CLOCK = re.compile(r"(?<!\d)(?<!\d[.,])([0-2]?\d[.,][0-5]\d[.,][0-5]\d)[.,](\d+)(?!\d)(?![.,]\d)")
"""Hours, minutes and seconds, and the decimals of the second."""
_VERSION = re.compile(r"(?:^|[^a-z])v(?:er|ersion)?[ ._]?$", re.IGNORECASE)
"""What stands before a number that is a version."""
_DATE = re.compile(r"(?<!\d)(\d{1,2})([-._/ ])(\d{1,2})\2((?:19|20)\d\d)(?!\d)")
"""A date with its year at the end, so that its numbers are not in the order of their weight."""
_HALF_DAY = re.compile(r"(?<!\d)(0?[1-9]|1[0-2])((?:[.,:h_-]\d\d){1,3}\s*)([ap])\.?m\b", re.IGNORECASE)
_MINUS = re.compile(r"(?:^|(?<=[._=( ]))-(?=\d)")

_EPOCH_DIGITS = 9
"""Seconds since 1970 have had at least so many digits since 1973; no version has."""
_LARGEST = 10**9
"""No video has so many frames: at 24 a second it would last 482 days. Seconds since 1970 are above it since 2001."""
_WIDEST_STEP = 1000
"""Numbers that are this far apart on average count something else than frames."""
_BITS = 63
"""Of a frame's number, which goes into arrays of signed 64-bit numbers."""
_SHOWN = 4

Part: TypeAlias = "str | int | Fraction"


@dataclass(frozen=True, slots=True)
class _Reading:
    """How the characters of names are taken."""

    decimals: bool = False
    """`8.5` is eight and a half, and not the fifth of eight."""
    minus: bool = False
    """A dash before a number is its sign."""
    dates: str = ""
    """`"day"` or `"month"`: what comes first in dates whose year comes last."""

    def describe(self, other: _Reading) -> str:
        """What tells it from the other one, in words."""
        words = []
        if self.decimals != other.decimals:
            words.append("as decimals" if self.decimals else "as whole numbers, like versions")
        if self.minus != other.minus:
            words.append("with minus signs" if self.minus else "with dashes that are no signs")
        if self.dates != other.dates:
            words.append(f"with the {self.dates} first")
        return ", ".join(words)

    def parts(self, name: str) -> tuple[Part, ...]:
        """Text and numbers in turns, beginning with text, so that names compare part by part."""
        name = _HALF_DAY.sub(_whole_day, name)
        if self.dates:
            year_first = r"\4-\3-\1" if self.dates == "day" else r"\4-\1-\3"
            name = _DATE.sub(year_first, name)
        fractions = {match.start(2) for match in _decimals(name)} if self.decimals else set()
        negative = {match.end() for match in _MINUS.finditer(name)} if self.minus else set()
        parts: list[Part] = []
        place = 0
        for index, piece in enumerate(_RUN.split(name)):
            start, place = place, place + len(piece)
            if index % 2 == 0:
                parts.append(piece[:-1].casefold() if place in negative else piece.casefold())
            elif start in fractions:
                parts.append(Fraction(int(piece), 10 ** len(piece)))
            else:
                parts.append(-int(piece) if start in negative else int(piece))
        return tuple(parts)


def ordered(files: Sequence[Path]) -> tuple[list[tuple[int, Path]], list[str]]:
    """Number and file of each image in order, and what there is to say about it, a sentence each.

    The order is that of every number in the names, as people read them: `shot2_v10` before `shot10_v9`, `8.5` before
    `10.0`, seconds with their decimals, dates with times of day; without numbers the alphabet's. Where one whole number
    varies, it numbers the frames; where several do, or none, they are numbered from 0.

    Raises `InvalidInput` where two orders are equally plausible, and where several images have the same numbers, as
    frames and their masks have.
    """
    stems = [path.stem for path in files]
    readings, twins = [], None
    for reading in _plausible(stems):
        keys = [reading.parts(stem) for stem in stems]
        pair = _same_numbers(files, keys)
        if pair:
            twins = twins or pair
        else:
            readings.append((reading, _sorted(files, keys)))
    if not readings:
        assert twins is not None
        raise _two_series(*twins)
    (reading, frames), *others = readings
    for other, differently in others:
        if [path for _, path in differently] != [path for _, path in frames]:
            raise _doubt(
                frames,
                reading.describe(other),
                differently,
                other.describe(reading),
                "Write every number with the same number of digits, or say by a pattern which number counts",
            )
    bare = [path.name for key, path in frames if len(key) == 1]
    notes = []
    if bare and len(bare) < len(files):
        notes.append(
            f"{few(bare)} in {files[0].parent} lacks the number that others have; it is a frame where its name falls"
            " in their order."
        )
    return _numbered(frames), notes


def ticks(numbers: Sequence[int]) -> list[int] | None:
    """When each frame is shown, in frame intervals; None where these ascending numbers cannot count frames:
    nanoseconds, seconds since 1970, dates.
    """
    steps = len(numbers) - 1
    far = max(abs(numbers[0]), abs(numbers[-1])) >= _LARGEST
    sparse = steps > 0 and numbers[-1] - numbers[0] > _WIDEST_STEP * steps
    dates = steps > 0 and all(map(_is_date, numbers))
    return None if far or sparse or dates else list(numbers)


def written_digits(frames: Sequence[tuple[int, Path]]) -> int | None:
    """The fewest digits that a frame's number is written with; None where the numbers are not in the names."""
    runs = [_RUN.findall(path.stem) for _, path in frames]
    for column in range(-1, -1 - min(map(len, runs)), -1):
        if all(int(found[column]) == abs(number) for found, (number, _) in zip(runs, frames, strict=True)):
            return min(len(found[column]) for found in runs)
    return None


Frames: TypeAlias = "list[tuple[tuple[Part, ...], Path]]"
"""In order, each with the parts of its name."""


def _sorted(files: Sequence[Path], keys: Sequence[tuple[Part, ...]]) -> Frames:
    pairs = zip(keys, files, strict=True)
    return sorted(pairs, key=lambda pair: (pair[0], pair[1].name))


def _numbered(frames: Frames) -> list[tuple[int, Path]]:
    """By the one whole number that varies, else by place. Raises `InvalidInput` where that number runs backwards."""
    by_place = list(enumerate(path for _, path in frames))
    values = [_numbers(key) for key, _ in frames]
    if len({len(value) for value in values}) != 1:
        return by_place
    if len(frames) == 1:
        return [(number, frames[0][1]) for number in _whole(values[0][-1:])] or by_place
    varying = [column for column in range(len(values[0])) if len({value[column] for value in values}) > 1]
    if len(varying) != 1:
        return by_place
    numbers = [value[varying[0]] for value in values]
    whole = _whole(numbers)
    if len(whole) < len(numbers):
        return by_place
    if all(_is_time_of_day(value, varying[0]) for value in values):
        return by_place
    if sorted(whole) != whole:
        places = sorted(range(len(whole)), key=whole.__getitem__)
        raise _doubt(
            frames,
            "by the words before the number",
            [frames[place] for place in places],
            "by number",
            "Give all frames the same words, or name one series by a pattern",
        )
    if _far_decimals(frames, whole):
        return by_place
    return list(zip(whole, (path for _, path in frames), strict=True))


def _is_time_of_day(numbers: Sequence[int | Fraction], column: int) -> bool:
    """Whether a number is hours, minutes and seconds in six digits, behind a day, as in IMG_20240131_120058."""
    number = numbers[column]
    is_time = (
        isinstance(number, int)
        and 10_000 <= number < 240_000  # below, it could be a counter
        and number // 100 % 100 < 60
        and number % 100 < 60
    )
    return is_time and any(isinstance(day, int) and _is_date(day) for day in numbers[:column])


def _whole(numbers: Sequence[int | Fraction]) -> list[int]:
    """Those that can number a frame."""
    return [number for number in numbers if isinstance(number, int) and number.bit_length() <= _BITS]


def _far_decimals(frames: Frames, numbers: Sequence[int]) -> bool:
    """Whether the numbers that vary are the decimals of 0.00, 0.04, 0.08, rather than a counter as in shot1.0001."""
    if all(after - before == 1 for before, after in pairwise(numbers)):
        return False
    found = [list(_decimals(path.stem)) for _, path in frames]
    return all(
        any(int(match[2]) == number and not match.string[: match.start()][-1:].isalpha() for match in matches)
        for matches, number in zip(found, numbers, strict=True)
    )


def _plausible(stems: Sequence[str]) -> Iterator[_Reading]:
    """Every way in which these names can be taken, the plainest first."""
    signs = sum(bool(_MINUS.search(stem)) for stem in stems)
    minus = [False] if not signs else [False, True] if signs == len(stems) else [True]
    dates = [first for first in ("day", "month") if all(_dated(stem, first) for stem in stems)] or [""]
    for decimals, first, negative in product(_decimal_readings(stems), dates, minus):
        yield _Reading(decimals, negative, first)


def _decimal_readings(stems: Sequence[str]) -> list[bool]:
    """Whether points between two numbers may be decimal ones."""
    found = [match for stem in stems for match in _decimals(stem)]
    wholes, fractions = {match[1] for match in found}, [match[2] for match in found]
    if not found or all(_VERSION.search(match.string[: match.start()]) for match in found):
        return [False]
    if len(wholes) == 1 and all(len(whole) > 1 and int(whole[0]) == 0 for whole in wholes):
        return [False]  # shot010.8: a shot's number
    shortest = min(map(len, fractions))
    if any(int(digits[0]) == 0 and len(digits) > shortest for digits in fractions):
        return [True]  # 0.033 beside 0.1: no counter that is filled up with zeros
    if all(len(whole) >= _EPOCH_DIGITS for whole in wholes):
        return [True]
    return [False, True]


def _decimals(name: str) -> Iterator[re.Match[str]]:
    yield from _DECIMAL.finditer(name)
    yield from _CLOCK.finditer(name)


def _dated(stem: str, first: str) -> bool:
    """Whether there is a date with its year at the end, and its day or month first."""
    match = _DATE.search(stem)
    if not match:
        return False
    one, two, year = int(match[1]), int(match[3]), int(match[4])
    return _valid(year, two, one) if first == "day" else _valid(year, one, two)


def _valid(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def _is_date(number: int) -> bool:
    """Whether it is a day as in 20240131."""
    return 1900 <= number // 10_000 < 2100 and _valid(number // 10_000, number // 100 % 100, number % 100)


def _whole_day(match: re.Match[str]) -> str:
    """`1.05.00 PM` as `13.05.00`."""
    hour = int(match[1]) % 12 + (12 if match[3].lower() == "p" else 0)
    return f"{hour:02d}{match[2]}"


def _numbers(key: Sequence[Part]) -> tuple[int | Fraction, ...]:
    return tuple(part for part in key if not isinstance(part, str))


def _same_numbers(files: Sequence[Path], keys: Sequence[tuple[Part, ...]]) -> tuple[Path, Path] | None:
    """Two images whose names hold the same numbers, while numbers are what tells others apart."""
    values = [_numbers(key) for key in keys]
    # Where no number varies, words do.
    told_by: Sequence[tuple[Part, ...]] = values if len(set(values)) > 1 else keys
    seen: dict[tuple[Part, ...], Path] = {}
    for path, value in sorted(zip(files, told_by, strict=True)):
        if value and seen.setdefault(value, path) is not path:
            return seen[value], path
    return None


def _two_series(one: Path, other: Path) -> InvalidInput:
    ways = [str(path.with_name(_pattern(path))) for path in (one, other)]
    patterns = " or ".join(map(repr, dict.fromkeys(ways)))
    return InvalidInput(
        f"{one.name} and {other.name} in {one.parent} have the same number: two series of images, or one image twice.",
        advice=f"Name one series by a pattern, such as {patterns}.",
    )


def _doubt(one: Frames, way: str, other: Frames, other_way: str, advice: str) -> InvalidInput:
    """Both orders, from where they begin to differ."""
    place = next(index for index, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1])
    begin = max(0, min(place, len(one) - _SHOWN))
    names = [
        ", ".join(path.name for _, path in frames[begin : begin + _SHOWN])
        + (", ..." if len(one) > begin + _SHOWN else "")
        for frames in (one, other)
    ]
    return InvalidInput(
        f"The frames in {one[0][1].parent} have two plausible orders: {names[0]} ({way}), or {names[1]} ({other_way}).",
        advice=f"{advice}, such as {str(one[0][1].with_name(_pattern(one[0][1])))!r}.",
    )


def _pattern(path: Path) -> str:
    """The series that an image belongs to where its last number counts: `f#_mask.png`."""
    *before, last, after = _RUN.split(path.stem) if _RUN.search(path.stem) else ["", "", ""]
    return "".join(before) + ("#" if last else "*") + after + path.suffix


def few(names: Sequence[str]) -> str:
    """The first names of a list that may be long, and how many more there are."""
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
