"""The run directory: records, locks, notes, and what it refuses."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import filelock
import msgspec
import pytest

from sa2va_host import ConfigError, ModelNotFound, WorkerStartFailed
from sa2va_host.config import Settings
from sa2va_host.lifecycle.launcher import ensure_worker
from sa2va_host.lifecycle.rendezvous import ExitNote, Record, RunDirectory, default_path
from sa2va_host.machine import processes
from sa2va_host.models.checkpoints import find
from sa2va_host.models.choice import specify
from sa2va_host.protocol.specification import ModelInfo, Specification
from sa2va_host.protocol.transport import MAX_PATH, Endpoint

SPEC = Specification(checkpoint="m")
INFO = ModelInfo(
    name="m", family="f", image_size=8, device="cuda:0", dtype="bfloat16", attention="sdpa", parameters=1
)


@pytest.fixture
def run():
    with tempfile.TemporaryDirectory() as folder:
        yield RunDirectory(Path(folder) / "run")


def record(**changes):
    me = processes.current()
    found = Record(
        incarnation="ab" * 16,
        token="cd" * 32,
        process=me,
        specification=SPEC,
        endpoint=Endpoint("tcp://127.0.0.1:1"),
        log="",
        created=1.0,
        launcher=me,
    )
    return msgspec.structs.replace(found, **changes)


def test_a_record_is_found_by_what_it_serves(run):
    run.write(record())
    assert run.find(SPEC) == record()
    assert run.find(Specification(checkpoint="other")) is None
    assert run.find(Specification(checkpoint="m", revision="r")) is None
    assert run.find(Specification(checkpoint="m", device="cpu")) is None


def test_auto_takes_what_there_is_and_a_wish_takes_what_auto_became(run):
    loaded = record(info=INFO)
    run.write(loaded)
    served: list[dict[str, Any]] = [
        {},
        {"device": "cuda"},
        {"device": "cuda:0"},
        {"dtype": "bfloat16"},
        {"device": "cuda", "dtype": "bfloat16", "attention": "sdpa"},
    ]
    for wish in served:
        assert run.find(Specification(checkpoint="m", **wish)) == loaded, wish
    refused: list[dict[str, Any]] = [
        {"device": "cpu"},
        {"device": "cuda:1"},
        {"dtype": "float32"},
        {"quantization": "nf4"},
        {"trust_remote_code": True},
        {"tracker_decoder": "/models/sam2"},
    ]
    for wish in refused:
        assert run.find(Specification(checkpoint="m", **wish)) is None, wish


def test_the_record_of_a_dead_process_is_stale(run):
    dead = processes.ProcessId(os.getpid(), processes.current().started - 1, processes.boot_id())
    run.write(record(process=dead))
    assert run.find(SPEC) is None
    assert [found.process for found in run.stale(SPEC.checkpoint_key)] == [dead]
    assert run.stale("something else") == []


def test_a_record_in_a_file_of_another_name_is_not_believed(run):
    run.write(record())
    path = run.path / record().file_name
    path.rename(run.path / "other.json")
    assert list(run.records()) == []


def test_removing_leaves_a_later_incarnation_alone(run):
    run.write(record(incarnation="ef" * 16))
    run.remove(record())
    assert [found.incarnation for found in run.records()] == ["ef" * 16]


def test_the_first_exit_note_may_be_kept(run):
    run.write_exit("x", ExitNote(reason="first"))
    run.write_exit("x", ExitNote(reason="second"), unless_known=True)
    assert run.read_exit("x") == ExitNote(reason="first")
    assert run.read_exit("y") is None


def test_deaths_are_counted_within_their_window(run):
    for _ in range(3):
        run.note_death(SPEC, "signal SIGKILL", 60)
    assert run.recent_deaths(SPEC, 60) == (3, "signal SIGKILL")
    assert run.recent_deaths(Specification(checkpoint="m", device="cpu"), 60)[0] == 0
    time.sleep(0.05)
    assert run.recent_deaths(SPEC, 0.01)[0] == 0
    run.forget_deaths(SPEC)
    assert run.recent_deaths(SPEC, 60)[0] == 0


def test_a_lock_goes_with_its_holder(run):
    lock = run.spawn_lock(SPEC)
    program = (
        "import sys, time, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire();"
        "print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, lock.lock_file]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(filelock.Timeout):
            lock.acquire(timeout=0)
        holder.kill()
        holder.wait()
    lock.acquire(timeout=1)
    lock.release()


def test_the_log_tail_is_the_last_lines(run):
    path = run.log_path("x")
    path.write_bytes(b"\n".join(b"line %d \xff" % number for number in range(10_000)))
    tail = run.log_tail("x", 5)
    assert len(tail) == 5
    assert tail[-1].startswith("line 9999")
    assert run.log_tail("missing") == []


def test_old_logs_are_swept_and_recent_ones_stay(run):
    for number in range(30):
        path = run.log_path(f"{number:032x}")
        path.write_text("x")
        age = time.time() - 1000 - number
        os.utime(path, (age, age))
    run.sweep_files()
    assert len(list(run.path.glob("*.log"))) == 10
    assert run.log_path(f"{0:032x}").exists()


def test_what_a_killed_writer_and_workers_without_a_log_left_is_swept_too(run):
    left = [run.path / name for name in (".a.json.17.1", "a.ready", "b.exit", "c.sock")]
    kept = [run.path / name for name in ("a-b.life", "a.spawn", "d.log", "d.exit")]
    for path in left + kept:
        path.write_text("x")
        os.utime(path, (time.time() - 1000,) * 2)
    young = run.path / ".b.json.17.2"
    young.write_text("x")
    run.sweep_files()
    assert set(run.path.iterdir()) == {*kept, young}


@pytest.mark.skipif(sys.platform == "win32", reason="owner and mode are POSIX")
@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_directory_open_to_others_is_refused(tmp_path, mode):
    path = tmp_path / "run"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 700"):
        RunDirectory(path)


@pytest.mark.skipif(sys.platform == "win32", reason="owner and mode are POSIX")
def test_a_link_and_a_replaceable_directory_are_refused(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError):
        RunDirectory(tmp_path / "link")
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    with pytest.raises(ConfigError, match="replace"):
        RunDirectory(loose / "run")


def test_a_long_path_gets_a_short_socket(tmp_path):
    run = RunDirectory(tmp_path / ("x" * 100) / "run")
    path = run.socket_path("ab" * 16)
    assert len(os.fsencode(path)) <= MAX_PATH
    assert path.parent.stat().st_mode & 0o077 == 0


def test_the_default_directory_is_the_same_for_everybody(monkeypatch):
    assert default_path() == default_path()


def test_specifications_name_folders_by_their_real_path(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    for name in ("./model", str(folder), str(tmp_path / "link"), "./link/../model"):
        assert specify(Settings(model=name)).checkpoint == str(folder)
    assert specify(Settings(model="sa2va-tiny")).checkpoint == str(find("sa2va-tiny").folder)
    with pytest.raises(ModelNotFound):
        specify(Settings(model="./missing"))


@pytest.mark.skipif(sys.platform == "win32", reason="the umask is POSIX")
def test_the_folders_above_are_made_for_the_owner_alone(tmp_path):
    before = os.umask(0o002)
    try:
        run = RunDirectory(tmp_path / "new" / "parent" / "run")
    finally:
        os.umask(before)
    for made in (run.path, run.path.parent, run.path.parent.parent):
        assert made.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(sys.platform == "win32", reason="these places are POSIX")
@pytest.mark.parametrize("place", ["/dev/null/run", "/proc/run", "/proc", "/tmp/" + "x" * 300, "/tmp/a\0b"])
def test_a_place_that_cannot_be_written_is_refused_with_what_to_set(place):
    with pytest.raises(ConfigError, match=r"run directory .* SA2VA_RUN_DIR"):
        RunDirectory(Path(place))


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
def test_nobody_is_told_to_change_the_mode_of_a_folder_with_other_things_in_it(tmp_path):
    path = tmp_path / "shared"
    path.mkdir()
    path.chmod(0o755)
    (path / "ab.log").touch()
    with pytest.raises(ConfigError, match="chmod 700"):
        RunDirectory(path)
    (path / "letter.txt").touch()
    with pytest.raises(ConfigError, match="folder of its own"):
        RunDirectory(path)


def test_a_worker_whose_socket_was_deleted_is_not_found(run):
    socket = run.path / "its.sock"
    socket.touch()
    run.write(record(endpoint=Endpoint(f"ipc://{socket}")))
    assert run.find(SPEC) is not None
    socket.unlink()
    assert run.find(SPEC) is None


def test_a_newer_version_s_record_is_found(run):
    run.write(record(protocol=2, info=INFO))
    path = run.path / record().file_name
    newer = msgspec.json.decode(path.read_bytes())
    newer["colour"] = newer["info"]["taste"] = "unknown here"
    path.write_bytes(msgspec.json.encode(newer))
    assert run.find(SPEC) == record(protocol=2, info=INFO)


def test_a_lock_that_cannot_be_taken_is_a_worker_that_cannot_be_started(run):
    (run.path / f"{SPEC.checkpoint_key}.spawn").mkdir()
    with pytest.raises(WorkerStartFailed, match=f"run directory {run.path}"):
        ensure_worker(SPEC, Settings(), run, command=["no-such-program"])


def test_a_loading_worker_is_waited_for_until_it_says_what_auto_became(run):
    run.write(record())
    wish = Specification(checkpoint="m", device="cuda", dtype="bfloat16")
    loaded = threading.Timer(0.2, run.write, [record(info=INFO)])
    loaded.start()
    assert ensure_worker(wish, Settings(), run, command=["no-such-program"]) == record(info=INFO)
    loaded.join()


@pytest.mark.parametrize("served", [{}, {"device": "cpu"}])
def test_a_worker_of_its_own_is_started_where_waiting_leads_nowhere(run, served):
    run.write(record(specification=Specification(checkpoint="m", **served)))
    began = time.monotonic()
    with pytest.raises(WorkerStartFailed, match="no-such-program"):
        ensure_worker(
            Specification(checkpoint="m", device="cuda"),
            Settings(start_timeout=0.5),
            run,
            command=["no-such-program"],
        )
    assert (time.monotonic() - began < 0.5) == bool(served)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["folder", "link", "file", "open folder"])
def test_what_a_stranger_put_into_the_temporary_folder_is_passed_over(tmp_path, monkeypatch, what):
    """platformdirs has its own place there, and raises where somebody else holds it."""
    tmp_path.chmod(0o1777)
    place = tmp_path / f"runtime-{os.geteuid()}"
    if what == "link":
        (tmp_path / "theirs").mkdir()
        place.symlink_to(tmp_path / "theirs")
    elif what == "file":
        place.touch()
    else:
        place.mkdir()
    if what == "open folder":
        place.chmod(0o777)
    else:
        os.chown(place, 12345, 12345, follow_symlinks=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("platformdirs.unix.Unix._default_runtime_dir", lambda self: self._temp_runtime_dir())
    path = default_path()
    assert RunDirectory(path).path == path
    if what != "open folder":
        assert path == tmp_path / f"sa2va-{os.geteuid()}"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("how", ["theirs", "open", "their link"])
def test_a_directory_far_above_that_others_could_replace_is_named(tmp_path, how):
    far = tmp_path / "far"
    path = far / "near" / "run"
    path.parent.mkdir(parents=True)
    if how == "theirs":
        os.chown(far, 12345, 12345)
    elif how == "open":
        far.chmod(0o777)
    else:
        link = tmp_path / "link"
        link.symlink_to(far)
        os.chown(link, 12345, 12345, follow_symlinks=False)
        path, far = link / "near" / "run", link
    with pytest.raises(ConfigError, match=f"replace the run directory {path}: {far} is theirs"):
        RunDirectory(path)
    if how == "open":
        far.chmod(0o1777)
        assert RunDirectory(path).path == path


def make_old(path, seconds=10_000):
    os.utime(path, (time.time() - seconds,) * 2)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such sockets")
def test_a_socket_that_nobody_listens_to_is_swept_and_one_with_a_listener_never(run):
    names = ("old", "young", "served")
    sockets = {name: socket.socket(socket.AF_UNIX) for name in names}
    paths = {name: run.path / f"{name}.sock" for name in names}
    for name, made in sockets.items():
        made.bind(str(paths[name]))
        run.log_path(name).write_text("its log, one of the latest ten")
    sockets["served"].listen()
    for name in ("old", "young"):
        sockets[name].close()
    for name in ("old", "served"):
        make_old(paths[name])
    run.sweep_files()
    assert {name for name in names if paths[name].exists()} == {"young", "served"}
    sockets["served"].close()


def test_the_folders_of_other_namespaces_go_when_they_are_empty_and_old(tmp_path):
    outer = RunDirectory(tmp_path / "run")
    inner = RunDirectory(outer.path / "ns-1", within=outer)
    for name in ("ns-2", "ns-3", "ns-4", "ns-other"):
        (outer.path / name).mkdir(mode=0o700)
    (outer.path / "ns-3" / "a.log").touch()
    for name in ("ns-1", "ns-2", "ns-3", "ns-other"):
        make_old(outer.path / name)
    inner.sweep_files()
    left = {path.name for path in outer.path.iterdir()}
    assert left == {"ns-1", "ns-3", "ns-4", "ns-other"}
    outer.sweep_files()
    assert {path.name for path in outer.path.iterdir()} == left - {"ns-1"}


def test_whoever_takes_a_lock_in_a_namespace_s_folder_that_was_just_swept_makes_it_anew(tmp_path):
    outer = RunDirectory(tmp_path / "run")
    inner = RunDirectory(outer.path / "ns-1", within=outer)
    make_old(inner.path)
    outer.sweep_files()
    assert not inner.path.exists()
    assert list(inner.records()) == []
    with inner.spawn_lock(SPEC):
        inner.close_to_others()
        assert inner.path.stat().st_mode & 0o077 == 0 or sys.platform == "win32"


def test_a_dead_worker_s_record_goes_whichever_checkpoint_s_worker_is_started_next(run):
    dead = processes.ProcessId(os.getpid(), processes.current().started - 1, processes.boot_id())
    left = run.path / "its.sock"
    left.touch()
    run.write(record(process=dead, endpoint=Endpoint(f"ipc://{left}")))
    with pytest.raises(WorkerStartFailed):
        ensure_worker(Specification(checkpoint="other"), Settings(), run, command=["no-such-program"])
    assert list(run.records()) == []
    assert not left.exists()


def test_a_dead_worker_s_record_is_left_while_somebody_starts_one_of_its_checkpoint(run):
    dead = processes.ProcessId(os.getpid(), processes.current().started - 1, processes.boot_id())
    run.write(record(process=dead))
    with run.spawn_lock(SPEC), pytest.raises(WorkerStartFailed):
        ensure_worker(Specification(checkpoint="other"), Settings(), run, command=["no-such-program"])
    assert len(list(run.records())) == 1


def test_folders_with_one_content_share_a_worker_and_other_code_does_not(run):
    served = Specification(checkpoint="/one", identity="ab", program="v1")
    found = record(specification=served, environment="/venv")
    run.write(found)
    wish = msgspec.structs.replace(served, checkpoint="/two", revision="r")
    assert run.find(wish) == found
    assert run.find(msgspec.structs.replace(wish, interpreter="/venv")) == found
    for changes in ({"identity": "cd"}, {"program": "v2"}, {"interpreter": "/another"}):
        other = msgspec.structs.replace(wish, **changes)
        assert run.find(other) is None, changes
        assert other.key != served.key
