"""asyncio: the same answers, a loop that goes on turning, and cancelled tasks that cancel their calls."""

import asyncio
import threading
import time

import numpy as np
import pytest

from sa2va_host import AsyncSa2VA, Cancellation, Cancelled, OutOfMemory

from .conftest import COMMAND


def run(body, settings, **arguments):
    """Run ``body(sa)`` in an event loop with an asynchronous client of a scripted worker."""

    async def main():
        async with AsyncSa2VA("scripted:", settings=settings, command=COMMAND, **arguments) as sa:
            return await asyncio.wait_for(body(sa), 20)

    return asyncio.run(main())


def test_every_method_answers_what_the_synchronous_one_does(settings, connect, picture):
    sync = connect()
    expected = sync.segment(picture, "objects=2")

    async def body(sa):
        assert (await sa.load()).name == sync.load().name
        result = await sa.segment(picture, "objects=2")
        np.testing.assert_array_equal(result.logits, expected.logits)
        track = await sa.segment_video([picture] * 4, "objects=1", "first:2")
        assert track.logits.shape == (1, 4, 8, 8)
        assert (await sa.chat("hello", [picture])).text
        assert (await sa.status()).pid == result.worker.pid == expected.worker.pid
        assert (await sa.unload()).pid == result.worker.pid
        assert not await sa.status()

    run(body, settings)


def test_frames_may_come_from_an_asynchronous_generator(settings, connect, picture):
    rng = np.random.default_rng(5)
    frames = [rng.integers(0, 256, picture.shape, dtype=np.uint8) for _ in range(12)]
    expected = connect().segment_video(frames, "objects=1", "first:2")

    async def produced():
        for frame in frames:
            await asyncio.sleep(0.001)
            yield frame

    async def body(sa):
        return await sa.segment_video(produced(), "objects=1", "first:2")

    np.testing.assert_array_equal(run(body, settings).logits, expected.logits)


def test_the_loop_turns_while_many_calls_wait(settings, picture):
    async def body(sa):
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        ticking = asyncio.create_task(tick())
        results = await asyncio.gather(*[sa.segment(picture, f"objects={1 + n % 3}") for n in range(24)])
        ticking.cancel()
        assert [len(result) for result in results] == [1 + n % 3 for n in range(24)]
        return ticks

    assert run(body, settings) > 3


def test_a_cancelled_task_cancels_its_call_and_no_other(settings, connect, picture, eventually):
    sync = connect()

    async def body(sa):
        long = asyncio.create_task(sa.segment(picture, "steps=100000 pause=0.01"))
        await asyncio.to_thread(eventually, lambda: sync.status().active, 5.0)
        other = asyncio.create_task(sa.segment(picture, "objects=1"))
        long.cancel()
        with pytest.raises(asyncio.CancelledError):
            await long
        assert len(await other) == 1

    run(body, settings)
    eventually(lambda: not sync.status().active, 1.0)


def test_an_error_of_the_worker_is_raised_where_the_call_is_awaited(settings, picture):
    async def body(sa):
        with pytest.raises(OutOfMemory):
            await sa.segment(picture, "error=memory")

    run(body, settings)


def test_leaving_the_loop_in_the_middle_of_a_call_does_not_hang(
    settings, connect, picture, eventually, promise
):
    sync = connect()

    async def body(sa):
        call = asyncio.create_task(sa.segment(picture, "steps=100000 pause=0.01"))
        await asyncio.to_thread(eventually, lambda: sync.status().active, 5.0)
        return call

    begun = time.monotonic()
    run(body, settings)
    promise(time.monotonic() - begun, 5.0)


def test_a_cancellation_ends_running_and_later_calls_from_another_thread(
    connect, picture, eventually, within
):
    sa, cancellation = connect(), Cancellation()
    sa.load()
    timer = threading.Timer(0.3, cancellation.cancel)
    timer.start()
    with within(2.0), pytest.raises(Cancelled):
        sa.segment(picture, "steps=100000 pause=0.01", cancellation=cancellation)
    eventually(lambda: not sa.status().active, 1.0)
    with within(0.5), pytest.raises(Cancelled):
        sa.segment(picture, "objects=1", cancellation=cancellation)
    assert len(sa.segment(picture, "objects=1")) == 1
