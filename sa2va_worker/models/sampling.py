"""Which token comes next: what the caller asks for, on top of what the checkpoint does."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from sa2va_host.errors import ModelLoadFailed, WorkerError
from sa2va_host.generation import GREEDY, Generation

from .checkpoint import Checkpoint

_FILE = "generation_config.json"


def read_defaults(checkpoint: Checkpoint) -> GenerationConfig:
    """What a folder's `generation_config.json` says. Raises `ModelLoadFailed` for what cannot be followed."""
    stored = checkpoint.optional_json(_FILE)
    try:
        defaults = GenerationConfig(**stored)
        _processors(GREEDY, defaults)
    except (TypeError, ValueError) as error:
        raise ModelLoadFailed(
            f"{checkpoint.folder / _FILE} cannot be followed: {str(error).rstrip('.')}.",
            advice="Fetch the checkpoint again.",
        ) from error
    return defaults


class Sampler:
    """Chooses the tokens of one answer (`language.Chooser`).

    Of the checkpoint's `defaults` its `sequence_bias` and `repetition_penalty` hold, the latter unless the caller gives
    another. Its sampling settings do not: they are there to be used with sampling, which it is the caller's to ask for,
    and some of them (a temperature of 0.000001) are there to prevent it.

    Random numbers are the call's own, so that calls which take turns do not change each other's words, and come from
    the processor, so that a seed means the same on every device.
    """

    def __init__(self, asked: Generation, defaults: GenerationConfig) -> None:
        self._processors = _processors(asked, defaults)
        self._random: torch.Generator | None = None
        if asked.do_sample:
            self._random = torch.Generator()
            self._random.seed() if asked.seed is None else self._random.manual_seed(asked.seed)

    def choose(self, scores: Tensor, said: list[int]) -> int:
        """A token for logits `[1, vocabulary]` after `said`: the prompt's tokens and the answer's so far.

        Raises `WorkerError` where the model's numbers are none, which would be said as an endless answer.
        """
        if self._processors:
            ids = torch.tensor([said], device=scores.device)
            scores = self._processors(ids, scores)  # type: ignore[arg-type]
        best, token = scores.max(dim=-1)
        if math.isnan(best.item()):
            raise WorkerError(
                "the model's scores for the next token are no numbers.",
                advice="With --dtype float16 try bfloat16; in any other the checkpoint is damaged.",
            )
        if self._random is None:
            return int(token)
        return int(torch.multinomial(scores.softmax(dim=-1).cpu(), 1, generator=self._random))


def _processors(asked: Generation, defaults: GenerationConfig) -> LogitsProcessorList:
    """In the order of transformers' own `generate`."""
    processors = LogitsProcessorList()
    if defaults.sequence_bias:
        processors.append(SequenceBiasLogitsProcessor(defaults.sequence_bias))
    penalty = defaults.repetition_penalty if asked.repetition_penalty is None else asked.repetition_penalty
    if penalty not in (None, 1):
        processors.append(RepetitionPenaltyLogitsProcessor(float(penalty)))
    if asked.temperature is not None:
        processors.append(TemperatureLogitsWarper(float(asked.temperature)))
    if asked.top_k is not None:
        processors.append(TopKLogitsWarper(asked.top_k))
    if asked.top_p is not None:
        processors.append(TopPLogitsWarper(asked.top_p))
    if asked.min_p is not None:
        processors.append(MinPLogitsWarper(asked.min_p))
    return processors
