"""From nothing to the first answer, by phase; loading against reading the file; spawning against importing."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from sa2va_host import Sa2VA
from sa2va_host.events import Event

from .figures import Figure, Plan, not_measured, ratio, times
from .pictures import noise

LIBRARIES = "import torch, transformers"
MODELS = "import torch; from transformers import PreTrainedModel"
"""What any model of transformers needs: its package alone imports hardly anything."""

SPAWN = "process and libraries"
LOAD = "loading the weights"


def measure(plan: Plan) -> list[Figure]:
    """Seconds of each phase of a first call, the worker being stopped before each; and what they are compared with."""
    imported, models = times(plan.few, partial(_run, LIBRARIES), partial(_run, MODELS))
    runs = [_phases(plan) for _ in range(plan.few)]
    names = dict.fromkeys(name for run in runs for name in run)
    phases = {
        name: Figure(
            name, tuple(run.get(name, 0.0) for run in runs), panel="where the first call's time goes"
        )
        for name in names
    }
    ready = Figure("spawn to ready", tuple(run[SPAWN] + run[LOAD] for run in runs), panel="against libraries")
    libraries = Figure(f'python -c "{LIBRARIES}"', imported, panel="against libraries")
    return [
        *phases.values(),
        ready,
        libraries,
        Figure(f'python -c "{MODELS}"', models, panel="against libraries"),
        ratio("spawn to ready against the libraries alone", ready, libraries),
        *_reading(plan, phases[LOAD]),
    ]


def _phases(plan: Plan) -> dict[str, float]:
    """Phase -> seconds, in order. The worker's own phases of the call are its report; the rest is our clock."""
    begun: dict[str, float] = {}
    picture = noise((240, 320))
    with Sa2VA(model=plan.model) as sa:
        sa.unload(force=True)
    with Sa2VA(model=plan.model, on_event=partial(_note, begun)) as sa:
        start = time.perf_counter()
        result = sa.segment(picture, plan.prompt)
        whole = time.perf_counter() - start
    call = {
        phase: result.timings[phase]
        for phase in ("encoding", "generating", "tracking")
        if phase in result.timings
    }
    loading, encoding = begun.get("loading", start), begun.get("encoding", start)
    own = {SPAWN: loading - start, LOAD: encoding - loading}
    return {**own, **call, "whole": whole}


def _note(begun: dict[str, float], event: Event) -> None:
    if phase := getattr(event, "phase", ""):
        begun.setdefault(phase, time.perf_counter())


def _reading(plan: Plan, loading: Figure) -> list[Figure]:
    """Bytes per second of loading the weights, and of reading their files from the page cache."""
    from sa2va_host.errors import ModelNotFound
    from sa2va_worker.models.checkpoint import find_folder

    name = "read the weights from the page cache"
    try:
        files = sorted(find_folder(plan.model).glob("*.safetensors"))
    except ModelNotFound as error:
        return [not_measured(name, error)]
    size = sum(file.stat().st_size for file in files)
    (read,) = times(plan.few, partial(_read, files))
    return [
        Figure(
            f"load {size / 1e6:.0f} MB of weights",
            tuple(size / seconds for seconds in loading.values),
            unit="bytes/s",
            panel="bytes",
        ),
        Figure(name, tuple(size / seconds for seconds in read), unit="bytes/s", panel="bytes"),
    ]


def _run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def _read(files: list[Path]) -> None:
    buffer = memoryview(bytearray(1 << 24))
    for file in files:
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass
