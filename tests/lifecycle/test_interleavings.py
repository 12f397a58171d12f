"""Four clients load, ask, unload and kill in any order: no call hangs, and one worker is left, or none."""

import contextlib
import os
import random
import signal
import threading
import time

import pytest

from sa2va_host import Sa2VAError, list_workers

TIMEOUT = 10.0
ACTS = ("load", "infer", "infer", "infer", "unload", "force", "kill")


def act(sa, what, picture):
    """One act of one client. Only a result or a typed error is a legal end."""
    with contextlib.suppress(Sa2VAError):
        if what == "load":
            sa.load()
        elif what == "infer":
            assert len(sa.segment(picture, "objects=2 steps=2 pause=0.005")) == 2
        elif what == "kill":
            with contextlib.suppress(ProcessLookupError):
                os.kill(sa.status().pid or 2**22, signal.SIGKILL)
        else:
            sa.unload(force=what == "force", timeout=0.2)


@pytest.mark.timeout(3600)
def test_no_interleaving_hangs_or_leaves_two_workers(connect, picture, settings, run, figure, repeats):
    clients = [connect(timeout=TIMEOUT) for _ in range(4)]
    failed: list[BaseException] = []
    for seed in repeats(100, 1000):
        rng = random.Random(seed)
        plans = [
            [(rng.choice(ACTS), rng.uniform(0, 0.02)) for _ in range(rng.choice((1, 1, 2)))] for _ in clients
        ]
        start = threading.Barrier(len(clients))

        def follow(sa, plan, start=start):
            try:
                start.wait()
                for what, pause in plan:
                    time.sleep(pause)
                    begun = time.monotonic()
                    act(sa, what, picture)
                    figure(13, "an act ends", time.monotonic() - begun, TIMEOUT + 1)
            except BaseException as error:  # noqa: BLE001 - told on the test's thread
                failed.append(error)

        threads = [
            threading.Thread(target=follow, args=pair, daemon=True)
            for pair in zip(clients, plans, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(4 * TIMEOUT)
        assert not any(thread.is_alive() for thread in threads), f"seed {seed}: a call hangs, {plans}"
        assert not failed, f"seed {seed}: {failed[0]!r}, {plans}"
        run.forget_deaths(clients[0].specification)  # those here are not the worker's fault
        assert len(list_workers(settings)) <= 1, f"seed {seed}: {plans}"
    assert len(clients[0].segment(picture, "objects=2")) == 2
