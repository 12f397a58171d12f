"""InternLM2's tokenizer says what the sentencepiece model in the folder says, but for words that would be tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from sa2va_host.errors import ModelLoadFailed
from sa2va_worker.models.checkpoint import Checkpoint
from sa2va_worker.models.internlm2_tokenizer import load_tokenizer
from sa2va_worker.models.internvl_front import InternVLFront
from tests.parity.weights import HERE

WORDS = """the red circle and the green triangle stand beside the blue square
please segment the person who is standing on the left of the picture
describe the image in detail, then segment each object that you can see
what is the colour of the dog? it is brown and it looks at me
"""
RESERVED = "[UNUSED_TOKEN_1]"
ADDED = ("<|im_end|>", "[SEG]", "<img>", "</img>", "<IMG_CONTEXT>", "<vp>", "</vp>")


@pytest.fixture(scope="module", params=[True, False], ids=["leading space", "no leading space"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder with a trained `tokenizer.model` and special tokens in the place of a reserved piece and
    after the last one.
    """
    out = tmp_path_factory.mktemp("internlm2")
    (out / "words.txt").write_text(WORDS)
    SentencePieceTrainer.train(
        input=str(out / "words.txt"),
        model_prefix=str(out / "tokenizer"),
        model_type="bpe",
        vocab_size=400,
        hard_vocab_limit=False,
        byte_fallback=True,
        user_defined_symbols=[RESERVED],
        add_dummy_prefix=request.param,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    pieces = SentencePieceProcessor(model_file=str(out / "tokenizer.model"))
    tokens = {pieces.piece_to_id(RESERVED): "<|im_start|>", **dict(enumerate(ADDED, len(pieces)))}
    settings = {"added_tokens_decoder": {str(token): {"content": name} for token, name in tokens.items()}}
    (out / "tokenizer_config.json").write_text(json.dumps(settings))
    config = json.loads((HERE / "internlm2" / "config.json").read_text())
    config["llm_config"]["vocab_size"] = len(pieces) + len(ADDED)
    (out / "config.json").write_text(json.dumps(config))
    return out


@pytest.mark.parametrize(
    "words",
    [
        "the red circle",
        "  two  spaces\n\nlines ",
        "漢字 und Umläute",
        "a",
        "\x07\t",
        " the",
        "▁the",
        "<0x0A>",
        "a" * 50,
    ],
)
def test_words_are_encoded_as_sentencepiece_does(folder: Path, words: str) -> None:
    pieces = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    tokenizer = load_tokenizer(Checkpoint(folder))
    ids = tokenizer.encode(words, add_special_tokens=False)
    assert ids == pieces.encode(words)
    # A space that sentencepiece puts before everything stays: an answer is shown piece by piece.
    lead = " " if pieces.normalize("a") == "▁a" else ""
    assert tokenizer.decode(ids) == lead + pieces.decode(ids)


def test_a_conversation_begins_once_and_its_template_is_tokens(folder: Path) -> None:
    front = InternVLFront(Checkpoint(folder))
    pieces = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    ids = front.prepare("the dog", [])[0].prompt_ids
    begin, end = pieces.piece_to_id(RESERVED), len(pieces)
    assert ids == [
        pieces.bos_id(),
        begin,
        *pieces.encode("user\nthe dog"),
        end,
        *pieces.encode("\n"),
        begin,
        *pieces.encode("assistant\n"),
    ]
    assert front.end_tokens == {pieces.eos_id(), end}
    assert front.segment_token == len(pieces) + 1


@pytest.mark.parametrize("typed", ["<s>", "</s>", "<unk>", RESERVED, "<|im_end|>", "[SEG]", "<IMG_CONTEXT>"])
def test_nothing_typed_becomes_a_token_of_its_own(folder: Path, typed: str) -> None:
    front = InternVLFront(Checkpoint(folder))
    special = set(front.conversation.special.values())
    plain, ids = (front.prepare(prompt, [])[0].prompt_ids for prompt in ("x", f"a {typed} b"))
    assert [token for token in ids if token in special] == [token for token in plain if token in special]
    assert typed in front.decode(ids)


def test_a_checkpoint_may_do_without_the_first_token(folder: Path) -> None:
    file = folder / "tokenizer_config.json"
    before = file.read_text()
    file.write_text(json.dumps({**json.loads(before), "add_bos_token": False}))
    try:
        assert load_tokenizer(Checkpoint(folder)).encode("") == []
    finally:
        file.write_text(before)
    assert load_tokenizer(Checkpoint(folder)).encode("") == [1]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer.model", "no model", r"tokenizer\.model cannot be read"),
        ("tokenizer_config.json", '{"added_tokens_decoder": [7]}', "added_tokens_decoder is"),
    ],
)
def test_damaged_files_are_named(folder: Path, tmp_path: Path, name: str, content: str, said: str) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).write_text(content)
    with pytest.raises(ModelLoadFailed, match=said):
        load_tokenizer(Checkpoint(tmp_path))
