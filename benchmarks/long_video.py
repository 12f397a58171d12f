"""A long video from file to files: `python -m benchmarks.long_video [--frames 3000]`. Linux only.

A 1080p clip in H.264 goes through `sa2va video` to mask PNGs. Measured are the frames per second, against those of the
tracker alone on frames that are in memory already; the memory of both processes over time, and how it grows with the
frames; how long a cancelled video goes on, and how long another client's picture takes meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle
from pathlib import Path

import numpy as np

from sa2va_host import Cancellation, Cancelled, Sa2VA
from sa2va_host.media import Picture

from .figures import Figure, table

SIZE = (1080, 1920)
RATE = 25
PROMPT = "the red circle"
_LOOP = 50
"""Frames that are drawn and encoded; the clip is these, over and over."""
_EVERY = 0.5
"""Seconds between two looks at the memory."""
_SETTLED = 0.2
"""Share of the frames after which memory has to be flat: until then buffers are filled for the first time."""
_RISE = 16 * 2**20
"""Bytes by which the highest of the later moments may pass the highest of the earlier ones: three frames' worth."""
_PROGRAM = [sys.executable, "-c", "from sa2va_plugins.command import main; raise SystemExit(main())"]


@dataclass(frozen=True)
class Sample:
    """Resident bytes at one moment."""

    frames: int
    """How many are written."""
    host: int
    worker: int


def main() -> int:
    """Print the figures; returns 1 where memory grows with the frames."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_video", description=__doc__)
    parser.add_argument("--model", default="sa2va-tiny")
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--key-frames", default="first:5")
    arguments = parser.parse_args()
    alone = tracker_alone(arguments.model)
    with tempfile.TemporaryDirectory(prefix="sa2va-benchmark-") as folder:
        clip = write_clip(Path(folder) / "clip.mp4", arguments.frames)
        with Sa2VA(model=arguments.model) as sa, Sa2VA(model=arguments.model) as other:
            sa.load()
            pid = sa.status().pid
            begun = time.perf_counter()
            samples = list(_run(clip, Path(folder) / "out", arguments.model, arguments.key_frames, pid))
            seconds = time.perf_counter() - begun
            cancelling, pictures = _beside(sa, other)
    print(f"{arguments.frames} frames of {SIZE[1]} x {SIZE[0]}, {arguments.key_frames}: {seconds:.1f} s,")
    rate = arguments.frames / seconds
    print(
        f"{rate:.1f} frames/s from file to files, {1 / alone:.1f} of the tracker alone ({rate * alone:.2f})\n"
    )
    print("| frames written | host | worker |\n|---:|---:|---:|")
    for sample in samples[:: max(1, len(samples) // 10)]:
        print(f"| {sample.frames} | {sample.host / 2**20:.1f} MiB | {sample.worker / 2**20:.1f} MiB |")
    slopes = [_slope(samples, who, arguments.frames) for who in ("host", "worker")]
    print(f"\nbytes for each frame: host {slopes[0]:.0f}, worker {slopes[1]:.0f}\n")
    print(table([Figure("a frame by the tracker alone", (alone,)), cancelling, *pictures]))
    return 1 if max(_rise(samples, who, arguments.frames) for who in ("host", "worker")) > _RISE else 0


def drawn() -> list[Picture]:
    """uint8 `[1080, 1920, 3]`: a red circle that goes once around on a grey ground."""
    height, width = SIZE
    rows, columns = np.ogrid[:height, :width]
    frames = []
    for angle in np.linspace(0, 2 * np.pi, _LOOP, endpoint=False):
        centre = height / 2 + height / 4 * np.sin(angle), width / 2 + width / 4 * np.cos(angle)
        frame = np.full((height, width, 3), 120, np.uint8)
        frame[(rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < (height / 8) ** 2] = (210, 30, 30)
        frames.append(frame)
    return frames


def write_clip(path: Path, frames: int) -> Path:
    """An H.264 video of so many frames."""
    import av

    loop = path.with_name("loop.mp4")
    with av.open(str(loop), "w") as output:
        stream = output.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "bf": "0"})
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        for picture in drawn():
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))
    with av.open(str(loop)) as source, av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(source.streams.video[0])
        written = 0
        while written < frames:
            source.seek(0)
            for packet in source.demux(video=0):
                if packet.dts is None or written == frames:
                    continue
                assert packet.time_base is not None
                packet.pts = packet.dts = round(Fraction(written, RATE) / packet.time_base)
                packet.stream = copy
                output.mux(packet)
                written += 1
    return path


def tracker_alone(model: str, frames: int = 100) -> float:
    """Seconds for a frame: the engine here, in a process of its own, on frames of the model's size."""
    command = [sys.executable, "-m", "benchmarks.tracker_alone", model, str(frames)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def _run(clip: Path, out: Path, model: str, key_frames: str, worker: int) -> Iterator[Sample]:
    arguments = ["video", str(clip), "--prompt", PROMPT, "--model", model, "--key-frames", key_frames]
    process = subprocess.Popen(
        [*_PROGRAM, *arguments, "--save", "masks", "-o", str(out), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None:
        masks = next(out.glob("masks/*"), None)
        done = sum(1 for _ in masks.iterdir()) if masks else 0
        if done and (host := _resident(process.pid)):
            yield Sample(done, host, _resident(worker))
        time.sleep(_EVERY)
    assert process.stdout is not None
    printed = json.loads(process.stdout.read())
    if not printed["objects"] or printed["objects"][0]["frames"] < printed["frames"] / 2:
        raise SystemExit(f"The model did not follow {PROMPT!r}: {printed['answers']}")


def _resident(pid: int) -> int:
    """Bytes, 0 where the process is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(text.partition("VmRSS:")[2].split()[0]) * 1024 if "VmRSS:" in text else 0


def _slope(samples: list[Sample], who: str, frames: int) -> float:
    """Bytes for each frame: the line of least squares through what was measured once memory had settled."""
    settled = [sample for sample in samples if sample.frames >= _SETTLED * frames]
    if len(settled) < 2:
        raise SystemExit("Too few moments were measured; take more --frames.")
    counts, sizes = [s.frames for s in settled], [getattr(s, who) for s in settled]
    return float(np.polyfit(counts, sizes, 1)[0])


def _rise(samples: list[Sample], who: str, frames: int) -> int:
    """Bytes from the peak of the settled first half to that of the second; frames that wait come and go in between."""
    begin, middle = _SETTLED * frames, (1 + _SETTLED) / 2 * frames
    early = [getattr(sample, who) for sample in samples if begin <= sample.frames < middle]
    late = [getattr(sample, who) for sample in samples if sample.frames >= middle]
    return max(late, default=0) - max(early, default=0)


def _beside(sa: Sa2VA, other: Sa2VA) -> tuple[Figure, list[Figure]]:
    """How long a cancelled video goes on in the worker; a picture of another client alone and beside a video."""
    pictures = drawn()
    alone = [_picture_seconds(other, pictures[0]) for _ in range(6)]
    ended = []
    for _ in range(5):
        cancellation = Cancellation()
        with sa.track(cycle(pictures), PROMPT, cancellation=cancellation) as track:
            for _ in range(10):
                next(track)
            begun = time.perf_counter()
            cancellation.cancel()
            with contextlib.suppress(Cancelled):
                for _ in track:
                    pass
            while sa.status().active:
                pass
            ended.append(time.perf_counter() - begun)
    with sa.track(cycle(pictures), PROMPT) as track:
        next(track)
        stop = threading.Event()

        def watch() -> None:
            for _ in track:
                if stop.is_set():
                    return

        watching = threading.Thread(target=watch)
        watching.start()
        beside = [_picture_seconds(other, pictures[0]) for _ in range(6)]
        stop.set()
        watching.join()
    return Figure("from cancelling to the worker's rest", tuple(ended)), [
        Figure("a picture, nothing beside it", tuple(alone[1:])),
        Figure("a picture beside another client's video", tuple(beside[1:])),
    ]


def _picture_seconds(sa: Sa2VA, picture: Picture) -> float:
    begun = time.perf_counter()
    sa.segment(picture, PROMPT)
    return time.perf_counter() - begun


if __name__ == "__main__":
    sys.exit(main())
