"""A cancelled call ends soon, takes nobody along, and its result reaches nobody."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from sa2va_host import Cancellation, Cancelled

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
