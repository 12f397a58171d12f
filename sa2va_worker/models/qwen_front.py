"""What stands before and after the weights of a Qwen model: pictures to patches, prompts to ids, ids to text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import GenerationConfig

from sa2va_host.errors import InvalidInput
from sa2va_host.protocol.limits import Turn

from .checkpoint import Checkpoint
from .conversation import Conversation
from .language import Utterance
from .pictures import DEFAULT_MAX_PIXELS, DEFAULT_MIN_PIXELS, Patches, QwenPictures
from .qwen_processor import read_processor
from .sampling import read_defaults


class QwenTextFront:
    """For models that read and write words alone, and what is the same for those that see."""

    def __init__(
        self, checkpoint: Checkpoint, image_token: int | None = None, segments: bool = False
    ) -> None:
        self.conversation = Conversation(checkpoint.folder, image_token, segments)
        self.conversation.check_size(_text(checkpoint).get("vocab_size"))
        self.segment_token = self.conversation.segment_token
        self.defaults = read_defaults(checkpoint)
        self.end_tokens = _end_tokens(self.defaults, checkpoint, self.conversation)

    def prepare(
        self,
        prompt: str,
        pictures: Sequence[NDArray[np.uint8]],
        history: Sequence[Turn] = (),
        regions: Sequence[NDArray[np.bool_]] = (),
    ) -> tuple[Utterance, Patches | None]:
        """As `Front.prepare`. Raises `InvalidInput` for pictures and for regions."""
        if pictures:
            raise InvalidInput(
                "this model reads words and sees no pictures.",
                advice="Ask without a picture, or load a model that sees.",
            )
        refuse_regions(regions)
        return Utterance(self.conversation.encode(prompt, [], history)), None

    def text(self, utterance: Utterance) -> str:
        """The answer as text: `[SEG]` stays visible, the end token does not."""
        return self.conversation.answer(utterance.token_ids, self.end_tokens)

    def decode(self, ids: list[int]) -> str:
        """Text of generated ids, special tokens included."""
        return self.conversation.decode(ids)


class QwenFront(QwenTextFront):
    """For models that see, with SAM2 (`segments`) or without."""

    def __init__(self, checkpoint: Checkpoint, segments: bool = True) -> None:
        patch, merge, temporal_patch = (
            _size(checkpoint, name) for name in ("patch_size", "spatial_merge_size", "temporal_patch_size")
        )
        declared = read_processor(
            checkpoint, {"patch_size": patch, "merge_size": merge, "temporal_patch_size": temporal_patch}
        )
        min_pixels, max_pixels = _pixels(checkpoint)
        self.pictures = QwenPictures(
            patch=patch,
            merge=merge,
            temporal_patch=temporal_patch,
            mean=declared.mean,
            std=declared.std,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            fast=declared.fast,
        )
        self._image_token: int = checkpoint.config["image_token_id"]
        super().__init__(checkpoint, self._image_token, segments)

    def prepare(
        self,
        prompt: str,
        pictures: Sequence[NDArray[np.uint8]],
        history: Sequence[Turn] = (),
        regions: Sequence[NDArray[np.bool_]] = (),
    ) -> tuple[Utterance, Patches | None]:
        """As `Front.prepare`. Raises `InvalidInput` for regions."""
        if not pictures:
            return super().prepare(prompt, pictures, history, regions)
        refuse_regions(regions)
        patches = self.pictures(pictures)
        counts = [self.pictures.tokens(grid) for grid in patches.grids]
        ids = self.conversation.encode(prompt, counts, history)
        return Utterance.about_pictures(ids, self._image_token), patches


def refuse_regions(regions: Sequence[NDArray[np.bool_]]) -> None:
    """Raise `InvalidInput` where a prompt speaks of regions."""
    if regions:
        raise InvalidInput(
            "this model takes no region prompts.",
            advice="Use a checkpoint of the InternVL families for them.",
        )


def _size(checkpoint: Checkpoint, name: str) -> int:
    """A side of what the vision tower takes for one piece of a picture."""
    value = checkpoint.config["vision_config"].get(name)
    if not (isinstance(value, int) and value > 0):
        raise checkpoint.unusable(f"vision_config.{name}", value, "a whole number above 0")
    return value


def _pixels(checkpoint: Checkpoint) -> tuple[int, int]:
    """The fewest and the most pixels of a picture for the vision tower."""
    least = checkpoint.config.get("min_pixels", DEFAULT_MIN_PIXELS)
    most = checkpoint.config.get("max_pixels", DEFAULT_MAX_PIXELS)
    if not (isinstance(least, int) and least > 0):
        raise checkpoint.unusable("min_pixels", least, "a whole number above 0")
    if not (isinstance(most, int) and most >= least):
        raise checkpoint.unusable("max_pixels", most, f"a whole number from min_pixels ({least}) on")
    return least, most


def _text(checkpoint: Checkpoint) -> dict[str, Any]:
    """The part of `config.json` that describes the language model."""
    text: dict[str, Any] = checkpoint.config.get("text_config", checkpoint.config)
    return text


def _end_tokens(
    settings: GenerationConfig, checkpoint: Checkpoint, conversation: Conversation
) -> frozenset[int]:
    stored = {
        "generation_config.json": settings.eos_token_id,
        "config.json": _text(checkpoint).get("eos_token_id"),
    }
    for file, found in stored.items():
        if found is None:
            continue
        tokens = found if isinstance(found, list) else [found]
        if not all(isinstance(token, int) for token in tokens):
            raise checkpoint.unusable("eos_token_id", found, "the id of a token, or a list of them", file)
        return frozenset(tokens)
    return frozenset([conversation.end_token])
