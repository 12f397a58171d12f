"""The engine for checkpoints that bring their own code: a `sa2va_worker.steps.Engine` around `OwnModel`."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

from sa2va_host.errors import InvalidInput, ModelLoadFailed
from sa2va_host.generation import Generation
from sa2va_host.models.checkpoint_folder import CheckpointFolder
from sa2va_host.models.own_code import OwnCode, find_own_code, refusal
from sa2va_host.protocol.specification import ModelInfo, Specification
from sa2va_worker.clock import Clock
from sa2va_worker.device import choose, memory_errors, memory_use
from sa2va_worker.steps import (
    Answer,
    ChatRequest,
    FrameSource,
    MemoryUse,
    Picture,
    Progress,
    Said,
    SegmentRequest,
    Step,
)
from sa2va_worker.streaming import check_objects, stream_masks, stream_tokens

from .model import OwnModel
from .seam import Spoken

FAMILY = "own_code"
"""What `ModelInfo.family` says of such a model."""
_log = logging.getLogger("sa2va_worker")


class OwnCodeEngine:
    """One model on one device; `load` first, then any number of calls, interleaved as the caller likes."""

    def __init__(self) -> None:
        self._loaded: _Loaded | None = None
        self._speaking = False

    @property
    def info(self) -> ModelInfo:
        """What was loaded; valid once `load` is exhausted."""
        return self._ready.info

    def load(self, spec: Specification) -> Iterator[Step]:
        """Run the code of the folder that `spec` names. Raises `ModelLoadFailed` or `OutOfMemory`."""
        folder = CheckpointFolder(Path(spec.checkpoint))
        code = find_own_code(folder)
        if code is None:
            raise ModelLoadFailed(
                f"{folder.folder} brings no code of its own.", advice="Load it without trust_remote_code."
            )
        if not spec.trust_remote_code:
            raise refusal(folder, code)
        if spec.quantization != "none":
            raise ModelLoadFailed(
                f"{folder.name} runs its own code, which is not quantized.",
                advice="Leave --quantization out.",
            )
        if spec.tracker_decoder:
            raise ModelLoadFailed(
                f"{folder.name} runs its own code, which tracks with a mask decoder of its own.",
                advice="Leave --tracker-decoder out.",
            )
        device, dtype = choose(spec)
        total = folder.size
        yield Progress("loading", 0, total, "bytes")
        _log.warning("running the code of %s: %s", folder.folder, code)
        with memory_errors(device):
            model = OwnModel(folder, code, device, dtype, spec.attention)
        self._loaded = _Loaded(model, _info(spec, code, model, device, dtype), device)
        yield Progress("loading", total, total, "bytes")

    def segment(self, request: SegmentRequest, frames: FrameSource) -> Iterator[Step]:
        """Answer each prompt, then one mask for each `[SEG]` of the answers in every frame, as `Sa2VAEngine` does."""
        loaded, clock, answers = self._ready, Clock(), [Spoken() for _ in request.prompts]
        if request.condition_on != "vectors" or list(request.positions) != list(
            range(len(request.key_frames))
        ):
            raise InvalidInput(
                f"{self.info.name} runs its own code, which tracks vectors from the first frames on.",
                advice="Ask with key frames 'first:5' and without masks to condition on.",
            )
        for prompt, spoken in zip(request.prompts, answers, strict=True):
            yield from self._speak(
                spoken, prompt, request.key_frames, request.tracked, request.generation, clock
            )
            yield Said(spoken.text, spoken.objects)
        objects = sum(spoken.objects for spoken in answers)
        check_objects(objects)
        if objects:
            with clock("tracking"), torch.inference_mode():
                tracking = loaded.model.tracking(answers)
            yield from stream_masks(
                frames,
                lambda picture: (tracking.step(picture), None),
                request.frame_count,
                clock,
                loaded.guard,
            )
        yield Answer("\n".join(spoken.text for spoken in answers), objects, clock.timings)

    def chat(self, request: ChatRequest) -> Iterator[Step]:
        """Answer in words alone; several pictures are shown as a video's frames are."""
        if request.history:
            raise InvalidInput(
                f"{self.info.name} runs its own code, which answers one question at a time.",
                advice="Ask without earlier turns.",
            )
        if request.regions:
            raise InvalidInput(
                f"{self.info.name} runs its own code, to which regions cannot be shown.",
                advice="Ask about the whole picture.",
            )
        clock, spoken = Clock(), Spoken()
        is_video = len(request.images) > 1
        yield from self._speak(spoken, request.prompt, request.images, is_video, request.generation, clock)
        yield Answer(spoken.text, 0, clock.timings)

    def memory(self) -> MemoryUse:
        """Device memory in bytes; on a CPU all zero, since the process's own memory is the system's to tell."""
        return MemoryUse() if self._loaded is None else memory_use(self._loaded.device)

    @property
    def _ready(self) -> _Loaded:
        if self._loaded is None:
            raise RuntimeError("load() must be exhausted before a call")
        return self._loaded

    def _speak(
        self,
        spoken: Spoken,
        prompt: str,
        pictures: Sequence[Picture],
        is_video: bool,
        asked: Generation,
        clock: Clock,
    ) -> Iterator[Step]:
        """Say the answer, token by token, when the one that is being said is over."""
        loaded = self._ready
        yield Progress("encoding", 0, len(pictures), "frames")
        while self._speaking:
            # Another call has the turns that it needs: the scheduler gives each client's call one after the other.
            yield Progress("encoding", 0, len(pictures), "frames")
        self._speaking = True
        tokens = loaded.model.speak(spoken, prompt, pictures, is_video, asked)
        try:
            yield from stream_tokens(
                tokens, loaded.model.decode, loaded.model.end_tokens, clock, loaded.guard
            )
        finally:
            tokens.close()
            self._speaking = False


@dataclass(frozen=True)
class _Loaded:
    model: OwnModel
    info: ModelInfo
    device: torch.device

    def guard(self) -> AbstractContextManager[None]:
        """Around everything that the code does with the device."""
        return memory_errors(self.device, "Use fewer key frames, or free memory that other programs hold.")


def _info(
    spec: Specification, code: OwnCode, model: OwnModel, device: torch.device, dtype: torch.dtype
) -> ModelInfo:
    return ModelInfo(
        name=CheckpointFolder(Path(spec.checkpoint)).name,
        family=FAMILY,
        image_size=model.image_size,
        mask_size=model.image_size // 4,
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        attention=model.attention,
        parameters=sum(parameter.numel() for parameter in model.model.parameters()),
        checkpoint=spec.checkpoint,
        revision=spec.revision,
        details={
            "code": ", ".join(code.files),
            "class": type(model.model).__name__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
        },
    )
