"""Whole calls, from pictures and a prompt to masks at full size on the host: ours through a worker, and upstream's.

Both load the same checkpoint and are dictated the same answer, so both compute the same thing. Upstream runs in a
process and an interpreter of its own (`whole_call_peer`), when ours is unloaded.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sa2va_host import Sa2VA
from sa2va_host.media import Picture
from sa2va_host.timings import phases

from .cases import Case
from .figures import Figure, NotMeasured, not_measured, ratio
from .machine import ROOT
from .upstream import checkout_and_python

PATIENCE = 300
"""Seconds that upstream may take for all cases together."""


@dataclass(frozen=True)
class Answered:
    """What one side answered to a case, and how long it took."""

    text: str
    shape: Sequence[int]
    """`[objects, frames, height, width]` of its masks."""
    first: NDArray[np.bool_]
    """`[objects, height, width]`, those of the first frame."""
    seconds: tuple[float, ...]
    timings: Sequence[Mapping[str, float]] = field(default=())
    """By phase, of each call: ours alone."""
    peak_bytes: int = 0
    """Of the device, or of the process where that is a processor: upstream's alone."""
    attention: str = ""


def ask(sa: Sa2VA, case: Case, repeat: int) -> Answered:
    """Ours."""
    pictures = case.pictures()
    seconds: list[float] = []
    timings: list[Mapping[str, float]] = []
    answers: list[_Heard] = []
    for _ in range(repeat):
        answers.clear()  # so that no two are in memory
        begun = time.perf_counter()
        answers.append(_call(sa, pictures, case.prompt))
        seconds.append(time.perf_counter() - begun)
        timings.append(phases(answers[-1].timings))
    (heard,) = answers
    shape = (len(heard.masks[0]), len(heard.masks), *heard.masks[0].shape[1:])
    return Answered(heard.text, shape, heard.masks[0], tuple(seconds), timings)


@dataclass(frozen=True)
class _Heard:
    """What one call of ours brought."""

    text: str
    masks: list[NDArray[np.bool_]]
    """`[objects, height, width]` for each frame."""
    timings: Mapping[str, float]


def _call(sa: Sa2VA, pictures: list[Picture], prompt: str) -> _Heard:
    if len(pictures) == 1:
        result = sa.segment(pictures[0], prompt)
        return _Heard(result.text, [result.masks()], result.timings)
    with sa.track(pictures, prompt) as track:
        masks = [frame.masks() for frame in track]
    return _Heard(track.text, masks, track.timings)


def ours(case: Case, answered: Answered) -> Iterator[Figure]:
    """Seconds of whole calls, as the caller's clock saw them, and the worker's by phase."""
    yield Figure("ours", answered.seconds, case.aim, panel=case.name)
    for name in answered.timings[0]:
        seconds = tuple(timing[name] for timing in answered.timings)
        yield Figure(f"ours, {name}", seconds, panel=case.name)


def ask_upstream(folder: Path, device: str, cases: Sequence[Case], repeat: int) -> Iterator[Answered]:
    """Upstream's, as far as it comes. Raises `NotMeasured` where it stops: there is no checkout, or its code fails."""
    checkout, python = checkout_and_python()
    with tempfile.TemporaryDirectory(prefix="sa2va-benchmark-") as out:
        asked = json.dumps([asdict(case) for case in cases])
        arguments = (checkout, str(folder), device, str(repeat), out, asked)
        peer = subprocess.Popen(
            [python, "-m", "benchmarks.whole_call_peer", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            said, errors = peer.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            peer.kill()
            said, errors = peer.communicate()
            errors = f"it took longer than {PATIENCE} s."
        for line in said.splitlines():
            if line.startswith("{"):
                yield _read(json.loads(line))
        if peer.returncode:
            lines = errors.strip().splitlines() or ["without a word"]
            raise NotMeasured(f"it failed: {lines[-1]}")


def _read(found: dict[str, Any]) -> Answered:
    return Answered(
        found["text"],
        found["shape"],
        np.load(found["first"]),
        tuple(found["seconds"]),
        peak_bytes=found["peak_bytes"],
        attention=found["attention"],
    )


def against(case: Case, mine: Answered, theirs: Answered) -> Iterator[Figure]:
    """Upstream's seconds and ours against them, where both answered the same."""
    yield Figure(f"upstream ({theirs.attention})", theirs.seconds, panel=case.name)
    name = f"{case.name}: time, ours against upstream"
    if (mine.text, list(mine.shape)) != (theirs.text, list(theirs.shape)):
        said = [f"{one.text!r} with masks {list(one.shape)}" for one in (mine, theirs)]
        yield not_measured(name, f"ours answered {said[0]}, upstream {said[1]}.")
        return
    yield ratio(name, Figure("", mine.seconds), Figure("", theirs.seconds), case.against_upstream)
    equal = 100 * float((mine.first == theirs.first).mean())
    yield Figure(f"{case.name}: pixels of the first masks that both give", (equal,), unit="%")
