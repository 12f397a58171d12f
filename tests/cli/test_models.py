"""`sa2va models`, `sa2va pull`, and what is said about a model that nobody named."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sa2va_host.machine.commands import sa2va_command
from sa2va_host.models.checkpoints import bundled_folder, pull_command
from sa2va_host.models.choice import BUNDLED
from tests.host.hub_server import COMMIT, Hub, Repo, serving

from .conftest import PROGRAM

Command = Callable[..., subprocess.CompletedProcess[str]]
MODEL = "Org/Sa2VA-Small"
CHUNK = 10 * 2**20
"""huggingface_hub writes what it receives in pieces of this size."""
WEIGHTS = bytes(range(256)) * (2 * CHUNK // 256)


@pytest.fixture
def hub() -> Iterator[Hub]:
    files = {"config.json": b'{"model_type": "sa2va_chat"}', "model.safetensors": WEIGHTS}
    with serving(Hub({MODEL: Repo({COMMIT: files})})) as hub:
        yield hub


@pytest.fixture
def environment(environment: dict[str, str], hub: Hub, tmp_path: Path) -> dict[str, str]:
    """Of a user without models whose hub is the little server."""
    clean = {name: value for name, value in environment.items() if not name.startswith(("HF_", "HUGGING"))}
    clean |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1,localhost"}
    return clean


def test_a_model_that_is_not_here_is_pulled_and_then_found(sa2va: Command, hub: Hub, tmp_path: Path) -> None:
    segment = ("chat", "--prompt", "hello", "--model", MODEL)
    missing = sa2va(*segment)
    assert missing.returncode == 3
    assert (
        missing.stderr == f"sa2va: {MODEL} is not on this machine. Fetch it with `{pull_command(MODEL)}`.\n"
    )
    assert hub.asked == [], "nothing is fetched that nobody asked for"
    pulled = sa2va("pull", MODEL)
    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stdout.startswith(f"{MODEL} is here, 21 MB in {tmp_path / 'hf'}")
    document = json.loads(sa2va("pull", MODEL, "--json").stdout)
    assert (document["name"], document["revision"], document["source"]) == (MODEL, COMMIT, "cache")
    assert (Path(document["path"]) / "model.safetensors").read_bytes() == WEIGHTS
    (listed,) = [
        each for each in json.loads(sa2va("models", "--json").stdout)["models"] if each["name"] == MODEL
    ]
    assert listed == document
    assert len(hub.transfers()) == 1


def test_ctrl_c_stops_at_once_and_the_next_pull_goes_on(
    sa2va: Command, hub: Hub, environment: dict[str, str], tmp_path: Path
) -> None:
    hub.stall_after = CHUNK + 1000
    with subprocess.Popen(
        [*PROGRAM, "pull", MODEL], env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as running:
        wait_until(lambda: [path for path in tmp_path.rglob("*.incomplete") if path.stat().st_size >= CHUNK])
        begun = time.monotonic()
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130
        assert time.monotonic() - begun < 10
        assert running.stderr is not None
        said = running.stderr.read().splitlines()
    assert said[-2:] == ["What has come is kept; the same command goes on from there.", "Cancelled."]
    hub.stall_after = -1
    assert sa2va("pull", MODEL).returncode == 0
    assert hub.transfers() == ["", f"bytes={CHUNK}-"]


def test_progress_is_plain_lines_without_a_terminal(
    hub: Hub, environment: dict[str, str], tmp_path: Path
) -> None:
    hub.stall_after = CHUNK + 1000
    with subprocess.Popen(
        [*PROGRAM, "pull", MODEL], env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as running:
        wait_until(hub.transfers)
        time.sleep(2.1)  # longer than the display is silent
        hub.released.set()
        assert running.wait(60) == 0
        assert running.stderr is not None
        assert "downloading 21.0 of 21.0 MB ..." in running.stderr.read().splitlines()


@pytest.mark.parametrize(
    ("arguments", "extra", "code", "message"),
    [
        (("Org/Nothing",), {}, 3, "The hub has no model Org/Nothing, or it is private."),
        (("Org/Nothing",), {"HF_TOKEN": "x"}, 3, "The hub has no model Org/Nothing: the name is wrong."),
        (("bytedance/sa2va-4b",), {"HF_TOKEN": "x"}, 3,
         "The hub has no model bytedance/sa2va-4b: the name is wrong (did you mean ByteDance/Sa2VA-4B?)."),
        ((MODEL, "--revision", "v9"), {}, 3, f"{MODEL} has no revision 'v9'."),
        ((MODEL,), {"SA2VA_OFFLINE": "1"}, 3, f"{MODEL} is not fetched: offline is set."),
        (("sa2va-tiny",), {}, 2, "'sa2va-tiny' is no name of the hub. It looks like ORG/NAME."),
    ],
)  # fmt: skip
def test_a_pull_that_fails_says_why_in_a_sentence(
    sa2va: Command, arguments: tuple[str, ...], extra: dict[str, str], code: int, message: str
) -> None:
    done = sa2va("pull", *arguments, extra=extra)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"sa2va: {message}")
    assert done.stderr.count("\n") == 1


def test_the_list_shows_what_is_here_and_what_is_broken(sa2va: Command, tmp_path: Path) -> None:
    shutil.copytree(bundled_folder() / BUNDLED, tmp_path / "models" / "mine")
    broken = tmp_path / "models" / "Org" / "Sa2VA-Broken"
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("{")
    extra = {"SA2VA_MODEL_FOLDERS": str(tmp_path / "models"), "SA2VA_MODEL": "", "CUDA_VISIBLE_DEVICES": ""}
    done = sa2va("models", extra=extra)
    assert done.returncode == 0, done.stderr
    head, bundled, nested, mine, default, better = done.stdout.splitlines()
    assert head.split() == ["NAME", "FAMILY", "SIZE", "FROM", "STATE", "PATH"]
    assert bundled.split()[:2] == [BUNDLED, "qwen3_vl"]
    assert bundled.split()[4:] == ["bundled", "ok", str(bundled_folder() / BUNDLED)]
    assert nested.startswith("Org/Sa2VA-Broken  ?")
    assert "folder   config.json cannot be read" in nested
    assert mine.split()[:2] == ["mine", "qwen3_vl"]
    assert default.startswith(f"The default is {BUNDLED}: there is no NVIDIA GPU")
    assert better.startswith(
        f"For this machine: `{pull_command('ByteDance/Sa2VA-1B')}`. The download has 4.0 GB; there is no"
    )
    document = json.loads(sa2va("models", "--json", extra=extra).stdout)
    assert set(document["models"][0]) == {"name", "family", "size", "source", "revision", "path", "problem"}
    assert [each["problem"] is None for each in document["models"]] == [True, False, True]
    assert document["default"]["model"] == BUNDLED
    assert document["recommended"]["command"] == pull_command("ByteDance/Sa2VA-1B")


def test_what_cannot_run_is_refused_before_the_download_and_marked_in_the_list(
    sa2va: Command, hub: Hub, tmp_path: Path
) -> None:
    model = "ByteDance/Sa2VA-Qwen3-VL-4B-SAM3"
    pulled = sa2va("pull", model)
    named = sa2va("chat", "--prompt", "hello", "--model", model)
    assert (pulled.returncode, named.returncode) == (3, 3)
    assert pulled.stderr == named.stderr
    assert pulled.stderr.startswith(
        f"sa2va: {model} finds its masks with SAM 3, and only SAM 2 is supported."
    )
    assert hub.asked == []
    shutil.copytree(bundled_folder() / BUNDLED, tmp_path / "models" / "SaSaSa2VA-4B")
    extra = {"SA2VA_MODEL_FOLDERS": str(tmp_path / "models")}
    (line,) = [line for line in sa2va("models", extra=extra).stdout.splitlines() if "SaSaSa2VA-4B" in line]
    assert "not supported: it answers with ten [SEG]" in line


def test_what_the_hub_has_is_listed_when_asked_for(sa2va: Command, tmp_path: Path) -> None:
    here = tmp_path / "models" / "Sa2VA-Qwen3-VL-4B"
    shutil.copytree(bundled_folder() / BUNDLED, here)
    (tmp_path / "sa2va.toml").write_text(
        f'model_folders = ["{here.parent}"]\n[models."Org/Own"]\nrevision = "v2"\n'
        f'[models."Org/Placed"]\npath = "{bundled_folder() / BUNDLED}"\n'
    )
    extra = {"SA2VA_CONFIG": str(tmp_path / "sa2va.toml"), "SA2VA_MODEL": "sa2va-tiny"}
    done = sa2va("models", "--all", extra=extra)
    assert done.returncode == 0, done.stderr
    found, _, known = done.stdout.partition("\n\n")
    assert "Org/Placed" in found
    assert f"`{sa2va_command('pull')} NAME` fetches one" in known
    names = {line.split()[0] for line in known.splitlines()[2:]}
    assert {"ByteDance/Sa2VA-InternVL3-8B", "kumuji/Sa2VA-i-4B", "Org/Own"} <= names
    assert not names & {"ByteDance/Sa2VA-Qwen3-VL-4B", "Org/Placed"}, "they are here"
    document = json.loads(sa2va("models", "--all", "--json", extra=extra).stdout)
    absent = {each["name"]: each for each in document["absent"]}
    assert absent["Org/Own"]["command"] == pull_command("Org/Own", "v2")
    assert absent["Org/Own"]["memory"] == {"none": None, "8bit": None, "4bit": None}
    assert absent["ByteDance/Sa2VA-InternVL3-8B"]["memory"]["none"] == 18_000_000_000
    assert absent["ByteDance/Sa2VA-InternVL3-8B"]["published"] == ["none", "8bit"]
    assert "absent" not in json.loads(sa2va("models", "--json", extra=extra).stdout)


def test_where_nobody_named_a_model_the_bundled_one_says_what_it_knows_and_what_to_fetch(
    sa2va: Command,
) -> None:
    quiet = sa2va("chat", "--prompt", "hello")
    assert "No model was named" not in quiet.stderr, "scripted: was named by the settings"
    told = sa2va("chat", "--prompt", "hello", extra={"SA2VA_MODEL": "", "CUDA_VISIBLE_DEVICES": ""})
    assert told.returncode == 0, told.stderr
    (note,) = [line for line in told.stderr.splitlines() if "No model was named" in line]
    assert f"so {BUNDLED} answers. It knows drawn shapes only" in note
    assert "pull ByteDance/Sa2VA-1B" in note
    assert "there is no NVIDIA GPU" in note
    assert told.stdout.startswith("hello [0]")


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for something to become true, as long as a busy machine may need."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
