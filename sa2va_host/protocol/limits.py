"""Caps of the protocol, and the field types that enforce them while a message is being decoded.

Shared by every type that travels. Bytes, counts and seconds; a value outside is refused with its whole message.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

MAX_PAYLOAD = 1 << 20
MAX_BUFFERS = 64
MAX_BUFFER_BYTES = 1 << 30
MAX_MESSAGE_BYTES = 2 << 30
ARENA_BYTES = 256 << 20
"""Of the memory that a client shares with its worker (`sa2va_host.protocol.shared_memory`): two 4K pictures in float32
or ten in uint8, under way at once. What finds no room there travels as frames.
"""
MIN_SHARED_BYTES = 1 << 18
"""Smaller arrays travel as frames, which then are about as fast: of 256 KiB a frame takes 0.35 ms with a mask back, a
lease with its return 0.24 ms; of 64 KiB 0.28 ms and 0.24 ms (medians of 80, Linux, two cores).
"""
MAX_SECONDS = 1e12
MAX_PROMPTS = 64
"""In one call, about the same frames."""
FRAME_WINDOW = 8
"""How many streamed frames a call may have in flight."""

CallId = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Small = Annotated[int, Meta(ge=0, le=1 << 20)]
Seconds = Annotated[float, Meta(ge=-MAX_SECONDS, le=MAX_SECONDS)]
Name = Annotated[str, Meta(max_length=512)]
Text = Annotated[str, Meta(max_length=MAX_PAYLOAD)]
Prompt = Annotated[str, Meta(max_length=200_000)]
Prompts = Annotated[list[Prompt], Meta(min_length=1, max_length=MAX_PROMPTS)]
Lines = Annotated[list[Text], Meta(max_length=1000)]
DType = Literal[
    "bool", "uint8", "int8", "int16", "uint16", "int32", "int64", "float16", "bfloat16", "float32"
]
Shape = Annotated[list[Annotated[int, Meta(ge=0, le=1 << 31)]], Meta(max_length=8)]
Timings = Annotated[dict[Name, Annotated[float, Meta(ge=0, le=2**63)]], Meta(max_length=64)]
"""As `sa2va_host.timings` explains them."""
Positions = Annotated[list[Count], Meta(max_length=MAX_BUFFERS)]
MAX_OBJECTS = 1000
"""In one frame."""
Scores = Annotated[list[float], Meta(max_length=MAX_OBJECTS)]
Options = Annotated[dict[Name, float | Name], Meta(max_length=64)]
ConditionOn = Literal["vectors", "masks"]
"""What the tracker is told of the key frames: the answer's vectors, as upstream does, or the masks that the fine-tuned
decoder makes of them there, which SAM2's original decoder then propagates where the checkpoint has it (Sa2VA-i).
"""


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One question of an earlier turn of a conversation, and what the model answered."""

    prompt: Prompt
    answer: Text


MAX_TURNS = 1000
Turns = Annotated[list[Turn], Meta(max_length=MAX_TURNS)]
