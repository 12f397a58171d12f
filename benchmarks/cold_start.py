"""From nothing to the first answer, by phase, as the client sees the phases begin."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np

from sa2va_host import Sa2VA

from .figures import Figure


def measure(model: str, prompt: str, repeat: int) -> list[Figure]:
    """Seconds of each phase of a first call, the worker being stopped before each."""
    runs = [_phases(model, prompt) for _ in range(repeat)]
    names = dict.fromkeys(name for run in runs for name in run)
    return [Figure(f"cold start: {name}", tuple(run.get(name, 0.0) for run in runs)) for name in names]


def _phases(model: str, prompt: str) -> dict[str, float]:
    """Phase -> seconds until the next one began, in order; `whole` is the sum."""
    begun: dict[str, float] = {}
    picture = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    with Sa2VA(model=model) as sa:
        sa.unload(force=True)
    with Sa2VA(model=model, on_event=lambda event: _note(begun, event)) as sa:
        begun["connecting"] = time.perf_counter()
        sa.segment(picture, prompt)
        begun["end"] = time.perf_counter()
    moments = sorted(begun.items(), key=lambda item: item[1])
    phases = {name: after - since for (name, since), (_, after) in pairwise(moments)}
    return {**phases, "whole": begun["end"] - begun["connecting"]}


def _note(begun: dict[str, float], event: object) -> None:
    phase = getattr(event, "phase", "")
    if phase:
        begun.setdefault(phase, time.perf_counter())
