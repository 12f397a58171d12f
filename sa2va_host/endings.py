"""What files are called that hold pictures; imports nothing, so that whoever lists a folder starts at once."""

from __future__ import annotations

STILLS = frozenset({
    ".avif", ".bmp", ".exif", ".exr", ".hdr", ".j2k", ".jp2", ".jpeg", ".jpg", ".pbm", ".pcx", ".pgm", ".png", ".pnm",
    ".ppm", ".tga", ".tif", ".tiff", ".webp",
})  # fmt: skip
PICTURES = STILLS | {".gif", ".ico"}
"""What counts as a picture in a folder; a file that is named itself is opened whatever its ending."""
FRAMES = STILLS
"""What counts as a frame in a folder; GIF is read as a video."""
