"""Whole frames from interlaced ones, by FFmpeg's filter bwdif.

Called by `sa2va_host.video.footage`. One frame comes out for each that goes in, at its time; frames that are not
interlaced pass as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av import VideoFrame

_BWDIF = "mode=send_frame:parity=auto:deint=interlaced"
"""A frame for each frame, its first field by its own flag (https://ffmpeg.org/ffmpeg-filters.html#bwdif)."""


def deinterlaced(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """The same frames without combs; the filter holds one of them back. Where their size or format changes, it begins
    anew.
    """
    graph: Any = None
    known: tuple[int, int, str] | None = None
    for frame in frames:
        form = frame.width, frame.height, frame.format.name
        if form != known:
            if graph is not None:
                yield from _end(graph)
            graph, known = _begin(frame), form
        graph.push(frame)
        yield from _ready(graph)
    if graph is not None:
        yield from _end(graph)


def _begin(frame: VideoFrame) -> Any:
    from av.filter import Graph

    graph: Any = Graph()
    given = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    filtered, taken = graph.add("bwdif", _BWDIF), graph.add("buffersink")
    given.link_to(filtered)
    filtered.link_to(taken)
    graph.configure()
    return graph


def _ready(graph: Any) -> Iterator[VideoFrame]:
    import av

    while True:
        try:
            yield graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return


def _end(graph: Any) -> Iterator[VideoFrame]:
    graph.push(None)
    yield from _ready(graph)
