"""What the pack owes to ComfyUI and its user: memory, model folders, settings, and no process before a node runs."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from sa2va_host.errors import WorkerStartFailed

from .conftest import MODEL

torch = pytest.importorskip("torch")


@pytest.fixture
def folder(comfy, tmp_path):
    """`models/sa2va`, registered with ComfyUI."""
    from sa2va_plugins.comfyui.model_list import register_folder

    register_folder()
    path = tmp_path / "models" / "sa2va"
    path.mkdir(parents=True)
    return path


def checkpoint(path: Path) -> Path:
    """A folder that looks like a Sa2VA checkpoint."""
    path.mkdir(parents=True)
    (path / "config.json").write_text('{"model_type": "sa2va_chat"}')
    (path / "model.safetensors").write_bytes(b"weights")
    return path


def test_unloading_in_comfyui_ends_idle_workers(worker, comfy, image):
    from sa2va_plugins.comfyui.memory import follow_comfyui
    from sa2va_plugins.comfyui.segment_image import Sa2VAImageSegmentation

    follow_comfyui()
    follow_comfyui()
    Sa2VAImageSegmentation.execute(MODEL, image, "objects=1", 0.5)
    assert len(worker()) == 1
    comfy.management.unload_all_models()
    assert comfy.management.unloads == ["models"]
    assert worker() == []


def test_comfyui_makes_room_before_the_worker_loads_and_the_worker_stays(worker, comfy, image, monkeypatch):
    from sa2va_plugins.comfyui.memory import follow_comfyui
    from sa2va_plugins.comfyui.segment_image import Sa2VAImageSegmentation

    follow_comfyui()
    monkeypatch.setattr(comfy.management, "get_torch_device", lambda: torch.device("cuda"))
    for _ in range(2):
        Sa2VAImageSegmentation.execute(MODEL, image, "objects=1", 0.5)
        assert comfy.management.unloads == ["models"]
    assert len(worker()) == 1


def test_a_comfyui_without_that_moment_still_works_and_says_so_once(comfy, monkeypatch, caplog):
    from sa2va_plugins.comfyui.memory import follow_comfyui, make_room

    monkeypatch.delattr(comfy.management, "unload_all_models")
    with caplog.at_level(logging.WARNING):
        follow_comfyui()
    make_room()
    assert [record.message for record in caplog.records if "Sa2VA Unload" in record.message]


def test_models_on_disk_come_first_and_downloads_are_marked_with_their_size(folder):
    from sa2va_plugins.comfyui.model_list import choices

    checkpoint(folder / "ByteDance" / "Sa2VA-Qwen3-VL-4B")
    checkpoint(folder / "mine")
    names = choices()
    assert names[:2] == ["auto", "sa2va-tiny"]
    assert set(names[2:4]) == {"ByteDance/Sa2VA-Qwen3-VL-4B", "mine"}
    assert "ByteDance/Sa2VA-1B (download, 4.0 GB)" in names[4:]
    assert not any(name.startswith("ByteDance/Sa2VA-Qwen3-VL-4B (") for name in names)


def test_an_entry_means_the_same_model_before_and_after_its_download(folder):
    from sa2va_plugins.comfyui.model_list import plain

    assert plain("ByteDance/Sa2VA-1B (download, 4.0 GB)") == "ByteDance/Sa2VA-1B"
    assert plain("ByteDance/Sa2VA-26B (download)") == "ByteDance/Sa2VA-26B"
    assert plain("my model (new)") == "my model (new)"


def test_models_are_found_in_every_folder_of_comfyui(folder, comfy, tmp_path):
    from sa2va_plugins.comfyui.clients import client
    from sa2va_plugins.comfyui.options import DEFAULT

    elsewhere = tmp_path / "elsewhere"
    comfy.folders.add_model_folder_path("sa2va", str(elsewhere))
    made = checkpoint(elsewhere / "ByteDance" / "Sa2VA-Qwen3-VL-2B")
    assert client("ByteDance/Sa2VA-Qwen3-VL-2B", DEFAULT).specification.checkpoint == str(made)


def test_a_list_that_cannot_be_made_still_draws_the_node(folder, monkeypatch):
    from sa2va_plugins.comfyui.model_list import choices

    monkeypatch.setenv("SA2VA_DEVICE", "nonsense")
    assert choices() == ["auto"]


def test_without_an_environment_for_the_worker_the_node_names_the_command(comfy, monkeypatch):
    from sa2va_host.machine.distribution import Missing
    from sa2va_plugins.comfyui import clients
    from sa2va_plugins.comfyui.options import DEFAULT

    monkeypatch.delenv("SA2VA_WORKER_PYTHON", raising=False)
    monkeypatch.setattr(clients, "missing_here", lambda: [Missing("transformers>=5.5", "4.57.1")])
    with pytest.raises(WorkerStartFailed, match=r"lacks transformers>=5.5 .* Run this once .* setup$"):
        clients.client("sa2va-tiny", DEFAULT)
    monkeypatch.setattr(clients, "missing_here", lambda: [Missing("accelerate>=1.0")])
    with pytest.raises(
        WorkerStartFailed, match=r"lacks accelerate>=1.0\. .* -m pip install 'accelerate>=1.0'$"
    ):
        clients.client("sa2va-tiny", DEFAULT)


def test_what_the_environment_lacks_is_read_from_its_metadata(comfy):
    from sa2va_plugins.comfyui.clients import missing_here

    assert missing_here() == []
    found = missing_here(lambda names: dict.fromkeys(names, "4.57.1"))
    assert "transformers>=5.5 (4.57.1 is installed)" in map(str, found)


def test_the_old_names_are_offered_where_a_user_wants_them(comfy, tmp_path):
    from sa2va_plugins.comfyui.preferences import OLD_NAMES, is_on

    assert not is_on(OLD_NAMES)
    settings = tmp_path / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({OLD_NAMES: True}))
    assert is_on(OLD_NAMES)
    settings.write_text("{")
    assert not is_on(OLD_NAMES)


RESTART = """
import os, sys
import numpy as np
from sa2va_host import Sa2VA

sa = Sa2VA("scripted:")
result = sa.segment(np.full((8, 8, 3), 255, np.uint8), "objects=1")
print(os.getpid(), result.worker.pid, int(result.masks().sum()), flush=True)
if sys.argv[1:] != ["again"]:
    os.execv(sys.executable, [sys.executable, sys.argv[0], "again"])
"""


def test_a_restart_in_place_keeps_the_worker_and_gets_right_answers(worker, tmp_path):
    """As ComfyUI's manager restarts it: the same process id, another program."""
    script = tmp_path / "restart.py"
    script.write_text(RESTART)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True, timeout=60, cwd=tmp_path
    )
    before, after = done.stdout.splitlines()
    assert before == after
    assert before.endswith(" 64")
    assert len(worker()) == 1


def test_bytes_are_shown_as_gigabytes(comfy):
    from sa2va_host.events import Progress
    from sa2va_plugins.comfyui.watch import describe

    assert describe(Progress("loading", 1_200_000_000, 9_300_000_000, "bytes")) == "loading 1.2 of 9.3 GB"
    assert describe(Progress("tracking", 12, 500, "frames")) == "tracking 12 of 500 frames"
    assert describe(Progress("starting")) == "starting"
