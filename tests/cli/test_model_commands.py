"""`sa2va load`, `stop`, `show` and `rm` against real workers and a real cache on disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sa2va_host.models.checkpoints import bundled_folder, pull_command
from tests.host.hub_server import COMMIT, OLDER

from .conftest import PROGRAM
from .test_commands import is_gone

NAME = "Acme/Sa2VA-Test"


@pytest.fixture
def cache(environment, tmp_path):
    """A hub's cache with two revisions of one model, as links to blobs, of which one file is common; and another."""
    hub = tmp_path / "hub"
    environment["HF_HUB_CACHE"] = str(hub)
    repo = hub / "models--Acme--Sa2VA-Test"
    (repo / "blobs").mkdir(parents=True)
    (repo / "refs").mkdir()
    contents = {"config": (bundled_folder() / "sa2va-tiny/config.json").read_bytes()}
    contents |= {"new": (bundled_folder() / "sa2va-tiny/model.safetensors").read_bytes(), "old": b"o" * 1000}
    for name, content in contents.items():
        (repo / "blobs" / name).write_bytes(content)
    for commit, weights in ((COMMIT, "new"), (OLDER, "old")):
        snapshot = repo / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").symlink_to("../../blobs/config")
        (snapshot / "model.safetensors").symlink_to(f"../../blobs/{weights}")
    (repo / "refs/main").write_text(COMMIT)
    (repo / "refs/v1").write_text(OLDER)
    shutil.copytree(repo, hub / "models--Acme--Other", symlinks=True)
    return repo


def test_a_model_is_loaded_ahead(sa2va, picture):
    done = sa2va("load", "--keep-alive", "1h", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["loaded"]["family"] == "scripted"
    (worker,) = json.loads(sa2va("ps", "--json").stdout)["workers"]
    assert (worker["pid"], worker["phase"], worker["keep_alive"]) == (
        document["worker"]["pid"],
        "ready",
        3600,
    )
    again = sa2va("load", "scripted:")
    assert again.stdout == (
        f"scripted: is in memory (float32 on cpu); worker {worker['pid']} was there and stays for 5 min.\n"
    )
    answer = sa2va("segment", picture, "-p", "objects=1", "--save", "none", "--json")
    assert json.loads(answer.stdout)["worker"]["pid"] == worker["pid"]
    failed = sa2va("load", "scripted:failload=1")
    assert failed.returncode == 3
    assert "Write another script" in failed.stderr
    assert sa2va("load", "nobody/nothing").returncode == 3


def test_stop_alone_ends_the_only_worker_and_asks_which_of_several(sa2va):
    assert sa2va("stop").stderr == "No worker is running.\n"
    first = json.loads(sa2va("load", "--json").stdout)["worker"]["pid"]
    assert sa2va("stop").stdout == f"Worker {first} of scripted: is gone.\n"
    assert is_gone(first)
    pids = [json.loads(sa2va("load", f"scripted:n={n}", "--json").stdout)["worker"]["pid"] for n in range(2)]
    which = sa2va("stop")
    assert (which.returncode, which.stdout) == (2, "")
    for pid in pids:
        assert f"{pid}  scripted:n=" in which.stderr
    assert "--all" in which.stderr
    assert len(json.loads(sa2va("ps", "--json").stdout)["workers"]) == 2
    assert json.loads(sa2va("stop", pids[0], "--json").stdout)["stopped"][0]["pid"] == pids[0]
    assert sa2va("stop").stdout == f"Worker {pids[1]} of scripted:n=1 is gone.\n"


def test_what_is_known_of_a_model_is_shown(sa2va, cache):
    (tiny,) = json.loads(sa2va("show", "sa2va-tiny", "--json").stdout)["models"]
    assert (tiny["source"], tiny["complete"], tiny["family"], tiny["licence"]) == (
        "bundled",
        True,
        "qwen3_vl",
        "MIT",
    )
    assert tiny["dtype"] == "float16"
    size = (bundled_folder() / "sa2va-tiny/model.safetensors").stat().st_size
    assert tiny["files"]["model.safetensors"] == size
    assert 0.9 * size < 2 * tiny["parameters"] < size, "two bytes each"
    assert tiny["memory"]["none"] == 1_000_000_000 + 2 * tiny["parameters"]
    both = json.loads(sa2va("show", NAME, "--json").stdout)["models"]
    assert {each["revision"]: each["complete"] for each in both} == {COMMIT: True, OLDER: False}
    (one,) = json.loads(sa2va("show", NAME, "--revision", COMMIT, "--json").stdout)["models"]
    assert one["parameters"] == tiny["parameters"]
    (folder,) = json.loads(sa2va("show", cache / "snapshots" / COMMIT, "--json").stdout)["models"]
    assert folder == one
    (absent,) = json.loads(sa2va("show", "ByteDance/Sa2VA-Qwen3-VL-4B", "--json").stdout)["models"]
    assert (absent["complete"], absent["path"]) == (False, None)
    assert absent["command"] == pull_command("ByteDance/Sa2VA-Qwen3-VL-4B")
    shown = sa2va("show", "sa2va-tiny").stdout
    assert "complete    yes" in shown
    assert "model.safetensors" in shown
    nobody = sa2va("show", "nobody/nothing")
    assert nobody.returncode == 3
    assert "no model 'nobody/nothing' on this machine, nor among the known ones" in nobody.stderr


def test_a_model_is_removed_from_the_cache_and_nothing_else_is(sa2va, cache):
    pytest.importorskip("huggingface_hub")
    asked = sa2va("rm", NAME)
    assert asked.returncode == 2
    assert "--yes" in asked.stderr
    assert cache.is_dir()
    one = sa2va("rm", NAME, "--revision", "v1", "--yes", "--json")
    assert one.returncode == 0, one.stderr
    assert json.loads(one.stdout)["revisions"] == [OLDER]
    assert {path.name for path in (cache / "blobs").iterdir()} == {"config", "new"}, (
        "what the other needs stays"
    )
    assert [path.name for path in (cache / "snapshots").iterdir()] == [COMMIT]
    rest = sa2va("rm", NAME, "-y")
    assert rest.returncode == 0, rest.stderr
    assert rest.stdout.startswith(f"{NAME} is removed, 10 MB are free again.")
    assert not cache.exists()
    other = cache.parent / "models--Acme--Other"
    assert {path.name for path in (other / "blobs").iterdir()} == {"config", "new", "old"}
    assert {path.name for path in (other / "snapshots").iterdir()} == {COMMIT, OLDER}, (
        "though its commits are the same"
    )
    again = sa2va("rm", NAME, "--yes")
    assert again.returncode == 3
    assert f"{NAME} is not in the hub's cache" in again.stderr


def test_what_a_broken_pull_left_is_removed_too(sa2va, cache):
    pytest.importorskip("huggingface_hub")
    shutil.rmtree(cache / "snapshots")
    (cache / "blobs/abc.incomplete").write_bytes(b"x")
    assert sa2va("rm", NAME, "--yes").returncode == 0
    assert not cache.exists()


def test_folders_of_the_user_and_the_bundled_model_are_never_removed(sa2va, cache, tmp_path):
    own = tmp_path / "models/Sa2VA-mine"
    shutil.copytree(bundled_folder() / "sa2va-tiny", own)
    extra = {"SA2VA_MODEL_FOLDERS": str(own.parent)}
    for name, words in (
        ("sa2va-tiny", "came with the program"),
        (str(bundled_folder() / "sa2va-tiny"), "came with the program"),
        (str(own), "folder of your own"),
        ("Sa2VA-mine", "folder of your own"),
        (str(cache / "snapshots" / COMMIT), f"sa2va rm {NAME}"),
        ("..", "folder of your own"),
        ("nowhere", "no model of the hub's cache"),
        ("./nowhere", "no model of the hub's cache"),
    ):
        done = sa2va("rm", name, "--yes", extra=extra)
        assert done.returncode == 2, (name, done)
        assert words in done.stderr
    assert (own / "config.json").exists()
    assert (cache / "refs/main").exists()
    assert sa2va("rm", NAME, "--revision", "../../../models--Acme--Other", "--yes").returncode == 3


def test_a_model_that_a_worker_holds_stays(sa2va, cache):
    pytest.importorskip("huggingface_hub")
    for name in ("tokenizer.json",):
        (cache / "snapshots" / COMMIT / name).write_bytes(b"{}")
    loaded = sa2va("load", NAME, "--json")
    assert loaded.returncode == 0, loaded.stderr
    pid = json.loads(loaded.stdout)["worker"]["pid"]
    refused = sa2va("rm", NAME, "--yes")
    assert refused.returncode == 5
    assert f"sa2va stop {pid}" in refused.stderr
    assert cache.is_dir()
    assert sa2va("rm", NAME, "--revision", "v1", "--yes").returncode == 0, "nobody holds that revision"
    sa2va("stop")
    assert sa2va("rm", NAME, "--yes").returncode == 0


def test_on_a_terminal_it_asks(environment, cache, tmp_path):
    pytest.importorskip("huggingface_hub")
    import pty

    for answer, code, left in ((b"n\n", 1, True), (b"\n", 1, True), (b"y\n", 0, False)):
        master, slave = pty.openpty()
        with subprocess.Popen(
            [*PROGRAM, "rm", NAME],
            env=environment,
            cwd=tmp_path,
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=slave,
        ) as running:
            os.close(slave)
            shown = b""
            while b"[y/N]" not in shown:
                shown += os.read(master, 1000)
            assert NAME.encode() in shown
            os.write(master, answer)
            assert running.wait(30) == code
        os.close(master)
        assert cache.exists() is left


def test_front_ends_of_plugins_stand_in_the_help(environment, tmp_path):
    (tmp_path / "sa2va_greeter_h.py").write_text(
        "from sa2va_host.plugins.hookspecs import FrontEnd, hookimpl\n"
        "@hookimpl\n"
        "def register_front_ends(register):\n"
        "    greet = lambda words: print(words) or 0\n"
        "    register(FrontEnd(name='greet', summary='says 100% hello,\\ntwice', run=greet))\n"
    )
    info = Path(tmp_path / "sa2va_greeter_h-1.5.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sa2va_greeter_h\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text("[sa2va]\ngreeter_h = sa2va_greeter_h\n")
    with_plugin = {**environment, "PYTHONPATH": str(tmp_path)}

    def run(*words):
        return subprocess.run(
            [*PROGRAM, *words], env=with_plugin, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    shown = run("--help")
    assert shown.returncode == 0
    assert "    greet        says 100% hello, twice (plugin)\n" in shown.stdout
    assert run("greet", "--more", "-h").stdout == "['--more', '-h']\n"
    assert "greet" in run("completion", "bash").stdout
