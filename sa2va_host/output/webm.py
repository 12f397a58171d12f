"""The pixels' aspect in a WebM file, which FFmpeg's muxer writes and PyAV has no way to tell it.

Called by `sa2va_host.output.movie`. Elements and their numbers are those of RFC 9559 (Matroska) and RFC 8794 (EBML).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

_SEGMENT, _SEEK_HEAD, _VOID, _TRACKS, _CLUSTER = 0x18538067, 0x114D9B74, 0xEC, 0x1654AE6B, 0x1F43B675
_SEEK, _SEEK_POSITION, _CRC = 0x4DBB, 0x53AC, 0xBF
_TRACK_ENTRY, _VIDEO, _WIDTH, _HEIGHT = 0xAE, 0xE0, 0xB0, 0xBA
_DISPLAY_WIDTH, _DISPLAY_HEIGHT = b"\x54\xb0", b"\x54\xba"
_HEAD = 1 << 16
"""Bytes that hold all that comes before the frames."""


@dataclass(frozen=True, slots=True)
class _Element:
    name: int
    start: int
    body: int
    end: int


def set_pixel_aspect(path: Path, aspect: Fraction) -> bool:
    """Have players show the video with pixels of this width divided by height. False, and nothing is changed, where the
    file has no room for it: a free element after its table of contents, as FFmpeg leaves one.
    """
    with path.open("r+b") as stream:
        head = bytearray(stream.read(_HEAD))
        segment = next((one for one in _elements(head, 0, len(head)) if one.name == _SEGMENT), None)
        if segment is None:
            return False
        parts = []
        for part in _elements(head, segment.body, len(head)):
            if part.name == _CLUSTER:
                break
            parts.append(part)
        names = [part.name for part in parts]
        if names[:2] != [_SEEK_HEAD, _VOID] or _TRACKS not in names:
            return False
        contents, free, tracks = parts[0], parts[1], parts[names.index(_TRACKS)]
        known = _with_display(head, tracks, aspect)
        more = len(known) - (tracks.end - tracks.start)
        left = free.end - free.start - more
        if left < 9 or tracks.end > len(head):
            return False
        between = head[free.end : tracks.start]
        moved = range(free.end - segment.body, tracks.end - segment.body)
        _move(head, contents, moved, more)
        head[free.start : tracks.end] = _element(bytes([_VOID]), bytes(left - 9)) + between + known
        stream.seek(0)
        stream.write(head)
    return True


def _with_display(data: bytearray, tracks: _Element, aspect: Fraction) -> bytes:
    """The tracks, of which the video has a display size. Checksums, which may be left out, are."""
    entries = bytearray()
    for entry in _elements(data, tracks.body, tracks.end):
        inner = bytearray()
        for part in _elements(data, entry.body, entry.end):
            raw = bytes(data[part.start : part.end])
            if entry.name == _TRACK_ENTRY and part.name == _VIDEO:
                raw = _element(
                    bytes([_VIDEO]), bytes(data[part.body : part.end]) + _display(data, part, aspect)
                )
            inner += raw
        if entry.name == _TRACK_ENTRY:
            entries += _element(bytes([_TRACK_ENTRY]), bytes(inner))
        elif entry.name != _CRC:
            entries += data[entry.start : entry.end]
    return _element(_TRACKS.to_bytes(4, "big"), bytes(entries))


def _display(data: bytearray, video: _Element, aspect: Fraction) -> bytes:
    """The size in pixels at which the video is to be shown: no side shorter than it is, and the exact ratio where that
    makes none four times as long.
    """
    sides = {
        one.name: int.from_bytes(data[one.body : one.end], "big")
        for one in _elements(data, video.body, video.end)
    }
    width, height = sides[_WIDTH], sides[_HEIGHT]
    ratio = Fraction(width, height) * aspect
    times = max(-(-width // ratio.numerator), -(-height // ratio.denominator))
    wide, high = times * ratio.numerator, times * ratio.denominator
    if wide > 4 * width or high > 4 * height:
        wide, high = max(width, round(width * aspect)), max(height, round(height / aspect))
    return b"".join(
        _element(name, side.to_bytes(4, "big"))
        for name, side in ((_DISPLAY_WIDTH, wide), (_DISPLAY_HEIGHT, high))
    )


def _move(data: bytearray, contents: _Element, moved: range, by: int) -> None:
    """Put right where in the table of contents elements are said to be that now begin ``by`` bytes earlier."""
    for entry in _elements(data, contents.body, contents.end):
        if entry.name == _CRC:
            data[entry.start] = _VOID
        if entry.name != _SEEK:
            continue
        for part in _elements(data, entry.body, entry.end):
            place = int.from_bytes(data[part.body : part.end], "big")
            if part.name == _SEEK_POSITION and place in moved:
                data[part.body : part.end] = (place - by).to_bytes(part.end - part.body, "big")


def _elements(data: bytearray, start: int, end: int) -> Iterator[_Element]:
    """Those that begin in this part of the file."""
    while start < end:
        name_length = 9 - data[start].bit_length()
        size_at = start + name_length
        if name_length > 4 or size_at >= end:
            return
        size_length = 9 - data[size_at].bit_length()
        body = size_at + size_length
        if size_length > 8 or body > end:
            return
        size = int.from_bytes(data[size_at:body], "big") & ((1 << 7 * size_length) - 1)
        yield _Element(int.from_bytes(data[start:size_at], "big"), start, body, body + size)
        start = body + size


def _element(name: bytes, body: bytes) -> bytes:
    return name + (1 << 56 | len(body)).to_bytes(8, "big") + body
