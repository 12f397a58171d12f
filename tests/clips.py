"""Small real videos, written where a test needs one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

RED, BLUE = (200, 0, 0), (10, 20, 240)
TICK = Fraction(1, 30000)
"""The time base of `write_clip`."""


def pictures(count: int, size: tuple[int, int] = (48, 64)) -> list[NDArray[np.uint8]]:
    """Red `[height, width, 3]` with a blue corner at the upper left, which grows by a pixel with each frame."""
    found = []
    for index in range(count):
        picture = np.full((*size, 3), RED, np.uint8)
        picture[: size[0] // 2, : size[1] // 4 + index] = BLUE
        found.append(picture)
    return found


def write_clip(
    path: Path,
    frames: Sequence[NDArray[np.uint8]],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    matrix: int | None = None,
    full_range: bool = False,
    named: bool = True,
    transfer: int | None = None,
    ticks: Sequence[int] | None = None,
    sound: str | None = None,
    options: Mapping[str, str] | None = None,
    aspect: Fraction | None = None,
    **container: str,
) -> Path:
    """A video of the pictures, RGB or RGBA, at 30000/1001 a second, or at times in `TICK`, nearly lossless.

    ``matrix`` and ``transfer`` are H.273's numbers, which the file names unless ``named`` is false. ``sound`` is an
    audio codec: a tone of 44.1 kHz, as long as the video. ``aspect`` is that of the pixels.
    """
    with av.open(str(path), "w", container_options=container) as output:
        stream: Any = output.add_stream(
            codec, rate=Fraction(30000, 1001), options={"crf": "1", **(options or {})}
        )
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        context = stream.codec_context
        context.time_base = TICK
        if matrix is not None and named:
            context.colorspace, context.color_range = matrix, 2 if full_range else 1
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        if transfer is not None:
            context.color_trc = transfer
        audio: Any = None
        if sound is not None:
            audio = output.add_stream(sound, rate=44100)
            audio.layout = "mono"
        for index, picture in enumerate(frames):
            form = "rgba" if picture.shape[2] == 4 else "rgb24"
            frame = av.VideoFrame.from_ndarray(picture, format=form).reformat(
                format=pixels, dst_colorspace=matrix or 5, dst_color_range=2 if full_range else 1
            )
            frame.pts, frame.time_base = index * 1001 if ticks is None else ticks[index], TICK
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if audio is not None:
            for index in range(int(len(frames) * 1.001 / 30 * 44100 / 1024)):
                wave = np.sin(np.arange(1024, dtype=np.float32)[None] * 0.05)
                tone = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                tone.sample_rate, tone.pts, tone.time_base = 44100, index * 1024, Fraction(1, 44100)
                output.mux(audio.encode(tone))
            output.mux(audio.encode(None))
    return path
