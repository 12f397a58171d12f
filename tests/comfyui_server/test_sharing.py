"""One worker for all who want it: two servers, one of them restarted in place, and the command beside them."""

import os
import subprocess
import sys
import time
import urllib.error
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sa2va_host import Sa2VA, list_workers

from .comfyui import prepare, serving
from .conftest import DIRECTORY, PYTHON
from .workflows import MODEL, PICTURE, PROMPT, graph

RESTART = """
import os, sys
from server import PromptServer

@PromptServer.instance.routes.get("/restart_in_place")
async def restart(request):
    os.execv(sys.executable, [sys.executable, *sys.argv])

NODE_CLASS_MAPPINGS = {}
"""
"""A node pack that restarts ComfyUI as its Manager does: the same process id, another program."""


@pytest.fixture(scope="module")
def second(environment, tmp_path_factory):
    """A second server, which can be restarted."""
    base = prepare(tmp_path_factory.mktemp("second"))
    pack = base / "custom_nodes" / "restart"
    pack.mkdir()
    (pack / "__init__.py").write_text(RESTART)
    with serving(Path(DIRECTORY), base, python=PYTHON, environment=environment) as started:
        yield started


@pytest.fixture(scope="module")
def expected(_a_world_of_its_own):
    """The masks of the picture, uint8 `[objects, height, width]`."""
    with Sa2VA(MODEL) as sa:
        return sa.segment(PICTURE, PROMPT).masks(0.5) * np.uint8(255)


def masks(server, run):
    assert run.status == "success", run.error
    return np.stack([np.asarray(Image.open(file))[:, :, 0] for file in server.saved(run, "5")])


def test_two_servers_and_the_command_at_once_share_one_worker_and_get_right_answers(
    server, second, expected, tmp_path
):
    (worker,) = list_workers()
    runs = [(each, each.queue(graph(amount=12, save=True))) for each in (server, second)]
    command = "from sa2va_plugins.command import main; raise SystemExit(main())"
    said = ["segment", str(PICTURE), "--prompt", PROMPT, "--model", MODEL, "--save", "masks", "-o"]
    beside = subprocess.Popen([sys.executable, "-c", command, *said, str(tmp_path)], cwd=tmp_path)
    assert beside.wait(120) == 0
    found = [np.asarray(Image.open(file)) for file in sorted(tmp_path.rglob("*.png"))]
    assert np.array_equal(np.stack(found), expected)
    for each, prompt_id in runs:
        # A list of masks: for each object those of the twelve pictures.
        made = masks(each, each.wait(prompt_id))
        assert np.array_equal(made, np.repeat(expected, 12, axis=0))
    assert [each.pid for each in list_workers()] == [worker.pid]


def test_a_server_that_is_restarted_in_place_finds_its_warm_worker(second, expected):
    assert np.array_equal(masks(second, second.run(graph(save=True))), expected)
    (worker,) = list_workers()
    started = second.log.read_text(errors="replace").count("Starting server")
    with pytest.raises((urllib.error.URLError, ConnectionError, TimeoutError)):
        second.get("/restart_in_place")
    while second.log.read_text(errors="replace").count("Starting server") == started:
        assert second.process.poll() is None, second.tail()
        time.sleep(0.1)
    second.await_start()
    os.kill(second.process.pid, 0)
    assert np.array_equal(masks(second, second.run(graph(save=True))), expected)
    assert [each.pid for each in list_workers()] == [worker.pid]


def test_a_restarted_server_frees_the_worker_that_it_started_before(second):
    second.run(graph(amount=2))
    second.post("/free", {"unload_models": True, "free_memory": True})
    while list_workers():
        time.sleep(0.05)
    with Sa2VA(MODEL) as sa:
        assert sa.segment(PICTURE, PROMPT).masks(0.5).any()
