"""Text in, token ids out: the chat template of a Qwen checkpoint, with the user's words kept apart from its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sa2va_host.errors import ModelLoadFailed
from sa2va_host.protocol.limits import Turn

from .vocabulary import IMAGE_MARK, WORDS, Vocabulary, load_qwen_tokenizer


class Conversation(Vocabulary):
    """The tokenizer of a Qwen checkpoint and its chat template.

    `image_token` is None for a model that sees nothing; `segments` tells whether the model must know `[SEG]`. Raises
    `ModelLoadFailed` where tokenizer or template is missing, or where the template is not one that `encode` can use.
    """

    def __init__(self, folder: Path, image_token: int | None, segments: bool = True) -> None:
        super().__init__(load_qwen_tokenizer(folder), folder, segments)
        self._image_token = image_token
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
        rendered = self._render(len(image_tokens), len(history))
        return self.fill(rendered, said, self._image_token, image_tokens)

    def encode_reply(self, text: str) -> list[int]:
        """Token ids of an answer as the model should say it: `[SEG]` is the token, and the end token closes it."""
        return [*self._tokenizer.encode(text, add_special_tokens=False), self.end_token]

    def _render(self, images: int, earlier: int) -> str:
        """A conversation as the template writes it, with `WORDS` for whatever is said: the images, then the user and
        the assistant in turns, `earlier` times, then the user again.
        """
        words = {"type": "text", "text": WORDS}
        speakers = ["user", "assistant"] * earlier + ["user"]
        # Templates of models that see nothing know content as one string.
        content = WORDS if self._image_token is None else [words]
        messages: list[dict[str, Any]] = [{"role": speaker, "content": content} for speaker in speakers]
        if images:
            messages[0]["content"] = [{"type": "image"}] * images + [words]
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _check_template(self, folder: Path) -> None:
        advice = "Fetch the checkpoint again."
        try:
            rendered = self._render(images=0 if self._image_token is None else 1, earlier=1)
        except Exception as error:  # a program in the folder's own language, which fails as it likes
            raise ModelLoadFailed(
                f"the chat template in {folder} is missing or broken: {str(error).rstrip('.')}.",
                advice=advice,
            ) from error
        pieces = self.split(rendered)
        # `encode` puts one thing that was said into a piece.
        if sum(WORDS in piece for piece in pieces) != 3 or rendered.count(WORDS) != 3:
            raise ModelLoadFailed(
                f"the chat template in {folder} does not repeat what user and assistant say.", advice=advice
            )
        if self._image_token is None:
            return
        if [self.special.get(piece) for piece in pieces].count(self._image_token) != 1:
            raise ModelLoadFailed(
                f"image_token_id is {self._image_token} in {folder / 'config.json'}, but the chat template puts "
                "another token where an image is.",
                advice=advice,
            )
