"""From tokens and frames to the steps of a call, the same for every engine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from sa2va_host.errors import InvalidInput

from .clock import Clock
from .steps import FrameSource, Masks, Picture, Progress, Step, Token, Waiting

Guard: TypeAlias = "Callable[[], AbstractContextManager[None]]"
"""`device.memory_errors` for the device that does the work."""
Logits: TypeAlias = "NDArray[np.float32]"
"""`[objects, height, width]`"""
Scores: TypeAlias = "NDArray[np.float32]"
"""`[objects]`"""
MAX_OBJECTS = 100
"""Of one answer; they are decoded together, so their number is memory. A model that repeats itself says more."""
PROGRESS_TOKENS = 8
LONGEST_CHARACTER = 4
"""Bytes of UTF-8, each of which can be a token."""
UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer decodes a part of a character to."""


def stream_tokens(
    tokens: Iterator[int],
    decode: Callable[[list[int]], str],
    end_tokens: Collection[int],
    clock: Clock,
    guard: Guard,
) -> Iterator[Step]:
    """Token ids as they are generated -> the text that they are, and how many there were."""
    count = 0
    pending: list[int] = []
    while True:
        with clock("generating"), guard():
            token = next(tokens, None)
        if token is None:
            break
        clock.count_token()
        count += 1
        pending.append(token)
        if token not in end_tokens:
            text = decode(pending)
            # A character can be spread over several tokens: wait until it is whole, unless it is none.
            if not text.endswith(UNFINISHED) or len(pending) > LONGEST_CHARACTER:
                pending = []
                yield Token(text)
        if count % PROGRESS_TOKENS == 0:
            yield Progress("generating", count, None, "tokens")
    yield Progress("generating", count, count, "tokens")


def check_objects(objects: int) -> None:
    """Raises `InvalidInput` where an answer has more than `MAX_OBJECTS`."""
    if objects > MAX_OBJECTS:
        raise InvalidInput(
            f"the answer has {objects} masks, more than {MAX_OBJECTS}.",
            advice="Ask for fewer things at once.",
        )


def stream_masks(
    frames: FrameSource,
    track: Callable[[Picture], tuple[Logits, Scores | None]],
    total: int | None,
    clock: Clock,
    guard: Guard,
) -> Iterator[Step]:
    """Frames as they come -> their masks. ``track``: a frame -> its logits, and those of each object being in it."""
    frame = 0
    while True:
        picture = frames.get()
        if picture is None:
            if frames.finished:
                return
            yield Waiting()
            continue
        with clock("tracking"), torch.inference_mode(), guard():
            logits, presence = track(picture)
        yield Masks(frame, logits, presence)
        frame += 1
        yield Progress("tracking", frame, total, "frames")
