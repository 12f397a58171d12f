"""Fetching from a real server that speaks the hub's language, each time in a process of its own."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sa2va_host.errors import InvalidInput, ModelNotFound
from sa2va_host.models.checkpoints import find, pull_command
from sa2va_host.models.hub import pull
from tests.host.hub_server import COMMIT, OLDER, Hub, Repo, etag, serving

MODEL = "Org/Sa2VA-Small"
CHUNK = 10 * 2**20
"""huggingface_hub writes what it receives in pieces of this size."""
WEIGHTS = bytes(range(256)) * (2 * CHUNK // 256) + b"the end"
SMALL = {
    "config.json": b'{"model_type": "sa2va_chat"}',
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "merges.txt": b"a b",
    "chat_template.jinja": b"{{ messages }}",
}
UNWANTED = {
    "pytorch_model.bin": b"a pickle",
    "modeling_sa2va.py": b"raise SystemExit",
    "README.md": b"words",
    "onnx/config.json": b"{}",
    "onnx/model.safetensors": b"other weights",
}
PROGRAM = """
import json, sys
from sa2va_host.errors import Sa2VAError
from sa2va_host.models.hub import pull

for model, revision in json.loads(sys.argv[1]):
    events = []
    try:
        found = pull(model, revision=revision, on_event=events.append)
    except (Sa2VAError, OSError) as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))
    else:
        print(json.dumps({"folder": str(found.folder), "name": found.name, "revision": found.revision,
            "progress": [(event.phase, event.done, event.total, event.unit) for event in events]}))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub({MODEL: Repo({COMMIT: {**SMALL, **UNWANTED}})})) as hub:
        yield hub


@pytest.fixture
def environment(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Of a user whose hub is the little server and whose cache is empty; this process looks into the same cache."""
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    return {**os.environ, "HF_ENDPOINT": hub.endpoint}


def run_pulls(environment: dict[str, str], *calls: tuple[str, str]) -> list[dict[str, Any]]:
    """What each call of `pull` with a model and a revision came to, in one process for all."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(calls)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def repository(tmp_path: Path) -> Path:
    return tmp_path / "hf" / "hub" / "models--Org--Sa2VA-Small"


def test_what_was_pulled_is_found_and_is_what_a_checkpoint_needs(
    hub: Hub, environment: dict[str, str], tmp_path: Path
) -> None:
    first, second = run_pulls(environment, (MODEL, ""), (MODEL, ""))
    found = find(MODEL)
    assert found == find(MODEL, revision=COMMIT)
    assert (str(found.folder), found.name, found.revision) == (
        first["folder"],
        MODEL,
        COMMIT,
    )
    assert found.source == "cache"
    assert {path.name: path.read_bytes() for path in found.folder.iterdir()} == SMALL
    assert not list(repository(tmp_path).rglob("*.incomplete"))
    size = sum(map(len, SMALL.values()))
    assert first["progress"][-1] == ["downloading", size, size, "bytes"]
    assert (second["folder"], second["progress"]) == (first["folder"], [])
    assert len(hub.transfers()) == 1


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: Hub, environment: dict[str, str]) -> None:
    hub.repos[MODEL].commits[OLDER] = {**SMALL, "merges.txt": b"older"}
    hub.repos[MODEL].revisions |= {"refs/pr/1": COMMIT, "v1": OLDER}
    by_tag, by_commit, by_branch = run_pulls(environment, (MODEL, "v1"), (MODEL, OLDER), (MODEL, "refs/pr/1"))
    assert by_tag["folder"] == by_commit["folder"]
    assert (by_tag["revision"], by_branch["revision"]) == (OLDER, COMMIT)
    for revision in ("v1", OLDER):
        assert (find(MODEL, revision=revision).folder / "merges.txt").read_bytes() == b"older"


def test_a_broken_connection_is_taken_up_where_it_broke(
    hub: Hub, environment: dict[str, str], tmp_path: Path
) -> None:
    hub.repos[MODEL].commits[COMMIT]["model.safetensors"] = WEIGHTS
    hub.break_after = [CHUNK + 1000]
    (done,) = run_pulls(environment, (MODEL, ""))
    assert (Path(done["folder"]) / "model.safetensors").read_bytes() == WEIGHTS
    assert hub.transfers() == ["", f"bytes={CHUNK}-"]


@pytest.mark.parametrize("kept", [WEIGHTS[:5000], b"\0" * 5000], ids=["intact", "with a hole"])
def test_what_an_earlier_call_left_is_used_if_it_is_right(
    hub: Hub, environment: dict[str, str], tmp_path: Path, kept: bytes
) -> None:
    hub.repos[MODEL].commits[COMMIT]["model.safetensors"] = WEIGHTS
    blobs = repository(tmp_path) / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{etag('model.safetensors', WEIGHTS)}.incomplete").write_bytes(kept)
    (done,) = run_pulls(environment, (MODEL, ""))
    assert (Path(done["folder"]) / "model.safetensors").read_bytes() == WEIGHTS
    whole_again = [] if WEIGHTS.startswith(kept) else [""]
    assert hub.transfers() == ["bytes=5000-", *whole_again]


def test_who_brings_a_token_gets_a_gated_model_and_only_the_hub_sees_the_token(
    hub: Hub, environment: dict[str, str]
) -> None:
    hub.repos[MODEL].gated = True
    (refused,) = run_pulls(environment, (MODEL, ""))
    assert refused["error"] == "ModelNotFound"
    assert f"{MODEL} is gated" in refused["message"]
    assert f"{hub.endpoint}/{MODEL}" in refused["message"]
    assert "`hf auth login`" in refused["message"]
    (wrong,) = run_pulls({**environment, "HF_TOKEN": "a-guess"}, (MODEL, ""))
    assert wrong["message"] == refused["message"]
    (done,) = run_pulls({**environment, "HF_TOKEN": "let-me-in"}, (MODEL, ""))
    assert done["name"] == MODEL
    assert [
        headers for _, path, headers in hub.asked if path.startswith("/cdn/") and "authorization" in headers
    ] == []


def test_each_failure_is_a_sentence(hub: Hub, environment: dict[str, str]) -> None:
    hub.repos["Org/Pickles"] = Repo({COMMIT: {"config.json": b"{}", "pytorch_model.bin": b""}})
    hub.repos["Org/Huge"] = Repo({COMMIT: SMALL}, claimed_size=10**17)
    missing, revision, pickles, huge = run_pulls(
        environment, ("Org/Nothing", ""), (MODEL, "v9"), ("Org/Pickles", ""), ("Org/Huge", "")
    )
    assert missing["error"] == revision["error"] == pickles["error"] == "ModelNotFound"
    assert missing["message"].startswith("The hub has no model Org/Nothing, or it is private.")
    assert revision["message"].startswith(f"{MODEL} has no revision 'v9'.")
    assert "lacks a config.json or *.safetensors" in pickles["message"]
    assert huge["error"] == "OSError"
    assert "100000000.0 GB are needed" in huge["message"]
    assert hub.transfers() == [], "the room is looked at before anything is fetched"
    assert all("\n" not in outcome["message"] for outcome in (missing, revision, pickles, huge))


def test_a_disk_that_fills_up_is_named(hub: Hub, environment: dict[str, str], tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    blobs = repository(tmp_path) / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{etag('model.safetensors', SMALL['model.safetensors'])}.incomplete").symlink_to("/dev/full")
    (full,) = run_pulls(environment, (MODEL, ""))
    assert full["error"] == "OSError"
    assert (
        full["message"] == f"[Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}: '{tmp_path / 'hf' / 'hub'}'"
    )


def test_without_a_network_the_command_to_try_again_is_named(
    hub: Hub, environment: dict[str, str], tmp_path: Path
) -> None:
    (offline,) = run_pulls({**environment, "HF_HUB_OFFLINE": "1"}, (MODEL, "v1"))
    assert (
        offline["message"]
        == f"{MODEL} is not fetched: HF_HUB_OFFLINE is set. Unset it, then `{pull_command(MODEL, 'v1')}`."
    )
    (gone,) = run_pulls({**environment, "HF_ENDPOINT": "http://127.0.0.1:9"}, (MODEL, ""))
    assert gone["error"] == "ModelNotFound"
    assert gone["message"].startswith("http://127.0.0.1:9 cannot be reached")
    assert f"`{pull_command(MODEL)}`" in gone["message"]


def test_two_processes_do_not_fetch_one_model_at_once(
    hub: Hub, environment: dict[str, str], tmp_path: Path
) -> None:
    hub.stall_after = 3
    command = [sys.executable, "-c", PROGRAM, json.dumps([(MODEL, "")])]
    environment["HF_HUB_DOWNLOAD_TIMEOUT"] = "60"  # seconds; the second may take long to start
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as first:
        deadline = time.monotonic() + 60
        while not hub.transfers():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (second,) = run_pulls(environment, (MODEL, ""))
        assert second == {
            "error": "Sa2VAError",
            "message": f"Another process is fetching {MODEL}. Wait for it.",
        }
        hub.released.set()
        assert first.stdout is not None
        assert json.loads(first.stdout.read())["name"] == MODEL
    assert len(hub.transfers()) == 1


def test_the_setting_offline_and_names_of_no_hub_are_refused_before_anything_is_asked(hub: Hub) -> None:
    with pytest.raises(ModelNotFound, match="SA2VA_OFFLINE"):
        pull(MODEL, offline=True)
    for name in ("sa2va-tiny", "./folder", "/a/b", "a/b/c", "Org/..", ""):
        with pytest.raises(InvalidInput, match="ORG/NAME"):
            pull(name)
    assert hub.asked == []


def test_a_file_system_without_links_holds_the_weights_once(
    hub: Hub, environment: dict[str, str], tmp_path: Path
) -> None:
    (done,) = run_pulls({**environment, "HF_HUB_DISABLE_SYMLINKS": "1"}, (MODEL, ""))
    copies = [
        path for path in repository(tmp_path).rglob("*") if path.is_file() and path.read_bytes() == b"weights"
    ]
    assert copies == [Path(done["folder"]) / "model.safetensors"]
