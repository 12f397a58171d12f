"""Promises that mean something for a real model too: on the scripted worker, and at full length on the bundled one."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest

from sa2va_host import Sa2VA, WorkerDied, list_workers

from .conftest import COMMAND, SURVIVE
from .holdings import holdings, make_old, stray_files

pytestmark = pytest.mark.timeout(3600)
LEAK = 8 << 20
"""Bytes that a process may hold more after thousands of calls or hundreds of starts, once it has done a quarter."""


@dataclass(frozen=True)
class World:
    """A model and how it is asked. ``share`` of the full repeats are worth their time with it."""

    model: str
    command: list[str] | None
    prompt: str
    slow: str
    share: float


WORLDS = [World("scripted:load=0.2", COMMAND, "objects=2", "objects=1 pause=0.01", 1.0)]
if SURVIVE:
    WORLDS.append(World("sa2va-tiny", None, "the red circle", "the red circle", 0.2))


@pytest.fixture(params=WORLDS, ids=lambda world: world.model.partition(":")[0])
def world(request):
    return request.param


@pytest.fixture
def client(world, settings):
    """A client of that world, closed at the end."""
    with Sa2VA(world.model, settings=settings, command=world.command, timeout=60.0) as sa:
        yield sa


@pytest.fixture
def scene():
    """A red disc on grey, uint8 `[128, 128, 3]`: the bundled model has one object to follow."""
    rows, columns = np.mgrid[:128, :128]
    picture = np.full((128, 128, 3), 200, np.uint8)
    picture[(rows - 60) ** 2 + (columns - 70) ** 2 < 30**2] = (220, 30, 30)
    return picture


@pytest.fixture
def times(world, repeats):
    """As ``repeats``, with the world's share of the many."""
    return lambda few, many: repeats(few, max(few, round(world.share * many)))


def test_sixteen_clients_that_start_cold_at_once_share_one_worker(
    world, client, client_program, settings, times, figure
):
    programs = [
        client_program(
            f"import time\nsa = Sa2VA({world.model!r}, settings=settings, command={world.command!r}, timeout=60.0)\n"
            "for _ in sys.stdin:\n"
            f"    begun = time.monotonic()\n    r = sa.segment(picture, {world.prompt!r})\n"
            "    print(r.worker.pid, float(r.logits.sum()), time.monotonic() - begun, flush=True)"
        )
        for _ in range(16)
    ]

    def ask(asked):
        for program in asked:
            program.stdin.write("go\n")
            program.stdin.flush()
        return [program.stdout.readline().split() for program in asked]

    ask(programs)  # so that all have imported what they need
    alone = []
    for _ in range(3):
        client.unload()
        alone.append(float(ask(programs[:1])[0][2]))
    spawn = statistics.median(alone)
    for _ in times(2, 20):
        client.unload()
        answers = ask(programs)
        assert len({pid for pid, _, _ in answers}) == 1
        assert len({total for _, total, _ in answers}) == 1
        assert len(list_workers(settings)) == 1
        slowest = max(float(seconds) for _, _, seconds in answers)
        figure(1, f"the slowest of 16, beyond a start alone ({world.model})", slowest - spawn, 0.5)


def test_a_kill_in_mid_inference_is_told_and_the_next_call_works(
    world, client, scene, kill, times, figure, eventually
):
    expected = client.segment(scene, world.prompt).logits
    for _ in times(1, 50):
        with ThreadPoolExecutor() as pool:
            video = pool.submit(client.segment_video, itertools.repeat(scene), world.slow)
            eventually(lambda: client.status().phase == "tracking", 20)
            begun = time.monotonic()
            kill(client.status().pid)
            assert isinstance(video.exception(), WorkerDied)
            figure(5, f"a video fails after a kill ({world.model})", time.monotonic() - begun, 0.5)
        np.testing.assert_array_equal(client.segment(scene, world.prompt).logits, expected)


def test_a_running_call_stops_when_it_is_cancelled(world, client, scene, times, figure, eventually):
    client.load()
    for _ in times(2, 50):
        track = client.track(itertools.repeat(scene), world.slow)
        next(track)
        begun = time.monotonic()
        track.close()
        eventually(lambda: not client.status().active, 1)
        figure(14, f"a running video stops ({world.model})", time.monotonic() - begun, 1.0)


def test_unload_gives_everything_back(world, client, scene, times, figure):
    for number in times(2, 50):
        client.segment(scene, world.prompt)
        stopped = client.unload(force=number % 2 == 1)
        assert stopped.rung == "asked"
        assert not client.status()
        figure(12, f"an idle worker is unloaded ({world.model})", stopped.seconds, 0.5)


def test_calls_leak_nothing_here_or_in_the_worker(world, client, scene, times, figure):
    large = np.zeros((720, 1280, 3), np.uint8)  # through shared memory
    pid = client.segment(scene, world.prompt).worker.pid
    calls = times(400, 5000)
    before = holdings(), holdings(pid)
    for number in calls:
        if number == calls.stop // 4:
            before = holdings(), holdings(pid)
        if number % 10 == 0:
            client.chat("hello", [large])
        elif number % 10 == 5:
            client.segment_video([scene] * 3, world.prompt)
        else:
            client.segment(scene, world.prompt)
    after = holdings(), holdings(pid)
    assert client.status().pid == pid
    growth = [now.resident - then.resident for now, then in zip(after, before, strict=True)]
    figure.count(28, f"{calls.stop} calls ({world.model})", client_bytes=growth[0], worker_bytes=growth[1])
    assert not any(now.leaked_since(then) for now, then in zip(after, before, strict=True)), (before, after)
    assert max(growth) < LEAK


def test_starts_leak_nothing(world, client, scene, kill, times, run, figure, eventually):
    """However a worker ends: asked, forced or killed, or by itself."""
    starts = times(24, 500)
    threads, before = threading.active_count(), holdings()
    for number in starts:
        if number == starts.stop // 4:
            threads, before = threading.active_count(), holdings()
        pid = client.segment(scene, world.prompt).worker.pid
        if number % 4 < 2:
            client.unload(force=number % 4 == 1)
        elif number % 4 == 2:
            kill(pid)
        else:
            with Sa2VA(world.model, settings=client.settings, command=world.command, keep_alive=0.0) as last:
                last.segment(scene, world.prompt)
            eventually(lambda: not client.status(), 5)
    eventually(lambda: threading.active_count() <= threads, 5)
    eventually(lambda: not holdings().leaked_since(before), 5)
    growth = holdings().resident - before.resident
    figure.count(28, f"{starts.stop} starts ({world.model})", client_bytes=growth)
    assert growth < LEAK
    make_old(run)
    client.load()
    client.unload()
    assert stray_files(run, 1) == []
