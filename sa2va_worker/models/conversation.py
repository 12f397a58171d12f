"""Text in, token ids out: the chat template, with the user's words kept apart from the template's tokens.

What the user types is text, always: `[SEG]` or `<|im_end|>` in a prompt is spelled out in ordinary tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import Qwen2Tokenizer

from sa2va_host.errors import ModelLoadFailed
from sa2va_host.limits import Turn

SEGMENT = "[SEG]"
IMAGE_MARK = "<image>"
# Stands for the user's words while the template is rendered; a private-use character no template contains.
_WORDS = "\ue000"


class Conversation:
    """The tokenizer of a Qwen checkpoint and its chat template.

    Raises `ModelLoadFailed` where one of them is missing, or where the template is not one that `encode` can use.
    """

    def __init__(self, folder: Path, image_token: int) -> None:
        try:
            self._tokenizer = Qwen2Tokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise ModelLoadFailed(f"the tokenizer in {folder} cannot be loaded: {error}.") from error
        self._image_token = image_token
        vocabulary = self._tokenizer.get_added_vocab()
        if SEGMENT not in vocabulary:
            raise ModelLoadFailed(
                f"the tokenizer in {folder} has no {SEGMENT} token, so this is no Sa2VA checkpoint.",
                advice="Use a Sa2VA checkpoint.",
            )
        self.segment_token: int = vocabulary[SEGMENT]
        self._added: dict[str, int] = vocabulary
        self._special = re.compile(
            "(" + "|".join(re.escape(name) for name in sorted(vocabulary, key=len)[::-1]) + ")"
        )
        self._plain: Tokenizer | None = None
        self._check_template(folder)

    def encode(self, prompt: str, image_tokens: list[int], history: Sequence[Turn] = ()) -> list[int]:
        """Token ids of a conversation: the images (`image_tokens` each), the turns so far, `prompt`, and the
        assistant's start.

        As upstream does, `<image>` is taken out of what the user says. Earlier answers are words too, but for `[SEG]`.
        """
        said: list[tuple[str, bool]] = []
        for turn in history:
            said += [(turn.prompt.replace(IMAGE_MARK, ""), False), (turn.answer, True)]
        said.append((prompt.replace(IMAGE_MARK, ""), False))
        counts, texts = iter(image_tokens), iter(said)
        ids: list[int] = []
        for piece in self._special.split(self._render(len(image_tokens), len(history))):
            if piece in self._added:
                token = self._added[piece]
                ids += [token] * (next(counts) if token == self._image_token else 1)
            elif _WORDS in piece:
                # Together with what the template puts around them, since letters at a seam can make one token.
                before, _, after = piece.partition(_WORDS)
                words, is_answer = next(texts)
                ids += self._encode_text(before + words + after, segments=is_answer)
            elif piece:
                ids += self._encode_text(piece)
        return ids

    def encode_reply(self, text: str) -> list[int]:
        """Token ids of an answer as the model should say it: `[SEG]` is the token, and the end token closes it."""
        return [*self._tokenizer.encode(text, add_special_tokens=False), self.end_token]

    def decode(self, ids: list[int]) -> str:
        """Text of generated ids, special tokens included."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))

    @property
    def end_token(self) -> int:
        return int(self._tokenizer.eos_token_id)

    def _render(self, images: int, earlier: int) -> str:
        """A conversation as the template writes it, with `_WORDS` for whatever is said: the images, then the user and
        the assistant in turns, `earlier` times, then the user again.
        """
        words = {"type": "text", "text": _WORDS}
        speakers = ["user", "assistant"] * earlier + ["user"]
        messages: list[dict[str, Any]] = [{"role": speaker, "content": [words]} for speaker in speakers]
        messages[0]["content"] = [{"type": "image"}] * images + [words]
        rendered: str = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return rendered

    def _check_template(self, folder: Path) -> None:
        advice = "Fetch the checkpoint again."
        try:
            rendered = self._render(images=1, earlier=1)
        except Exception as error:  # a program in the folder's own language, which fails as it likes
            raise ModelLoadFailed(
                f"the chat template in {folder} is missing or broken: {error}.", advice=advice
            ) from error
        pieces = self._special.split(rendered)
        # `encode` puts one thing that was said into a piece.
        if sum(_WORDS in piece for piece in pieces) != 3 or rendered.count(_WORDS) != 3:
            raise ModelLoadFailed(
                f"the chat template in {folder} does not repeat what user and assistant say.", advice=advice
            )
        if [self._added.get(piece) for piece in pieces].count(self._image_token) != 1:
            raise ModelLoadFailed(
                f"image_token_id is {self._image_token} in {folder / 'config.json'}, but the chat template puts "
                "another token where an image is.",
                advice=advice,
            )

    def _encode_text(self, text: str, segments: bool = False) -> list[int]:
        """Ids of text, in which only `[SEG]` is a token, and that only in what the model said (`segments`)."""
        if segments and SEGMENT in text:
            pieces = [self._encode_text(piece) if piece else [] for piece in text.split(SEGMENT)]
            return [token for piece in pieces[:-1] for token in (*piece, self.segment_token)] + pieces[-1]
        if self._special.search(text):
            return list(self._spelled_out().encode(text, add_special_tokens=False).ids)
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _spelled_out(self) -> Tokenizer:
        """The same tokenizer without its added tokens, made when a prompt first needs it."""
        if self._plain is None:
            description = json.loads(self._tokenizer.backend_tokenizer.to_str())
            self._plain = Tokenizer.from_str(json.dumps({**description, "added_tokens": []}))
        return self._plain
