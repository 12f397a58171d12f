"""Text in, token ids out, and back: a checkpoint's tokenizer, with what is said kept apart from special tokens.

What the user types is text, always: `[SEG]` or `<|im_end|>` in a prompt is spelled out in ordinary tokens. Only what a
template writes, and `[SEG]` in what the model said, are tokens of their own.
"""

from __future__ import annotations

import codecs
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from sa2va_host.errors import ModelLoadFailed

SEGMENT = "[SEG]"
IMAGE_MARK = "<image>"
"""What upstream's prompts have where an image stands."""
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
"""Either is enough for a Qwen tokenizer, the second with its `merges.txt`."""
_READ = (
    *TOKENIZER_FILES,
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
)
"""What transformers reads for a tokenizer."""
WORDS = "\ue000"
"""Stands for what is said while a template is rendered; a private-use character that no template contains."""


def load_qwen_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint on any of the Qwen models. Raises `ModelLoadFailed`."""
    again = "Fetch the checkpoint again."
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        # transformers would make an empty one.
        raise ModelLoadFailed(f"{folder} holds no tokenizer.", advice=again)
    try:
        with _without_marks(folder) as place:
            tokenizer: PreTrainedTokenizerFast = Qwen2Tokenizer.from_pretrained(place, local_files_only=True)
    except Exception as error:  # what the tokenizers library raises has no class of its own
        raise ModelLoadFailed(
            f"the tokenizer in {folder} cannot be loaded: {str(error).rstrip('.')}.", advice=again
        ) from error
    return tokenizer


@contextmanager
def _without_marks(folder: Path) -> Iterator[Path]:
    """The folder, or where a file of the tokenizer begins with a byte order mark a copy of those files without it."""
    files = [path for path in map(folder.joinpath, _READ) if path.is_file()]
    if not any(_begins_with_mark(path) for path in files):
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        for path in files:
            (Path(place) / path.name).write_bytes(path.read_bytes().removeprefix(codecs.BOM_UTF8))
        yield Path(place)


def _begins_with_mark(path: Path) -> bool:
    with path.open("rb") as opened:
        return opened.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8


class Vocabulary:
    """The tokenizer of the checkpoint in `folder`. Raises `ModelLoadFailed` where it must know `[SEG]` (`segments`) and
    does not.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, folder: Path, segments: bool = True) -> None:
        self._tokenizer = tokenizer
        self._folder = folder
        self.special: dict[str, int] = tokenizer.get_added_vocab()
        """The special tokens and their ids."""
        if segments and SEGMENT not in self.special:
            raise ModelLoadFailed(
                f"the tokenizer in {folder} has no {SEGMENT} token, so this is no Sa2VA checkpoint.",
                advice="Use a Sa2VA checkpoint.",
            )
        self.segment_token: int | None = self.special[SEGMENT] if segments else None
        self._special = re.compile(
            "(" + "|".join(re.escape(name) for name in sorted(self.special, key=len)[::-1]) + ")"
        )
        self._plain: Tokenizer | None = None

    def check_size(self, size: object) -> None:
        """Raises `ModelLoadFailed` where `[SEG]` is beyond the `vocab_size` of `config.json`: a model that was not
        resized for it can neither say nor read it.
        """
        if self.segment_token is not None and isinstance(size, int) and self.segment_token >= size:
            raise ModelLoadFailed(
                f"{SEGMENT} is token {self.segment_token} of the tokenizer in {self._folder}, and the model has"
                f" {size} tokens.",
                advice="Fetch the checkpoint again.",
            )

    @property
    def end_token(self) -> int:
        return int(self._tokenizer.eos_token_id)

    def split(self, rendered: str) -> list[str]:
        """Special tokens and what is between them, in order; nothing is lost."""
        return self._special.split(rendered)

    def fill(
        self, rendered: str, said: Sequence[tuple[str, bool]], image_token: int | None, counts: Sequence[int]
    ) -> list[int]:
        """Token ids of a rendered template: its k-th `WORDS` is what was said k-th, its k-th `image_token` is repeated
        as often as the k-th count says.

        `said` are pairs (text, whether the model said it). A piece between two special tokens holds one `WORDS`.
        """
        repeats, texts = iter(counts), iter(said)
        ids: list[int] = []
        for piece in self.split(rendered):
            if piece in self.special:
                token = self.special[piece]
                ids += [token] * (next(repeats) if token == image_token else 1)
            elif WORDS in piece:
                # Together with what the template puts around them, since letters at a seam can make one token.
                before, _, after = piece.partition(WORDS)
                words, is_answer = next(texts)
                ids += self._encode(before + words + after, segments=is_answer)
            elif piece:
                ids += self._encode(piece)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, special tokens included."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def answer(self, ids: Sequence[int], end_tokens: frozenset[int]) -> str:
        """A whole answer as text: `[SEG]` stays visible, the end token does not."""
        return self.decode(ids[:-1] if ids and ids[-1] in end_tokens else ids).strip()

    def _encode(self, text: str, segments: bool = False) -> list[int]:
        """Ids of text, in which only `[SEG]` is a token, and that only in what the model said (`segments`)."""
        segment = self.segment_token
        if segments and segment is not None and SEGMENT in text:
            pieces = [self._encode(piece) if piece else [] for piece in text.split(SEGMENT)]
            return [token for piece in pieces[:-1] for token in (*piece, segment)] + pieces[-1]
        if self._special.search(text):
            return list(self._spelled_out().encode(text, add_special_tokens=False).ids)
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _spelled_out(self) -> Tokenizer:
        """The same tokenizer without its added tokens, made when a prompt first needs it."""
        if self._plain is None:
            description = json.loads(self._tokenizer.backend_tokenizer.to_str())
            self._plain = Tokenizer.from_str(json.dumps({**description, "added_tokens": []}))
        return self._plain
