"""The engine: one Sa2VA model, its calls as generators of short steps. Knows no sockets, processes or clients.

The server runs it on one thread and alternates between calls after every step (one token, one frame of all objects);
closing a generator cancels its call. Tests and batch programs may call it directly. Importing this file imports torch.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sa2va_host.errors import InvalidInput
from sa2va_host.limits import Turn
from sa2va_host.specification import ModelInfo, Specification

from .device import choose, memory_errors
from .models.checkpoint import Checkpoint, find_folder
from .models.qwen import MAX_NEW_TOKENS, QwenFront, Utterance
from .models.sa2va import Sa2VA, build, family, load
from .models.tracker import Tracker
from .steps import (
    Answer,
    ChatRequest,
    FrameSource,
    Generation,
    Masks,
    MemoryUse,
    Progress,
    SegmentRequest,
    Step,
    Token,
    Waiting,
)

MAX_OBJECTS = 100
"""Of one answer; they are decoded together, so their number is memory. A model that repeats itself says more."""
PROGRESS_SECONDS = 0.2
PROGRESS_TOKENS = 8
UNFINISHED = "�"


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
        device, dtype, attention = choose(spec)
        checkpoint = Checkpoint(find_folder(spec.checkpoint))
        kind = family(checkpoint.config)
        total = checkpoint.size
        yield Progress("loading", 0, total, "bytes")
        with memory_errors(device):
            model = build(checkpoint, device, dtype, attention)
            front = QwenFront(checkpoint)
            done, shown = 0, time.monotonic()
            for size in load(model, checkpoint):
                done += size
                if time.monotonic() - shown >= PROGRESS_SECONDS:
                    shown = time.monotonic()
                    yield Progress("loading", min(done, total), total, "bytes")
        info = ModelInfo(
            name=checkpoint.folder.name,
            family=kind,
            image_size=model.sam2.image_size,
            mask_size=model.sam2.image_size // 4,
            device=str(device),
            dtype=str(dtype).removeprefix("torch."),
            attention=attention,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            checkpoint=spec.checkpoint,
            revision=spec.revision,
            details={"torch": str(torch.__version__)},
        )
        self._loaded = _Loaded(model, front, info, device)
        yield Progress("loading", total, total, "bytes")

    def segment(self, request: SegmentRequest, frames: FrameSource) -> Iterator[Step]:
        """Answer, then one mask for each `[SEG]` of the answer in every frame.

        The language model sees the key frames; the tracker sees every frame once, whatever the number of objects, and
        the first frames, as many as there are key frames, are its conditioning frames.
        """
        clock = _Clock()
        utterance = yield from self._answer(request.prompt, request.key_frames, request.generation, clock)
        objects = len(utterance.segment_states)
        if objects > MAX_OBJECTS:
            raise InvalidInput(
                f"the answer has {objects} masks, more than {MAX_OBJECTS}.",
                advice="Ask for fewer things at once.",
            )
        if objects:
            yield from self._track(request, frames, utterance, clock)
        yield Answer(self._model.front.text(utterance), objects, clock.seconds)

    def chat(self, request: ChatRequest) -> Iterator[Step]:
        """Answer in words alone."""
        clock = _Clock()
        utterance = yield from self._answer(
            request.prompt, request.images, request.generation, clock, request.history
        )
        yield Answer(self._model.front.text(utterance), 0, clock.seconds)

    def memory(self) -> MemoryUse:
        """Device memory in bytes; on a CPU all zero, since the process's own memory is the system's to tell."""
        if self._loaded is None or self._loaded.device.type != "cuda":
            return MemoryUse()
        device = self._loaded.device
        return MemoryUse(
            torch.cuda.memory_allocated(device),
            torch.cuda.memory_reserved(device),
            torch.cuda.max_memory_allocated(device),
        )

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
        clock: _Clock,
        history: Sequence[Turn] = (),
    ) -> Generator[Step, None, Utterance]:
        if not prompt.strip():
            raise InvalidInput(
                "the prompt is empty.", advice="Say what to look for, such as 'the red circle'."
            )
        loaded = self._model
        yield Progress("encoding", 0, len(pictures), "frames")
        with clock("encoding"):
            utterance, patches = loaded.front.prepare(prompt, pictures, history)
        room = loaded.model.language.longest
        if len(utterance.prompt_ids) >= room:
            raise InvalidInput(
                f"the prompt and its pictures take {len(utterance.prompt_ids)} tokens, and the model reads fewer"
                f" than {room}.",
                advice="Shorten the prompt, or show fewer or smaller pictures.",
            )
        yield Progress("encoding", len(pictures), len(pictures), "frames")
        tokens = loaded.model.language.speak(
            utterance,
            patches,
            loaded.front.conversation.segment_token,
            loaded.front.processors,
            loaded.front.end_tokens,
            generation.max_new_tokens or MAX_NEW_TOKENS,
        )
        pending: list[int] = []
        while True:
            with clock("generating"), memory_errors(loaded.device):
                token = next(tokens, None)
            if token is None:
                break
            pending.append(token)
            if token not in loaded.front.end_tokens:
                text = loaded.front.conversation.decode(pending)
                # A character can be spread over several tokens: wait until it is whole.
                if not text.endswith(UNFINISHED):
                    pending = []
                    yield Token(text)
            if len(utterance.token_ids) % PROGRESS_TOKENS == 0:
                yield Progress("generating", len(utterance.token_ids), None, "tokens")
        yield Progress("generating", len(utterance.token_ids), len(utterance.token_ids), "tokens")
        return utterance

    def _track(
        self, request: SegmentRequest, frames: FrameSource, utterance: Utterance, clock: _Clock
    ) -> Iterator[Step]:
        loaded = self._model
        sam2 = loaded.model.sam2
        with clock("tracking"), torch.inference_mode():
            prompts = loaded.model.prompts(utterance.segment_states)
        tracker, frame = Tracker(sam2, prompts), 0
        while True:
            picture = frames.get()
            if picture is None:
                if frames.finished:
                    return
                yield Waiting()
                continue
            with clock("tracking"), torch.inference_mode(), memory_errors(loaded.device):
                features = sam2.encode(sam2.pixels(torch.from_numpy(np.array(picture)).unsqueeze(0)))
                decoded = tracker.step(
                    features.expand(len(prompts)), conditioning=frame < len(request.key_frames)
                )
                logits = decoded.logits.to(torch.float32).cpu().numpy()
            yield Masks(frame, logits)
            frame += 1
            yield Progress("tracking", frame, request.frame_count, "frames")


@dataclass(frozen=True)
class _Loaded:
    model: Sa2VA
    front: QwenFront
    info: ModelInfo
    device: torch.device


class _Clock:
    """Seconds by phase, without the time that other calls took in between."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[phase] += time.monotonic() - began
