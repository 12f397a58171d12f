"""One real ComfyUI server for these tests: `make test-comfyui COMFYUI_DIR=...`, skipped without the variable.

`COMFYUI_DIR` is a checkout of ComfyUI, `COMFYUI_PYTHON` the Python with its requirements and this repository's
`requirements.txt` (default: that of `COMFYUI_DIR/.venv`). The worker runs in the tests' own Python.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sa2va_host import list_workers
from tests.scripted import scripted_python

from .comfyui import ComfyUI, prepare, serving
from .workflows import options, to_prompt

DIRECTORY = os.environ.get("COMFYUI_DIR", "")
PYTHON = os.environ.get("COMFYUI_PYTHON") or str(Path(DIRECTORY) / ".venv" / "bin" / "python")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Nothing here runs without a checkout; everything is slow with one."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skipif(not DIRECTORY, reason="COMFYUI_DIR names no ComfyUI"))
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def environment(_a_world_of_its_own: None) -> dict[str, str]:
    """What makes a server use our Python for the worker; run directory and settings are the session's."""
    return {"SA2VA_WORKER_PYTHON": sys.executable, "SA2VA_TRUST_WORKFLOWS": "1"}


@pytest.fixture(scope="session")
def server(environment: dict[str, str]) -> Iterator[ComfyUI]:
    """The server, with the old names offered and its workflows trusted."""
    with tempfile.TemporaryDirectory(prefix="comfyui-") as folder:
        base = prepare(Path(folder), {"Sa2VA.OldNames": True})
        with serving(Path(DIRECTORY), base, python=PYTHON, environment=environment) as started:
            assert list_workers() == [], "loading the pack started a process"
            yield started


@pytest.fixture(scope="session")
def nodes(server: ComfyUI) -> dict[str, Any]:
    """The server's `/object_info`."""
    found: dict[str, Any] = server.get("/object_info")
    return found


@pytest.fixture(scope="session")
def prompt_of(nodes: dict[str, Any]) -> Callable[[Path], dict[str, Any]]:
    """Turns a workflow file into what the server's API takes."""
    return lambda file: to_prompt(file, nodes)


@pytest.fixture
def scripted(tmp_path: Path) -> dict[str, Any]:
    """A node Model Options whose worker is a script (`tests/lifecycle/scripted_worker.py`): it hangs on demand."""
    return options(worker_python=str(scripted_python(tmp_path)))


def wait_for_worker(phases: tuple[str, ...], seconds: float = 120) -> int:
    """The process id of the worker, once it is in one of these phases."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for worker in list_workers():
            if worker.phase in phases:
                return worker.pid
        time.sleep(0.02)
    raise AssertionError(f"no worker came to {phases}: {list_workers()}")
