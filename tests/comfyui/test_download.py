"""What is fetched from a node: only what the user chose, with its bytes, until Interrupt, from a server that speaks the
hub's language. Each time in a process of its own, since huggingface_hub reads its address when it is imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sa2va_host.models.checkpoints import pull_command
from tests.host.hub_server import COMMIT, OLDER, Hub, Repo, serving
from tests.vitmatte import write_checkpoint

torch = pytest.importorskip("torch")
pytest.importorskip("huggingface_hub")

HERE = Path(__file__).resolve().parent
MODEL = "ByteDance/Sa2VA-1B"
CHOICE = f"{MODEL} (download, 4.0 GB)"
CHUNK = 10 * 2**20
"""huggingface_hub writes what it receives in pieces of this size."""
WEIGHTS = bytes(range(256)) * (2 * CHUNK // 256) + b"the end"
FILES = {
    "config.json": b'{"model_type": "sa2va_chat"}',
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b"{}",
}
MATTING = "hustvl/vitmatte-small-composition-1k"
PROGRAM = """
import json, sys, threading
sys.path.insert(0, {stand_in!r})
import comfy.model_management, comfy.utils, comfy_execution.utils, folder_paths, server
folder_paths.models_dir = folder_paths.user_directory = {folder!r}
folder_paths.folders = {{"sa2va": [{folder!r} + "/models"]}}
comfy_execution.utils.context = comfy_execution.utils.ExecutionContext("a prompt", "1")
from sa2va_host.errors import Sa2VAError
from sa2va_plugins.comfyui import clients, download, legacy, model_list, refine_edges
from sa2va_plugins.comfyui.options import Options
from sa2va_plugins.comfyui.watch import watching

def ensure(choice, **options):
    with watching() as watch:
        return model_list.ensure(choice, Options(**options), watch)

def tell(**said):
    print(json.dumps(said), flush=True)
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    repo = Repo({COMMIT: FILES, OLDER: {**FILES, "config.json": b'{"model_type": "sa2va_chat", "old": 1}'}})
    with serving(Hub({MODEL: repo})) as hub:
        yield hub


@pytest.fixture
def environment(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Of a user whose hub is the little server and whose cache is empty."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return {
        **kept,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": hub.endpoint,
        "NO_PROXY": "127.0.0.1,localhost",
        "SA2VA_WORKER_PYTHON": sys.executable,
    }


def start(code: str, environment: dict[str, str], folder: Path) -> subprocess.Popen[str]:
    program = PROGRAM.format(stand_in=str(HERE / "stand_in"), folder=str(folder)) + code
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment,
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(code: str, environment: dict[str, str], folder: Path) -> list[dict[str, Any]]:
    process = start(code, environment, folder)
    out, err = process.communicate(timeout=110)
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()]


def test_an_entry_marked_as_a_download_is_fetched_with_its_bytes_shown_and_no_other_is(
    hub, environment, tmp_path
):
    code = f"""
tell(before=[ensure({MODEL!r}), model_list.entry({MODEL!r})])
input()
name = ensure({CHOICE!r})
tell(name=name, entry=model_list.entry(name), texts=server.texts, bars=comfy.utils.bars)
ensure({CHOICE!r})
"""
    process = start(code, environment, tmp_path)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == {"before": [MODEL, CHOICE]}
    assert hub.asked == []
    out, err = process.communicate("\n", timeout=110)
    assert process.returncode == 0, err
    said = json.loads(out)
    assert (said["name"], said["entry"]) == (MODEL, MODEL)
    assert "downloading 21 of 21 MB" in said["texts"]
    assert [len(WEIGHTS) + 30, len(WEIGHTS) + 30] in said["bars"]
    assert len(hub.transfers()) == 1
    assert (
        tmp_path / "hf/hub/models--ByteDance--Sa2VA-1B/snapshots" / COMMIT / "model.safetensors"
    ).is_file()


def test_interrupt_ends_a_download_that_stands_still_and_the_next_run_goes_on(hub, environment, tmp_path):
    hub.stall_after = CHUNK + 5
    code = f"""
def interrupt():
    comfy.model_management.interrupted = True

def when_bytes_came(event):
    threading.Timer(0.2, interrupt).start()

import sa2va_plugins.comfyui.watch as watch_module
shown = watch_module.Watch.event
watch_module.Watch.event = lambda self, event: (shown(self, event), when_bytes_came(event))
try:
    ensure({CHOICE!r})
except comfy.model_management.InterruptProcessingException:
    tell(interrupted=True)
watch_module.Watch.event = shown
input()
threading.Event().wait(0.3)  # the last timer may still be under way
comfy.model_management.interrupted = False
tell(name=ensure({CHOICE!r}))
"""
    process = start(code, environment, tmp_path)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == {"interrupted": True}
    assert not hub.released.is_set()
    hub.stall_after = -1
    hub.released.set()
    out, err = process.communicate("\n", timeout=110)
    assert process.returncode == 0, err
    assert json.loads(out) == {"name": MODEL}
    (file,) = (tmp_path / "hf/hub").glob("models--*/snapshots/*/model.safetensors")
    assert file.read_bytes() == WEIGHTS


def test_a_revision_of_the_options_or_the_settings_is_what_is_fetched(hub, environment, tmp_path):
    folder = tmp_path / "hf/hub/models--ByteDance--Sa2VA-1B/snapshots"
    run(f"ensure({CHOICE!r}, revision={OLDER!r})", environment, tmp_path)
    assert [each.name for each in folder.iterdir()] == [OLDER]
    settings = tmp_path / "sa2va.toml"
    settings.write_text(f'[models."{MODEL}"]\nrevision = "{COMMIT}"\n')
    run(f"ensure({CHOICE!r})", {**environment, "SA2VA_CONFIG": str(settings)}, tmp_path)
    assert {each.name for each in folder.iterdir()} == {OLDER, COMMIT}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("claims", "cannot be fetched: 9000000.0 GB are needed"),
        ("offline", "is not fetched: offline is set"),
        ("gone", "The hub has no model"),
    ],
)
def test_a_download_that_fails_is_one_sentence_with_what_to_do(hub, environment, tmp_path, change, words):
    if change == "claims":
        hub.repos[MODEL].claimed_size = 9 * 10**15
    elif change == "offline":
        environment["SA2VA_OFFLINE"] = "1"
    else:
        hub.repos.clear()
    code = f"""
try:
    ensure({CHOICE!r})
except Sa2VAError as error:
    tell(message=str(error), advice=error.advice)
"""
    (said,) = run(code, environment, tmp_path)
    assert words in said["message"]
    assert said["advice"]
    assert hub.transfers() == []


def test_nothing_is_fetched_that_no_python_here_could_run(hub, environment, tmp_path):
    del environment["SA2VA_WORKER_PYTHON"]
    code = f"""
from sa2va_host.machine.distribution import Missing
clients.missing_here = lambda: [Missing("accelerate>=1.0")]
try:
    ensure({CHOICE!r})
except Sa2VAError as error:
    tell(advice=error.advice)
"""
    (said,) = run(code, environment, tmp_path)
    assert said["advice"].endswith(f"{sys.executable} -m pip install 'accelerate>=1.0'")
    assert hub.asked == []


def test_a_model_that_is_not_here_names_its_entry_and_the_whole_command(hub, environment, tmp_path):
    code = f"""
try:
    clients.client({MODEL!r}, Options())
except Sa2VAError as error:
    tell(advice=error.advice)
"""
    (said,) = run(code, environment, tmp_path)
    assert said["advice"] == (
        f"Choose {CHOICE!r} in the node. Or outside of ComfyUI: Fetch it with `{pull_command(MODEL)}`."
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_vitmatte_is_fetched_where_its_marked_entry_was_chosen_and_xj_s_node_uses_it_then(
    hub, environment, tmp_path
):
    made = write_checkpoint(tmp_path / "made")
    hub.repos[MATTING] = Repo({COMMIT: {file.name: file.read_bytes() for file in made.iterdir()}})
    code = """
import torch
from sa2va_host import list_workers, stop_worker
image = torch.zeros(1, 64, 64, 3)
image[0, 16:48, 16:48, 0] = 1.0
edges = {"radius": 4, "erode": 1, "dilate": 1, "black_point": 0.15, "white_point": 0.99, "max_megapixels": 2.0}
Refine, XJ = refine_edges.Sa2VARefineEdges, legacy.XJSa2VAImageSegmentationV2

def offered():
    return Refine.define_schema().inputs[1].options["options"]

def attempt(call):
    try:
        return call()
    except Sa2VAError as error:
        tell(message=error.message, advice=error.advice)

old = lambda: XJ.execute("sa2va-tiny", image, "the red square", 0.5, False, True, False).args
attempt(old)
attempt(lambda: Refine.execute(image, "ViTMatte", **edges, mask=image[..., 0]))
check = lambda method: Refine.validate_inputs(method, mask=None)
tell(offered=offered(), valid=check("ViTMatte"), invalid=check("GrabCut"))
choice = offered()[1]
(matte,) = Refine.execute(image, choice, **edges, mask=image[..., 0]).args
tell(shape=list(matte.shape), inside=float(matte[0, 32, 32]), outside=float(matte[0, 0, 0]), offered=offered(),
    valid=Refine.validate_inputs(choice, mask=None))
text, masks = old()
tell(masks=list(masks.shape), values=sorted(set(masks.flatten().tolist())))
clients.close_all()
for worker in list_workers():
    stop_worker(worker, force=True)
"""
    missing, again, before, refined, old = run(code, environment, tmp_path)
    assert missing == again
    assert missing["message"] == f"ViTMatte's weights, {MATTING}, are not on this machine."
    assert "Choose 'ViTMatte (download, 103 MB)' as the method of Sa2VA Refine Edges" in missing["advice"]
    assert f"`{pull_command(MATTING)}`" in missing["advice"]
    assert before["offered"] == ["guided filter", "ViTMatte (download, 103 MB)"]
    assert before["valid"] is True
    assert "GrabCut" in before["invalid"]
    assert (refined["shape"], refined["inside"], refined["outside"]) == ([1, 64, 64], 1.0, 0.0)
    assert refined["offered"] == ["guided filter", "ViTMatte"]
    assert refined["valid"] is True
    assert old["masks"][1:] == [64, 64]
    assert set(old["values"]) <= {0.0, 1.0}
