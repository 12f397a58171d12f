"""Thousands of calls of four clients while somebody kills the worker: every call ends, and nothing stays behind."""

from __future__ import annotations

import random
import threading
import time

import numpy as np
import pytest

from sa2va_host import Sa2VAError
from sa2va_host.machine import processes

from .holdings import GROWTH, holdings

ACTS = {
    "segment": 63,
    "chat": 20,
    "video": 6,
    "short": 4,
    "status": 4,
    "error": 2,
    "unload": 0.5,
    "force": 0.5,
}
"""What clients do, and how often of a hundred times."""
TIMEOUT = 10.0
KILL_EVERY = 50
"""Calls, about."""


def one_call(sa, rng, picture):
    """One random call or unload of one client. Only a result or a typed error is a legal end."""
    what = rng.choices(list(ACTS), list(ACTS.values()))[0]
    try:
        if what == "segment":
            objects = rng.randrange(3)
            result = sa.segment(picture, f"objects={objects} steps={rng.randrange(1, 8)}")
            assert result.logits.shape == (objects, 1, 8, 8)
        elif what == "chat":
            assert sa.chat("hello", [picture]).text.endswith(str(int(picture.astype(int).sum())))
        elif what == "video":
            count = rng.randrange(1, 12)
            result = sa.segment_video([picture] * count, "objects=1", "first:2")
            assert result.logits.shape == (1, count, 8, 8)
        elif what == "short":
            sa.segment(picture, "steps=50 pause=0.01", timeout=rng.uniform(0.02, 0.2))
        elif what == "status":
            assert sa.status() is not None
        elif what == "error":
            sa.segment(picture, f"error={rng.choice(['bug', 'memory', 'broken'])}")
        else:
            sa.unload(force=what == "force", timeout=0.3)
    except Sa2VAError:
        pass


@pytest.mark.timeout(3600)
def test_every_call_ends_and_nothing_is_left(connect, picture, run, figure, repeats, eventually):
    before, threads_before = holdings(), threading.active_count()
    problems: list[str] = []
    clients = [connect(timeout=TIMEOUT) for _ in range(4)]
    calls = repeats(1000, 10_000).stop // len(clients)
    expected = clients[0].segment(picture, "objects=1").logits
    resident = holdings().resident

    def client(number):
        rng = random.Random(number)
        for _ in range(calls):
            begun = time.monotonic()
            try:
                one_call(clients[number], rng, picture)
                figure(20, "a call ends", time.monotonic() - begun, TIMEOUT + 1)
                if rng.random() < 1 / KILL_EVERY:
                    run.forget_deaths(clients[number].specification)  # they are not the worker's fault
                    for record in run.living():
                        processes.signal_group(record.process, kill=True)
            except BaseException as error:  # noqa: BLE001 - told on the test's thread
                problems.append(repr(error))

    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(calls * TIMEOUT)
        assert not thread.is_alive(), "a call hangs"
    assert not problems
    for sa in clients:
        np.testing.assert_array_equal(sa.segment(picture, "objects=1").logits, expected)
    assert holdings().resident - resident < GROWTH
    clients[0].unload(force=True)
    for sa in clients:
        sa.close()
    eventually(lambda: threading.active_count() <= threads_before, 5)
    eventually(lambda: not holdings().leaked_since(before), 5)
