"""The seam that upstream's classes share, whatever their family: where an answer is listened to and steered.

Upstream's `predict_forward` does everything at once: it generates, then has each object tracked through the video and
thresholded. Its copies in other checkpoints differ in how they prompt and speak, and all of them come to the same two
places, a `generate` of transformers and `grounding_encoder.language_embd_inference`. So `predict_forward` runs as it
is, and is intercepted there: the first hands every token over as it comes, and takes the caller's settings; the second
only notes what each object is prompted with, and `tracking` does the rest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria
from transformers.generation.utils import GenerationMixin

from sa2va_host.errors import ModelLoadFailed
from sa2va_host.generation import Generation
from sa2va_worker.models.sampling import Sampler

_NEEDED = (
    "predict_forward",
    "grounding_encoder.language_embd_inference",
    "grounding_encoder.preprocess_image",
    "grounding_encoder.sam2_model.image_size",
    "grounding_encoder.sam2_model.init_state",
    "grounding_encoder.sam2_model.forward_image",
    "grounding_encoder.sam2_model.add_language_embd",
    "grounding_encoder.sam2_model.propagate_in_video",
)
"""What is used of a checkpoint's class; `projects/sa2va/hf` of bytedance/Sa2VA has it in every family."""


@dataclass
class Spoken:
    """One answer in the making."""

    token_ids: list[int] = field(default_factory=list)
    """What was generated so far, the end token included."""
    prompts: list[Tensor] = field(default_factory=list)
    """What SAM2 is prompted with, each `[conditioning frames, objects, C]`."""
    text: str = ""
    """What the checkpoint's code makes of the tokens; there at the end."""

    @property
    def objects(self) -> int:
        """How many objects the answer is about."""
        return sum(prompts.shape[1] for prompts in self.prompts)


class Seam:
    """Intercepts one model, for one answer at a time."""

    def __init__(self, model: nn.Module) -> None:
        """Raises `ModelLoadFailed` for a class that is not shaped like upstream's."""
        missing = [name for name in _NEEDED if not _has(model, name)]
        speakers = _speakers(model)
        missing += [] if speakers else ["a language model with transformers' generate"]
        if missing:
            raise ModelLoadFailed(
                f"The checkpoint's own class {type(model).__name__} lacks {', '.join(missing)}.",
                advice="Only code that is shaped like upstream's Sa2VA can be run.",
            )
        self.speakers = speakers
        self._answer: tuple[Spoken, Generation, Callable[[int], None]] | None = None
        self.end_tokens = frozenset(token for speaker in speakers for token in _end_tokens(speaker))
        grounding: Any = model.grounding_encoder
        grounding.language_embd_inference = self._note_prompts
        for speaker in speakers:
            speaker.generate = partial(self._generate, speaker.generate)

    @contextlib.contextmanager
    def listen(self, spoken: Spoken, asked: Generation, on_token: Callable[[int], None]) -> Iterator[None]:
        """What the model says inside goes to ``spoken``, is generated as ``asked``, and each token to ``on_token``."""
        self._answer = (spoken, asked, on_token)
        try:
            yield
        finally:
            self._answer = None

    def _note_prompts(self, _state: object, language_embd: Sequence[Tensor]) -> Tensor:
        """In the place of `language_embd_inference`: no mask is made, so what is returned has one pixel for each."""
        assert self._answer is not None
        prompts = torch.stack(list(language_embd))
        self._answer[0].prompts.append(prompts)
        return prompts.new_zeros(*prompts.shape[:2], 1, 1)

    def _generate(self, generate: Callable[..., Any], *args: Any, **settings: Any) -> Any:
        """In the place of `generate`: as the code calls it, with what the caller asked for on top."""
        assert self._answer is not None
        spoken, asked, on_token = self._answer
        settings["stopping_criteria"] = [
            *(settings.get("stopping_criteria") or ()),
            _Listener(spoken, on_token),
        ]
        if asked.max_new_tokens is not None:
            settings["max_new_tokens"] = asked.max_new_tokens
        if asked.do_sample or asked.repetition_penalty is not None:
            # Ours, so that a seed draws as it does from any other model; what is left is to take the likeliest.
            settings["do_sample"] = False
            if asked.repetition_penalty is not None:
                settings["repetition_penalty"] = 1.0  # instead of the checkpoint's
            settings["logits_processor"] = [*(settings.get("logits_processor") or ()), _Choice(asked)]
        return generate(*args, **settings)


class _Listener(StoppingCriteria):
    """Asked after each token whether to stop: never, but it is told of them."""

    def __init__(self, spoken: Spoken, on_token: Callable[[int], None]) -> None:
        self._spoken = spoken
        self._on_token = on_token

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        del scores, kwargs
        token = int(input_ids[0, -1])
        self._spoken.token_ids.append(token)
        self._on_token(token)
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class _Choice(LogitsProcessor):
    """Leaves one token to choose from, the one that our own `Sampler` chooses."""

    def __init__(self, asked: Generation) -> None:
        # What the checkpoint's generation_config.json says is in the logits already.
        self._sampler = Sampler(asked, GenerationConfig())

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        chosen = self._sampler.choose(scores[:1].float(), input_ids[0].tolist())
        left = torch.full_like(scores, float("-inf"))
        left[:, chosen] = 0.0
        return left


def _speakers(model: nn.Module) -> list[Any]:
    """The modules that generate, without those around them: transformers gives the whole a `generate` too."""
    found = [module for module in model.modules() if isinstance(module, GenerationMixin)]
    return [
        speaker
        for speaker in found
        if not any(other in found for other in speaker.modules() if other is not speaker)
    ]


def _has(model: nn.Module, name: str) -> bool:
    found: Any = model
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is not None


def _end_tokens(speaker: Any) -> Iterator[int]:
    """The tokens that end an answer: `eos_token_id` is one, several or none."""
    found = speaker.generation_config.eos_token_id if speaker.generation_config else None
    yield from [] if found is None else found if isinstance(found, list) else [found]
