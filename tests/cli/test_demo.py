"""The README's first command, after the set-up: the installed program and the bundled model leave pictures."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from sa2va_plugins.cli.demo import EXAMPLES, SCENES

PROGRAM = Path(sys.executable).with_name("sa2va.exe" if os.name == "nt" else "sa2va")


def test_the_demo_leaves_pictures_made_by_one_worker(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="sa2va-") as run:
        environment = {**os.environ, "SA2VA_RUN_DIR": f"{run}/run"}
        demo = subprocess.run(
            [PROGRAM, "demo", "-o", tmp_path], env=environment, capture_output=True, text=True, check=False
        )
        stopped = subprocess.run(
            [PROGRAM, "stop", "--all"], env=environment, capture_output=True, text=True, check=False
        )
    assert demo.returncode == 0, demo.stderr
    workers = {
        line.split("worker ")[1].split()[0] for line in demo.stdout.splitlines() if " s  worker " in line
    }
    assert len(workers) == 1
    assert workers.pop() in stopped.stdout
    overview = np.asarray(Image.open(tmp_path / "overview.png"))
    assert overview.ndim == 3
    assert overview.std() > 10, "a sheet of pictures is not one colour"
    for name in {scene.file for scene in SCENES if not scene.clip}:
        assert (tmp_path / "images" / name).read_bytes() == (EXAMPLES / name).read_bytes()
    assert (tmp_path / "crossing.mp4").stat().st_size > 10_000
    assert len(list(tmp_path.glob("*.overlay.png"))) == len([scene for scene in SCENES if not scene.question])
