"""Whose step is next. The scheduler runs on a thread as in the worker; the engine is a script in this
process.
"""

import threading
import time
from collections import deque

import numpy as np
import pytest

from sa2va_host.protocol import wire
from sa2va_host.protocol.specification import ModelInfo
from sa2va_worker.calls import FrameStream, OnePicture, Work
from sa2va_worker.outbox import Broken, Event, Finished, LoadDone, LoadFailed, Outbox, Reply
from sa2va_worker.scheduler import Scheduler
from sa2va_worker.steps import (
    Answer,
    ChatRequest,
    EngineBroken,
    Masks,
    MemoryUse,
    SegmentRequest,
    Token,
    Waiting,
)

INFO = ModelInfo(
    name="m", family="f", image_size=4, device="cpu", dtype="float32", attention="sdpa", parameters=0
)


class Engine:
    """A chat says its prompt's letters one by one; ``gate`` holds every step until it is opened."""

    info = INFO

    def __init__(self):
        self.closed = []
        self.order = []
        self.gate = threading.Event()
        self.gate.set()

    def load(self, spec):
        return iter(())

    def memory(self):
        return MemoryUse()

    def chat(self, request):
        try:
            for letter in request.prompt:
                self.gate.wait(5)
                self.order.append(letter)
                if letter == "!":
                    raise ZeroDivisionError("by zero")
                if letter == "#":
                    raise EngineBroken("gone")
                yield Token(letter)
            yield Answer(request.prompt)
        finally:
            self.closed.append(request.prompt)

    def segment(self, request, frames):
        index = 0
        while True:
            frame = frames.get()
            if frame is None:
                if frames.finished:
                    break
                yield Waiting()
                continue
            self.order.append(index)
            yield Masks(index, frame[None, :, :, 0].astype(np.float32))
            index += 1
        yield Answer("done", 1)


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def world(engine):
    """A running scheduler with everything it says, in order."""
    said: deque[Event] = deque()
    woken = threading.Event()
    outbox = Outbox(woken.set)
    scheduler = Scheduler(outbox, max_active=2)
    threading.Thread(
        target=scheduler.run, args=(lambda: engine, lambda e: e.load(None), lambda: None), daemon=True
    ).start()

    def until(kind, count=1, seconds=3.0):
        deadline = time.monotonic() + seconds
        while sum(isinstance(event, kind) for event in said) < count:
            assert time.monotonic() < deadline, list(said)
            woken.wait(0.05)
            woken.clear()
            said.extend(outbox.drain())
        return [event for event in said if isinstance(event, kind)]

    until(LoadDone)
    return scheduler, until


def chat(client, call, prompt):
    return Work(client, call, 0.0, ChatRequest(prompt))


def test_clients_take_turns_and_each_keeps_its_order(world, engine):
    scheduler, until = world
    engine.gate.clear()
    for work in (chat(b"A", 1, "aaaa"), chat(b"A", 2, "xx"), chat(b"B", 1, "bbbb")):
        scheduler.add(work)
    engine.gate.set()
    until(Finished, 3)
    letters = "".join(engine.order)
    assert letters.index("x") > letters.rindex("a")
    assert "abab" in letters or "baba" in letters


def test_a_worker_does_not_look_idle_before_its_answer_is_out(engine):
    """One that looks idle may end, with a keep_alive of 0 at once."""
    idle, answered = [], threading.Event()

    class Watched(Outbox):
        def put(self, event):
            if isinstance(event, Reply) and isinstance(event.message, wire.Answer):
                idle.append(not scheduler.works())
            super().put(event)
            if isinstance(event, Finished):
                answered.set()

    scheduler = Scheduler(Watched(lambda: None), max_active=2)
    run = (lambda: engine, lambda e: e.load(None), lambda: None)
    threading.Thread(target=scheduler.run, args=run, daemon=True).start()
    scheduler.add(chat(b"A", 1, "a"))
    assert answered.wait(3)
    assert idle == [False]
    assert not scheduler.works()


def test_no_more_calls_are_begun_than_allowed(world, engine):
    scheduler, until = world
    engine.gate.clear()
    for number in range(5):
        scheduler.add(chat(bytes([65 + number]), 1, "abc"))
    time.sleep(0.1)
    assert sum(scheduler.is_begun(work) for work in scheduler.works()) <= 2
    engine.gate.set()
    until(Finished, 5)


def test_a_queued_call_is_cancelled_at_once_and_a_begun_one_after_its_step(world, engine):
    scheduler, until = world
    engine.gate.clear()
    running, queued = chat(b"A", 1, "aaaa"), chat(b"A", 2, "bbbb")
    scheduler.add(running)
    scheduler.add(queued)
    while not scheduler.is_begun(running):
        time.sleep(0.001)
    failed = wire.Failed(call=2, code="cancelled", message="m")
    assert scheduler.cancel(queued, failed) is True
    assert scheduler.works() == [running]
    assert scheduler.cancel(running, wire.Failed(call=1, code="cancelled", message="m")) is False
    engine.gate.set()
    until(Finished)
    assert engine.closed == ["aaaa"]
    assert len(engine.order) <= 1
    assert scheduler.cancel(running, failed) is False, "over is over"


def test_an_error_ends_its_call_only(world, engine):
    scheduler, until = world
    scheduler.add(chat(b"A", 1, "a!"))
    scheduler.add(chat(b"B", 1, "bbb"))
    until(Finished, 2)
    messages = [event.message for event in until(Reply)]
    assert any(isinstance(m, wire.Failed) and "by zero" in m.message for m in messages)
    assert any(isinstance(m, wire.Answer) and m.text == "bbb" for m in messages)


def test_a_broken_engine_says_so_last(world, engine):
    scheduler, until = world
    scheduler.add(chat(b"A", 1, "#"))
    assert until(Broken)[0].reason == "gone"


def test_held_means_nothing_new_begins(world, engine):
    scheduler, until = world
    scheduler.hold(True)
    scheduler.add(chat(b"A", 1, "a"))
    time.sleep(0.1)
    assert not engine.order
    scheduler.hold(False)
    until(Finished)


def test_a_failing_load_is_told():
    outbox = Outbox(lambda: None)

    def factory():
        raise ImportError("no torch here")

    Scheduler(outbox, max_active=1).run(factory, lambda e: iter(()), lambda: None)
    (event,) = outbox.drain()
    assert isinstance(event, LoadFailed)
    assert "no torch here" in str(event.error)


def test_a_video_waits_for_frames_and_gives_credit_back(world):
    scheduler, until = world
    taken = []
    frames = FrameStream(8, lambda: taken.append(1))
    picture = np.zeros((4, 4, 3), np.uint8)
    scheduler.add(Work(b"A", 1, 0.0, SegmentRequest(["p"], [picture], tracked=True), frames))
    while not frames.image_size:
        time.sleep(0.001)
    for start in range(0, 12, 4):
        assert frames.push(start, np.full((4, 4, 4, 3), start, np.uint8)) == ""
        scheduler.wake()
        deadline = time.monotonic() + 2
        while len(taken) < start + 4:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    frames.end()
    scheduler.wake()
    until(Finished)
    masks = [event.message for event in until(Reply) if isinstance(event.message, wire.Masks)]
    assert [mask.frame for mask in masks] == list(range(12))


def test_a_video_lets_others_pass_and_still_goes_on(world, engine):
    scheduler, until = world
    frames = FrameStream(8, lambda: None)
    picture = np.zeros((4, 4, 3), np.uint8)
    scheduler.add(Work(b"A", 1, 0.0, SegmentRequest(["p"], [picture], tracked=True), frames))
    while not frames.image_size:
        time.sleep(0.001)
    engine.gate.clear()
    scheduler.add(chat(b"B", 1, "abcdefghijklmnopqrst"))
    frames.push(0, np.zeros((8, 4, 4, 3), np.uint8))
    frames.end()
    scheduler.wake()
    engine.gate.set()
    until(Finished, 2)
    letters = [step for step in engine.order if isinstance(step, str)]
    assert "".join(letters) == "abcdefghijklmnopqrst"
    before = [engine.order[: engine.order.index(letter)] for letter in ("a", "t")]
    passed = [sum(isinstance(step, int) for step in steps) for steps in before]
    assert passed[1] - passed[0] == 1


def test_videos_that_wait_for_frames_are_bounded_and_pictures_pass_them(world, engine):
    scheduler, until = world
    picture = np.zeros((4, 4, 3), np.uint8)
    streams = [FrameStream(8, lambda: None) for _ in range(9)]  # of which four for each of two may begin
    for call, frames in enumerate(streams):
        scheduler.add(Work(b"A", call, 0.0, SegmentRequest(["p"], [picture], tracked=True), frames))
    until(Reply, 16)  # each that began is told so, and given credit
    scheduler.add(chat(b"B", 1, "ab"))
    until(Finished)
    assert [bool(frames.image_size) for frames in streams] == [True] * 8 + [False]
    streams[0].end()
    scheduler.wake()
    until(Finished, 2)
    until(Reply, 16 + 3 + 1 + 2)
    assert streams[8].image_size


def test_a_stream_refuses_what_was_not_agreed():
    frames = FrameStream(4, lambda: None)
    frames.image_size = 4
    good = np.zeros((2, 4, 4, 3), np.uint8)
    assert "frame 0 was due" in frames.push(1, good)
    assert "not float32" in frames.push(0, good.astype(np.float32))
    assert "[n, 4, 4, 3]" in frames.push(0, good[:, :3])
    assert frames.push(0, good) == ""
    assert frames.push(2, good) == ""
    assert "were granted" in frames.push(4, good)
    frames.get()
    frames.end()
    assert "was due" in frames.push(4, good)
    left = [frames.finished]
    while frames.get() is not None:
        left.append(frames.finished)
    assert left == [False, False, False, True]


def test_one_picture_is_resized_once_and_then_finished():
    picture = np.random.default_rng(0).integers(0, 256, (10, 20, 3), dtype=np.uint8)
    source = OnePicture(picture)
    source.image_size = 8
    before, frame, after = source.finished, source.get(), source.finished
    assert frame is not None
    assert frame.shape == (8, 8, 3)
    assert (before, after) == (False, True)
    assert source.get() is None
