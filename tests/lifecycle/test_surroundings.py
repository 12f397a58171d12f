"""Machines that sleep, clocks that jump, other users, homes that cannot be written, and ends of interpreters."""

from __future__ import annotations

import ast
import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace

from sa2va_host.lifecycle.rendezvous import RunDirectory
from sa2va_host.models.choice import specify

from .conftest import COMMAND, ROOT

NOBODY = 65534
BECOME_NOBODY = [
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    *(
        "--bounding-set=-all,+dac_read_search",
        "--inh-caps=+dac_read_search",
        "--ambient-caps=+dac_read_search",
    ),
]
"""May read everything all the same: interpreters are often in a home that is closed to others."""
as_root = pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0 or shutil.which("setpriv") is None,
    reason="only root can become another user, with setpriv",
)


def test_a_call_goes_on_after_the_machine_slept(connect, client_program, eventually):
    """Worker and client stand still and go on, as all processes do then; here the clocks go on meanwhile."""
    watcher = connect()
    client = client_program(
        "sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
        "print(len(sa.segment(picture, 'objects=2 steps=100 pause=0.02')))"
    )
    eventually(lambda: watcher.status().active, 5)
    asleep = [client.pid, watcher.status().pid]
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(2.5)
    for pid in asleep:
        os.kill(pid, signal.SIGCONT)
    assert client.communicate(timeout=60)[0].strip() == "2"


def test_only_what_people_read_comes_from_a_clock_that_jumps():
    """A record's age and the ages of files; every interval is measured with the monotonic clock."""
    users = {
        f"{path.parent.name}/{path.name}"
        for package in ("sa2va_host", "sa2va_worker")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("time.time", "datetime.now")
    }
    files = {"lifecycle/rendezvous.py", "machine/stamps.py", "sa2va_worker/process.py"}
    assert users == files | {"lifecycle/status.py"}


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_clock_that_jumped_disturbs_nobody(connect, picture, run, jump):
    sa = connect()
    pid = sa.segment(picture, "objects=1").worker.pid
    record = next(run.living())
    run.write(replace(record, created=record.created + jump))
    for path in run.path.iterdir():
        with contextlib.suppress(FileNotFoundError):
            os.utime(path, (time.time() + jump, time.time() + jump))
    assert connect().segment(picture, "objects=1").worker.pid == pid
    assert 0 <= sa.status().uptime < 1e5
    sa.unload()
    assert sa.segment(picture, "objects=1").worker.pid != pid


@pytest.fixture
def as_nobody():
    """Runs a client as another user, who can write into one folder alone: ``as_nobody(code, **environment)``."""
    folder = Path(tempfile.mkdtemp(prefix="sa2va-"))
    os.chown(folder, NOBODY, NOBODY)
    head = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nimport numpy as np\n"
        f"from sa2va_host import Sa2VA, list_workers, Sa2VAError\nCOMMAND = {COMMAND!r}\n"
        "picture = np.zeros((48, 64, 3), np.uint8)\n"
    )

    def run(code, **more):
        environment = {"PATH": os.environ["PATH"], "TMPDIR": str(folder), "HOME": "/nonexistent", **more}
        done = subprocess.run(
            [*BECOME_NOBODY, sys.executable, "-c", head + code],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    yield run
    shutil.rmtree(folder, ignore_errors=True)


@as_root
def test_two_users_have_workers_of_their_own_and_none_touches_the_others(
    connect, picture, settings, as_nobody
):
    sa = connect()
    pid = sa.segment(picture, "objects=1").worker.pid
    Path(settings.run_dir).parent.chmod(0o755)
    refused = as_nobody(
        "try:\n    Sa2VA('scripted:', command=COMMAND).segment(picture, 'objects=1')\n"
        "except Sa2VAError as error:\n    print(type(error).__name__, error)",
        SA2VA_RUN_DIR=settings.run_dir,
    )
    assert refused.startswith("ConfigError")
    assert "another user" in refused
    theirs = as_nobody(
        "with Sa2VA('scripted:', command=COMMAND) as sa:\n"
        "    print(sa.segment(picture, 'objects=1').worker.pid, len(list_workers()))\n    sa.unload()"
    )
    assert theirs.split()[1] == "1"
    assert theirs.split()[0] != str(pid)
    assert sa.segment(picture, "objects=1").worker.pid == pid


@as_root
def test_a_home_that_cannot_be_written_is_not_needed(as_nobody):
    """Nor is one that does not exist; the run directory is then a folder of the user's own among the temporary ones."""
    for home in ("/nonexistent", "/proc"):
        answer = as_nobody(
            "with Sa2VA('scripted:', command=COMMAND) as sa:\n"
            "    print(len(sa.segment(picture, 'objects=2')))\n    sa.unload()",
            HOME=home,
        )
        assert answer == "2"


def test_a_fork_that_leaves_as_programs_do_disturbs_nobody(client_program):
    program = client_program(
        "import os, warnings\nwarnings.simplefilter('ignore')\n"
        "sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
        "sa.segment(picture, 'objects=1')\n"
        "child = os.fork()\n"
        "if child == 0:\n    sys.exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(sa.segment(picture, 'objects=2')))\n"
        "sa.unload()"
    )
    assert program.communicate(timeout=60)[0].strip() == "7 2"


IGNORANT = (
    "import signal\nfrom sa2va_host import Sa2VAError\n"
    "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    "sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
)
"""A program of which the system keeps no exit codes for it to read."""


def test_a_program_that_ignores_its_children_is_told_no_wrong_exit_code(client_program):
    program = client_program(
        IGNORANT
        + "try:\n    sa.segment(picture, 'steps=4 pause=0.1 at=3 die=SIGKILL')\n"
        + "except Sa2VAError as error:\n    print(type(error).__name__, error)\n"
        + "print(len(sa.segment(picture, 'objects=2')))\nsa.unload()"
    )
    told, answer = program.communicate(timeout=60)[0].strip().splitlines()
    assert told.startswith("WorkerDied")
    assert "exit code 0" not in told
    assert answer == "2"


def test_a_program_that_ignores_its_children_waits_for_a_place_too(client_program, settings, run, eventually):
    """Its worker finds that another one is leaving, and ends with a code that the program never sees."""
    with run.life_lock(specify(settings)):
        program = client_program(IGNORANT + "print(len(sa.segment(picture, 'objects=2')))\nsa.unload()")
        eventually(lambda: list(run.path.glob("*.exit")), 10)
    assert program.communicate(timeout=60)[0].strip() == "2"


def test_an_interpreter_that_ends_in_the_middle_of_a_call_ends_at_once(
    connect, client_program, eventually, promise
):
    watcher = connect()
    watcher.load()
    program = client_program(
        "import threading\nsa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
        "call = threading.Thread(target=sa.segment, args=(picture, 'steps=100000 pause=0.01'), daemon=True)\n"
        "call.start()\nsys.stdin.readline()"
    )
    eventually(lambda: watcher.status().active, 5)
    begun = time.monotonic()
    program.stdin.write("end\n")
    program.stdin.flush()
    assert program.wait(30) == 0
    promise(time.monotonic() - begun, 1.0)
    eventually(lambda: not watcher.status().active, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit, which stands for a disk that is full")
def test_a_run_directory_that_is_full_costs_no_answer(connect, picture, run, eventually):
    """Nor does it hide the worker for longer than it is full."""
    import resource

    sa = connect("scripted:load=0.6,parts=6")
    with ThreadPoolExecutor() as pool:
        call = pool.submit(sa.segment, picture, "objects=1")
        eventually(lambda: sa.status().phase == "loading", 5)
        pid = sa.status().pid
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        assert call.result().worker.pid == pid
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    eventually(lambda: next(run.living()).info is not None, 2)


def test_a_run_directory_that_is_deleted_while_a_model_loads_costs_no_answer(
    connect, picture, run, eventually
):
    sa = connect("scripted:load=0.6,parts=6")
    with ThreadPoolExecutor() as pool:
        call = pool.submit(sa.segment, picture, "objects=1")
        eventually(lambda: sa.status().phase == "loading", 5)
        shutil.rmtree(run.path, ignore_errors=True)  # a launcher may be writing there
        assert call.result().text
    sa.unload()


def test_a_worker_whose_socket_is_deleted_before_its_launcher_connects_costs_no_answer(
    connect, picture, run, monkeypatch
):
    """Nothing that was sent to it arrived, so the call is the next one's."""
    from sa2va_host.lifecycle import launcher

    ensure_worker, started = launcher.ensure_worker, []

    def ensure_and_delete(*arguments, **more):
        started.append(ensure_worker(*arguments, **more))
        if len(started) == 1:
            shutil.rmtree(run.path, ignore_errors=True)
        return started[-1]

    monkeypatch.setattr(launcher, "ensure_worker", ensure_and_delete)
    sa = connect("scripted:load=0.6,parts=6")
    assert sa.segment(picture, "objects=1").worker.pid == started[-1].process.pid
    assert len(started) == (1 if started[0].endpoint.path is None else 2)
    sa.unload()


def test_a_log_spells_control_characters_and_no_name_can_forge_a_record(connect):
    """The checkpoint's name stands for all that others chose: whoever reads the log has a terminal."""
    sa = connect("scripted:note=\x1b]0;owned\x07\n2026-01-01 00:00:00,000 INFO sa2va_worker: forged")
    sa.load()
    log = Path(sa.status().log).read_text()
    assert "\\x1b]0;owned\\x07\n  2026-01-01" in log
    assert not {"\x1b", "\x07"} & set(log)


def test_a_run_directory_that_is_deleted_while_a_worker_is_started_does_not_become_open_to_others(
    connect, picture, settings, monkeypatch
):
    """Who takes a lock in it makes it anew; with the umask of most people everybody would be refused from then on."""
    spawn_lock = RunDirectory.spawn_lock
    deleted: list[bool] = []

    def delete_and_lock(self, specification):
        if not deleted:
            deleted.append(True)
            shutil.rmtree(settings.run_dir)
        return spawn_lock(self, specification)

    monkeypatch.setattr(RunDirectory, "spawn_lock", delete_and_lock)
    before = os.umask(0o022)
    try:
        pid = connect().segment(picture, "objects=1").worker.pid
    finally:
        os.umask(before)
    assert connect().segment(picture, "objects=2").worker.pid == pid
    assert stat.S_IMODE(Path(settings.run_dir).stat().st_mode) == 0o700
