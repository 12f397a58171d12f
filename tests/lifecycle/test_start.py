"""Exactly one worker, however many ask at once and whoever dies meanwhile."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from sa2va_host import Cancellation, Sa2VA, list_workers
from sa2va_host.lifecycle.rendezvous import Record
from sa2va_host.machine import processes
from sa2va_host.models.choice import specify
from sa2va_host.protocol.boot import EXIT_ABANDONED, EXIT_BOOT, EXIT_TAKEN, Boot

TCP = os.environ.get("SA2VA_TRANSPORT") == "tcp"  # at import: a fixture cleans the environment later
COMMAND = [sys.executable, str(Path(__file__).with_name("scripted_worker.py"))]


def boot_line(settings, run, **changes):
    """What a launcher would write to a worker."""
    boot = Boot(
        incarnation="ab" * 16,
        token="cd" * 32,
        specification=specify(settings),
        run_dir=str(run.path),
        transport=settings.transport,
        launcher=processes.current(),
        keep_alive=5.0,
        lease_grace=5.0,
        cancel_grace=5.0,
        queue_bound=32,
        max_active=4,
        log_level="info",
    )
    return msgspec.json.encode(msgspec.structs.replace(boot, **changes)) + b"\n"


def start_worker(line):
    """A worker whose launcher is this test. The caller closes its standard input."""
    process = subprocess.Popen(
        COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(line)
    process.stdin.flush()
    return process


def finish(process):
    process.stdin.close()
    process.stderr.close()
    if process.poll() is None:
        process.kill()
    process.wait()


def test_threads_that_start_at_once_get_one_worker(connect, picture):
    clients = [connect() for _ in range(8)]
    pids = []
    threads = [
        threading.Thread(target=lambda sa=sa: pids.append(sa.segment(picture, "objects=1").worker.pid))
        for sa in clients
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 8
    assert len(set(pids)) == 1


def test_another_specification_gets_another_worker_and_auto_takes_either(connect, picture):
    auto = connect()
    first = auto.segment(picture, "objects=1").worker.pid
    assert connect(device="cpu").segment(picture, "objects=1").worker.pid == first, "auto became cpu"
    second = connect(dtype="float16").segment(picture, "objects=1").worker.pid
    assert second != first
    assert connect(dtype="float16").segment(picture, "objects=1").worker.pid == second
    assert auto.segment(picture, "objects=1").worker.pid == first


def test_auto_and_what_it_becomes_asked_for_at_once_share_a_worker(connect, picture, settings, run):
    """Both wait for the spawn lock, so neither has seen the other's worker when its turn comes."""
    auto, explicit = (connect("scripted:load=0.5", device=device) for device in ("auto", "cpu"))
    for _ in range(3):
        with ThreadPoolExecutor() as pool:
            with run.spawn_lock(auto.specification):
                calls = [pool.submit(sa.segment, picture, "objects=1") for sa in (auto, explicit)]
                time.sleep(0.3)
            pids = {call.result().worker.pid for call in calls}
        assert [worker.pid for worker in list_workers(settings)] == list(pids)
        auto.unload()


def test_a_second_worker_on_the_same_specification_leaves_and_the_first_misses_nothing(
    connect, picture, settings, run, figure, repeats
):
    sa = connect()
    pid = sa.segment(picture, "objects=1").worker.pid
    for _ in repeats(1, 10):
        begun = time.monotonic()
        second = start_worker(boot_line(settings, run))
        while second.poll() is None:
            assert sa.segment(picture, "objects=1").worker.pid == pid
        figure(3, "a second worker leaves, with its start", time.monotonic() - begun, 1.0)
        assert second.returncode == EXIT_TAKEN
        assert b"another worker serves this specification already" in second.stderr.read()
        finish(second)
        assert sa.segment(picture, "objects=1").worker.pid == pid


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", EXIT_ABANDONED),
        (b"nonsense\n", EXIT_BOOT),
        (b'{"protocol": 1}\n', EXIT_BOOT),
    ],
)
def test_a_worker_without_a_launcher_leaves(line, code):
    process = subprocess.run(COMMAND, input=line, capture_output=True, timeout=60, check=False)
    assert process.returncode == code
    assert b"sa2va worker" in process.stderr


def test_a_worker_of_another_protocol_leaves(settings, run):
    line = boot_line(settings, run, protocol=999)
    process = subprocess.run(COMMAND, input=line, capture_output=True, timeout=60, check=False)
    assert process.returncode == EXIT_BOOT
    assert b"protocol 999" in process.stderr
    assert b"cdcd" not in process.stderr, "the token is in nobody's log"


def test_a_half_started_worker_ends_when_its_launcher_goes(settings, run):
    """Closed before the record exists: the worker sees it when it looks, right before it would be known."""
    process = start_worker(boot_line(settings, run))
    process.stdin.close()
    assert process.wait(60) == EXIT_ABANDONED
    process.stderr.close()
    assert list(run.records()) == []
    assert list(run.path.glob("*.sock")) == []


def test_a_killed_launcher_blocks_nobody(client_program, connect, picture, run, figure, repeats, eventually):
    """The holder of the spawn lock dies at some point; the next client has a worker soon, and there is only one."""
    rng = random.Random(2)
    sa = connect()
    sa.chat("hello")  # so that what is imported once is
    for _ in repeats(4, 30):
        sa.unload(force=True)
        launcher = client_program(
            "sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
            "from sa2va_host import client\nfrom sa2va_host.lifecycle import launcher, rendezvous\n"
            "import numpy, filelock\n"
            "print('ready', flush=True)\nsys.stdin.readline()\nsa.segment(picture, 'objects=1')"
        )
        assert launcher.stdout.readline() == "ready\n"
        launcher.stdin.write("go\n")
        launcher.stdin.flush()
        time.sleep(rng.uniform(0, 0.25))
        launcher.send_signal(signal.SIGKILL)
        launcher.wait()
        begun = time.monotonic()
        pid = sa.segment(picture, "objects=1").worker.pid
        figure(2, "another client has an answer", time.monotonic() - begun, 1.0)
        assert [record.process.pid for record in run.living()] == [pid]
        eventually(lambda pid=pid: workers_of(run) == [pid], 10)  # no half-started worker is left


def workers_of(run):
    """Every process that runs a worker's program for this run directory, known or not."""
    found = subprocess.run(["pgrep", "-f", COMMAND[1]], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split() if belongs_to(int(line), run)]


def belongs_to(pid, run):
    """Whether that worker was started for this test's run directory (its working directory)."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == run.path
    except OSError:
        return False


def test_a_stale_record_of_an_earlier_boot_is_swept(connect, picture, run, figure):
    sa = connect()
    sa.segment(picture, "objects=1")
    record: Record = next(run.living())
    sa.unload()
    before = msgspec.structs.replace(record.process, boot="another boot", pid=os.getpid())
    run.write(msgspec.structs.replace(record, process=before))
    assert not sa.status()
    begun = time.monotonic()
    assert sa.segment(picture, "objects=1").text
    figure(4, "an answer beside a stale record", time.monotonic() - begun, 1.0)


def test_a_damaged_record_is_ignored(connect, picture, run):
    sa = connect()
    sa.segment(picture, "objects=1")
    path = run.path / next(run.living()).file_name
    sa.unload()
    for content in (b"", b"{", b"[1,2]", b"\xff" * 100, b'{"protocol": 1}'):
        path.write_bytes(content)
        assert not sa.status()
    assert sa.segment(picture, "objects=1").text


@pytest.mark.parametrize("damage", ["missing", "nonsense"])
def test_a_worker_whose_record_was_lost_writes_it_again(connect, picture, run, damage, eventually):
    sa = connect()
    pid = sa.segment(picture, "objects=1").worker.pid
    record = next(run.living())
    path = run.path / record.file_name
    path.unlink() if damage == "missing" else path.write_text("{")
    eventually(lambda: list(run.living()) == [record], 2)
    assert connect().segment(picture, "objects=1").worker.pid == pid


@pytest.mark.skipif(TCP, reason="over TCP a worker stays reachable whatever is deleted")
def test_a_worker_that_nobody_can_reach_any_more_finishes_its_calls_and_ends(
    connect, picture, run, eventually
):
    """The whole run directory was deleted, as cleaners of temporary files do."""
    sa, later = connect(), connect()
    sa.load()
    worker = next(run.living()).process
    with ThreadPoolExecutor() as pool:
        running = pool.submit(sa.segment, picture, "steps=30 pause=0.1 objects=1")
        eventually(lambda: sa.status().active, 2)
        shutil.rmtree(run.path)
        second = later.segment(picture, "objects=1").worker.pid
        assert second != worker.pid
        assert running.result().worker.pid == worker.pid
    eventually(lambda: not processes.is_alive(worker), 2)
    assert later.segment(picture, "objects=1").worker.pid == second


@pytest.mark.skipif(TCP, reason="over TCP there is no socket file")
def test_a_busy_worker_whose_socket_was_deleted_takes_no_more_calls(
    connect, picture, settings, run, eventually
):
    """Another one is started beside it for old and new clients; the call that had begun goes on."""
    sa, old, new = connect(), connect(), connect()
    first = old.segment(picture, "objects=1").worker.pid
    worker = next(run.living())
    stop = Cancellation()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(sa.segment, picture, "steps=100000 pause=0.01", cancellation=stop)
        eventually(lambda: sa.status().active, 2)
        worker.endpoint.path.unlink()
        second = new.segment(picture, "objects=1").worker.pid
        assert second != first
        eventually(lambda: list(run.living()) != [worker], 2)
        assert old.segment(picture, "objects=1").worker.pid == second
        assert [status.pid for status in list_workers(settings)] == [second]
        assert not running.done()
        assert processes.is_alive(worker.process)
        stop.cancel()
    eventually(lambda: not processes.is_alive(worker.process), 2)
    assert connect().segment(picture, "objects=1").worker.pid == second


def test_a_leftover_socket_is_in_nobodys_way(connect, picture, run, kill):
    sa = connect()
    for _ in range(2):
        kill(sa.segment(picture, "objects=1").worker.pid)
        time.sleep(0.1)
    assert sa.segment(picture, "objects=1").text
    assert len(list(run.path.glob("*.sock"))) == (0 if TCP else 1)


def test_a_very_long_run_directory_works(settings, picture, tmp_path):
    from msgspec.structs import replace

    deep = tmp_path / ("d" * 100) / ("e" * 100)
    with Sa2VA("scripted:", settings=replace(settings, run_dir=str(deep)), command=COMMAND) as sa:
        assert sa.segment(picture, "objects=1").text
        sa.unload()


def test_the_worker_outlives_the_client_that_started_it(client_program, connect, picture):
    first = client_program(
        "with Sa2VA('scripted:', settings=settings, command=COMMAND) as sa:\n"
        "    print(sa.segment(picture, 'objects=1').worker.pid)"
    )
    pid = int(first.communicate()[0])
    assert connect().segment(picture, "objects=1").worker.pid == pid


def test_a_fork_of_a_client_gets_a_connection_of_its_own(client_program):
    program = client_program(
        "import os, warnings\nwarnings.simplefilter('ignore')\n"
        "sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
        "first = sa.segment(picture, 'objects=1').worker.pid\n"
        "child = os.fork()\n"
        "second = sa.segment(picture, 'objects=2')\n"
        "assert second.worker.pid == first and len(second) == 2\n"
        "if child == 0:\n    os._exit(42)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "sa.unload()"
    )
    assert program.communicate(timeout=60)[0].strip() == "42"


def test_a_client_that_exits_without_closing_ends_cleanly(client_program):
    program = client_program(
        "sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
        "print(len(sa.segment(picture, 'objects=1')))"
    )
    assert program.communicate(timeout=60)[0].strip() == "1"
    assert program.returncode == 0


def test_a_worker_that_served_another_and_left_before_its_launcher_looked_is_no_failed_start(
    connect, picture, run, monkeypatch
):
    """A machine that is busy, or a launcher that was stopped for a moment."""
    from sa2va_host.lifecycle import launcher

    await_record = launcher._await_record
    left: list[int] = []
    sa, other = connect(), connect(keep_alive=0)

    def await_late(child, *arguments):
        if not left:
            left.append(other.segment(picture, "objects=1").worker.pid)
            child.has_ended(wait=True)
        return await_record(child, *arguments)

    monkeypatch.setattr(launcher, "_await_record", await_late)
    assert sa.segment(picture, "objects=2").worker.pid != left[0]
    assert run.recent_deaths(sa.specification, 60.0)[0] == 0
