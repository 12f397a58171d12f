"""One worker for all: clones and environments share it, other code, other weights and a named Python do not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from sa2va_host import Sa2VA, WorkerStartFailed
from sa2va_host.config import load_settings
from sa2va_host.lifecycle.launcher import ensure_worker
from sa2va_host.models.checkpoints import find
from sa2va_host.models.choice import specify

from .conftest import COMMAND, ROOT

CODE = ("sa2va_host", "sa2va_worker", "plugins", "pyproject.toml")
CLIENT = """
import sys
sys.path.insert(0, sys.argv[1])
import sa2va_host
assert sa2va_host.__file__.startswith(sys.argv[1]), sa2va_host.__file__
with sa2va_host.Sa2VA("sa2va-tiny", device="cpu") as sa:
    print(sa.status().pid)
"""


def make_clone(place):
    place.mkdir()
    for name in CODE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, place)
    for path in (place / "sa2va_worker" / "bundled" / "sa2va-tiny").iterdir():
        os.utime(path, (1, 1))  # as a clone's, which were written at another time
    return place


def found_by(clone, run_path, python=sys.executable, worker_python=""):
    """The worker that a call of a client in this clone would go to; 0 for a new one."""
    done = subprocess.run(
        [python, "-c", CLIENT, str(clone)],
        env={**os.environ, "SA2VA_RUN_DIR": str(run_path), "SA2VA_WORKER_PYTHON": worker_python},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.timeout(300)
def test_clones_and_environments_share_the_bundled_model_s_worker(run_path, tmp_path):
    settings = load_settings(run_dir=str(run_path), model="sa2va-tiny", device="cpu", keep_alive=200.0)
    with Sa2VA(settings=settings) as sa:
        sa.load()
        pid = sa.status().pid
        clone = make_clone(tmp_path / "clone")
        assert found_by(clone, run_path) == pid

        another = tmp_path / "environment"
        venv.create(another, with_pip=False, symlinks=True)
        (python,) = (another / "bin").glob("python3")
        (site,) = another.glob("lib/python*/site-packages")
        (site / "ours.pth").write_text(sysconfig.get_path("purelib"))
        assert found_by(clone, run_path, str(python)) == pid
        assert found_by(clone, run_path, str(python), sys.executable) == pid
        assert found_by(clone, run_path, worker_python=str(python)) == 0

        project = clone / "pyproject.toml"
        text = project.read_text("utf-8")
        project.write_text(text.replace('\nversion = "', '\nversion = "9', 1), "utf-8")
        assert found_by(clone, run_path) == 0
        project.write_text(text, "utf-8")
        assert found_by(clone, run_path) == pid

        code = clone / "sa2va_worker" / "steps.py"
        text = code.read_text("utf-8")
        code.write_text(f"{text}\n", "utf-8")
        assert found_by(clone, run_path) == 0
        code.write_text(text, "utf-8")

        weights = clone / "sa2va_worker" / "bundled" / "sa2va-tiny" / "model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        assert found_by(clone, run_path) == 0


def test_a_checkpoint_that_is_replaced_while_its_worker_lives_gets_a_new_worker(
    connect, picture, tmp_path, eventually
):
    folder = Path(shutil.copytree(find("sa2va-tiny").folder, tmp_path / "model"))
    sa = connect(str(folder))
    first = sa.segment(picture, "objects=1").worker.pid
    assert connect(str(folder)).segment(picture, "objects=1").worker.pid == first
    os.utime(folder / "model.safetensors", (1, 1))
    second = sa.segment(picture, "objects=1").worker.pid
    assert second != first
    assert connect(str(folder)).segment(picture, "objects=1").worker.pid == second
    assert sa.status().pid == second
    assert sa.unload().rung == "asked"
    eventually(lambda: not Path(f"/proc/{first}").exists(), 5)


BROKEN = """
import os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
import msgspec
from sa2va_host.lifecycle.rendezvous import ExitNote, RunDirectory
from sa2va_host.protocol.boot import EXIT_BROKEN, Boot
tries = Path({tries!r})
with tries.open("a") as file:
    file.write("x")
if len(tries.read_text()) > {times}:
    os.execv({command!r}[0], {command!r})
boot = msgspec.json.decode(os.read(0, 1 << 16), type=Boot)
run = RunDirectory(Path(boot.run_dir))
run.mark_ready(boot.incarnation)
run.write_exit(boot.incarnation, ExitNote(reason="the device broke", resend=True, code={code!r}, message="It hung."))
os._exit(EXIT_BROKEN)
"""
"""A worker that others' calls have broken before its launcher looked, so many times; then one that works."""


@pytest.mark.parametrize("code", ["", "worker_stalled"])
def test_a_worker_that_others_broke_before_its_launcher_looked_is_started_again(
    settings, run, tmp_path, code
):
    tries = tmp_path / "tries"
    program = BROKEN.format(root=str(ROOT), tries=str(tries), times=2, command=COMMAND, code=code)
    specification = specify(settings)
    record = ensure_worker(specification, settings, run, command=[sys.executable, "-c", program])
    assert tries.read_text() == "xxx"
    assert [each.incarnation for each in run.living()] == [record.incarnation]
    assert run.recent_deaths(specification, 60.0)[0] == 0


def test_a_worker_that_others_break_each_time_is_given_up(settings, run, tmp_path):
    tries = tmp_path / "tries"
    program = BROKEN.format(root=str(ROOT), tries=str(tries), times=99, command=COMMAND, code="")
    with pytest.raises(WorkerStartFailed, match="the device broke"):
        ensure_worker(specify(settings), settings, run, command=[sys.executable, "-c", program])
    assert tries.read_text() == "xxx"
