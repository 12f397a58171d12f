"""Frames that stall, fail or come in a rhythm of their own: nobody waits for them who need not."""

import asyncio
import contextlib
import gc
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sa2va_host import AsyncSa2VA, Cancellation, Cancelled, DeadlineExceeded, OutOfMemory
from sa2va_host.events import Progress
from sa2va_host.protocol.limits import FRAME_WINDOW
from sa2va_host.video.tracks import Track

from .conftest import COMMAND


@pytest.fixture
def frames():
    return list(np.random.default_rng(3).integers(0, 256, (24, 48, 64, 3), dtype=np.uint8))


class Stalling:
    """Yields ``count`` frames, and the others only once it is released: never, if nobody does."""

    def __init__(self, frames, count):
        self._frames, self._count = frames, count
        self.stalls, self.released = threading.Event(), threading.Event()
        self.error = None

    def __iter__(self):
        yield from self._frames[: self._count]
        self.stalls.set()
        self.released.wait()
        if self.error is not None:
            raise self.error
        yield from self._frames[self._count :]

    async def asynchronous(self, ended):
        try:
            for frame in self._frames[: self._count]:
                yield frame
            self.stalls.set()
            await asyncio.Event().wait()
        finally:
            ended.set()


@pytest.fixture
def stalling(frames):
    """``stalling(3)`` stalls after three frames, until the test ends at the latest."""
    made = []

    def make(count):
        made.append(Stalling(frames, count))
        return made[-1]

    yield make
    for source in made:
        source.released.set()


def gives_up(sa, eventually, promise):
    """The worker stops at once and is nobody's: it can be unloaded without waiting for anybody."""
    begun = time.monotonic()
    eventually(lambda: not sa.status().active, 1.0)
    promise(time.monotonic() - begun, 0.3)
    assert sa.unload(timeout=0).rung == "asked"


AFTER = [0, 3, 12]
"""Before the key frames are there, within the window, behind it."""


@pytest.mark.parametrize("ask_again", ["never", "every:4", "cuts"])
@pytest.mark.parametrize("count", AFTER)
def test_cancelling_from_another_thread_reaches_worker_and_caller(
    connect, stalling, eventually, promise, count, ask_again
):
    sa, cancellation, source = connect(), Cancellation(), stalling(count)
    sa.load()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(
            sa.segment_video, source, "objects=1", "first:1", ask_again=ask_again, cancellation=cancellation
        )
        assert source.stalls.wait(10)
        eventually(lambda: sa.status().active or not count or ask_again != "never", 2)
        cancellation.cancel()
        assert isinstance(waiting.exception(5), Cancelled)
        assert not source.released.is_set()
        gives_up(sa, eventually, promise)


@pytest.mark.parametrize("count", AFTER)
def test_a_deadline_does_not_wait_for_the_source(connect, stalling, eventually, promise, within, count):
    sa, source = connect(), stalling(count)
    sa.load()
    with within(2.0), pytest.raises(DeadlineExceeded, match="timeout of 1 s"):
        sa.segment_video(source, "objects=1", "first:1", timeout=1)
    assert not source.released.is_set()
    gives_up(sa, eventually, promise)


@pytest.mark.parametrize("count", AFTER)
def test_ctrl_c_does_not_wait_for_the_source(connect, stalling, eventually, promise, count):
    sa, source = connect(), stalling(count)
    sa.load()

    def press():
        source.stalls.wait(10)
        os.kill(os.getpid(), signal.SIGINT)

    pressing = threading.Thread(target=press)
    pressing.start()
    with pytest.raises(KeyboardInterrupt):
        sa.segment_video(source, "objects=1", "first:1")
    pressing.join()
    gives_up(sa, eventually, promise)


@pytest.mark.parametrize("count", AFTER)
def test_closing_from_another_thread_ends_the_one_that_waits(connect, stalling, eventually, promise, count):
    sa, source = connect(), stalling(count)
    sa.load()
    track = sa.track(source, "objects=1", "first:1")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(list, track)
        assert source.stalls.wait(10)
        track.close()
        assert isinstance(waiting.exception(5), Cancelled)
        gives_up(sa, eventually, promise)
    assert list(track) == []


def test_an_event_s_callback_may_close_the_track(connect, frames):
    tracks: list[Track] = []

    def heard(event):
        if isinstance(event, Progress) and event.phase == "tracking" and event.done == 3:
            tracks[0].close()

    tracks.append(connect(on_event=heard).track(frames, "objects=1"))
    with pytest.raises(Cancelled):
        list(tracks[0])
    assert list(tracks[0]) == []


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("how", ["task", "leave", "wait_for"])
def test_asyncio_need_not_wait_for_the_source_either(
    settings, connect, stalling, eventually, promise, how, asynchronous
):
    """A task that waits is cancelled, or another one leaves the `async with`; frames of the loop itself end too."""
    sync, source, ended = connect(), stalling(3), threading.Event()
    sync.load()

    async def body():
        async with AsyncSa2VA("scripted:", settings=settings, command=COMMAND) as sa:
            given = source.asynchronous(ended) if asynchronous else source

            async def watch(track):
                async for _ in track:
                    pass

            async with sa.track(given, "objects=1", "first:1") as track:
                watching = None
                if how == "wait_for":
                    with pytest.raises(asyncio.TimeoutError):
                        await asyncio.wait_for(watch(track), 0.5)
                else:
                    watching = asyncio.create_task(watch(track))
                    assert await asyncio.to_thread(source.stalls.wait, 10)
                if how == "task" and watching is not None:
                    watching.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await watching
                if how != "leave":
                    await asyncio.to_thread(eventually, lambda: not sync.status().active, 1.0)
            if how == "leave" and watching is not None:
                # Where it was between two frames, the iteration ends as that of a track that is closed.
                with contextlib.suppress(Cancelled):
                    await asyncio.wait_for(watching, 5)
            await asyncio.to_thread(gives_up, sync, eventually, promise)
            if asynchronous:
                assert await asyncio.to_thread(ended.wait, 5), "the generator was cancelled"

    asyncio.run(asyncio.wait_for(body(), 20))


def test_a_cancelled_task_with_a_whole_video_need_not_wait(settings, connect, stalling, eventually, promise):
    sync, source, ended = connect(), stalling(3), threading.Event()
    sync.load()

    async def body():
        async with AsyncSa2VA("scripted:", settings=settings, command=COMMAND) as sa:
            for given in (source, source.asynchronous(ended)):
                source.stalls.clear()
                video = asyncio.create_task(sa.segment_video(given, "objects=1", "first:1"))
                assert await asyncio.to_thread(source.stalls.wait, 10)
                video.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await video
                await asyncio.to_thread(eventually, lambda: not sync.status().active, 1.0)
            assert await asyncio.to_thread(ended.wait, 5)
        await asyncio.to_thread(gives_up, sync, eventually, promise)

    asyncio.run(asyncio.wait_for(body(), 20))


@pytest.mark.parametrize("key_frames", ["first:1", "first:3"])
@pytest.mark.parametrize("ask_again", ["never", "every:5"])
def test_a_result_is_there_before_the_next_frame_is(connect, frames, ask_again, key_frames):
    """A source that gives a frame only when the result of the one before it was delivered: no frame runs ahead."""
    delivered = threading.Semaphore(0)
    first = int(key_frames.partition(":")[2])

    def live():
        for place, frame in enumerate(frames):
            shot = place if ask_again == "never" else place % 5
            # Those that the model sees come before the first result, and so does that which ends a shot before the
            # results of the next.
            if shot >= first and not delivered.acquire(timeout=10):
                raise TimeoutError(f"frame {place} was wanted before the results of those before it")
            yield frame

    def results():
        for found in sa.track(live(), "objects=1", key_frames, ask_again=ask_again):
            delivered.release()
            yield found

    sa = connect()
    whole = sa.segment_video(frames, "objects=1", key_frames, ask_again=ask_again)
    logits = np.stack([found.logits for found in results()], axis=1)
    np.testing.assert_array_equal(logits, whole.logits)


@pytest.mark.parametrize(("source_pause", "worker_pause"), [(0.02, 0.0), (0.0, 0.02), (0.01, 0.01)])
def test_in_any_rhythm_the_answers_are_the_same_and_the_window_holds(
    connect, frames, source_pause, worker_pause
):
    sa, read = connect(), 0
    whole = sa.segment_video(frames, "objects=1")

    def source():
        nonlocal read
        for frame in frames:
            time.sleep(source_pause)
            read += 1
            yield frame

    found = []
    for frame in sa.track(source(), f"objects=1 pause={worker_pause}"):
        found.append(frame.logits)
        # What the worker may hold, what it works on, and what is read for it while the caller looks.
        assert read <= max(5, frame.index + 1 + FRAME_WINDOW + 2)
    np.testing.assert_array_equal(np.stack(found, axis=1), whole.logits)


def test_a_source_that_stalls_for_a_while_goes_on(connect, stalling, frames):
    sa, source = connect(), stalling(10)
    whole = sa.segment_video(frames, "objects=1")
    found = []
    with sa.track(source, "objects=1") as track:
        for frame in track:
            found.append(frame.logits)
            if len(found) == 10:  # all that there are meanwhile
                source.released.set()
    np.testing.assert_array_equal(np.stack(found, axis=1), whole.logits)


@pytest.mark.parametrize("count", [0, 3, 12])
def test_a_source_that_fails_later_leaves_the_results_of_what_it_yielded(connect, stalling, frames, count):
    sa, source = connect(), stalling(count)
    source.error = OSError("the camera is gone")
    source.released.set()
    track = sa.track(source, "objects=1 pause=0.01", "first:1")
    for index in range(count):
        assert next(track).index == index
    with pytest.raises(OSError, match="camera is gone"):
        next(track)
    assert list(track) == []
    assert len(sa.segment(frames[0], "objects=1")) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), Cancelled("Enough.")])
def test_what_a_source_ends_the_program_with_is_raised_at_once(connect, stalling, eventually, error):
    sa, source = connect(), stalling(12)
    sa.load()
    source.error = error
    source.released.set()
    with pytest.raises(type(error)):
        list(sa.track(source, "objects=1 pause=0.5", "first:1"))
    eventually(lambda: not sa.status().active, 1.5)


def test_where_nothing_is_found_a_stalled_source_is_asked_no_further(connect, stalling, frames):
    sa, source, cancellation = connect(), stalling(3), Cancellation()
    with sa.track(source, "objects=0", "first:1", cancellation=cancellation) as track:
        assert list(track) == []
        with ThreadPoolExecutor() as pool:
            counting = pool.submit(track.collect)
            cancellation.cancel()
            assert isinstance(counting.exception(5), Cancelled)
    source = stalling(3)
    with sa.track(source, "objects=0", "first:1") as track:
        assert list(track) == []
        source.released.set()
        assert track.collect().masks().shape == (0, len(frames), 48, 64)


def test_frames_are_read_on_one_thread_and_events_delivered_on_the_one_that_asks(connect, frames):
    readers, heard = set(), set()

    def source():
        for frame in frames:
            readers.add(threading.current_thread())
            yield frame

    sa = connect(on_event=lambda _: heard.add(threading.current_thread()))
    track = sa.track(source(), "objects=1", ask_again="every:5")
    assert len(list(track)) == 24
    (reader,) = readers
    assert reader is not threading.current_thread()
    assert heard == {threading.current_thread()}
    reader.join(5)
    assert not reader.is_alive(), "it ends with the frames"


def test_the_thread_of_a_track_that_is_forgotten_ends(connect, frames):
    readers = set()

    def source():
        for frame in frames:
            readers.add(threading.current_thread())
            yield frame

    next(connect().track(source(), "objects=1"))
    (reader,) = readers
    reader.join(5)
    assert not reader.is_alive()


@pytest.mark.parametrize("ask_again", ["never", "every:5"])
@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("source", OSError),
        ("cancel", Cancelled),
        ("deadline", DeadlineExceeded),
        ("worker", OutOfMemory),
        ("caller", ZeroDivisionError),
        ("forgotten", None),
    ],
)
def test_the_frames_are_let_go_however_it_ends(connect, frames, how, error, ask_again):
    """At once, not when garbage is collected: they may be those of a file."""
    let_go, cancellation = threading.Event(), Cancellation()

    def source():
        try:
            for place, frame in enumerate(frames):
                if place == 12 and how == "source":
                    raise OSError("the camera is gone")
                yield frame
        finally:
            let_go.set()

    def watch():
        prompt = "objects=1 error=memory" if how == "worker" else "objects=1 pause=0.02"
        timeout = 0.1 if how == "deadline" else None
        track = sa.track(source(), prompt, ask_again=ask_again, timeout=timeout, cancellation=cancellation)
        for found in track:
            if found.index == 3:
                if how == "cancel":
                    cancellation.cancel()
                if how == "forgotten":
                    return
                assert how != "caller" or 1 / 0

    sa = connect()
    sa.load()
    gc.disable()
    try:
        with pytest.raises(error) if error else contextlib.nullcontext():
            watch()
        assert let_go.wait(5)
    finally:
        gc.enable()
