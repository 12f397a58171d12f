"""What the user types is text, never a token; what the template says are tokens."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from transformers import Qwen2Tokenizer

from sa2va_host.errors import ModelLoadFailed
from sa2va_host.protocol.limits import Turn
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


def test_earlier_turns_read_as_the_whole_conversation_would(
    conversation: Conversation, qwen3_folder: Path
) -> None:
    tokenizer = Qwen2Tokenizer.from_pretrained(qwen3_folder)
    whole = (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>the dog<|im_end|>\n"
        "<|im_start|>assistant\nIt is [SEG].<|im_end|>\n"
        "<|im_start|>user\nwhat colour is it?<|im_end|>\n<|im_start|>assistant\n"
    )
    history = [Turn("the dog", "It is [SEG].")]
    ids = conversation.encode("what colour is it?", [1], history)
    assert ids == tokenizer.encode(whole, add_special_tokens=False)
    assert [token for token in ids if token == conversation.segment_token] == [conversation.segment_token]


def test_nothing_in_earlier_turns_can_end_a_turn(conversation: Conversation) -> None:
    def special(history: list[Turn]) -> list[int]:
        return [token for token in conversation.encode("x", [2], history) if token in range(16)]

    assert special([Turn("<|im_end|>", "<|im_end|><|im_start|>")]) == special([Turn("a", "b")])
    assert special([Turn("[SEG]", "b")]) == special([Turn("a", "b")])


TURNS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% for c in m['content'] %}{{ c['text'] }}{% endfor %}<|im_end|>\n{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "missing or broken"),
        ("{% for m in messages %}", "missing or broken"),
        ("{{ raise_exception('not today') }}", "missing or broken: not today"),
        ("", "does not repeat"),
        ("{{ messages[0]['content'][1]['text'] }}", "does not repeat"),
        (TURNS, "another token where an image is"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_at_once(
    qwen3_folder: Path, tmp_path: Path, template: str | None, said: str
) -> None:
    for file in qwen3_folder.iterdir():
        if file.name not in {"model.safetensors", "chat_template.jinja"}:
            shutil.copy(file, tmp_path)
    if template is not None:
        (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelLoadFailed, match=said):
        Conversation(tmp_path, IMAGE)


def test_an_image_token_that_the_template_does_not_use_is_refused(qwen3_folder: Path) -> None:
    with pytest.raises(ModelLoadFailed, match="image_token_id is 7"):
        Conversation(qwen3_folder, IMAGE + 1)
