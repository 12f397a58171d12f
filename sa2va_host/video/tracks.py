"""The answer about a video, frame by frame as the worker tracks it.

Made by `sa2va_host.client`, on which `segment_video` and the asynchronous client rest too. Holds one frame's logits at
a time, so a video of any length passes through in constant memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sized
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Integral
from types import TracebackType
from typing import TYPE_CHECKING, get_args

import numpy as np
from msgspec.structs import replace as replaced

from sa2va_host.calls.call import Call, Credit, Done, FrameMasks, Outcome, Said, Started
from sa2va_host.calls.outcomes import check_answered, to_segmentation
from sa2va_host.calls.pace import WholePace
from sa2va_host.errors import InvalidInput, WorkerError
from sa2va_host.events import TextPiece
from sa2va_host.generation import GREEDY, Generation
from sa2va_host.machine.descriptors import reporting_shortage
from sa2va_host.masks.masks import sigmoid
from sa2va_host.media import Source
from sa2va_host.protocol import wire
from sa2va_host.protocol.limits import ConditionOn
from sa2va_host.results import AnsweredBy, Segmentation
from sa2va_host.timings import together

from .key_frames import KeyFrames
from .shots import split
from .stream import Video, WhichFrames, check_frames, wrong_size
from .tracked_frame import TrackedFrame

if TYPE_CHECKING:
    from typing_extensions import Self

    from sa2va_host.calls.book import Room
    from sa2va_host.calls.session import Session
    from sa2va_host.cancellation import Cancellation


class Track:
    """An iterator of `TrackedFrame`, in order; of none where nothing is found at all. Where the model is asked again,
    what it does not find is an object with empty masks.

    ``key_frames`` are those that the language model sees; the tracker is conditioned on them, and sees all.
    ``"first:5"`` takes the first ones, as upstream does, ``"uniform:12"`` as many evenly over the video, which must
    have a length and be readable twice; or give them yourself, by their places. ``condition_on`` is what the tracker
    is told of them: ``"vectors"``, as upstream does, or ``"masks"``, as Sa2VA-i does. ``frame_count`` is how many
    frames there are, where they have no length of their own: progress and spread key frames need it.

    ``ask_again`` is for videos with cuts: ``"every:100"`` asks anew every so many frames, ``"cuts"`` at each cut that
    is seen, about the first frames from there on. Then each prompt is one object, all that its answers describe, and
    ``timeout`` is that of a single asking.

    Nothing is read or sent before the first is asked for. Frames are read and events delivered on the thread that asks;
    meanwhile, and while the caller uses a frame, the worker is up to 8 frames ahead
    (`sa2va_host.protocol.limits.FRAME_WINDOW`), never more. Closing it cancels what is left, within one frame's time;
    leaving a `with` closes it. What a call raises is raised by the iteration, and frames that were yielded stay good.
    """

    def __init__(
        self,
        session: Session,
        frames: Iterable[Source],
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
        check_frames(frames)
        self._answer = _Answer()
        self._begun = False
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
            key_frames=key_frames,
            opening=opening,
            timeout=timeout,
            cancellation=cancellation,
        )
        if shots is not None and (
            not isinstance(key_frames, str) or KeyFrames.parse(key_frames).kind != "first"
        ):
            raise InvalidInput(
                "Where the model is asked again, the key frames are the first ones of each shot.",
                advice="Use 'first:5' or another number.",
            )
        if shots is None:
            self._tracked = ask(frames=frames)
        else:
            pace = WholePace(len(frames) if isinstance(frames, Sized) else frame_count)
            self._tracked = _follow_shots(self._answer, shots, partial(ask, pace=pace), pace)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TrackedFrame:
        try:
            with reporting_shortage():
                frame = next(self._tracked)
        except StopIteration:
            raise
        except BaseException:
            self.close()
            raise
        self._begun = True
        return frame

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the call, unless it is over, and let go of the frames that were given. While another thread waits for a
        frame, use a `Cancellation` instead.
        """
        self._tracked.close()
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
        return self._answer.outcome.notes

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
        outcome = replaced(self._answer.outcome, masks=masks)
        # Where nothing is found the frames were not read, but there are as many all the same.
        length = video.length or sum(1 for _ in video.skip())
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


def _follow(
    answer: _Answer,
    session: Session,
    *,
    frames: Iterable[Source],
    key_frames: WhichFrames,
    opening: wire.Segment,
    timeout: float | None,
    cancellation: Cancellation | None,
    pace: WholePace | None = None,
    begin: int = 0,
) -> Generator[TrackedFrame, None, None]:
    """Ask for what ``opening`` says, without its key frames, and yield frame after frame. ``begin`` is the place of the
    first one in the whole video.
    """
    with session.reserve() as room:
        answer.video = video = Video(frames, key_frames, opening.frame_count, begin)
        headers, buffers = room.pack(video.key_frames)
        frame_count = video.length or opening.frame_count
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
        )
        with contextlib.closing(notes):
            side, due, shape = 0, 0, None
            for call, note in notes:
                if isinstance(note, Started):
                    side = note.image_size
                elif isinstance(note, Credit):
                    _send(room, call, video, note.frames, side)
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
                        note.frame, tuple(answer.said), note.logits, presence, video.size, side
                    )
                elif isinstance(note, Done):
                    answer.outcome = call.future.result()
                    _complete(answer, len(opening.prompts), answer.outcome.objects)


def _follow_shots(
    answer: _Answer,
    shots: Iterable[Iterable[Source]],
    ask: Callable[..., Generator[TrackedFrame, None, None]],
    pace: WholePace,
) -> Generator[TrackedFrame, None, None]:
    """Ask about shot after shot. What is found in one cannot be told to be what was found in another, so there is one
    object for each prompt, in every frame.
    """
    size, begin, timings = (0, 0), 0, answer.outcome.timings
    for shot in shots:
        answer.said.clear()
        answer.unsaid = ""
        with contextlib.closing(_every_frame(answer, ask(frames=shot, begin=begin))) as tracked:
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
    answer: _Answer, tracked: Generator[TrackedFrame, None, None]
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
    for index in video.skip():
        yield TrackedFrame(index, tuple(answer.said), nothing, nothing[:, 0, 0], video.size, image_size)


def _complete(answer: _Answer, prompts: int, objects: int) -> None:
    """Check that each prompt is answered; of a single one the engine may leave it to the end to say so."""
    if not answer.said and prompts == 1:
        answer.end_of_prompt(Said(answer.outcome.text or answer.unsaid, objects))
    check_answered([one.objects for one in answer.said], prompts, objects)


def _send(room: Room, call: Call, video: Video, count: int, side: int) -> None:
    """As many frames as the worker granted, or word that there are no more."""
    for _ in range(count):
        start = video.taken
        chunk = video.next(1, side)
        if chunk is None:
            room.link.post(call, wire.EndOfFrames(call=call.id))
            return
        header, data = room.pack([chunk])
        room.link.post(call, wire.Frames(call=call.id, start=start, frames=header[0]), data)
