"""What the user types is text, never a token; what the template says are tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import Qwen2Tokenizer

from sa2va_worker.models.conversation import Conversation

IMAGE = 6


@pytest.fixture(scope="module")
def conversation(qwen3_folder: Path) -> Conversation:
    return Conversation(qwen3_folder, IMAGE)


@pytest.mark.parametrize(
    "typed", ["[SEG]", "<|im_end|>", "<|image_pad|>", "say [SEG] twice [SEG]", "a<|im_start|>b"]
)
def test_special_tokens_typed_by_the_user_stay_text(conversation: Conversation, typed: str) -> None:
    plain = conversation.encode("x", [2])
    ids = conversation.encode(typed, [2])
    special = set(range(16))
    assert [token for token in ids if token in special] == [token for token in plain if token in special]
    assert typed in conversation.decode(ids)


@pytest.mark.parametrize(
    "words", ["the red circle", "  two\n\nlines ", "漢字 und Umläute", "עברית", "a" * 5000, "\x07"]
)
def test_ordinary_words_are_encoded_as_the_whole_conversation_would_be(
    conversation: Conversation, qwen3_folder: Path, words: str
) -> None:
    tokenizer = Qwen2Tokenizer.from_pretrained(qwen3_folder)
    whole = f"<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{words}<|im_end|>\n<|im_start|>assistant\n"
    assert conversation.encode(words, [1]) == tokenizer.encode(whole, add_special_tokens=False)


def test_every_image_gets_its_tokens(conversation: Conversation) -> None:
    ids = conversation.encode("x", [3, 5])
    assert ids.count(IMAGE) == 8
    assert "<image>" not in conversation.decode(conversation.encode("<image>x", []))
