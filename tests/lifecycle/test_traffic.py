"""How much travels for a call, counted where the client hands it to its socket and takes it from there."""

from __future__ import annotations

import numpy as np
import pytest

from sa2va_host import InvalidInput
from sa2va_host.calls.link import Link
from sa2va_host.lifecycle.connection import Connection
from sa2va_host.protocol import wire

from .scripted_worker import SIDE, SIZE

FULL_HD = (1080, 1920)
MESSAGE = 4096
"""Bytes that a message takes beside its arrays, at the very most."""


@pytest.fixture
def sent(monkeypatch):
    """Name and bytes of each message that was sent, arrays included."""
    seen = []
    send = Connection.send

    def count(self, message, buffers=()):
        seen.append((type(message).__name__, len(wire.encode(message)) + sum(one.nbytes for one in buffers)))
        send(self, message, buffers)

    monkeypatch.setattr(Connection, "send", count)
    return seen


@pytest.fixture
def received(monkeypatch):
    """The same of each message that came."""
    seen = []
    receive = Connection.receive

    def count(self):
        found = receive(self)
        if found is not None:
            seen.append((type(found.message).__name__, sum(one.nbytes for one in found.buffers)))
        return found

    monkeypatch.setattr(Connection, "receive", count)
    return seen


def sizes(messages, name):
    return [size for kind, size in messages if kind == name]


def test_a_picture_travels_once_at_its_own_size_for_all_prompts(connect, sent, received):
    picture = np.zeros((*FULL_HD, 3), np.uint8)
    connect().segment_each(picture, ["objects=1", "objects=2", "objects=0"])
    (size,) = sizes(sent, "Segment")
    assert 0 <= size - picture.nbytes < MESSAGE
    assert sizes(received, "Masks") == [3 * SIDE * SIDE * 4]  # float32, as the decoder makes them


def test_a_frame_travels_at_the_size_that_the_tracker_sees(connect, sent, received):
    frames = [np.full((*FULL_HD, 3), shade, np.uint8) for shade in range(7)]
    connect().segment_video(frames, "objects=2", key_frames="first:2")
    (opening,) = sizes(sent, "Segment")
    assert 0 <= opening - 2 * frames[0].nbytes < MESSAGE
    streamed = sizes(sent, "Frames")
    assert len(streamed) == len(frames)
    assert all(0 <= size - SIZE * SIZE * 3 < MESSAGE for size in streamed)
    assert sizes(received, "Masks") == [2 * SIDE * SIDE * 4] * len(frames)


def test_a_call_that_is_over_is_not_cancelled(connect, sent, monkeypatch):
    """Whatever it came to, leaving it costs no message and does not wake the connection's thread."""
    cancelled = []
    monkeypatch.setattr(Link, "_abandon", lambda *_: cancelled.append(1))
    sa, frames = connect(), [np.full((48, 64, 3), shade, np.uint8) for shade in range(12)]
    sa.load()
    sa.segment(frames[0], "objects=1")
    sa.segment_each(frames[0], ["objects=1", "objects=2"])
    sa.chat("hello")
    sa.process(frames[0], np.zeros((1, 48, 64), np.float32), "elsewhere")
    sa.segment_video(frames, "objects=1")
    sa.segment_video(iter(frames), "objects=1", ask_again="every:5")
    with sa.track(frames, "objects=1") as track:
        for _ in track:
            pass
    with pytest.raises(InvalidInput):
        sa.segment(frames[0], "error=input")
    sa.status()  # by now the thread has done what it was told
    sa.load()
    assert cancelled == []
    assert sizes(sent, "Cancel") == []
