"""Every message that either side may send, as types. `sa2va_host.protocol.wire` has the one codec for them.

Arrays are not in a message: an `ArrayHeader` describes a buffer beside it (`sa2va_host.protocol.arrays`). Strings,
lists and numbers carry their own limits in the types. Imports neither sockets nor numpy; the worker and the host share
it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from sa2va_host.generation import GREEDY, Generation

from .limits import (
    ARENA_BYTES,
    MAX_BUFFER_BYTES,
    MAX_BUFFERS,
    CallId,
    ConditionOn,
    Count,
    DType,
    Lines,
    Name,
    Options,
    Positions,
    Prompt,
    Prompts,
    Scores,
    Seconds,
    Shape,
    Small,
    Text,
    Timings,
    Turns,
)
from .reports import WorkerReport
from .specification import ModelInfo


class ArrayHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Describes the buffer number ``buffer`` (0 is the first after the payload): C order, ``size`` bytes."""

    dtype: DType
    shape: Shape
    buffer: Annotated[int, Meta(ge=0, lt=MAX_BUFFERS)]
    size: Annotated[int, Meta(ge=0, le=MAX_BUFFER_BYTES)]


Arrays = Annotated[list[ArrayHeader], Meta(max_length=MAX_BUFFERS)]


class SharedArena(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Memory that the sender offers to share: its file descriptor there, the file's inode, and its bytes."""

    fd: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    inode: Count
    size: Annotated[int, Meta(ge=1, le=ARENA_BYTES)]


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag=True):
    """The root of all messages; the tag is the class name."""


class Hello(Message, frozen=True, kw_only=True):
    """The first message of a connection. Answered by `Ready`. ``arena`` is offered for large arrays."""

    program: Name
    arena: SharedArena | None = None


class Load(Message, frozen=True, kw_only=True):
    """Answered by `Loaded` when the model is in memory."""

    call: CallId
    keep_alive: Seconds


class Segment(Message, frozen=True, kw_only=True):
    """Segment an image (``tracked`` false, one key frame, the image) or a video, whose frames follow as
    `Frames`.

    ``key_frames`` are uint8 ``[height, width, 3]`` at full size, and ``key_positions`` their places among the frames,
    from 0 upwards; empty where they are the first ones. Each of ``prompts`` gets an answer of its own, a
    `Said`; the objects of all of them share the frames and every `Masks`.
    """

    call: CallId
    keep_alive: Seconds
    prompts: Prompts
    key_frames: Arrays
    tracked: bool = False
    frame_count: Count | None = None
    generation: Generation = GREEDY
    key_positions: Positions = []
    condition_on: ConditionOn = "vectors"


class Frames(Message, frozen=True, kw_only=True):
    """Frames ``start`` and following of a tracked call, uint8 ``[frames, image_size, image_size, 3]``.

    Only as many as the worker granted in `Credit`.
    """

    call: CallId
    start: Count
    frames: ArrayHeader


class EndOfFrames(Message, frozen=True, kw_only=True):
    """No more frames will come for this call."""

    call: CallId


class Chat(Message, frozen=True, kw_only=True):
    """Answer in words about ``images``, uint8 ``[height, width, 3]`` each, after the turns of ``history``.

    ``regions`` are bool ``[height, width]`` masks in the one image that the prompt is about.
    """

    call: CallId
    keep_alive: Seconds
    prompt: Prompt
    images: Arrays = []
    regions: Arrays = []
    history: Turns = []
    generation: Generation = GREEDY


class Process(Message, frozen=True, kw_only=True):
    """Have a mask processor of the worker improve masks of ``picture``, uint8 ``[height, width, 3]``.

    ``probabilities`` are float32 ``[objects, height, width]``, 0..1.
    """

    call: CallId
    keep_alive: Seconds
    processor: Name
    options: Options = {}
    picture: ArrayHeader
    probabilities: ArrayHeader


class Cancel(Message, frozen=True, kw_only=True):
    """Stop this call, queued or running. Answered by ``Failed(code="cancelled")`` unless it was done."""

    call: CallId


class Status(Message, frozen=True, kw_only=True):
    """Answered by `StatusReply`, at any time, by a thread that does no other work."""

    call: CallId


class Unload(Message, frozen=True, kw_only=True):
    """End the worker. Waits up to ``wait`` seconds for running calls, then refuses unless ``force``."""

    call: CallId
    force: bool = False
    wait: Seconds = 0.0


class Bye(Message, frozen=True, kw_only=True):
    """This client is leaving; drop what it asked for."""


ClientMessage = (
    Hello | Load | Segment | Frames | EndOfFrames | Chat | Process | Cancel | Status | Unload | Bye
)


class Ready(Message, frozen=True, kw_only=True):
    """Answers `Hello`. ``info`` is absent while the model is loading. ``shares``: the arena that was offered is mapped,
    so buffers may be references into it.
    """

    phase: Name
    info: ModelInfo | None = None
    shares: bool = False


class Returned(Message, frozen=True, kw_only=True):
    """Nothing in the worker refers any more to what was lent as ``lease``."""

    lease: Count


class Loaded(Message, frozen=True, kw_only=True):
    """Answers `Load`."""

    call: CallId
    info: ModelInfo


class Started(Message, frozen=True, kw_only=True):
    """The engine begins with this call. ``image_size`` is the side of the frames it wants."""

    call: CallId
    image_size: Small


class Credit(Message, frozen=True, kw_only=True):
    """The client may send this many more frames."""

    call: CallId
    frames: Small


class Progress(Message, frozen=True, kw_only=True):
    """How far a call is; ``total`` is absent where it is unknown."""

    call: CallId
    phase: Name
    done: Count
    total: Count | None = None
    unit: Name = ""


class Log(Message, frozen=True, kw_only=True):
    """A line of the worker's log that users may want to see."""

    level: Name
    text: Text


class Token(Message, frozen=True, kw_only=True):
    """A piece of the answer's text."""

    call: CallId
    text: Text


class Said(Message, frozen=True, kw_only=True):
    """The answer to one prompt of a `Segment`, in their order and before any `Masks`, and how many objects it has."""

    call: CallId
    text: Text
    objects: Small


class Masks(Message, frozen=True, kw_only=True):
    """Mask logits of one frame, float32 ``[objects, height, width]``. An image is frame 0.

    ``presence`` has the logit of each object being in the frame at all; empty where the model does not say.
    """

    call: CallId
    frame: Count
    logits: ArrayHeader
    presence: Scores = []


class Processed(Message, frozen=True, kw_only=True):
    """What became of object number ``index`` of a `Process`, float32 ``[height, width]``, 0..1."""

    call: CallId
    index: Small
    probability: ArrayHeader


class Answer(Message, frozen=True, kw_only=True):
    """The call is done; every `Masks` or `Processed` came before. Of several prompts the answers are `Said`."""

    call: CallId
    text: Text
    objects: Small = 0
    timings: Timings = {}
    notes: Lines = []
    """What the caller should know about how it was done, a sentence each."""


class Failed(Message, frozen=True, kw_only=True):
    """The call is over with an error of `sa2va_host.errors`, by its code."""

    call: CallId
    code: Name
    message: Text
    advice: Text = ""
    log_tail: Lines = []
    retry_after: Seconds = 0.0
    holders: Lines = []


class Ending(Message, frozen=True, kw_only=True):
    """The worker is leaving and has not begun this call: send it to the next worker."""

    call: CallId


class Unloading(Message, frozen=True, kw_only=True):
    """Answers `Unload`: the process ends now."""

    call: CallId


class StatusReply(Message, frozen=True, kw_only=True):
    """Answers `Status`."""

    call: CallId
    report: WorkerReport


WorkerReply = (
    Ready
    | Loaded
    | Started
    | Credit
    | Progress
    | Log
    | Token
    | Said
    | Masks
    | Processed
    | Answer
    | Failed
    | Ending
    | Unloading
    | StatusReply
)
"""What a worker says of calls and of itself; `Returned` is between the two ends of a connection."""
WorkerMessage = WorkerReply | Returned
