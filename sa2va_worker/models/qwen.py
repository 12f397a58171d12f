"""The language side of Sa2VA for Qwen3-VL checkpoints: see pictures, read a prompt, speak, hand over `[SEG]` states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import FloatTensor, LongTensor, Tensor, nn
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
)

from sa2va_host.limits import Turn

from .checkpoint import Checkpoint
from .conversation import Conversation
from .pictures import DEFAULT_MAX_PIXELS, DEFAULT_MIN_PIXELS, Patches, QwenPictures

MAX_NEW_TOKENS = 2048


@dataclass
class Utterance:
    """One answer in the making."""

    prompt_ids: list[int]
    token_ids: list[int] = field(default_factory=list)
    """What was generated so far, the end token included."""
    segment_states: list[Tensor] = field(default_factory=list)
    """`[hidden]` for each `[SEG]` generated, in order; nothing else of the hidden states is kept."""


class Qwen3VLLanguage(nn.Module):
    """Weights of the vision-language model, and the loop that speaks with them.

    Under the transformers version that Sa2VA-Qwen3-VL was trained with, "the last hidden state" was the last layer's
    output *before* the final norm; newer versions report it after the norm. It is taken here where training took it.
    """

    def __init__(self, config: dict[str, Any], attention: str) -> None:
        super().__init__()
        self.config = Qwen3VLConfig(
            text_config=dict(config["text_config"]),
            vision_config={**config["vision_config"], "model_type": "qwen3_vl_vision"},
            image_token_id=config["image_token_id"],
            video_token_id=config["video_token_id"],
            vision_start_token_id=config["vision_start_token_id"],
            vision_end_token_id=config["vision_end_token_id"],
            tie_word_embeddings=False,
        )
        self.config._attn_implementation = attention  # noqa: SLF001 - its public setter needs a built model
        self.model = Qwen3VLForConditionalGeneration(self.config)
        self.hidden_size: int = config["text_config"]["hidden_size"]
        self.longest: int = config["text_config"].get("max_position_embeddings", 32_768)
        """How many tokens a conversation may have, the answer's included."""
        self._before_norm: Tensor | None = None
        self.model.model.language_model.norm.register_forward_pre_hook(self._keep_before_norm)

    def _keep_before_norm(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._before_norm = inputs[0]

    @property
    def aliases(self) -> dict[str, str]:
        """Parameters that take another's values where a checkpoint lacks them (tied embeddings)."""
        return {"model.lm_head.weight": "model.model.language_model.embed_tokens.weight"}

    def positions(self, ids: Tensor, grids: Tensor | None) -> tuple[Tensor, int]:
        """M-RoPE positions `[3, batch, tokens]` of a prompt, and the offset of the tokens that follow it."""
        if grids is None:
            return torch.arange(ids.shape[1], device=ids.device).expand(3, *ids.shape), 0
        kinds = (ids == self.config.image_token_id).int()
        positions, delta = self.model.model.get_rope_index(
            input_ids=ids, mm_token_type_ids=kinds, image_grid_thw=grids
        )
        return positions, int(delta[0])

    def hidden(
        self,
        ids: Tensor,
        positions: Tensor,
        patches: Patches | None = None,
        cache: DynamicCache | None = None,
        **more: Any,
    ) -> tuple[Tensor, Tensor]:
        """(states before the final norm, states after it), both `[batch, tokens, hidden]`."""
        pictures = (
            {} if patches is None else {"pixel_values": patches.values, "image_grid_thw": patches.grids}
        )
        out = self.model.model(
            input_ids=ids,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
            **pictures,
            **more,
        )
        before = self._before_norm
        self._before_norm = None
        assert before is not None
        return before, out.last_hidden_state

    def logits(self, states: Tensor) -> Tensor:
        """`[..., hidden]` after the final norm -> `[..., vocabulary]`."""
        return self.model.lm_head(states)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def speak(
        self,
        utterance: Utterance,
        patches: Patches | None,
        segment_token: int,
        processors: LogitsProcessorList,
        end_tokens: frozenset[int],
        max_new_tokens: int,
    ) -> Iterator[int]:
        """Greedy decoding, one token a step, recorded in `utterance`; stops after an end token or at the limit.

        The state of a `[SEG]` is known one step after its token, so a `[SEG]` that is the very last token has none.
        """
        device = self.model.device
        everything = torch.tensor([utterance.prompt_ids], device=device)
        if patches is not None:
            patches = Patches(patches.values.to(device, self.model.dtype), patches.grids.to(device))
        positions, offset = self.positions(everything, None if patches is None else patches.grids)
        cache = DynamicCache(config=self.model.model.language_model.config)
        ids = everything
        while True:
            before, after = self.hidden(ids, positions, patches, cache)
            if utterance.token_ids and utterance.token_ids[-1] == segment_token:
                utterance.segment_states.append(before[0, -1])
            scores = processors(
                cast("LongTensor", everything), cast("FloatTensor", self.logits(after[:, -1]).float())
            )
            token = int(scores.argmax(dim=-1))
            utterance.token_ids.append(token)
            yield token
            if token in end_tokens or len(utterance.token_ids) >= max_new_tokens:
                return
            patches = None
            ids = torch.tensor([[token]], device=device)
            positions = torch.full((3, 1, 1), everything.shape[1] + offset, device=device)
            everything = torch.cat([everything, ids], dim=1)


class QwenFront:
    """What stands before and after the weights: pictures to patches, prompts to ids, generation settings."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        config = checkpoint.config
        vision = config["vision_config"]
        mean, std = _colours(checkpoint)
        min_pixels, max_pixels = _pixels(checkpoint)
        self.conversation = Conversation(checkpoint.folder, config["image_token_id"])
        self.pictures = QwenPictures(
            patch=vision["patch_size"],
            merge=vision["spatial_merge_size"],
            temporal_patch=vision["temporal_patch_size"],
            mean=mean,
            std=std,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
        )
        settings = GenerationConfig(**checkpoint.optional_json("generation_config.json"))
        self.processors = _processors(settings)
        self.end_tokens = _end_tokens(settings, self.conversation, config)

    def prepare(
        self, prompt: str, pictures: Sequence[NDArray[np.uint8]], history: Sequence[Turn] = ()
    ) -> tuple[Utterance, Patches | None]:
        """A user's turn about `pictures` (possibly none) after those of `history`, ready to be answered."""
        if not pictures:
            return Utterance(self.conversation.encode(prompt, [], history)), None
        patches = self.pictures(pictures)
        counts = [self.pictures.tokens(grid) for grid in patches.grids]
        return Utterance(self.conversation.encode(prompt, counts, history)), patches

    def text(self, utterance: Utterance) -> str:
        """The answer as text: `[SEG]` stays visible, the end token does not."""
        ids = utterance.token_ids
        return self.conversation.decode(ids[:-1] if ids and ids[-1] in self.end_tokens else ids).strip()


def _colours(checkpoint: Checkpoint) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of red, green and blue (0..1) that pictures are normalised with."""
    file = "preprocessor_config.json"
    settings = checkpoint.optional_json(file)
    found: list[list[float]] = []
    for name in ("image_mean", "image_std"):
        values = settings.get(name, [0.5, 0.5, 0.5])
        fits = isinstance(values, list) and len(values) == 3
        if not (fits and all(isinstance(each, (int, float)) and 0 <= each <= 1 for each in values)):
            raise checkpoint.unusable(name, values, "three numbers from 0 to 1", file)
        found.append(values)
    if 0 in found[1]:
        raise checkpoint.unusable("image_std", found[1], "three numbers above 0", file)
    return found[0], found[1]


def _pixels(checkpoint: Checkpoint) -> tuple[int, int]:
    """The fewest and the most pixels of a picture for the vision tower."""
    least = checkpoint.config.get("min_pixels", DEFAULT_MIN_PIXELS)
    most = checkpoint.config.get("max_pixels", DEFAULT_MAX_PIXELS)
    if not (isinstance(least, int) and least > 0):
        raise checkpoint.unusable("min_pixels", least, "a whole number above 0")
    if not (isinstance(most, int) and most >= least):
        raise checkpoint.unusable("max_pixels", most, f"a whole number from min_pixels ({least}) on")
    return least, most


def _processors(settings: GenerationConfig) -> LogitsProcessorList:
    """What a checkpoint's generation settings ask of greedy decoding."""
    processors = LogitsProcessorList()
    if settings.sequence_bias:
        processors.append(SequenceBiasLogitsProcessor(settings.sequence_bias))
    if settings.repetition_penalty not in (None, 1.0):
        processors.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    return processors


def _end_tokens(
    settings: GenerationConfig, conversation: Conversation, config: dict[str, Any]
) -> frozenset[int]:
    found = settings.eos_token_id
    if found is None:
        found = config["text_config"].get("eos_token_id", conversation.end_token)
    return frozenset(found if isinstance(found, list) else [found])
