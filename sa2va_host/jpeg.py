"""JPEG files whose end mark is missing although every pixel is there, as cameras and interrupted copies leave them.

Called by `sa2va_host.opening`. Pillow refuses some of them as truncated, and reads others that are, if zeros follow. It
can only be told to accept every file.
"""

from __future__ import annotations

import re
import struct

END = b"\xff\xd9"
_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd9\xda-\xfe])")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""The markers SOF0 to SOF15 (ITU-T T.81, table B.1)."""
_SCAN = 0xDA
_FILLERS = (
    b"\x5a\x93\xe1\x27",
    b"\xfe\xfd\xfb\xf7",
    b"\xff\x00",
    b"\x7f\xbf\xdf\xef",
    b"\xb5\x6d\xdb\xb6",
    b"\x11\x88\x44\x22",
)
"""Data that begins with codes of many kinds, short and long, so that one of them changes a pixel if anything does."""
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")


def is_ended(content: bytes) -> bool:
    """Whether a file has its end mark, whatever follows it."""
    return content.endswith(END) or _scans(content)[1]


def with_end_mark(content: bytes) -> list[bytes]:
    """The file with its end mark, and others with more data in front of that mark; nothing where a scan is missing.

    Decoders fill in what is missing in front of an end mark. So where all files have the same pixels, no pixel depends
    on data that is missing. Zeros at the end, which copies that were prepared in full size have, are dropped first:
    they would be read as data.
    """
    data = content.rstrip(b"\0")
    if len(content) - len(data) == 1:  # the last byte of the data, or the second one of a stuffed 0xFF
        data = content
    elif data.endswith(b"\xff"):
        # At the very end the first half of the mark; in front of zeros a stuffed 0xFF.
        data = data[:-1] if data == content else data + b"\0"
    if not _scans(data)[0]:
        return []
    restarts = _RESTART.findall(data[-(1 << 20) :])
    after = restarts[-1][0] - 0xD0 + 1 if restarts else 0
    files = [data + END]
    for piece in _FILLERS:
        filler = piece * 128
        # As restart intervals too, for the decoder skips what is not the one that it waits for.
        intervals = (bytes((0xFF, 0xD0 + (after + turn) % 8)) + filler for turn in range(8))
        files.append(data + filler + b"".join(intervals) + END)
    return files


def _scans(data: bytes) -> tuple[bool, bool]:
    """Whether scans of every component have begun that hold every bit of every coefficient; and whether an end mark
    comes after a scan.
    """
    ended = False
    missing: dict[int, list[int]] = {}
    place = 2
    while (match := _MARKER.search(data, place)) is not None:
        code = match[1][0]
        place = match.end()
        if code == 0xD9 or place + 2 > len(data):
            ended = code == 0xD9
            break
        (length,) = struct.unpack_from(">H", data, place)
        segment = data[place + 2 : place + length]
        try:
            if code in _FRAMES:
                components = [segment[6 + 3 * index] for index in range(segment[5])]
                missing = {component: [99] * 64 for component in components}
            elif code == _SCAN:
                count = segment[0]
                first, last, bits = segment[1 + 2 * count : 4 + 2 * count]
                for index in range(count):
                    left = missing[segment[1 + 2 * index]]
                    left[first : last + 1] = [bits & 15] * (last + 1 - first)
        except (IndexError, KeyError, ValueError):
            break
        place += length
    return bool(missing) and not any(any(left) for left in missing.values()), ended
