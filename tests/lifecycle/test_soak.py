"""Whatever four clients do to one worker, and whoever kills it: every call ends, and nothing stays behind."""

import contextlib
import os
import random
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from sa2va_host import Sa2VAError

ROUNDS = int(os.environ.get("SA2VA_SOAK_ROUNDS") or 25)  # read at import; a fixture cleans the environment
TIMEOUT = 10.0


def one_step(sa, rng, picture, problems):
    """One random act of one client. Only a result or a typed error is a legal end, before the deadline."""
    act = rng.choices(
        ["segment", "chat", "video", "short", "unload", "force", "kill", "status", "error"],
        [8, 4, 3, 4, 1, 1, 2, 2, 2],
    )[0]
    begun = time.monotonic()
    try:
        if act == "segment":
            objects = rng.randrange(3)
            steps = rng.randrange(1, 8)
            result = sa.segment(picture, f"objects={objects} steps={steps} pause=0.005")
            assert result.logits.shape == (objects, 1, 8, 8)
        elif act == "chat":
            assert sa.chat("hello", [picture]).text.endswith(str(int(picture.astype(int).sum())))
        elif act == "video":
            count = rng.randrange(1, 20)
            result = sa.segment_video([picture] * count, "objects=1 pause=0.002", "first:2")
            assert result.logits.shape == (1, count, 8, 8)
        elif act == "short":
            sa.segment(picture, "steps=50 pause=0.01", timeout=rng.uniform(0.02, 0.3))
        elif act in ("unload", "force"):
            sa.unload(force=act == "force", timeout=0.3)
        elif act == "kill":
            status = sa.status()
            if status:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(status.pid, signal.SIGKILL)
        elif act == "status":
            assert sa.status() is not None
        else:
            sa.segment(picture, f"error={rng.choice(['bug', 'memory', 'broken'])}")
    except Sa2VAError:
        pass
    except BaseException as error:
        problems.append((act, repr(error)))
        raise
    took = time.monotonic() - begun
    if took > TIMEOUT + 1:
        problems.append((act, f"took {took:.1f} s"))


@pytest.mark.parametrize("seed", range(1))
def test_every_call_ends_and_nothing_is_left(connect, picture, seed, eventually):
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    threads_before = threading.active_count()
    problems: list[tuple[str, str]] = []
    clients = [connect(timeout=TIMEOUT) for _ in range(4)]

    def client(number):
        rng = random.Random(seed * 100 + number)
        for _ in range(ROUNDS):
            one_step(clients[number], rng, picture, problems)

    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(ROUNDS * (TIMEOUT + 1))
        assert not thread.is_alive(), "a call hangs"
    assert not problems
    np.testing.assert_array_equal(
        clients[0].segment(picture, "objects=1").logits, clients[1].segment(picture, "objects=1").logits
    )
    clients[0].unload(force=True)
    for sa in clients:
        sa.close()
    eventually(lambda: threading.active_count() <= threads_before, 5)
    eventually(lambda: len(list(Path("/proc/self/fd").iterdir())) <= descriptors, 2)
