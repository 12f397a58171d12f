"""Two models, one device with memory for one of them: who is idle makes way, who works is waited for or named."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from sa2va_host import Cancellation, Cancelled, DeadlineExceeded, OutOfMemory, list_workers
from sa2va_host.machine.processes import is_alive

FIRST, SECOND = "scripted:memory=1", "scripted:memory=1,parts=2"


@pytest.mark.parametrize("load", ["0", "0.3"])
def test_an_idle_worker_makes_way(connect, picture, settings, load):
    """Both ways, and whether the load fails before or after a client is connected."""
    one, other = connect(f"{FIRST},load={load}", keep_alive=-1), connect(f"{SECOND},load={load}")
    for _ in range(2):
        for sa in (one, other):
            pid = sa.segment(picture, "objects=1").worker.pid
            assert [worker.pid for worker in list_workers(settings)] == [pid]


def test_an_idle_worker_that_answers_late_makes_way(connect, picture, settings):
    """On a busy machine it may need longer than calls are waited for (a second here)."""
    one, other = connect(FIRST, keep_alive=-1), connect(SECOND)
    pid = one.segment(picture, "objects=1").worker.pid
    os.kill(pid, signal.SIGSTOP)
    resume = threading.Timer(3.0, os.kill, (pid, signal.SIGCONT))
    resume.start()
    try:
        found = other.segment(picture, "objects=1").worker.pid
    finally:
        resume.join()
    assert [worker.pid for worker in list_workers(settings)] == [found]


def test_a_worker_that_was_gone_before_its_client_connected_is_known_to_have_found_no_memory(
    connect, picture, settings, run, monkeypatch, eventually
):
    """Its socket was deleted by then, so that nothing reached it; why it ended is written down."""
    from sa2va_host.lifecycle import launcher

    ensure_worker, gone = launcher.ensure_worker, []

    def ensure_and_wait(*arguments, **more):
        record = ensure_worker(*arguments, **more)
        eventually(lambda: run.read_exit(record.incarnation) or run.was_ready(record.incarnation), 10)
        if run.read_exit(record.incarnation):
            eventually(lambda: not is_alive(record.process), 10)
            gone.append(record)
        return record

    one, other = connect(FIRST, keep_alive=-1), connect(SECOND)
    one.load()
    monkeypatch.setattr(launcher, "ensure_worker", ensure_and_wait)
    pid = other.segment(picture, "objects=1").worker.pid
    assert len(gone) == 1
    assert [worker.pid for worker in list_workers(settings)] == [pid]


def test_every_call_that_waited_is_answered_by_the_one_worker_that_found_room(connect, picture):
    connect(FIRST).segment(picture, "objects=1")
    clients = [connect(f"{SECOND},load=0.3") for _ in range(4)]
    with ThreadPoolExecutor() as pool:
        calls = [pool.submit(sa.segment, picture, "objects=1") for sa in clients]
        assert len({call.result().worker.pid for call in calls}) == 1


def test_a_busy_worker_is_waited_for(connect, picture, eventually):
    one, other = connect(FIRST), connect(SECOND)
    one.load()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(one.segment, picture, "steps=40 pause=0.02 objects=1")
        eventually(lambda: one.status().active or running.done(), 2)
        assert other.segment(picture, "objects=1").text
        assert len(running.result()) == 1


def test_one_that_is_silent_for_a_moment_is_waited_for_too(connect, picture, settings, hang):
    """A step in C that holds the interpreter; somebody else's call is in it."""
    one, other = connect(FIRST), connect(SECOND, settings=replace(settings, unload_wait=15.0))
    running = hang(one, "gil=2 objects=1")
    assert other.segment(picture, "objects=1").text
    assert len(running.future.result()) == 1


def test_two_that_need_room_wait_for_the_same_busy_worker(connect, picture, settings, run, eventually):
    patient = replace(settings, unload_wait=15.0)
    one, *others = (connect(f"{FIRST},name={name}", settings=patient) for name in "abc")
    one.load()
    stop = Cancellation()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(one.segment, picture, "steps=100000 pause=0.01", cancellation=stop)
        eventually(lambda: one.status().active, 2)
        calls = [pool.submit(other.segment, picture, "objects=1") for other in others]
        eventually(lambda: len(list(run.path.glob("*.exit"))) >= 2, 5)  # neither found room
        # Its own client, the two that go on waiting for it to end, and who asks.
        eventually(
            lambda: all(one.status().clients >= 4 for _ in range(20)) or any(call.done() for call in calls), 5
        )
        assert not any(call.done() for call in calls)
        stop.cancel()
        assert all(call.result().text for call in calls)
        assert isinstance(running.exception(), Cancelled)


def test_models_that_are_used_in_turns_on_a_full_device_are_all_answered(connect, picture, settings):
    """By several clients each, who take the device from each other; nobody gives up before `unload_wait`."""
    patient = replace(settings, unload_wait=15.0, timeout=60.0)
    clients = [connect(f"{model},load=0.05", settings=patient) for model in (FIRST, SECOND) * 3]

    def use(sa):
        return [sa.segment(picture, "steps=2 pause=0.02 objects=1").worker.pid for _ in range(3)]

    with ThreadPoolExecutor() as pool:
        assert len([pid for pids in pool.map(use, clients) for pid in pids]) == 18


def test_a_busy_worker_that_takes_too_long_is_named_and_left_alone(connect, picture, settings, eventually):
    one, other = connect(FIRST), connect(SECOND, settings=replace(settings, unload_wait=0.2))
    one.load()
    pid = one.status().pid
    with ThreadPoolExecutor() as pool:
        running = pool.submit(one.segment, picture, "steps=100000 pause=0.01")
        eventually(lambda: one.status().active, 2)
        with pytest.raises(OutOfMemory, match=rf"device is full\. .*memory=1 \(pid {pid}\)") as caught:
            other.segment(picture, "objects=1")
        assert f"(pid {os.getpid()})" in str(caught.value)
        assert not running.done()
        one.close()


def test_waiting_for_room_ends_with_the_calls_own_deadline(connect, picture, settings, eventually, within):
    one, other = connect(FIRST), connect(SECOND, settings=replace(settings, unload_wait=60.0))
    one.load()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(one.segment, picture, "steps=100000 pause=0.01")
        eventually(lambda: one.status().active, 2)
        with within(2.0), pytest.raises(DeadlineExceeded):
            other.segment(picture, "objects=1", timeout=1.5)
        assert not running.done()
        one.close()


def test_a_model_that_fits_nowhere_is_refused_with_its_own_words(connect, picture):
    with pytest.raises(OutOfMemory, match=r"^The script has no memory\."):
        connect("scripted:error=memory,load=0.1").segment(picture, "objects=1")


def test_another_device_is_nobodys_business(connect, picture, run):
    """A worker on another device keeps its model, whatever happens on this one."""
    one, other = connect(FIRST, device="cpu"), connect(SECOND, device="cuda:1")
    pid = one.segment(picture, "objects=1").worker.pid
    with pytest.raises(OutOfMemory, match="full"):
        other.segment(picture, "objects=1")
    assert one.status().pid == pid
