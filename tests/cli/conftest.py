"""The real command in processes of its own, and real workers whose engine is a script."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sa2va_host.lifecycle.rendezvous import RunDirectory
from sa2va_host.machine import processes
from tests.clips import write_clip

SCRIPT = Path(__file__).parents[1] / "lifecycle" / "scripted_worker.py"
PROGRAM = [sys.executable, "-c", "from sa2va_plugins.command import main; raise SystemExit(main())"]


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of a user without settings whose workers are scripted; they are ended afterwards."""
    if sys.platform == "win32":
        pytest.skip("the stand-in for the worker's interpreter is a shell script")
    stand_in = tmp_path / "worker-python"
    stand_in.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(SCRIPT))}\n")
    stand_in.chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SA2VA_")}
    with tempfile.TemporaryDirectory(prefix="sa2va-") as folder:
        run = Path(folder) / "run"
        yield {
            **clean,
            "SA2VA_RUN_DIR": str(run),
            "SA2VA_WORKER_PYTHON": str(stand_in),
            "SA2VA_MODEL": "scripted:",
            "XDG_CONFIG_HOME": folder,
        }
        if run.exists():
            for record in RunDirectory(run).records():
                processes.signal_group(record.process, kill=True)
                processes.wait_group_gone(record.process, 5)


@pytest.fixture
def sa2va(environment: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command in `tmp_path`: `sa2va("segment", ..., extra={"NAME": "value"})`."""

    def run(*arguments: object, extra: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *map(str, arguments)],
            env={**environment, **(extra or {})},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """64 x 48 pixels, black, with a white square; the script finds what is bright."""
    pixels = np.zeros((48, 64, 3), dtype=np.uint8)
    pixels[12:36, 16:40] = 255
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """20 frames, black, in which the script finds a white square that moves to the right."""
    frames = []
    for index in range(20):
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[12:36, 8 + index : 32 + index] = 255
        frames.append(picture)
    return write_clip(tmp_path / "clip.mp4", frames, sound="aac")


def files(folder: Path) -> set[str]:
    """The names of all files in a folder, from there."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of these, but for the note of the run itself."""
    return {name: (folder / name).read_bytes() for name in files(folder) if name != "run.json"}
