"""From nothing to the first answer, by phase, as the client sees the phases begin."""

from __future__ import annotations

import time

import numpy as np

from sa2va_host import Sa2VA

from .figures import Figure


def measure(model: str, prompt: str, repeat: int) -> list[Figure]:
    """Seconds of each phase of a first call, the worker being stopped before each."""
    runs = [_phases(model, prompt) for _ in range(repeat)]
    names = dict.fromkeys(name for run in runs for name in run)
    return [Figure(f"cold start: {name}", tuple(run.get(name, 0.0) for run in runs)) for name in names]


def _phases(model: str, prompt: str) -> dict[str, float]:
    """Phase -> seconds, in order. The worker's own phases of the call are its report; the rest is our clock."""
    begun: dict[str, float] = {}
    picture = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    with Sa2VA(model=model) as sa:
        sa.unload(force=True)
    with Sa2VA(model=model, on_event=lambda event: _note(begun, event)) as sa:
        start = time.perf_counter()
        result = sa.segment(picture, prompt)
        whole = time.perf_counter() - start
    call = {phase: seconds for phase, seconds in result.timings.items() if phase != "total"}
    loading, encoding = begun.get("loading", start), begun.get("encoding", start)
    own = {"process and libraries": loading - start, "loading the weights": encoding - loading}
    return {**own, **call, "whole": whole}


def _note(begun: dict[str, float], event: object) -> None:
    phase = getattr(event, "phase", "")
    if phase:
        begun.setdefault(phase, time.perf_counter())
