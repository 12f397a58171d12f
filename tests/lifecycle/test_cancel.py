"""A cancelled call ends soon, takes nobody along, and its result reaches nobody."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from sa2va_host import Cancellation, Cancelled

from .conftest import ROOT

ENDLESS = "steps=100000 pause=0.01"


def test_a_queued_call_is_dropped_and_a_running_one_stops(connect, picture, eventually, figure, repeats):
    sa, watcher = connect(), connect()
    sa.load()
    for _ in repeats(5, 100):
        running, queued = Cancellation(), Cancellation()
        with ThreadPoolExecutor() as pool:
            first = pool.submit(sa.segment, picture, ENDLESS, cancellation=running)
            eventually(lambda: watcher.status().active, 2)
            second = pool.submit(sa.segment, picture, ENDLESS, cancellation=queued)
            eventually(lambda: watcher.status().queued, 2)
            begun = time.monotonic()
            queued.cancel()
            eventually(lambda: not watcher.status().queued, 0.1)
            figure(14, "a queued call is dropped", time.monotonic() - begun, 0.1)
            begun = time.monotonic()
            running.cancel()
            eventually(lambda: not watcher.status().active, 1)
            figure(14, "a running call stops", time.monotonic() - begun, 1.0)
            assert isinstance(first.exception(), Cancelled)
            assert isinstance(second.exception(), Cancelled)


def test_a_cancelled_result_reaches_nobody_else(connect, picture, repeats):
    """Calls are cancelled at any moment; each of the others gets its own number of objects."""
    sa = connect()
    sa.load()
    with ThreadPoolExecutor(8) as pool:
        for number in repeats(15, 300):
            cancellation = Cancellation()
            wanted = [number % 3, (number + 1) % 3]
            kept = [pool.submit(sa.segment, picture, f"objects={count} steps=2") for count in wanted]
            gone = [
                pool.submit(sa.segment, picture, "objects=7 steps=3 pause=0.002", cancellation=cancellation)
                for _ in range(2)
            ]
            time.sleep(0.0005 * (number % 20))
            cancellation.cancel()
            assert [len(call.result()) for call in kept] == wanted
            for call in gone:
                assert isinstance(call.exception(), Cancelled) or len(call.result()) == 7


def test_a_step_that_never_ends_ends_the_worker_and_bystanders_are_answered(
    connect, picture, settings, hang, eventually, figure, repeats
):
    sa, other = (connect(settings=replace(settings, cancel_grace=0.5)) for _ in range(2))
    for _ in repeats(1, 10):
        hanging = hang(sa, "steps=2 sleep=60")
        first = sa.status().pid
        with ThreadPoolExecutor() as pool:
            bystander = pool.submit(other.segment, picture, "objects=1")
            eventually(lambda: other.status().queued, 2)
            begun = time.monotonic()
            hanging.cancel()
            result = bystander.result()
            figure(14, "a bystander is answered by the next worker", time.monotonic() - begun, 0.5 + 1.5)
        with pytest.raises(Cancelled):
            hanging.future.result()
        assert result.worker.pid != first


AT_EVERY_LINE = """
import signal, sys
from sa2va_host import Cancellation, Cancelled
from sa2va_host import cancellation as module

current, heard, lines = None, [], 0
signal.signal(signal.SIGUSR1, lambda *_: current.cancel())

def interrupt(frame, event, argument):
    if frame.f_code.co_filename == module.__file__ and event == "line":
        global lines, left
        lines += 1
        left -= 1
        if left == 0:
            signal.raise_signal(signal.SIGUSR1)
    return interrupt

def lines_of(act, when):
    global current, left, lines
    current, left, lines = Cancellation(), when, 0
    heard.clear()
    sys.settrace(interrupt)
    try:
        act(current)
    except Cancelled:
        heard.append("raised")
    finally:
        sys.settrace(None)
    return lines

def listen(cancellation):
    with cancellation.heard_by(lambda _: heard.append("called")):
        pass

def cancel(cancellation):
    with cancellation.heard_by(lambda _: heard.append("called")):
        cancellation.cancel()

for act in (listen, cancel):
    for when in range(1, lines_of(act, 0) + 1):
        lines_of(act, when)
        assert current.cancelled
        assert heard.count("called") <= 1, (act, when, heard)
        assert act is listen or heard, (act, when)
        assert current._listeners == {}
    print(act.__name__, when)
"""
STORM = """
import signal, time
from sa2va_host import Cancellation, Cancelled

current = Cancellation()
signal.signal(signal.SIGALRM, lambda *_: current.cancel())
signal.setitimer(signal.ITIMER_REAL, 0.00005, 0.00005)
until, rounds, heard = time.monotonic() + 2, 0, 0
while time.monotonic() < until:
    called = []
    current = Cancellation()
    try:
        with current.heard_by(called.append):
            for _ in range(rounds % 7):
                current.check()
            current.cancel()
    except Cancelled:
        pass
    else:
        assert len(called) == 1
    rounds += 1
    heard += len(called)
signal.setitimer(signal.ITIMER_REAL, 0)
print(rounds, heard)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no such signals here")
@pytest.mark.parametrize("program", [AT_EVERY_LINE, STORM], ids=["at every line", "a storm"])
def test_a_signal_handler_may_cancel_at_any_moment(program):
    """Also while the thread that it interrupts is in a `Cancellation` itself, which then holds nothing it waits for."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(int(number) > 0 for line in done.stdout.splitlines() for number in line.split()[1:])


def test_a_signal_handler_ends_a_running_call(connect, picture, eventually):
    sa, cancellation = connect(), Cancellation()
    sa.load()
    before = signal.signal(signal.SIGUSR1, lambda *_: cancellation.cancel())
    try:
        running = threading.Event()

        def press():
            eventually(lambda: sa.status().active, 5)
            running.set()
            os.kill(os.getpid(), signal.SIGUSR1)

        pressing = threading.Thread(target=press)
        pressing.start()
        with pytest.raises(Cancelled):
            sa.segment(picture, ENDLESS, cancellation=cancellation)
        pressing.join()
        assert running.is_set()
    finally:
        signal.signal(signal.SIGUSR1, before)
    eventually(lambda: not sa.status().active, 1)
