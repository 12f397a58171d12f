"""Makes the tokenizer: a byte-level BPE in the files that Qwen2 tokenizers are loaded from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from training import phrases
from training.draw import draw_picture
from training.scene import COLOURS, SHAPES
from training.wording import ask

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>", "[SEG]", "<p>", "</p>", "<vp>", "</vp>", "<img>", "</img>",
    "<IMG_CONTEXT>",
)  # fmt: skip
"""In the order of their ids, from 0."""
VOCABULARY_SIZE = 900
PICTURES = 800
QUESTIONS_PER_PICTURE = 10
WORD_WEIGHT = 4
"""How often each word of the lists below appears in the corpus."""
SPLITTING = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2 splits text before merging bytes."""
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type']=='image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif c['type']=='video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in c %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
COMMON_WORDS = """
a able about above across after again against all almost along already also although always am among an and
another any anyone anything are area around as ask at away back background be because been before begin
behind being below beside best better between beyond big bit both bottom bring but by call came can cannot
care case centre center change clear close come common complete contain corner correct could count course
cut day deep describe did different do does done down draw drawn each early easy edge eight either else end
enough even ever every everyone everything exact example except face far few figure final find fine first
five follow for form found four frame from front full gave general get give given go going good got great
group had half hand has have he hello help her here high him his how however i idea if image in inside
instead into is it its just keep kind know known large last late later least leave left less let light like
line list little long look looks made main make many mark mask matter may me mean might mind moment more
most move much must my name near need never new next nice nine no none nor not nothing now number object of
off often ok old on once one only open or order other our out outside over own page part people perhaps
person photo picture piece place plain please point possible present put question quick quite rather read
ready real really region rest result right room said same saw say scene second see seem seen segment
segmentation set seven several shade shape she should show side similar simple since six size small so some
someone something soon sorry space start still such sure take tell ten than thank thanks that the their them
then there these they thing think this those though three through time to today together told too top
towards toward try turn two type under until up upon us use used user very video view visible want was way
we well were what when where which while who whole why wide will with within without word work world would
write yes yet you your assistant system answer respond reply
"""


def write_tokenizer(folder: Path, seed: int) -> None:
    """Trains the tokenizer on prompts drawn from `seed` and writes its files into `folder`."""
    tokenizer = _trained(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))
    _write_json(folder / "tokenizer_config.json", _configuration())
    _write_json(folder / "special_tokens_map.json", _special_tokens_map())
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def corpus(seed: int) -> Iterator[str]:
    """Prompts and answers on random pictures, then every word of the lists; without special tokens."""
    rng = np.random.default_rng(seed)
    for _ in range(PICTURES):
        for question in ask(rng, draw_picture(rng, (64, 64)), QUESTIONS_PER_PICTURE):
            yield question.prompt
            yield question.answer.replace("[SEG]", "\n")
    listed = (
        *phrases.STRANGE_SHAPES,
        *phrases.STRANGE_COLOURS,
        *phrases.VERBS,
        *phrases.THING_WORDS,
        *SHAPES,
        *COLOURS,
    )
    for word in (*COMMON_WORDS.split(), *listed):
        yield f" {word}" * WORD_WEIGHT
    yield "user\nassistant\nsystem\n"


def _trained(seed: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLITTING), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(seed), trainer)
    return tokenizer


def _added(token: str) -> dict[str, object]:
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    return {"content": token, **flags}


def _configuration() -> dict[str, object]:
    return {
        "added_tokens_decoder": {
            str(index): {**_added(token), "special": True} for index, token in enumerate(SPECIAL_TOKENS)
        },
        "additional_special_tokens": _additional(),
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "extra_special_tokens": {},
        "model_max_length": int(1e30),
        "pad_token": "<|endoftext|>",
        "processor_class": "Qwen3VLProcessor",
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": "<|endoftext|>",
    }


def _special_tokens_map() -> dict[str, object]:
    return {
        "additional_special_tokens": _additional(),
        "eos_token": _added("<|im_end|>"),
        "pad_token": _added("<|endoftext|>"),
        "unk_token": _added("<|endoftext|>"),
    }


def _additional() -> list[str]:
    return [token for token in SPECIAL_TOKENS if token not in ("<|endoftext|>", "<|im_end|>")]


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
