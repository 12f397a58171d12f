"""What files are called that hold images; imports nothing, so that whoever lists a folder starts at once."""

from __future__ import annotations

STILLS = frozenset({
    ".avif", ".bmp", ".exif", ".exr", ".hdr", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg",
    ".jxl", ".mpo", ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
})  # fmt: skip
PICTURES = STILLS | {".apng", ".gif", ".ico"}
"""What counts as an image in a folder; a file that is named itself is opened whatever its suffix."""
FRAMES = STILLS
"""What counts as a frame in a folder; GIF and APNG are read as videos."""
OPTIONAL = {".avif": "PIL._avif", ".heic": "pillow_heif", ".heif": "pillow_heif", ".jxl": "pillow_jxl"}
"""Those of `STILLS` that not every installation reads, with the module that reads them."""
CAMERA_RAW = frozenset({
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos",
    ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
})  # fmt: skip
"""Unprocessed sensor data. Many are TIFF files whose first image is a thumbnail."""
IMAGES = PICTURES | CAMERA_RAW | {
    ".ai", ".avifs", ".clip", ".cur", ".dcm", ".dds", ".dib", ".djvu", ".dpx", ".cin", ".emf", ".eps", ".fit",
    ".fits", ".heics", ".heifs", ".hif", ".icns", ".j2c", ".jpc", ".jpf", ".jpx", ".jxr", ".kra",
    ".ktx", ".ktx2", ".ora", ".pam", ".pfm", ".pic", ".psb", ".psd", ".qoi", ".ras", ".rgb", ".rgba", ".sgi",
    ".svg", ".svgz", ".wdp", ".wmf", ".xbm", ".xcf", ".xpm",
}  # fmt: skip
"""What looks like an image: one of these that is passed over is named."""
VIDEOS = frozenset({
    ".3g2", ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
    ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv",
})  # fmt: skip
