"""The answer about a video, frame by frame as the worker tracks it.

Made by `sa2va_host.client`, on which `segment_video` and the asynchronous client rest too. Holds one frame's logits at
a time, so a video of any length passes through in constant memory.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sized
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Integral
from types import TracebackType
from typing import TYPE_CHECKING, get_args

import numpy as np
from msgspec.structs import replace as replaced

from sa2va_host.calls.call import (
    Call,
    Credit,
    Done,
    FrameMasks,
    FrameRead,
    Note,
    Outcome,
    Said,
    Started,
)
from sa2va_host.calls.outcomes import check_answered, to_segmentation
from sa2va_host.calls.pace import WholePace
from sa2va_host.cancellation import Cancellation
from sa2va_host.errors import Cancelled, InvalidInput, WorkerError
from sa2va_host.events import TextPiece
from sa2va_host.generation import GREEDY, Generation
from sa2va_host.machine.descriptors import reporting_shortage
from sa2va_host.masks.masks import sigmoid
from sa2va_host.media import Picture, Source
from sa2va_host.protocol import wire
from sa2va_host.protocol.limits import ConditionOn
from sa2va_host.results import AnsweredBy, Segmentation
from sa2va_host.timings import together

from .clip_frames import ClipFrames, frames_of
from .key_frames import KeyFrames
from .reading import Reader
from .shots import split
from .stream import Video, WhichFrames, check_frames, wrong_size
from .tracked_frame import TrackedFrame

if TYPE_CHECKING:
    from typing_extensions import Self

    from sa2va_host.calls.book import Room
    from sa2va_host.calls.session import Session

    from .clip import Clip


class Track:
    """An iterator of `TrackedFrame`, in order; of none where nothing is found at all. Where the model is asked again,
    what it does not find is an object with empty masks.

    The frames are anything that yields images, the path of a video file or of a folder of frames, or a clip that
    `sa2va_host.video.clip.open_clip` opened.

    ``key_frames`` are those that the language model sees; the tracker is conditioned on them, and sees all.
    ``"first:5"`` takes the first ones, as upstream does, ``"uniform:12"`` as many evenly over the video, which must
    have a length and be readable twice; or give them yourself, by their places. ``condition_on`` is what the tracker
    is told of them: ``"vectors"``, as upstream does, or ``"masks"``, as Sa2VA-i does. ``frame_count`` is how many
    frames there are, where they have no length of their own: progress and spread key frames need it.

    ``ask_again`` is for videos with cuts: ``"every:100"`` asks anew every so many frames, ``"cuts"`` at each cut that
    is seen, about the first frames from there on. Then each prompt is one object, all that its answers describe, and
    ``timeout`` is that of a single asking.

    Nothing is read or sent before the first is asked for. Frames are read on a thread of their own, one after the
    other, and each only when the worker has room for it: it is up to 8 frames ahead of the caller
    (`sa2va_host.protocol.limits.FRAME_WINDOW`), never more. Events are delivered on the thread that asks.

    A result is there as soon as its frame is tracked, whether or not the next frame can be read yet, so ``frames`` may
    be a camera or a stream. While they do not come, a `Cancellation`, ``timeout`` and Ctrl-C end the iteration as ever,
    and the worker stops at once. Nobody can interrupt what blocks inside ``frames``, so that thread stays until it
    yields or the program ends; asynchronous frames are cancelled.

    Closing it cancels what is left, within one frame's time; leaving a `with` closes it. What a call raises is raised
    by the iteration. An exception of the source is raised in its place, after the results of the frames that it yielded
    before; what is no `Exception`, and `Cancelled`, at once. Frames that were yielded stay good.

    Several threads may ask for frames; each gets the next one.
    """

    def __init__(
        self,
        session: Session,
        frames: Iterable[Source] | str | os.PathLike[str] | Clip,
        prompts: list[str],
        key_frames: WhichFrames,
        *,
        keep_alive: float,
        frame_count: int | None = None,
        condition_on: ConditionOn = "vectors",
        ask_again: str = "never",
        generation: Generation = GREEDY,
        timeout: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> None:
        if condition_on not in get_args(ConditionOn):
            raise InvalidInput(
                f"condition_on is {condition_on!r}.", advice=f"Use one of {', '.join(get_args(ConditionOn))}."
            )
        frame_count = _checked_count(frame_count)
        frames = frames_of(frames)
        check_frames(frames)
        self._clip = frames if isinstance(frames, ClipFrames) else None
        self._answer = _Answer()
        self._begun = False
        self._turn = threading.RLock()
        self._asking = False
        self._cancellation = cancellation or Cancellation()
        self._ended = Cancellation()
        self._reader = Reader()
        # A track that is forgotten is not closed; its thread ends all the same.
        weakref.finalize(self, self._reader.leave)
        shots = split(frames, ask_again)
        opening = wire.Segment(
            call=0,
            keep_alive=keep_alive,
            prompts=prompts,
            key_frames=[],
            tracked=True,
            frame_count=frame_count if shots is None else None,
            generation=generation,
            condition_on=condition_on,
        )
        ask = partial(
            _follow,
            self._answer,
            session,
            self._reader,
            key_frames=key_frames,
            opening=opening,
            timeout=timeout,
            cancellation=self._ended,
        )
        if shots is not None and (
            not isinstance(key_frames, str) or KeyFrames.parse(key_frames).kind != "first"
        ):
            raise InvalidInput(
                "Where the model is asked again, the key frames are the first ones of each shot.",
                advice="Use 'first:5' or another number.",
            )
        if shots is None:
            tracked = ask(frames=frames)
        else:
            pace = WholePace(len(frames) if isinstance(frames, Sized) else frame_count)
            next_shot = partial(self._reader.wait, partial(next, shots, None), self._ended)
            tracked = _follow_shots(
                self._answer,
                partial(next_shot, timeout=session.limit(timeout)),
                partial(ask, pace=pace),
                partial(self._reader.each, cancellation=self._ended),
                pace,
            )
        self._tracked = _while_wanted(self._cancellation, self._ended, tracked)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TrackedFrame:
        with self._turn:
            self._asking = True
            try:
                with reporting_shortage():
                    frame = next(self._tracked)
            except StopIteration:
                self._asking = False
                if self._begun:  # else `collect` may have frames to count
                    self._reader.close()
                raise
            except BaseException:
                self._asking = False
                self.close()
                raise
            self._asking = False
            self._begun = True
            return frame

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the call, unless it is over, and let go of the frames that were given; idempotent.

        Any thread may do so. One that waits for a frame meanwhile gets `Cancelled`; one that asks later gets no more
        frames. On return nobody reads the frames any more, unless one has been on its way for a quarter of a second:
        that one is not waited for.
        """
        self._ended.cancel()
        with self._turn:
            if self._asking:  # by this very thread, in an event's callback perhaps: it ends there
                return
            self._tracked.close()
            self._reader.close()
            video, self._answer.video = self._answer.video, None
            if video is not None:
                video.close()

    @property
    def text(self) -> str:
        """What has been said so far, a line for each prompt; from the first frame on that is all."""
        return self._answer.text

    @property
    def answers(self) -> tuple[Said, ...]:
        """For each prompt that is answered, in their order, what was said and how many objects that describes."""
        return tuple(self._answer.said)

    @property
    def timings(self) -> Mapping[str, float]:
        """As `sa2va_host.timings` explains them; empty before the end."""
        return self._answer.outcome.timings

    @property
    def notes(self) -> list[str]:
        """What there is to know about how it was done, a sentence each; empty before the end."""
        outcome = self._answer.outcome
        return [*(self._clip.notes if self._clip and outcome.pid else ()), *outcome.notes]

    @property
    def worker(self) -> AnsweredBy | None:
        """Who answered; None before the end."""
        outcome = self._answer.outcome
        return AnsweredBy(outcome.pid, outcome.created) if outcome.pid else None

    def collect(self) -> Segmentation:
        """What is left of the iteration as one result, which grows with the video: its first frame is the one that was
        due. Where nothing is found, it has all frames and no object. Raises `InvalidInput` where nothing is left: all
        frames were taken, or the track was closed or has failed.
        """
        begun = self._begun
        masks = dict(enumerate(frame.logits for frame in self))
        video = self._answer.video
        if video is None or (begun and not masks):
            raise InvalidInput("Nothing is left of this track to collect.", advice="Track the video again.")
        outcome = replaced(self._answer.outcome, masks=masks, notes=self.notes)
        length = video.length or len(masks)
        if not length:  # where nothing is found the frames were not read, but there are as many all the same
            with _hearing(self._cancellation, self._ended):
                length = sum(1 for _ in self._reader.each(video.skip(), self._ended))
        return to_segmentation(outcome, video.size, length, is_video=True)


@dataclass(slots=True)
class _Answer:
    """What is known of the answer. Held by the track and by the generator behind it, which thus do not hold each other:
    a track that is forgotten ends at once.
    """

    said: list[Said] = field(default_factory=list)
    unsaid: str = ""
    """The beginning of what is said to the next prompt."""
    outcome: Outcome = field(default_factory=Outcome)
    video: Video | None = None

    @property
    def text(self) -> str:
        unsaid = [self.unsaid] if self.unsaid else []
        return "\n".join([*(answer.text for answer in self.said), *unsaid])

    def end_of_prompt(self, answer: Said) -> None:
        self.said.append(answer)
        self.unsaid = ""


def _checked_count(frames: object) -> int | None:
    if frames is None:
        return None
    if not isinstance(frames, Integral) or int(frames) < 0:
        raise InvalidInput(f"frame_count is {frames!r}.", advice="Say how many there are, or None.")
    return int(frames)


def _hearing(cancellation: Cancellation, ended: Cancellation) -> contextlib.AbstractContextManager[None]:
    """While inside, whoever cancels the one cancels the other."""
    return cancellation.heard_by(lambda _: ended.cancel())


def _while_wanted(
    cancellation: Cancellation, ended: Cancellation, tracked: Generator[TrackedFrame, None, None]
) -> Generator[TrackedFrame, None, None]:
    """What is tracked, until the caller's ``cancellation``, or closing, cancels ``ended``, which all waiting is for."""
    with _hearing(cancellation, ended), contextlib.closing(tracked):
        yield from tracked


def _follow(
    answer: _Answer,
    session: Session,
    reader: Reader,
    *,
    frames: Iterable[Source],
    key_frames: WhichFrames,
    opening: wire.Segment,
    timeout: float | None,
    cancellation: Cancellation,
    pace: WholePace | None = None,
    begin: int = 0,
    asked: float | None = None,
) -> Generator[TrackedFrame, None, None]:
    """Ask for what ``opening`` says, without its key frames, and yield frame after frame. ``begin`` is the place of the
    first one in the whole video; ``timeout`` counts from ``asked``, else from now.
    """
    asked = time.monotonic() if asked is None else asked
    with session.reserve() as room:
        answer.video = video = reader.wait(
            partial(Video, frames, key_frames, opening.frame_count, begin),
            cancellation,
            timeout=session.limit(timeout),
            asked=asked,
        )
        headers, buffers = room.pack(video.key_frames)
        frame_count = video.frame_count
        heard: queue.SimpleQueue[Note | Cancelled] = queue.SimpleQueue()
        feed = _Feed(room, video, reader, lambda: heard.put(FrameRead()))
        notes = session.follow(
            room,
            lambda call: replaced(
                opening,
                call=call,
                key_frames=headers,
                key_positions=video.key_positions,
                frame_count=frame_count,
            ),
            buffers,
            timeout,
            cancellation,
            streams=True,
            pace=pace,
            asked=asked,
            notes=heard,
        )
        with contextlib.closing(notes):
            due, shape = 0, None
            for call, note in notes:
                if isinstance(note, Credit):
                    feed.granted += note.frames
                # Before the caller uses a result, so that the next frame is read meanwhile.
                feed.go_on(call)
                if isinstance(note, Started):
                    feed.side = note.image_size
                elif isinstance(note, TextPiece):
                    answer.unsaid += note.text
                elif isinstance(note, Said):
                    answer.end_of_prompt(note)
                elif isinstance(note, FrameMasks):
                    if shape is None:
                        shape = note.logits.shape
                        _complete(answer, len(opening.prompts), shape[0])
                    if (note.frame, note.logits.shape) != (due, shape):
                        raise WorkerError(
                            "The worker's masks do not fit together.", advice="Please report this."
                        )
                    due += 1
                    presence = None if note.presence is None else sigmoid(note.presence)
                    yield TrackedFrame(
                        note.frame, tuple(answer.said), note.logits, presence, video.size, feed.side
                    )
                elif isinstance(note, Done):
                    try:
                        answer.outcome = call.future.result()
                    finally:
                        # A failure's traceback holds this frame, and with it the frames, which may be of an open file:
                        # it must not hold the failure in a circle.
                        del call
                    feed.check()
                    _complete(answer, len(opening.prompts), answer.outcome.objects)


def _follow_shots(
    answer: _Answer,
    next_shot: Callable[..., Iterable[Source] | None],
    ask: Callable[..., Generator[TrackedFrame, None, None]],
    read_each: Callable[[Iterator[int]], Iterator[int]],
    pace: WholePace,
) -> Generator[TrackedFrame, None, None]:
    """Ask about shot after shot. What is found in one cannot be told to be what was found in another, so there is one
    object for each prompt, in every frame.
    """
    size, begin, timings = (0, 0), 0, answer.outcome.timings
    while True:
        asked = time.monotonic()
        shot = next_shot(asked=asked)
        if shot is None:
            break
        answer.said.clear()
        answer.unsaid = ""
        tracked = _every_frame(answer, ask(frames=shot, begin=begin, asked=asked), read_each)
        with contextlib.closing(tracked):
            for frame in tracked:
                if begin and frame.size != size:
                    raise wrong_size(begin, frame.size, size)
                size = frame.size
                yield replace(frame.as_one_each(), index=begin + frame.index)
        assert answer.video is not None
        begin += answer.video.taken
        pace.before = begin
        timings = together([timings, answer.outcome.timings])
        answer.outcome = replaced(answer.outcome, timings=timings)
    if not begin:
        raise InvalidInput("The video has no frames.")


def _every_frame(
    answer: _Answer,
    tracked: Generator[TrackedFrame, None, None],
    read_each: Callable[[Iterator[int]], Iterator[int]],
) -> Generator[TrackedFrame, None, None]:
    """What is tracked; where nothing was found, every frame without an object."""
    found = False
    with contextlib.closing(tracked):
        for frame in tracked:
            found = True
            yield frame
    if found:
        return
    video, image_size = answer.video, answer.outcome.image_size
    assert video is not None
    nothing = np.zeros((0, image_size // 4, image_size // 4), np.float32)
    for index in read_each(video.skip()):
        yield TrackedFrame(index, tuple(answer.said), nothing, nothing[:, 0, 0], video.size, image_size)


def _complete(answer: _Answer, prompts: int, objects: int) -> None:
    """Check that each prompt is answered; of a single one the engine may leave it to the end to say so."""
    if not answer.said and prompts == 1:
        answer.end_of_prompt(Said(answer.outcome.text or answer.unsaid, objects))
    check_answered([one.objects for one in answer.said], prompts, objects)


class _Feed:
    """Sends frames as the worker grants them, one after the other as they come; never waits for one."""

    def __init__(self, room: Room, video: Video, reader: Reader, came: Callable[[], None]) -> None:
        """``came`` is called on the reader's thread when there is something to do in `go_on`."""
        self.granted, self.side = 0, 0
        self._failure: Exception | None = None
        """Why the source ended before its time; what it yielded before is tracked all the same."""
        self._room, self._video, self._reader, self._came = room, video, reader, came
        self._sent = 0
        self._reading: Future[Picture | None] | None = None
        self._ended = False

    def go_on(self, call: Call) -> None:
        """Send the frame that was read, or word that there are no more, and have the next one read if it is wanted."""
        if self._reading is not None and self._reading.done():
            self._send(call, self._read())
        if self.granted and self._reading is None and not self._ended:
            self._reading = self._reader.begin(partial(self._video.next, 1, self.side))
            self._reading.add_done_callback(lambda _: self._came())

    def _read(self) -> Picture | None:
        """What was read; None at the end, and where it could not be read."""
        reading, self._reading = self._reading, None
        assert reading is not None
        try:
            return reading.result()
        except Cancelled:
            raise
        except Exception as error:  # noqa: BLE001 - raised again once the frames before it are tracked
            self._failure = error
            return None
        finally:
            # A failure's traceback holds this frame, and must not hold the failure in a circle.
            del reading

    def _send(self, call: Call, frame: Picture | None) -> None:
        if frame is None:
            self._ended = True
            self._room.link.post(call, wire.EndOfFrames(call=call.id))
            return
        header, data = self._room.pack([frame])
        self._room.link.post(call, wire.Frames(call=call.id, start=self._sent, frames=header[0]), data)
        self._sent += 1
        self.granted -= 1

    def check(self) -> None:
        """Raise what the source failed with, once all that it yielded is tracked."""
        failure, self._failure = self._failure, None
        try:
            if failure is not None:
                raise failure
        finally:
            del failure
