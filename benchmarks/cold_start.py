"""From nothing to the first answer, by phase and by stage; loading against reading; spawning against importing."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from sa2va_host import Sa2VA
from sa2va_host.events import Event

from . import stages
from .figures import Figure, Plan, ratio, times
from .load_memory import write_checkpoint
from .pictures import noise

LIBRARIES = "import torch, transformers"
MODELS = "import torch; from transformers import PreTrainedModel"
"""What any model of transformers needs: its package alone imports hardly anything."""

SPAWN = "process and libraries"
LOAD = "loading the weights"
COPY = """
import sys, time, torch
from safetensors.torch import load_file
begun = time.perf_counter()
copies = [values.clone() for values in load_file(sys.argv[1]).values()]
print(time.perf_counter() - begun)
"""
"""What loads a file at the least: `load_file` alone maps it, and reads nothing."""
READ = "read the file from the page cache"
COPIED = "safetensors' load_file and a copy of each tensor"
PHASES = "where the first call's time goes"
STAGES = "a start, stage by stage"


def measure(plan: Plan) -> list[Figure]:
    """Seconds of each phase of a first call, the worker being stopped before each; and what they are compared with."""
    imported, models = times(plan.few, partial(_run, LIBRARIES), partial(_run, MODELS))
    runs = [_phases(plan) for _ in range(plan.few)]
    ready = Figure("spawn to ready", tuple(run[SPAWN] + run[LOAD] for run in runs), panel="against libraries")
    libraries = Figure(f'python -c "{LIBRARIES}"', imported, panel="against libraries")
    needed = Figure(f'python -c "{MODELS}"', models, panel="against libraries")
    taken_apart = [stages.measure(Path(plan.model), "float32") for _ in range(plan.few)]
    return [
        *_by_name(runs, dict.fromkeys(name for run in runs for name in run), PHASES),
        *_by_name(taken_apart, stages.STAGES, STAGES),
        ready,
        libraries,
        needed,
        ratio("spawn to ready against the libraries alone", ready, libraries),
        ratio("spawn to ready against what any model needs", ready, needed),
        *_large(plan),
    ]


def _by_name(runs: Sequence[Mapping[str, float]], names: Iterable[str], panel: str) -> list[Figure]:
    return [Figure(name, tuple(run.get(name, 0.0) for run in runs), panel=panel) for name in names]


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


def _large(plan: Plan) -> list[Figure]:
    """Bytes per second of loading a checkpoint of 1 GB, and of its file copied and read by others, in turns."""
    with tempfile.TemporaryDirectory(prefix="sa2va-benchmark-") as folder:
        size = write_checkpoint(Path(folder))
        (file,) = Path(folder).glob("*.safetensors")
        runs = [
            {
                READ: _read(file),
                COPIED: _copy(file),
                stages.WEIGHTS: stages.measure(Path(folder), "bfloat16")[stages.WEIGHTS],
            }
            for _ in range(plan.few)
        ]
    read, copied, ours = (
        Figure(
            name,
            tuple(size / run[name] for run in runs),
            unit="bytes/s",
            panel=f"{size / 1e9:.2f} GB of bfloat16",
        )
        for name in (READ, COPIED, stages.WEIGHTS)
    )
    return [
        ours,
        copied,
        read,
        ratio("time to load, against load_file and a copy", copied, ours),
        ratio("time to load, against reading", read, ours),
    ]


def _copy(file: Path) -> float:
    """Seconds, without those of the imports."""
    command = [sys.executable, "-c", COPY, str(file)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def _read(file: Path) -> float:
    """Seconds of reading a file into a buffer that is used again and again."""
    buffer = memoryview(bytearray(1 << 24))
    begun = time.perf_counter()
    with file.open("rb", buffering=0) as stream:
        while stream.readinto(buffer):
            pass
    return time.perf_counter() - begun


def _run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)
