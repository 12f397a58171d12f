"""The answer about a video, frame by frame as the worker tracks it: `Track` and what it yields.

Made by `sa2va_host.client`, on which `segment_video` and the asynchronous client rest too. Holds one frame's logits at
a time, so a video of any length passes through in constant memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace as replaced
from numpy.typing import NDArray

from . import arrays, wire
from .calls import Call, Credit, Done, FrameMasks, Said, Started
from .errors import WorkerError
from .events import TextPiece
from .generation import GREEDY, Generation
from .masks import Logits, Mask, Probability, sigmoid
from .outcomes import Outcome, check_answered, to_segmentation
from .results import AnsweredBy, Segmentation
from .video import Source, Video

if TYPE_CHECKING:
    from typing_extensions import Self

    from .book import Room
    from .cancellation import Cancellation
    from .refine import Refinement
    from .session import Session


@dataclass(frozen=True, eq=False, slots=True)
class TrackedFrame:
    """What was found in one frame. An object keeps its place in all arrays through the video."""

    index: int
    """Counted from 0, of the frames that were given."""
    answers: tuple[Said, ...]
    """What was said to each prompt, the same in every frame; the objects are theirs, in this order."""
    logits: Logits
    """float32 `[objects, h, w]`, low resolution, before the sigmoid."""
    presence: NDArray[np.float32] | None
    """float32 `[objects]`: the model's probability, 0..1, that the object is in the frame; None where it has none."""
    size: tuple[int, int]
    """`(height, width)` of the video."""
    image_size: int
    """The side in pixels of the square that the mask decoder saw."""

    def __len__(self) -> int:
        """How many objects are followed, those that are not in this frame included."""
        return len(self.logits)

    def __bool__(self) -> bool:
        """Always true: a frame without objects is a frame."""
        return True

    @property
    def text(self) -> str:
        """What was said, a line for each prompt."""
        return "\n".join(answer.text for answer in self.answers)

    def each(self) -> list[TrackedFrame]:
        """For each prompt the objects that are its own."""
        parts, end = [], 0
        for answer in self.answers:
            start, end = end, end + answer.objects
            presence = None if self.presence is None else self.presence[start:end]
            parts.append(replace(self, answers=(answer,), logits=self.logits[start:end], presence=presence))
        return parts

    def as_picture(self) -> Segmentation:
        """The same as the answer about a picture."""
        return Segmentation(self.text, self.logits[:, None], self.size, self.image_size)

    def probabilities(
        self, refinement: Refinement | None = None, threshold: float = 0.5, guide: Source | None = None
    ) -> Probability:
        """float32 `[objects, height, width]`, 0..1, as `Segmentation.probabilities` says."""
        return self.as_picture().probabilities(refinement, threshold, guide)

    def masks(
        self, threshold: float = 0.5, refinement: Refinement | None = None, guide: Source | None = None
    ) -> Mask:
        """bool `[objects, height, width]`, as `Segmentation.masks` says."""
        return self.as_picture().masks(threshold, refinement, guide)


class Track:
    """An iterator of `TrackedFrame`, in order; without objects there is none, and `text` says why.

    Nothing is read or sent before the first is asked for. Frames are read and events delivered on the thread that asks;
    meanwhile, and while the caller uses a frame, the worker is up to 8 frames ahead (`sa2va_host.limits.FRAME_WINDOW`),
    never more. Closing it cancels what is left, within one frame's time; leaving a `with` closes it. What a call raises
    is raised by the iteration, and frames that were yielded stay good.
    """

    def __init__(
        self,
        session: Session,
        frames: Iterable[Source],
        prompts: list[str],
        key_frames: str,
        *,
        keep_alive: float,
        frame_count: int | None = None,
        generation: Generation = GREEDY,
        timeout: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> None:
        self._answer = _Answer()
        self._tracked = _follow(
            self._answer,
            session,
            frames,
            key_frames,
            wire.Segment(
                call=0,
                keep_alive=keep_alive,
                prompts=prompts,
                key_frames=[],
                tracked=True,
                frame_count=frame_count,
                generation=generation,
            ),
            timeout,
            cancellation,
        )

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TrackedFrame:
        return next(self._tracked)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the call, unless it is over. While another thread waits for a frame, use a `Cancellation` instead."""
        self._tracked.close()

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
    def worker(self) -> AnsweredBy | None:
        """Who answered; None before the end."""
        outcome = self._answer.outcome
        return AnsweredBy(outcome.pid, outcome.created) if outcome.pid else None

    def collect(self) -> Segmentation:
        """What is left of the iteration as one result, which grows with the video."""
        masks = {frame.index: frame.logits for frame in self}
        video = self._answer.video
        assert video is not None
        outcome = replace(self._answer.outcome, masks=masks)
        return to_segmentation(outcome, video.size, video.length or video.taken, is_video=True)


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


def _follow(
    answer: _Answer,
    session: Session,
    frames: Iterable[Source],
    key_frames: str,
    opening: wire.Segment,
    timeout: float | None,
    cancellation: Cancellation | None,
) -> Generator[TrackedFrame, None, None]:
    """Ask for what ``opening`` says, without its key frames, and yield frame after frame."""
    with session.reserve() as room:
        answer.video = video = Video(frames, key_frames)
        headers, buffers = arrays.pack(video.key_frames)
        frame_count = video.length or opening.frame_count
        notes = session.follow(
            room,
            lambda call: replaced(opening, call=call, key_frames=headers, frame_count=frame_count),
            buffers,
            timeout,
            cancellation,
            streams=True,
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
        header, data = arrays.pack([chunk])
        room.link.post(call, wire.Frames(call=call.id, start=start, frames=header[0]), data)
