"""What a call to a warm worker costs above the model's own time, from Python and as a whole command.

The command's peer is a process that loads the model itself each time, as upstream's demo does (`benchmarks.direct`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from sa2va_host import Sa2VA, media
from sa2va_host.timings import phases

from .figures import Figure, Plan, ratio, times
from .pictures import noise

SIZES = {"320x240": (240, 320), "1080p": (1080, 1920)}
PROGRAM = [sys.executable, "-c", "from sa2va_plugins.command import main; raise SystemExit(main())"]


def measure(plan: Plan) -> list[Figure]:
    """The overhead of `segment`, of the `sa2va segment` process, and of finding a warm worker."""
    figures = []
    with Sa2VA(model=plan.model) as sa:
        sa.load()
        (attached,) = times(plan.repeat, lambda: _attach(plan.model))
        figures.append(Figure("attach to a warm worker", attached, 0.05, panel="from Python"))
        for name, size in SIZES.items():
            figures += _from_python(sa, noise(size), plan, name)
        figures += _from_shell(noise(SIZES["320x240"]), plan)
    return figures


def model_seconds(timings: Mapping[str, float]) -> float:
    """What the worker spent on the call itself; `total` is the client's whole wait."""
    return sum(phases(timings).values())


def _attach(model: str) -> None:
    """A client's first call, one that the worker answers at once, with all that comes before it."""
    with Sa2VA(model=model) as sa:
        sa.load()


def _from_python(sa: Sa2VA, picture: media.Picture, plan: Plan, name: str) -> list[Figure]:
    above, own, masks = [], [], []
    for _ in range(plan.repeat + 1):
        begun = time.perf_counter()
        result = sa.segment(picture, plan.prompt)
        answered = time.perf_counter()
        result.masks()
        masks.append(time.perf_counter() - answered)
        own.append(model_seconds(result.timings))
        above.append(answered - begun - own[-1])
    return [
        Figure(f"segment {name}, the model's own time", tuple(own[1:]), panel="from Python"),
        Figure(f"segment {name}, above it", tuple(above[1:]), 0.15, panel="from Python"),
        Figure(f"masks of the answer at {name}", tuple(masks[1:]), panel="from Python"),
    ]


def _from_shell(picture: media.Picture, plan: Plan) -> list[Figure]:
    """Whole processes: ours above the model's own time, and against one that loads the model."""
    whole, above = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = str(media.write_image(Path(folder) / "picture.png", picture))
        command = [
            *PROGRAM,
            "segment",
            path,
            "--prompt",
            plan.prompt,
            "--model",
            plan.model,
            "-o",
            folder,
            "--overwrite",
            "--json",
        ]
        for _ in range(plan.repeat + 1):
            begun = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            whole.append(time.perf_counter() - begun)
            above.append(whole[-1] - model_seconds(json.loads(done.stdout)["timings"]))
        direct = [sys.executable, "-m", "benchmarks.direct", path, plan.prompt, plan.model, folder]
        (cold,) = times(plan.few, lambda: subprocess.run(direct, stdout=subprocess.DEVNULL, check=True))
    (bare,) = times(plan.repeat, lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))
    interpreter = Figure("a bare interpreter", bare, panel="commands")
    warm = Figure("sa2va segment 320x240, whole process", tuple(whole[1:]), panel="commands")
    peer = Figure("a process that loads the model each time", cold, panel="commands")
    ours = Figure(
        "sa2va segment 320x240, above the model's own time", tuple(above[1:]), 0.15, panel="commands"
    )
    return [
        ours,
        warm,
        interpreter,
        peer,
        ratio("sa2va segment above the model's own time, against a bare interpreter", ours, interpreter),
        ratio("sa2va segment against loading each time", warm, peer),
    ]
