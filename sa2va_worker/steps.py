"""What an engine is to the server that runs it: requests go in, steps come out.

Pure types: no torch, no sockets. The engine (``engine.py``, or a scripted one in the tests) implements
`Engine`; the scheduler calls it from one thread, one step of one call at a time, so a step should stay
short (one token, one frame of all objects). Closing a generator cancels its call: use ``try``/``finally``
to release what the call holds.

An engine raises the classes of `sa2va_host.errors` for what a user can act on (`InvalidInput`, `OutOfMemory`,
`ModelNotFound`, `ModelLoadFailed`): the call fails with that class on the client's side. Any other
exception fails the call as `WorkerError` with its text and leaves the worker alive. `EngineBroken` says
that the process itself is lost (a poisoned CUDA context): the call fails and the worker ends, so that the
next call starts a clean one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sa2va_host.generation import GREEDY, Generation
from sa2va_host.protocol.limits import ConditionOn, Turn
from sa2va_host.protocol.specification import ModelInfo, Specification

Picture: TypeAlias = NDArray[np.uint8]
"""One RGB picture, uint8 ``[height, width, 3]``, C-contiguous and read-only."""

Phase = Literal["loading", "encoding", "generating", "tracking", "processing"]


class EngineBroken(Exception):
    """The process cannot answer any further call; the worker fails this one and ends."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the call is. ``unit``: bytes while loading, tokens while generating, objects while processing, else
    frames.
    """

    phase: Phase
    done: int
    total: int | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the answer's text, as it is generated. Joined pieces need not equal the final text."""

    text: str


@dataclass(frozen=True, slots=True)
class Said:
    """The answer to one prompt of a `SegmentRequest`, in their order, before any `Masks`. An engine that is asked with
    a single prompt may leave it to `Answer`.
    """

    text: str
    objects: int


@dataclass(frozen=True, slots=True)
class Masks:
    """Mask logits of every object in one frame, float32 ``[objects, height, width]``, at the decoder's
    size.
    """

    frame: int
    logits: NDArray[np.float32]
    presence: NDArray[np.float32] | None = None
    """``[objects]``: the logit of each object being in the frame at all, where the model has such a score."""


@dataclass(frozen=True, slots=True)
class Processed:
    """What became of one object's probability, float32 ``[height, width]``, 0..1."""

    index: int
    probability: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Waiting:
    """``frames.get()`` gave None and more frames are to come: run somebody else until one is here."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The last step of a call. ``objects`` is the number of ``[SEG]`` tokens; ``timings`` are seconds by phase and the
    tokens', as `sa2va_host.timings` names them. The server adds loading and memory.
    """

    text: str
    objects: int = 0
    timings: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()
    """What the caller should know about how it was done, a sentence each."""


Step = Progress | Token | Said | Masks | Processed | Waiting | Answer


@dataclass(frozen=True, slots=True)
class SegmentRequest:
    """Segment what each of ``prompts`` describes, in answers of their own, and track all of it together.

    ``key_frames`` are the full-size pictures that the language model sees: the image itself when
    ``tracked`` is false (exactly one), else the key frames of the video, at ``key_positions`` among its
    frames, ascending from 0; without these they are the first ones. ``frame_count`` is the video's length where it is
    known. Key frames come in their place among the streamed frames too.
    """

    kind: ClassVar = "segment"
    prompts: Sequence[str]
    key_frames: list[Picture]
    tracked: bool = False
    frame_count: int | None = None
    generation: Generation = GREEDY
    key_positions: Sequence[int] = ()
    condition_on: ConditionOn = "vectors"

    @property
    def positions(self) -> Sequence[int]:
        """Where among the frames the key frames are."""
        return self.key_positions or range(len(self.key_frames))

    @property
    def nbytes(self) -> int:
        """What waiting for its turn costs, in bytes."""
        return sum(picture.nbytes for picture in self.key_frames)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """Answer ``prompt`` about ``images`` (full size, possibly none) in words, after the turns of ``history``.

    ``regions`` are masks, bool ``[height, width]``, in the one image that the prompt is about.
    """

    kind: ClassVar = "chat"
    prompt: str
    images: list[Picture] = field(default_factory=list)
    history: Sequence[Turn] = ()
    regions: Sequence[NDArray[np.bool_]] = ()
    generation: Generation = GREEDY

    @property
    def nbytes(self) -> int:
        """As above."""
        return sum(array.nbytes for array in (*self.images, *self.regions))


@dataclass(frozen=True, slots=True)
class ProcessRequest:
    """Improve the masks of ``picture``: ``probabilities`` float32 ``[objects, height, width]``, 0..1."""

    kind: ClassVar = "process"
    processor: str
    options: Mapping[str, float | str]
    picture: Picture
    probabilities: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """As above."""
        return self.picture.nbytes + self.probabilities.nbytes


Request = SegmentRequest | ChatRequest | ProcessRequest


class FrameSource(Protocol):
    """The frames the mask decoder sees, in order, each uint8 ``[image_size, image_size, 3]``.

    For an image (not tracked) it holds that one picture, resized here with PIL's bicubic filter when it is
    asked for.
    """

    @property
    def image_size(self) -> int: ...

    @property
    def finished(self) -> bool:
        """True once the last frame was taken and no more will come."""
        ...

    def get(self) -> Picture | None:
        """The next frame, or None: not here yet (yield `Waiting`) or, when ``finished``, no more."""
        ...


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes of device memory: in use now, reserved by the allocator, and the highest use so far."""

    used: int = 0
    reserved: int = 0
    peak: int = 0


class Engine(Protocol):
    """One model in one process. All methods run on the one engine thread."""

    @property
    def info(self) -> ModelInfo:
        """What was loaded; valid once ``load`` is exhausted."""
        ...

    def load(self, spec: Specification) -> Iterator[Step]:
        """Load the model, yielding ``Progress("loading", done, total, "bytes")`` at least twice a second."""
        ...

    def segment(self, request: SegmentRequest, frames: FrameSource) -> Iterator[Step]:
        """Yields `Progress`, `Token`, `Said`, `Masks` (frames in order), `Waiting`, and one `Answer` at the end."""
        ...

    def chat(self, request: ChatRequest) -> Iterator[Step]:
        """Yields `Progress`, `Token` and one `Answer` at the end."""
        ...

    def memory(self) -> MemoryUse:
        """Device memory now; cheap, called after steps."""
        ...


class ProcessingEngine(Engine, Protocol):
    """An engine as the server wants it: one that also runs mask processors."""

    def process(self, request: ProcessRequest) -> Iterator[Step]:
        """Yields `Progress`, one `Processed` for each object, and one `Answer` at the end."""
        ...


EngineFactory = Callable[[], ProcessingEngine]
"""Makes an engine on the engine thread. Heavy imports (torch) happen in here or in ``load``, never
earlier.
"""
