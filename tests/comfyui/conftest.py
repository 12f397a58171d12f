"""The nodes with a stand-in for ComfyUI, and real workers whose engine is a script."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.scripted import scripted_python

torch = pytest.importorskip("torch")

HERE = Path(__file__).resolve().parent
MODEL = "scripted:"


@pytest.fixture(scope="session", autouse=True)
def _stand_in() -> Iterator[None]:
    """ComfyUI's module names lead to the stand-in; nothing else is shadowed."""
    folder = str(HERE / "stand_in")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)


@pytest.fixture
def comfy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The stand-in's modules as they are after a start, and a worker that is scripted."""
    import comfy.model_management
    import comfy.utils
    import comfy_execution.utils
    import execution
    import folder_paths
    import server

    from sa2va_plugins.comfyui import clients
    from sa2va_plugins.comfyui.result_cache import RESULTS

    RESULTS.clear()
    monkeypatch.setattr(execution.PromptExecutor, "reset", execution.PromptExecutor.reset)
    monkeypatch.setattr(comfy.model_management, "interrupted", False)
    monkeypatch.setattr(comfy.model_management, "unload_all_models", comfy.model_management.unload_all_models)
    monkeypatch.setattr(comfy_execution.utils, "context", None)
    monkeypatch.setattr(folder_paths, "folders", {"sa2va": [str(tmp_path / "models" / "sa2va")]})
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path / "user"))
    for recorded in (
        comfy.model_management.unloads,
        comfy.utils.bars,
        comfy.utils.previews,
        server.texts,
        server.running,
    ):
        recorded.clear()
    if sys.platform != "win32":
        monkeypatch.setenv("SA2VA_WORKER_PYTHON", str(scripted_python(tmp_path)))
    yield SimpleNamespace(
        management=comfy.model_management,
        bars=comfy.utils.bars,
        previews=comfy.utils.previews,
        execution=comfy_execution.utils,
        folders=folder_paths,
        server=server,
    )
    clients.close_all()


@pytest.fixture
def worker(comfy: SimpleNamespace) -> Iterator[Callable[[], list[Any]]]:
    """The workers that live now; all are ended afterwards."""
    if os.name == "nt":
        pytest.skip("the stand-in for the worker's interpreter is a shell script")
    from sa2va_host import list_workers, stop_worker

    yield list_workers
    for each in list_workers():
        stop_worker(each, force=True)


@pytest.fixture
def image() -> Any:
    """IMAGE `[2, 48, 64, 3]`, black, with a white square that moves; the script finds what is bright."""
    pictures = torch.zeros(2, 48, 64, 3)
    pictures[0, 12:36, 16:40] = 1.0
    pictures[1, 12:36, 24:48] = 1.0
    return pictures


def execution_of(comfy: SimpleNamespace, connected: list[int]) -> None:
    """Pretend that node 1 is executed, and that these of its outputs lead to node 2."""
    comfy.execution.context = comfy.execution.ExecutionContext("a prompt", "1")
    inputs = {f"input{index}": ["1", index] for index in connected}
    prompt = {"1": {"inputs": {}}, "2": {"inputs": inputs}}
    comfy.server.running[:] = [(0, "a prompt", prompt)]
