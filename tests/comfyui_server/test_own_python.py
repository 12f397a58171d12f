"""ComfyUI's own Python runs the worker too, where it has what that needs: from the clone, with the clone's plugins."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sa2va_host import list_workers, stop_worker
from tests.vitmatte import write_checkpoint

from .comfyui import prepare, serving
from .conftest import DIRECTORY, PYTHON
from .workflows import graph, node

LIBRARIES = "import accelerate, safetensors, sentencepiece, torch, transformers"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server to which nobody named an interpreter for the worker, with a ViTMatte among its models."""
    if subprocess.run([PYTHON, "-c", LIBRARIES], capture_output=True, check=False).returncode:
        pytest.skip(f"{PYTHON} has not what the worker needs")
    for worker in list_workers():
        stop_worker(worker, force=True)
    base = prepare(tmp_path_factory.mktemp("own"))
    write_checkpoint(base / "models" / "sa2va" / "hustvl" / "vitmatte-small-composition-1k")
    with serving(Path(DIRECTORY), base, python=PYTHON, environment={"SA2VA_WORKER_PYTHON": ""}) as started:
        yield started
    for worker in list_workers():
        stop_worker(worker, force=True)


def test_vitmatte_runs_in_it(server):
    nodes = graph()
    details = {"radius": 8, "erode": 6, "dilate": 6, "black_point": 0.15, "white_point": 0.99}
    nodes["6"] = node(
        "Sa2VARefineEdges",
        **{"image": ["2", 0], "tracks": ["3", 5], "method": "ViTMatte", "max_megapixels": 2.0} | details,
    )
    nodes["7"] = node("MaskToImage", mask=["6", 0])
    nodes["8"] = node("SaveImage", images=["7", 0], filename_prefix="matte")
    run = server.run(nodes)
    assert run.status == "success", run.error
    (file,) = server.saved(run, "8")
    matte = np.asarray(Image.open(file))[:, :, 0]
    assert ((matte > 0) & (matte < 255)).any()
    (worker,) = list_workers()
    command = Path(f"/proc/{worker.pid}/cmdline").read_bytes().split(b"\0")
    assert command[0].decode() == PYTHON
