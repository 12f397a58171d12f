"""The node pack as ComfyUI's registry takes it and as a user installs it, with the real tools and an index."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .conftest import PYTHON

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = str(ROOT / "requirements.txt")
LARGEST = 12_000_000
"""Bytes of the packed node; the bundled model is 10.2 million of them."""


def run(*command: str | Path, **more: str) -> str:
    done = subprocess.run(
        list(map(str, command)), env={**os.environ, **more}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment(folder: Path, *packages: str) -> Path:
    """The folder of the programs of a new environment with these packages."""
    run(sys.executable, "-m", "venv", folder)
    programs = folder / ("Scripts" if sys.platform == "win32" else "bin")
    run(programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)
    return programs


@pytest.fixture(scope="module")
def comfy(tmp_path_factory):
    """Runs `comfy` in a clone of what is committed, without telemetry and with a home of its own."""
    folder = tmp_path_factory.mktemp("registry")
    programs = environment(folder / "env", "comfy-cli")
    run("git", "clone", "--quiet", ROOT, folder / "clone")
    (folder / "home").mkdir()

    def call(*words: str) -> str:
        done = subprocess.run(
            [programs / "comfy", "--skip-prompt", "--no-enable-telemetry", *words],
            cwd=folder / "clone",
            env={**os.environ, "DO_NOT_TRACK": "1", "HOME": str(folder / "home")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return folder / "clone", call


def test_the_node_is_valid(comfy):
    said = comfy[1]("node", "validate")
    assert "All validation checks passed" in said
    assert "arning" not in said


def test_the_packed_node_is_small_and_whole(comfy, tmp_path):
    folder, call = comfy
    call("node", "pack")
    (file,) = folder.glob("*.zip")
    assert file.stat().st_size < LARGEST
    with zipfile.ZipFile(file) as archive:
        archive.extractall(tmp_path / "node")
    tops = {path.name for path in (tmp_path / "node").iterdir()}
    assert not tops & {"tests", "training", "benchmarks"}
    said = run(sys.executable, tmp_path / "node", "models", "--json", PYTHONPATH="")
    assert "sa2va-tiny" in said


def test_a_neighbours_opencv_stays(tmp_path):
    """OpenCV's contributed modules and NumPy 1, as many node packs still have them."""
    programs = environment(tmp_path / "env", "opencv-contrib-python<4.11", "numpy<2", "pillow")
    python = programs / "python"
    (site,) = (tmp_path / "env").rglob("site-packages")

    def installed():
        return json.loads(run(python, "-m", "pip", "list", "--format", "json"))

    def digests():
        return {
            path: hashlib.sha256(path.read_bytes()).digest()
            for name in ("cv2", "numpy", "PIL")
            for path in (site / name).rglob("*")
            if path.is_file() and path.suffix != ".pyc"
        }

    before, files = installed(), digests()
    run(python, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS)
    after = installed()
    assert [each for each in before if each not in after] == []
    assert digests() == files
    code = (
        "import cv2, cv2.ximgproc, numpy as np; from sa2va_host import extras, resizing;"
        "values = np.random.default_rng(0).normal(0, 9, (64, 64)).astype(np.float32);"
        "print(extras.has_opencv(), hasattr(cv2.ximgproc, 'guidedFilter'),"
        " np.abs(resizing.bilinear(values, (333, 517)) - resizing._bilinear(values, (333, 517))).max() < 0.01)"
    )
    assert run(python, "-c", code, PYTHONPATH=str(ROOT)).split() == ["True", "True", "True"]


def test_nothing_of_comfyui_itself_is_replaced():
    """Over the environment that runs the server: pip is asked what it would do."""
    report = json.loads(
        run(PYTHON, "-m", "pip", "install", "--quiet", "--dry-run", "--report", "-", "-r", REQUIREMENTS)
    )
    here = json.loads(run(PYTHON, "-m", "pip", "list", "--format", "json"))
    names = {each["name"].lower().replace("_", "-") for each in here}
    new = {each["metadata"]["name"].lower().replace("_", "-") for each in report["install"]}
    assert not new & names
    assert not any("opencv" in name for name in new)
