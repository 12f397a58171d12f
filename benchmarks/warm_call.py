"""What a call to a warm worker costs above the model's own time, from Python and as a whole command."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sa2va_host import Sa2VA, media
from sa2va_host.timings import phases

from .figures import Figure

SIZES = {"320x240": (240, 320), "1080p": (1080, 1920)}


def measure(model: str, prompt: str, repeat: int) -> list[Figure]:
    """The overhead of `segment` with masks at full size, and of the `sa2va segment` process."""
    figures = []
    with Sa2VA(model=model) as sa:
        for name, size in SIZES.items():
            picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
            figures += _from_python(sa, picture, prompt, repeat, name)
        picture = np.random.default_rng(0).integers(0, 256, (*SIZES["320x240"], 3), dtype=np.uint8)
        figures.append(_from_shell(model, picture, prompt, repeat))
    return figures


def model_seconds(timings: Mapping[str, float]) -> float:
    """What the worker spent on the call itself; `total` is the client's whole wait."""
    return sum(phases(timings).values())


def _from_python(sa: Sa2VA, picture: media.Picture, prompt: str, repeat: int, name: str) -> list[Figure]:
    above, own, masks = [], [], []
    for _ in range(repeat + 1):
        begun = time.perf_counter()
        result = sa.segment(picture, prompt)
        answered = time.perf_counter()
        result.masks()
        masks.append(time.perf_counter() - answered)
        own.append(model_seconds(result.timings))
        above.append(answered - begun - own[-1])
    return [
        Figure(f"segment {name}, the model's own time", tuple(own[1:])),
        Figure(f"segment {name}, above it", tuple(above[1:]), 0.15),
        Figure(f"masks of the answer at {name}", tuple(masks[1:])),
    ]


def _from_shell(model: str, picture: media.Picture, prompt: str, repeat: int) -> Figure:
    above = []
    with tempfile.TemporaryDirectory() as folder:
        path = media.write_image(Path(folder) / "picture.png", picture)
        program = "from sa2va_host.plugins.manager import main; raise SystemExit(main())"
        command = [sys.executable, "-c", program, "segment", str(path), "--prompt", prompt, "--model", model]
        for _ in range(repeat + 1):
            begun = time.perf_counter()
            done = subprocess.run(
                [*command, "-o", folder, "--json"], capture_output=True, text=True, check=True
            )
            whole = time.perf_counter() - begun
            above.append(whole - model_seconds(json.loads(done.stdout)["timings"]))
    name = "sa2va segment 320x240, whole process above the model's own time"
    return Figure(name, tuple(above[1:]), 0.15)
