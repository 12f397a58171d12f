"""Installing `requirements.txt` into somebody else's environment leaves everything there as it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.wheels import make_wheel

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements.txt"
CONTRIB = ("opencv-contrib-python", "4.10.0.84")


def needed():
    lines = (line for line in REQUIREMENTS.read_text().splitlines() if not line.startswith("#"))
    found = [Requirement(line) for line in lines]
    return [each for each in found if each.marker is None or each.marker.evaluate()]


def pip(python: Path, *arguments: str) -> str:
    """This environment's pip, at work on another one, and without an index."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", *arguments],
        env={**clean, "PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.py")}


@pytest.fixture
def wheels(tmp_path):
    """The newest of what we need, with what those need themselves, and an OpenCV that asks for another NumPy."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    waiting, made = [each.name for each in needed()], set()
    while waiting:
        name = waiting.pop()
        if name.lower() in made:
            continue
        made.add(name.lower())
        wants = [
            Requirement(each)
            for each in metadata.requires(name) or ()
            if "extra" not in each.partition(";")[2]
        ]
        wants = [each for each in wants if each.marker is None or each.marker.evaluate()]
        make_wheel(folder, name, metadata.version(name), {}, [str(each) for each in wants])
        waiting += [each.name for each in wants]
    files = {"cv2/__init__.py": "plain = True\n"}
    make_wheel(folder, "opencv-python-headless", "5.0.0.93", files, ["numpy>=2"])
    return folder


@pytest.fixture
def neighbour(tmp_path):
    """The Python of an environment with OpenCV's contributed modules and the oldest of each package that we share."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    python = tmp_path / "env" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    old = tmp_path / "old"
    old.mkdir()
    make_wheel(old, *CONTRIB, {"cv2/__init__.py": "plain = False\n", "cv2/ximgproc/__init__.py": ""})
    for each in needed():
        (floor,) = each.specifier
        make_wheel(old, each.name, floor.version, {f"{each.name.replace('-', '_')}_old.py": ""})
    pip(python, "install", "--quiet", "--no-index", "--no-deps", *map(str, old.iterdir()))
    return python


def test_nothing_that_was_there_is_replaced(neighbour, wheels):
    (site,) = neighbour.parents[1].rglob("site-packages")
    before = json.loads(pip(neighbour, "list", "--format", "json"))
    files = contents(site)
    assert {"name": CONTRIB[0], "version": CONTRIB[1]} in before
    pip(neighbour, "install", "--no-index", "--find-links", str(wheels), "-r", str(REQUIREMENTS))
    after = json.loads(pip(neighbour, "list", "--format", "json"))
    assert [each for each in before if each not in after] == []
    assert {each["name"] for each in after if "opencv" in each["name"]} == {CONTRIB[0]}
    assert files.items() <= contents(site).items()
    # What the requirement would have done that is no longer there: the test sees it.
    pip(neighbour, "install", "--no-index", "--find-links", str(wheels), "opencv-python-headless>=4.8")
    assert contents(site)["cv2/__init__.py"] != files["cv2/__init__.py"]


def test_into_an_empty_environment_comes_no_opencv(tmp_path, wheels):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "empty"], check=True)
    python = tmp_path / "empty" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    pip(python, "install", "--no-index", "--find-links", str(wheels), "-r", str(REQUIREMENTS))
    names = {each["name"].lower() for each in json.loads(pip(python, "list", "--format", "json"))}
    assert {each.name.lower() for each in needed()} <= names
    assert not any("opencv" in name for name in names)


def tracked(*arguments: str) -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z", *arguments], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this is no git checkout")
    return [Path(name) for name in done.stdout.decode().split("\0") if name]


def test_the_packed_node_has_what_runs_and_no_more():
    """What `comfy node pack` takes: the tracked files but those of `.comfyignore`, which git reads the same way."""
    packed = set(tracked()) - set(tracked("-c", "-i", "--exclude-from=.comfyignore"))
    tops = {path.parts[0] for path in packed}
    assert not tops & {"tests", "training", "benchmarks", ".ci", "tasks.py"}
    code = {
        path for path in tracked() if path.parts[0] in ("sa2va_host", "sa2va_worker", "plugins", "locales")
    }
    assert code <= packed
    assert {Path(name) for name in ("__init__.py", "pyproject.toml", "requirements.txt", "LICENSE")} <= packed
    # Uncompressed; the bundled model is 10.2 MB of it, and the archive is smaller.
    assert sum((ROOT / path).stat().st_size for path in packed) < 13_000_000
