"""Unload ends the whole process group and returns only when it is gone; keep_alive means what it says."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from sa2va_host import (
    AsyncSa2VA,
    Cancellation,
    Cancelled,
    Sa2VAError,
    UnloadRefused,
    list_workers,
    stop_worker,
)
from sa2va_host.lifecycle import launcher
from sa2va_host.machine import processes

from .conftest import COMMAND


def group_of(pid):
    """Everybody in the worker's process group, zombies not counted."""
    found = subprocess.run(["ps", "-eo", "pid,pgid,stat"], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in found.splitlines()[1:]]
    return [int(row[0]) for row in rows if int(row[1]) == pid and not row[2].startswith("Z")]


@pytest.mark.parametrize("force", [False, True])
def test_an_idle_worker_is_asked_and_goes(connect, picture, figure, run, force):
    sa = connect()
    pid = sa.segment(picture, "objects=1").worker.pid
    stopped = sa.unload(force=force)
    figure(12, "an idle worker is unloaded", stopped.seconds, 0.5)
    assert (stopped.pid, stopped.rung) == (pid, "asked")
    assert group_of(pid) == []
    assert not sa.status()
    assert list(run.records()) == []
    assert list(run.path.glob("*.sock")) == []
    assert sa.unload().rung == "absent"
    assert sa.segment(picture, "objects=1").worker.pid != pid


@pytest.mark.parametrize("force", [False, True])
def test_a_deaf_worker_with_deaf_children_is_killed_whole(connect, picture, figure, repeats, force):
    sa = connect("scripted:deaf=1,children=2")
    for _ in repeats(1, 20):
        pid = sa.segment(picture, "objects=1").worker.pid
        assert len(group_of(pid)) == 3
        stopped = sa.unload(force=force)
        figure(12, "a deaf worker with deaf children is unloaded", stopped.seconds, 5.0)
        assert stopped.rung == "killed"
        assert group_of(pid) == []


def test_the_children_of_a_killed_worker_go_before_the_next_one_starts(connect, picture, kill):
    sa = connect("scripted:children=1")
    pid = sa.segment(picture, "objects=1").worker.pid
    kill(pid)
    sa.segment(picture, "objects=1")
    assert group_of(pid) == []


@pytest.mark.parametrize(
    ("how", "force"),
    [("stop=1", True), ("stop=1", False), ("gil=30", False), ("sleep=30", True), ("sleep=30", False)],
)
def test_a_worker_that_hangs_is_unloaded_all_the_same(connect, hang, how, force, figure, repeats):
    sa = connect()
    for _ in repeats(1, 10):
        hang(sa, f"steps=2 {how}")
        pid = sa.status().pid
        if how == "sleep=30" and not force:
            with pytest.raises(UnloadRefused):  # it answers, and a call is running: that is not a hang
                sa.unload()
            sa.unload(force=True)
        else:
            stopped = sa.unload(force=force)
            forced = ", forced" if force else ""
            figure(11, f"unload of one that hangs ({how.split('=')[0]}{forced})", stopped.seconds, 5.0)
        assert group_of(pid) == []


@pytest.mark.parametrize("waits", [False, True])
def test_a_step_that_silences_the_worker_for_a_while_is_no_hang(connect, hang, waits):
    """As a long call into C does; somebody else's call is in it."""
    sa, other = connect(), connect()
    running = hang(other, "steps=5 pause=0.1 gil=1.5 objects=1")
    if waits:
        assert sa.unload(timeout=10).rung == "asked"
    else:
        with pytest.raises(UnloadRefused, match="1 calls are running"):
            sa.unload(timeout=0)
    assert len(running.future.result()) == 1


def test_running_calls_of_others_are_waited_for(connect, picture, eventually):
    sa, other = connect(), connect()
    sa.load()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(other.segment, picture, "steps=20 pause=0.03 objects=1")
        eventually(lambda: sa.status().active or running.done(), 1)
        assert sa.unload(timeout=5).rung == "asked"
        assert len(running.result()) == 1


def test_several_unloads_wait_for_the_running_calls_each_as_long_as_it_may(connect, picture, eventually):
    """The one with the least patience is refused; the others go on waiting, and the worker ends for all of them."""
    sa, other = connect(), connect()
    sa.load()
    stop = Cancellation()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(other.segment, picture, "steps=100000 pause=0.01", cancellation=stop)
        eventually(lambda: sa.status().active, 2)
        waiting = [pool.submit(sa.unload, timeout=15) for _ in range(2)]
        eventually(lambda: sa.status().phase == "draining", 2)
        with pytest.raises(UnloadRefused, match="1 calls are running"):
            sa.unload(timeout=0.2)
        assert not any(unload.done() for unload in waiting)
        assert sa.status().phase == "draining"
        stop.cancel()
        assert {unload.result().rung for unload in waiting} <= {"asked", "absent"}
        with pytest.raises(Cancelled):
            running.result()


def test_calls_that_take_too_long_are_named_and_left_alone(connect, picture, eventually):
    sa, other = connect(), connect()
    sa.load()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(other.segment, picture, "steps=100000 pause=0.01 objects=1")
        eventually(lambda: sa.status().active, 1)
        with pytest.raises(UnloadRefused) as caught:
            sa.unload(timeout=0.2)
        assert str(os.getpid()) in caught.value.holders[0]
        assert str(os.getpid()) in str(caught.value)
        assert not running.done()
        assert sa.segment(picture, "objects=1").text
        other.close()


def test_force_ends_the_calls_of_others_with_their_own_error(connect, picture, eventually, within):
    sa, other = connect(), connect()
    sa.load()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(other.segment, picture, "steps=500 pause=0.02")
        eventually(lambda: sa.status().active, 1)
        with within(2):
            sa.unload(force=True)
        error = running.exception(1)
    assert isinstance(error, Cancelled)
    assert "unloaded by" in str(error)


def test_calls_that_wait_while_a_worker_goes_are_answered_by_the_next(connect, picture, eventually):
    sa, other, third = connect(), connect(), connect()
    sa.load()
    first = sa.status().pid
    with ThreadPoolExecutor() as pool:
        running = pool.submit(other.segment, picture, "steps=20 pause=0.02 objects=1")
        eventually(lambda: sa.status().active or running.done(), 1)
        unloading = pool.submit(sa.unload, timeout=5)
        eventually(lambda: sa.status().phase == "draining" or unloading.done(), 1)
        late = pool.submit(third.segment, picture, "objects=1")
        assert unloading.result().pid == first
        assert running.result().worker.pid == first
        assert late.result().worker.pid != first


def test_keep_alive_counts_from_the_end_of_the_last_call(connect, picture, run, eventually):
    sa = connect(keep_alive=0.4)
    sa.segment(picture, "steps=6 pause=0.1 objects=1")  # longer than the keep_alive
    log = Path(next(run.living()).log)
    eventually(lambda: not sa.status(), 1)
    assert "was idle for its keep_alive of 0.4 s" in log.read_text()


def test_keep_alive_zero_ends_the_worker_at_once(connect, picture, eventually):
    sa = connect(keep_alive=0)
    assert sa.segment(picture, "objects=1").text
    eventually(lambda: not sa.status(), 0.5)
    assert sa.segment(picture, "objects=1").text


def test_a_negative_keep_alive_keeps_it(connect, picture):
    sa = connect(keep_alive=-1)
    sa.segment(picture, "objects=1")
    time.sleep(0.3)
    assert sa.status().keep_alive_left is None


def test_the_latest_keep_alive_wins(connect, picture, eventually):
    connect(keep_alive=-1).segment(picture, "objects=1")
    sa = connect(keep_alive=0.2)
    sa.segment(picture, "objects=1")
    eventually(lambda: not sa.status(), 1)


def test_calls_at_the_very_end_of_a_keep_alive_are_answered(connect, picture):
    """The race between the worker's decision to go and a call on its way, thirty times."""
    sa = connect(keep_alive=0.02)
    for number in range(30):
        time.sleep(0.02 + 0.0005 * number)
        assert sa.segment(picture, "objects=1").text


def test_stop_worker_ends_one_of_several(connect, picture, settings):
    connect("scripted:parts=2").segment(picture, "objects=1")
    connect("scripted:parts=3").segment(picture, "objects=1")
    first, second = list_workers(settings)
    assert (first.model, second.model) == ("scripted:parts=2", "scripted:parts=3")
    stopped = stop_worker(first, settings=settings)
    assert (stopped.pid, stopped.rung) == (first.pid, "asked")
    assert [status.pid for status in list_workers(settings)] == [second.pid]
    assert stop_worker(first.pid, settings=settings).rung == "absent"


def test_sigterm_from_outside_is_orderly(connect, picture, eventually):
    sa = connect()
    sa.load()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(sa.segment, picture, "steps=500 pause=0.02")
        eventually(lambda: sa.status().active, 1)
        os.kill(sa.status().pid, signal.SIGTERM)
        assert "SIGTERM" in str(running.exception(1))


def test_a_stranger_with_the_workers_pid_is_never_signalled(connect, picture, run, kill, eventually):
    """The record names pid and start time; a reused pid differs in the latter."""
    from msgspec.structs import replace

    sa = connect()
    pid = sa.segment(picture, "objects=1").worker.pid
    record = next(run.living())
    kill(pid)
    eventually(lambda: not sa.status(), 1)
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        who = processes.identify(stranger.pid)
        assert who is not None
        stale = replace(record, process=replace(who, started=who.started - 1))
        run.write(stale)
        assert not sa.status()
        assert stop_worker(stranger.pid).rung == "absent"
        assert sa.segment(picture, "objects=1").text
        sa.unload()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("last", ["sigterm", "force"])
def test_a_waiting_unload_does_not_trip_over_a_stronger_one(connect, picture, eventually, last):
    """Both ends may fall due in the same moment; the worker must leave in order."""
    sa, other = connect(), connect()
    sa.load()
    worker = sa.status()
    with ThreadPoolExecutor() as pool:
        call = pool.submit(sa.segment, picture, "steps=1000 pause=0.01")
        eventually(lambda: sa.status().active, 2.0)
        waiting = pool.submit(other.unload, timeout=0.5)
        eventually(lambda: sa.status().phase == "draining" or waiting.done(), 2.0)
        if last == "sigterm":
            os.kill(worker.pid, signal.SIGTERM)
        else:
            sa.unload(force=True)
        with pytest.raises(Sa2VAError):
            call.result()
        with contextlib.suppress(UnloadRefused):
            waiting.result()
    eventually(lambda: not sa.status(), 2.0)
    assert "no way from" not in Path(worker.log).read_text()


@pytest.mark.parametrize("how", ["unload", "force", "deaf", "stop_worker", "asyncio", "eviction"])
@pytest.mark.parametrize("reaper", ["late", "never"])
def test_not_even_a_zombie_of_our_own_is_left(
    connect, picture, settings, monkeypatch, eventually, how, reaper
):
    """However long whoever waits for it takes to do so, and should nobody."""
    reap, reaped = launcher._reap, []

    def reap_late(*of_child):
        if reaper == "late":
            time.sleep(0.3)
            reap(*of_child)
            reaped.append(1)

    model = {"deaf": "scripted:deaf=1", "eviction": "scripted:memory=1"}.get(how, "scripted:")
    with monkeypatch.context() as patch:
        # Called once the child has ended, as the real one is.
        patch.setattr(launcher, "_reap", lambda child, *rest: (_ended(child.pid), reap_late(child, *rest)))
        sa = connect(model)
        pid = sa.segment(picture, "objects=1").worker.pid
    assert psutil.pid_exists(pid)
    if how == "stop_worker":
        stop_worker(pid, settings=settings)
    elif how == "asyncio":

        async def unload():
            async with AsyncSa2VA(model, settings=settings, command=COMMAND) as other:
                await other.unload()

        asyncio.run(unload())
    elif how == "eviction":
        connect("scripted:memory=1,parts=2").load()
    else:
        sa.unload(force=how == "force")
    assert not psutil.pid_exists(pid)
    if reaper == "late":
        eventually(lambda: reaped == [1], 5)  # whoever waits for it had its exit code


def _ended(pid):
    while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.002)


def test_a_zombie_of_a_stopped_process_is_not_waited_for(connect, client_program, within, eventually):
    """Its parent alone can reap it."""
    other = client_program(
        "with Sa2VA('scripted:', settings=settings, command=COMMAND) as sa:\n"
        "    sa.load()\n    print('ready', flush=True)\n    input()\n"
    )
    assert other.stdout.readline() == "ready\n"
    sa = connect()
    pid = sa.status().pid
    os.kill(other.pid, signal.SIGSTOP)
    try:
        with within(1.0):
            assert sa.unload().rung == "asked"
        assert psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    finally:
        os.kill(other.pid, signal.SIGCONT)
    eventually(lambda: not psutil.pid_exists(pid), 2)
    other.communicate("\n")
