"""The engine: one Sa2VA model, its calls as generators of short steps. Knows no sockets, processes or clients.

The server runs it on one thread and alternates between calls after every step (one token, one frame of all objects);
closing a generator cancels its call. Tests and batch programs may call it directly. Importing this file imports torch.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sa2va_host.errors import InvalidInput
from sa2va_host.generation import MAX_NEW_TOKENS, Generation
from sa2va_host.models import unsupported
from sa2va_host.protocol.limits import Turn
from sa2va_host.protocol.specification import ModelInfo, Specification

from . import attention
from .clock import Clock
from .device import choose_all, memory_errors, memory_use, take_threads
from .following import OWN_DECODER, Follower
from .models import quantization
from .models.checkpoint import Checkpoint, find_folder
from .models.families import family
from .models.language import Front, Utterance
from .models.sa2va import ChatModel, Sa2VA, build, load, need_of
from .models.sampling import Sampler
from .models.tracker_decoder import TrackerDecoder
from .steps import (
    Answer,
    ChatRequest,
    FrameSource,
    MemoryUse,
    Progress,
    Said,
    SegmentRequest,
    Step,
)
from .streaming import check_objects, stream_masks, stream_tokens

PROGRESS_SECONDS = 0.2
_log = logging.getLogger("sa2va_worker")


class Sa2VAEngine:
    """One model on one device; `load` first, then any number of calls, interleaved as the caller likes."""

    def __init__(self) -> None:
        self._loaded: _Loaded | None = None

    @property
    def info(self) -> ModelInfo:
        """What was loaded; valid once `load` is exhausted."""
        return self._model.info

    def load(self, spec: Specification) -> Iterator[Step]:
        """Load what `spec` names. Raises `ModelNotFound`, `ModelLoadFailed` or `OutOfMemory`."""
        devices, dtype = choose_all(spec)
        device, *others = devices
        attending = attention.choose(spec.attention, device, dtype)
        bits = quantization.choose(spec.quantization)
        checkpoint = Checkpoint(find_folder(spec.checkpoint))
        decoder = TrackerDecoder(Path(spec.tracker_decoder)) if spec.tracker_decoder else None
        if why := unsupported.refusal_of(checkpoint):
            raise unsupported.error(checkpoint.name, why)
        kind = family(checkpoint.config)
        total = checkpoint.size
        yield Progress("loading", 0, total, "bytes")
        with memory_errors(device):
            model = build(checkpoint, device, dtype, attending.name, bits, others, decoder)
            front = kind.front(checkpoint)
            done, shown = 0, time.monotonic()
            for size in load(model, checkpoint, decoder):
                done += size
                if time.monotonic() - shown >= PROGRESS_SECONDS:
                    shown = time.monotonic()
                    yield Progress("loading", min(done, total), total, "bytes")
        image_size = model.sam2.image_size if isinstance(model, Sa2VA) else 0
        need = need_of(model)
        take_threads(device, need.parameters)
        info = ModelInfo(
            name=checkpoint.name,
            family=kind.name,
            image_size=image_size,
            mask_size=image_size // 4,
            device=str(device),
            dtype=str(dtype).removeprefix("torch."),
            attention=attending.name,
            parameters=need.parameters,
            quantization=bits,
            checkpoint=spec.checkpoint,
            revision=spec.revision,
            details={
                "torch": str(torch.__version__),
                **({"tracker_decoder": decoder.name} if decoder else {}),
                **_shares(model),
                **attending.details,
            },
        )
        for note in checkpoint.notes:
            _log.warning("%s: %s", checkpoint.name, note)
        self._loaded = _Loaded(model, front, info, devices, need.advice(dtype, bits), checkpoint.notes)
        yield Progress("loading", total, total, "bytes")

    def segment(self, request: SegmentRequest, frames: FrameSource) -> Iterator[Step]:
        """Answer each prompt, then one mask for each `[SEG]` of the answers in every frame.

        The language model sees the key frames; the tracker sees every frame once, whatever the number of objects, and
        the key frames are its conditioning frames. Raises `InvalidInput` at once, and not at the first step, for a
        checkpoint that chats and no more.
        """
        return self._segment(self._model.sa2va, request, frames)

    def _segment(self, sa2va: Sa2VA, request: SegmentRequest, frames: FrameSource) -> Iterator[Step]:
        clock, loaded = Clock(), self._model
        answers: list[Utterance] = []
        for prompt in request.prompts:
            earlier = answers[-1] if answers else None
            answer = yield from self._answer(
                prompt, request.key_frames, request.generation, clock, earlier=earlier
            )
            answers.append(answer)
            yield Said(loaded.front.text(answer), len(answer.segment_states))
        answers[-1].read = None
        states = [state for answer in answers for state in answer.segment_states]
        check_objects(len(states))
        if states:
            with clock("tracking"), torch.inference_mode():
                follower = Follower(sa2va, states, request)
            for _ in follower.look_ahead(clock, loaded.guard):
                yield Progress("tracking", 0, request.frame_count, "frames")
            yield from stream_masks(frames, follower.step, request.frame_count, clock, loaded.guard)
        notes = [*loaded.notes]
        if request.condition_on == "masks" and sa2va.sam2.original_decoder is None:
            notes.append(OWN_DECODER)
        yield Answer("\n".join(map(loaded.front.text, answers)), len(states), clock.timings, notes)

    def chat(self, request: ChatRequest) -> Iterator[Step]:
        """Answer in words alone."""
        clock = Clock()
        utterance = yield from self._answer(
            request.prompt, request.images, request.generation, clock, request.history, request.regions
        )
        yield Answer(self._model.front.text(utterance), 0, clock.timings, self._model.notes)

    def memory(self) -> MemoryUse:
        """Device memory in bytes; on a CPU all zero, since the process's own memory is the system's to tell."""
        return MemoryUse() if self._loaded is None else memory_use(*self._loaded.devices)

    @property
    def _model(self) -> _Loaded:
        if self._loaded is None:
            raise RuntimeError("load() must be exhausted before a call")
        return self._loaded

    def _answer(
        self,
        prompt: str,
        pictures: Sequence[NDArray[np.uint8]],
        generation: Generation,
        clock: Clock,
        history: Sequence[Turn] = (),
        regions: Sequence[NDArray[np.bool_]] = (),
        earlier: Utterance | None = None,
    ) -> Generator[Step, None, Utterance]:
        if not prompt.strip():
            raise InvalidInput(
                "the prompt is empty.", advice="Say what to look for, such as 'the red circle'."
            )
        loaded = self._model
        yield Progress("encoding", 0, len(pictures), "frames")
        with clock("encoding"):
            utterance, patches = loaded.front.prepare(prompt, pictures, history, regions)
        limit = _limit(generation, len(utterance.prompt_ids), loaded.model.language.longest)
        yield Progress("encoding", len(pictures), len(pictures), "frames")
        tokens = loaded.model.language.speak(
            utterance,
            patches,
            Sampler(generation, loaded.front.defaults),
            loaded.front.segment_token,
            loaded.front.end_tokens,
            limit,
            earlier,
        )
        yield from stream_tokens(tokens, loaded.front.decode, loaded.front.end_tokens, clock, loaded.guard)
        return utterance


@dataclass(frozen=True)
class _Loaded:
    model: ChatModel
    front: Front[Any]
    info: ModelInfo
    devices: Sequence[torch.device]
    memory_advice: str
    """What to do when a call runs out of memory."""
    notes: Sequence[str] = ()
    """What was passed over in the checkpoint, for every answer."""

    def guard(self) -> AbstractContextManager[None]:
        """Around everything that a call does with the device."""
        return memory_errors(self.devices[0], self.memory_advice)

    @property
    def sa2va(self) -> Sa2VA:
        """The model with its mask side. Raises `InvalidInput` where it has none."""
        if not isinstance(self.model, Sa2VA):
            raise InvalidInput(
                f"{self.info.name} answers in words alone: it is no Sa2VA checkpoint and makes no masks.",
                advice="Load a Sa2VA checkpoint to segment, or ask this one with chat.",
            )
        return self.model


def _shares(model: ChatModel) -> dict[str, str]:
    """How many decoder layers each device holds, where there are several: `cuda:0 20, cuda:1 16`."""
    shares = Counter(map(str, model.places))
    return (
        {"layers": ", ".join(f"{device} {count}" for device, count in shares.items())}
        if len(shares) > 1
        else {}
    )


def _limit(generation: Generation, prompt: int, longest: int) -> int:
    """How many tokens the answer may have after so many of the prompt. Raises `InvalidInput` where there is no room."""
    room = longest - prompt
    if room < 1:
        raise InvalidInput(
            f"the prompt and its pictures take {prompt} tokens, and the model reads fewer than {longest}.",
            advice="Shorten the prompt, or show fewer or smaller pictures.",
        )
    if generation.max_new_tokens is None:
        return min(MAX_NEW_TOKENS, room)
    if generation.max_new_tokens > room:
        raise InvalidInput(
            f"max_new_tokens is {generation.max_new_tokens}, and beside the {prompt} tokens of the prompt and its"
            f" pictures the model has room for {room}.",
            advice="Ask for fewer, or leave it out.",
        )
    return generation.max_new_tokens
