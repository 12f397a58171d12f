"""All of it at true dimensions on a GPU: Qwen3-VL-4B's and Hiera-Large's, with random weights, offline.

`python -m benchmarks gpu`, or alone `python -m benchmarks.gpu [--device cpu --tiny]`; needs torch, transformers and
some 20 GB of disk. Random weights never say `[SEG]`, so answers are dictated: the model computes every token, and
another one is taken. What upstream takes for the same masks is the part `upstream`, on the device.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sa2va_host import Sa2VA as Client
from sa2va_host.errors import Sa2VAError
from sa2va_host.machine.nvidia import find_driver
from sa2va_host.protocol.specification import Specification
from sa2va_worker import attention
from sa2va_worker.clock import Clock
from sa2va_worker.device import choose_all
from sa2va_worker.following import Follower
from sa2va_worker.models.checkpoint import Checkpoint
from sa2va_worker.models.families import family
from sa2va_worker.models.sa2va import Sa2VA, build, load
from sa2va_worker.steps import Picture, SegmentRequest

from . import checkpoint, upstream
from .direct import Frames
from .figures import Figure, NotMeasured, Plan, not_measured, ratio, table
from .pictures import noise

TOKENS = 32
"""Of each dictated answer."""
KEY_FRAMES = 5
FULL_HD = (1080, 1920)


@dataclass(frozen=True)
class Case:
    """What is asked: so many frames of a size, and so many objects found."""

    name: str
    frames: int
    size: tuple[int, int]
    objects: int
    aim: float | None = None


CASES = (
    Case("1080p image, 1 object", 1, FULL_HD, 1),
    Case("1080p image, 4 objects", 1, FULL_HD, 4),
    Case("five 448x448 frames, 1 object", 5, (448, 448), 1, 1.0),
    Case("32 frames of 1080p, 2 objects", 32, FULL_HD, 2),
    Case("300 frames of 1080p, 2 objects", 300, FULL_HD, 2),
)
FLAT = 1.05
"""How much more device memory the last case, the longest video, may take than the one before it."""
TINY_CASES = (Case("image, 2 objects", 1, (60, 80), 2), Case("7 frames, 2 objects", 7, (60, 80), 2))
AGAINST_UPSTREAM = ((1, 1), (4, 1), (1, 5), (2, 32))
"""(objects, frames) of SAM2 alone, against upstream's."""
ATTENTIONS = ("sdpa", attention.FLASH)
QUANTIZATIONS = ("8bit", "4bit")


class Dictation:
    """Says `[SEG]` so many times and then nothing in particular: a `sa2va_worker.models.language.Chooser`."""

    def __init__(self, segment_token: int, other: int, objects: int) -> None:
        self._words = [segment_token] * objects + [other] * (TOKENS - objects)

    def choose(self, scores: Tensor, said: list[int]) -> int:
        """The next word, once the model has computed its own."""
        del said
        scores.argmax().item()  # what a greedy answer waits for
        return self._words.pop(0)


class Model:
    """A loaded checkpoint, and answers dictated to it."""

    def __init__(self, folder: Path, device: str, attending: str = "sdpa", bits: str = "none") -> None:
        spec = Specification(checkpoint=str(folder), device=device, attention=attending, quantization=bits)
        (self.device, *_), dtype = choose_all(spec)
        found = attention.choose(attending, self.device, dtype)
        if found.name != attending:
            raise NotMeasured(f"{attending} does not run here: {found.reason}")
        stored = Checkpoint(folder)
        model = build(stored, self.device, dtype, attending, bits)
        assert isinstance(model, Sa2VA)
        for _ in load(model, stored):
            pass
        self.sa2va, self.front = model, family(stored.config).front(stored)

    def answer(self, case: Case) -> dict[str, float]:
        """Seconds by phase of one call, up to masks at the size of the decoder. Resizing frames is not counted."""
        frames = [noise(case.size, seed) for seed in range(min(case.frames, KEY_FRAMES))]
        squares = [self._square(frame) for frame in frames]
        clock = Clock()
        with clock("encoding"):
            utterance, pictures = self.front.prepare("it", frames, (), ())
        segment = self.front.segment_token
        assert segment is not None
        dictated = Dictation(segment, utterance.prompt_ids[0], case.objects)
        with clock("generating"):
            for _ in self.sa2va.language.speak(utterance, pictures, dictated, segment, frozenset(), TOKENS):
                pass
        with clock("tracking"), torch.inference_mode():
            request = SegmentRequest(["it"], frames, tracked=case.frames > 1, frame_count=case.frames)
            follower = Follower(self.sa2va, utterance.segment_states, request)
            for number in range(case.frames):
                follower.step(squares[number % len(squares)])
        return clock.timings

    def _square(self, frame: Picture) -> Picture:
        picture = Frames([frame], self.sa2va.sam2.image_size).get()
        assert picture is not None
        return picture

    def peak(self) -> float:
        """Bytes of device memory at the peak since the last look; 0 on a processor."""
        if self.device.type != "cuda":
            return 0.0
        peak = float(torch.cuda.max_memory_allocated(self.device))
        torch.cuda.reset_peak_memory_stats(self.device)
        return peak


def measure(plan: Plan) -> list[Figure]:
    """All of it. Raises `NotMeasured` where there is no CUDA device."""
    if not torch.cuda.is_available():
        raise NotMeasured("there is no CUDA device here.")
    return run("cuda", checkpoint.QWEN3_VL_4B, CASES, plan.few) + upstream.measure(
        plan, "cuda", AGAINST_UPSTREAM
    )


def run(device: str, dimensions: checkpoint.Dimensions, cases: Sequence[Case], repeat: int) -> list[Figure]:
    """Latency by phase and peak memory of each case; tokens per second by attention and precision; what unloading
    leaves.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory(prefix="sa2va-benchmark-") as name:
        folder = checkpoint.write(Path(name), dimensions)
        figures = _latencies(folder, device, cases, repeat)
        figures += [_tokens(folder, device, word, "none", cases[0], repeat) for word in ATTENTIONS]
        figures += [_tokens(folder, device, "sdpa", bits, cases[0], repeat) for bits in QUANTIZATIONS]
        figures.append(
            not_measured("tokens with a static cache and compile", "the model has no static cache.")
        )
        return [*figures, *_unload(folder, device)]


def _latencies(folder: Path, device: str, cases: Sequence[Case], repeat: int) -> list[Figure]:
    model = Model(folder, device)
    figures: list[Figure] = []
    peaks: list[Figure] = []
    for case in cases:
        model.answer(case)  # the first one chooses kernels
        model.peak()
        runs = [model.answer(case) for _ in range(repeat)]
        whole = tuple(sum(run.values()) for run in runs)
        figures.append(Figure("whole", whole, case.aim, panel=case.name))
        figures += [Figure(name, tuple(run[name] for run in runs), panel=case.name) for name in runs[0]]
        if peak := model.peak():
            peaks.append(Figure(f"peak of device memory, {case.name}", (peak,), unit="bytes"))
    figures += peaks
    if len(peaks) > 1:
        figures.append(
            ratio(f"peak of {cases[-1].name} against {cases[-2].name}", peaks[-1], peaks[-2], FLAT)
        )
    return figures


def _tokens(folder: Path, device: str, attending: str, bits: str, case: Case, repeat: int) -> Figure:
    """Tokens per second of an answer about a picture, the reading of the prompt included."""
    name = f"{attending}, quantization {bits}"
    gc.collect()
    try:
        model = Model(folder, device, attending, bits)
        model.answer(case)
        runs = [model.answer(case)["generating"] for _ in range(repeat)]
    except (NotMeasured, Sa2VAError) as error:
        return not_measured(f"tokens with {name}", error)
    return Figure(name, tuple(TOKENS / seconds for seconds in runs), unit="tokens/s", panel="tokens")


def _unload(folder: Path, device: str) -> list[Figure]:
    """What the driver counts more than before once a worker was loaded and unloaded, and how long that took."""
    name = "device memory left after unload, by the driver"
    before = _free()
    with Client(model=folder, device=device) as sa:
        sa.load()
        begun = time.perf_counter()
        sa.unload()
        seconds = time.perf_counter() - begun
    took = Figure("unload", (seconds,), 1.0)
    if before is None:
        return [took, not_measured(name, "there is no NVIDIA driver here.")]
    return [took, Figure(name, (float(max(0, before - (_free() or 0))),), 0.0, "bytes")]


def _free() -> int | None:
    """Bytes that the driver says are free on all GPUs; None without a driver."""
    driver = find_driver()
    return None if driver is None else sum(gpu.free for gpu in driver.gpus)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the bundled model's dimensions and few frames")
    parser.add_argument("--repeat", type=int, default=Plan().few)
    arguments = parser.parse_args()
    size, cases = (checkpoint.TINY, TINY_CASES) if arguments.tiny else (checkpoint.QWEN3_VL_4B, CASES)
    print(table(run(arguments.device, size, cases, arguments.repeat)))


if __name__ == "__main__":
    main()
