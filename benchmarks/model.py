"""A checkpoint in this process, for what a worker does not show: memory by call, and the language model alone."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import GenerationConfig

from sa2va_host.generation import GREEDY
from sa2va_host.protocol.specification import Specification
from sa2va_worker import attention
from sa2va_worker.device import choose_all
from sa2va_worker.following import Follower
from sa2va_worker.models import quantization
from sa2va_worker.models.checkpoint import Checkpoint
from sa2va_worker.models.families import family
from sa2va_worker.models.pictures import square
from sa2va_worker.models.sa2va import Sa2VA, build, load
from sa2va_worker.models.sampling import Sampler
from sa2va_worker.steps import Picture, SegmentRequest

from .cases import KEY_FRAMES, Case
from .figures import NotMeasured

PROMPT = "the red circle"


class Model:
    """Loaded as the engine loads it. Raises what that raises, and `NotMeasured` where the attention does not run."""

    def __init__(self, folder: Path, device: str, attending: str = "sdpa", bits: str = "none") -> None:
        spec = Specification(checkpoint=str(folder), device=device, attention=attending, quantization=bits)
        (self.device, *_), dtype = choose_all(spec)
        found = attention.choose(attending, self.device, dtype)
        if found.name != attending:
            raise NotMeasured(f"{attending} does not run here: {found.reason}")
        stored = Checkpoint(folder)
        model = build(stored, self.device, dtype, attending, quantization.choose(bits))
        assert isinstance(model, Sa2VA)
        for _ in load(model, stored):
            pass
        self.sa2va, self.front = model, family(stored.config).front(stored)

    def answer(self, case: Case) -> None:
        """A whole call, up to masks on the host at the size of the decoder."""
        frames = case.pictures()
        utterance, pictures = self.front.prepare(case.prompt, frames[:KEY_FRAMES])
        chooser = Sampler(GREEDY, self.front.defaults)
        segment, end = self.front.segment_token, self.front.end_tokens
        longest = self.sa2va.language.longest - len(utterance.prompt_ids)
        for _ in self.sa2va.language.speak(utterance, pictures, chooser, segment, end, longest):
            pass
        request = SegmentRequest(
            [case.prompt], frames[:KEY_FRAMES], tracked=case.frames > 1, frame_count=case.frames
        )
        with torch.inference_mode():
            follower = Follower(self.sa2va, utterance.segment_states, request)
            for frame in frames:
                follower.step(square(frame, self.sa2va.sam2.image_size))

    def speak(self, picture: Picture, tokens: int) -> None:
        """Say so many tokens about a picture, whatever they are, in our own loop."""
        utterance, pictures = self.front.prepare(PROMPT, [picture])
        chooser = Sampler(GREEDY, GenerationConfig())
        for _ in self.sa2va.language.speak(utterance, pictures, chooser, None, frozenset(), tokens):
            pass

    @torch.inference_mode()
    def generate(self, picture: Picture, tokens: int, cache: str = "dynamic") -> None:
        """The same in transformers' `generate`, on the same weights; `cache` as its `cache_implementation`.

        With a static cache transformers compiles the steps, where it can: see `compiled`.
        """
        utterance, pictures = self.front.prepare(PROMPT, [picture])
        assert pictures is not None
        language = self.sa2va.language.model
        ids = torch.tensor([utterance.prompt_ids], device=self.device)
        language.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=pictures.values.to(self.device),
            image_grid_thw=pictures.grids.to(self.device),
            mm_token_type_ids=(ids == language.config.image_token_id).int(),
            do_sample=False,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=0,
            cache_implementation=cache,
        )

    @property
    def compiled(self) -> bool:
        """Whether `generate` compiled the model: transformers keeps what it compiled, and says so nowhere else."""
        return hasattr(self.sa2va.language.model, "_compiled_call")

    def peak(self) -> float:
        """Bytes of device memory at the peak since the last look; 0 on a processor."""
        if self.device.type != "cuda":
            return 0.0
        peak = float(torch.cuda.max_memory_allocated(self.device))
        torch.cuda.reset_peak_memory_stats(self.device)
        return peak
