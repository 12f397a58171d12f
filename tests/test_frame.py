"""The project's frame agrees with itself: what is packaged, pinned, and named in several places."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

if sys.version_info < (3, 11):
    pytest.skip("tomllib came with Python 3.11", allow_module_level=True)

import tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NOT_PINNED = {
    "flash-attn": "needs an NVIDIA GPU and a compiler",
    "einops": "only for checkpoints that bring their own code",
    "peft": "only for checkpoints that bring their own code",
    "qwen-vl-utils": "only for checkpoints that bring their own code",
    "timm": "only for checkpoints that bring their own code",
    "torchvision": "only for checkpoints that bring their own code",
    "tomli": "only for Python 3.10",
}


def test_every_package_is_installed():
    packages = PROJECT["tool"]["setuptools"]["packages"]
    folders = {"sa2va_plugins": "plugins"}
    expected = set()
    for name in ("sa2va_host", "sa2va_worker", "sa2va_plugins"):
        top = ROOT / folders.get(name, name)
        expected |= {
            ".".join((name, *found.parent.relative_to(top).parts)) for found in top.rglob("__init__.py")
        }
    assert set(packages) == expected


def _normal(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_requirement_is_pinned():
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    pins = {_normal(name): version for name, version in pins.items()}
    requirements = [
        *PROJECT["project"]["dependencies"],
        *(line for extra in PROJECT["project"]["optional-dependencies"].values() for line in extra),
    ]
    names = {_normal(re.split(r"[<>=!;\[ ]", line, maxsplit=1)[0]) for line in requirements}
    assert names - set(pins) - {_normal(PROJECT["project"]["name"])} == set(NOT_PINNED)
    assert "+" not in pins["torch"]


def test_host_requirements_bring_no_torch():
    names = " ".join(PROJECT["project"]["dependencies"])
    assert not re.search(r"torch|transformers|accelerate", names)


def test_the_changelog_knows_this_version():
    version = PROJECT["project"]["version"]
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None
    assert first[1] == version == metadata.version("sa2va-host")


def test_make_knows_the_words_of_tasks():
    listed = subprocess.run(
        [sys.executable, ROOT / "tasks.py", "help"], capture_output=True, text=True, check=True
    )
    words = re.findall(r"^  ([\w-]+) +\S", listed.stdout, re.MULTILINE)
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    assert targets[1].split() == words


def test_readme_and_ci_run_the_same_tests():
    assert "    python3 tasks.py demo\n" in (ROOT / "README.md").read_text()
    command = "python3 tasks.py test"
    assert f"    {command}\n" in (ROOT / "README.md").read_text()
    assert f"\n{command}\n" in (ROOT / ".ci" / "run").read_text()
