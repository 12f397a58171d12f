"""ICC profiles made from numbers, after ICC.1:2022, so that tests know what they mean."""

from __future__ import annotations

import struct
from collections.abc import Mapping

SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
"""The primaries of sRGB in XYZ, adapted to D50."""
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
"""The parameters g, a, b, c, d of `para` type 3."""


def matrix(primaries: tuple[tuple[float, float, float], ...] = SRGB, gamma: float | None = None) -> bytes:
    """An RGB display profile: XYZ of red, green and blue, and one curve, sRGB's unless a gamma is given."""
    tags = {name: _xyz(*xyz) for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    curve = _curve(gamma)
    return _profile(b"mntr", b"RGB ", b"XYZ ", {**tags, b"rTRC": curve, b"gTRC": curve, b"bTRC": curve})


def grey(gamma: float | None = None) -> bytes:
    """A grey profile with this gamma, or with the curve of sRGB."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _curve(gamma)})


def cmyk() -> bytes:
    """A printer whose cyan ink is mid grey, Lab (50, 0, 0), whose black is black and whose other inks are white."""
    corners = b"".join(bytes((0 if ink & 1 else 128 if ink & 8 else 255, 128, 128)) for ink in range(16))
    ramp = bytes(range(256))
    unit = b"".join(struct.pack(">i", 65536 if place % 4 == 0 else 0) for place in range(9))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + unit + ramp * 4 + corners + ramp * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table})


def _profile(kind: bytes, space: bytes, connection: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    tags = {b"wtpt": _xyz(0.9642, 1.0, 0.8249), **tags}
    offset = 128 + 4 + 12 * len(tags)
    table, content = struct.pack(">I", len(tags)), b""
    for name, tag in tags.items():
        table += struct.pack(">4sII", name, offset + len(content), len(tag))
        content += tag + bytes(-len(tag) % 4)
    size = offset + len(content)
    header = struct.pack(">I4sI4s4s4s12x4s", size, bytes(4), 0x02400000, kind, space, connection, b"acsp")
    return header.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061) + bytes(48) + table + content


def _xyz(x: float, y: float, z: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in (x, y, z)))


def _curve(gamma: float | None) -> bytes:
    if gamma is None:
        numbers = struct.pack(">5i", *(round(value * 65536) for value in SRGB_CURVE))
        return b"para" + bytes(4) + struct.pack(">HH", 3, 0) + numbers
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
