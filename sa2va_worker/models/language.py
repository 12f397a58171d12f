"""The language side of Sa2VA, whatever its family: see pictures, read a prompt, speak, hand over `[SEG]` states.

A family is a `Language` (its weights) and a `Front` (what stands before and after them); `families` holds the table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig, PreTrainedModel

from sa2va_host.protocol.limits import Turn

Pictures = TypeVar("Pictures")
"""Pictures as a family's vision tower takes them."""
Pictures_co = TypeVar("Pictures_co", covariant=True)
DEFAULT_LONGEST = 32_768
"""How many tokens a conversation may have where a checkpoint does not say: what Qwen2 was trained with."""


@dataclass
class Utterance:
    """One answer in the making."""

    prompt_ids: list[int]
    token_ids: list[int] = field(default_factory=list)
    """What was generated so far, the end token included."""
    segment_states: list[Tensor] = field(default_factory=list)
    """`[hidden]` for each `[SEG]` generated, in order; nothing else of the hidden states is kept."""
    pictures_end: int = 0
    """Where in the prompt the words after the last picture begin."""
    read: DynamicCache | None = None
    """Keys and values of the prompt and the answer, until the next prompt about the same pictures takes them over."""

    @classmethod
    def about_pictures(cls, prompt_ids: list[int], picture_token: int) -> Utterance:
        """A prompt in which each token of a picture is this one."""
        return cls(prompt_ids, pictures_end=len(prompt_ids) - prompt_ids[::-1].index(picture_token))


class Chooser(Protocol):
    """Chooses the next token of one answer."""

    def choose(self, scores: Tensor, said: list[int]) -> int:
        """A token for logits float32 `[1, vocabulary]` after `said`: the prompt's tokens and the answer's so far."""
        ...


class Language(nn.Module, ABC, Generic[Pictures]):
    """Weights of a language model and of what shows it pictures, and the loop that speaks with them.

    A family says where tokens stand (`positions`), runs its model (`hidden`) and says from which of its states `[SEG]`
    is read.
    """

    model: Any
    """transformers' causal language model, with its `lm_head`; in the vision-language families with the vision too."""
    aliases: Mapping[str, str] = {}
    """Parameters that are another one where a checkpoint lacks them (tied embeddings), by their names in here."""

    @property
    def hidden_size(self) -> int:
        """The width of the states."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def longest(self) -> int:
        """How many tokens a conversation may have, the answer's included."""
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", DEFAULT_LONGEST))

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        return cast("PreTrainedModel", self.model).device

    def positions(self, ids: Tensor, pictures: Pictures | None) -> tuple[Tensor, int]:
        """Positions `[..., tokens]` of the prompt `ids` `[1, tokens]`, and how far the tokens after it are shifted
        against their plain count.
        """
        del pictures
        return torch.arange(ids.shape[1], device=ids.device).unsqueeze(0), 0

    @abstractmethod
    def hidden(
        self,
        ids: Tensor,
        positions: Tensor,
        pictures: Pictures | None = None,
        cache: DynamicCache | None = None,
        **more: Any,
    ) -> tuple[Tensor, Tensor]:
        """(states that `[SEG]` is read from, states after the final norm), both `[batch, tokens, hidden]`.

        `ids` is a whole prompt, which `pictures` belong to, or what comes after the tokens that `cache` holds: the rest
        of a prompt, or one token. `more` goes to the model as it is.
        """

    def logits(self, states: Tensor) -> Tensor:
        """`[..., hidden]` after the final norm -> `[..., vocabulary]`."""
        return self.model.lm_head(states)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def speak(
        self,
        utterance: Utterance,
        pictures: Pictures | None,
        chooser: Chooser,
        segment_token: int | None,
        end_tokens: frozenset[int],
        max_new_tokens: int,
        earlier: Utterance | None = None,
    ) -> Iterator[int]:
        """The answer, one token a step, recorded in `utterance`; stops after an end token or at the limit.

        The state of a `[SEG]` is known one step after its token, so a `[SEG]` that is the very last token has none.
        What `earlier`, an answered prompt about the same pictures and regions, has read is not read again.
        """
        said = list(utterance.prompt_ids)
        ids = torch.tensor([said], device=self.device)
        positions, shift = self.positions(ids, pictures)
        cache, known = self._take_over(utterance, earlier)
        if known:
            ids, positions, pictures = ids[:, known:], positions[..., known:], None
        utterance.read = cache
        while True:
            segment_states, states = self.hidden(ids, positions, pictures, cache)
            if utterance.token_ids and utterance.token_ids[-1] == segment_token:
                utterance.segment_states.append(segment_states[0, -1])
            token = chooser.choose(self.logits(states[:, -1]).float(), said)
            utterance.token_ids.append(token)
            yield token
            if token in end_tokens or len(utterance.token_ids) >= max_new_tokens:
                return
            pictures = None
            ids = torch.tensor([[token]], device=self.device)
            positions = positions.new_full((*positions.shape[:-1], 1), len(said) + shift)
            said.append(token)

    def _take_over(self, utterance: Utterance, earlier: Utterance | None) -> tuple[DynamicCache, int]:
        """Keys and values of the first tokens of a prompt, and how many: none unless they cover its pictures."""
        if earlier is not None and earlier.read is not None:
            cache, earlier.read = earlier.read, None
            heard = earlier.prompt_ids + earlier.token_ids
            pairs = enumerate(zip(utterance.prompt_ids, heard, strict=False))
            same = next((place for place, (one, other) in pairs if one != other), len(heard))
            # The last token is always read: what comes after it is what is asked for.
            held = cache.get_seq_length()
            known = min(same, held, len(utterance.prompt_ids) - 1)
            if known >= utterance.pictures_end:
                if known < held:
                    cache.crop(known - held)
                return cache, known
        return DynamicCache(config=self.model.config.get_text_config()), 0


class Front(Protocol[Pictures_co]):
    """What stands before and after a family's weights: pictures and words go in, ids come out, and text again."""

    @property
    def segment_token(self) -> int | None:
        """The id of `[SEG]`; None where a checkpoint only chats."""
        ...

    @property
    def end_tokens(self) -> frozenset[int]:
        """Each of them ends an answer."""
        ...

    @property
    def defaults(self) -> GenerationConfig:
        """The checkpoint's own `generation_config.json`."""
        ...

    def prepare(
        self,
        prompt: str,
        pictures: Sequence[NDArray[np.uint8]],
        history: Sequence[Turn] = (),
        regions: Sequence[NDArray[np.bool_]] = (),
    ) -> tuple[Utterance, Pictures_co | None]:
        """A user's turn, ready to be answered, and its pictures for the language model.

        `pictures` are uint8 `[height, width, 3]`, possibly none; `history` the turns before; `regions` bool
        `[height, width]` masks in the one picture that the prompt speaks of. Raises `InvalidInput` for what the family
        does not take.
        """
        ...

    def text(self, utterance: Utterance) -> str:
        """The answer as text: `[SEG]` stays visible, the end token does not."""
        ...

    def decode(self, ids: list[int]) -> str:
        """Text of generated ids, special tokens included."""
        ...
