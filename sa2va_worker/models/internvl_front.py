"""What stands before and after the weights of InternVL: pictures to tiles, prompts to ids, ids to text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sa2va_host.errors import ModelLoadFailed
from sa2va_host.protocol.limits import Turn

from . import internlm2_tokenizer
from .checkpoint import Checkpoint
from .language import Utterance
from .sampling import read_defaults
from .tiles import Tiler, Tiles
from .vocabulary import IMAGE_MARK, WORDS, Vocabulary, load_qwen_tokenizer

TEMPLATES = {"qwen_chat": ("<|im_end|>", "<|endoftext|>"), "internlm2_chat": ("<|im_end|>",)}
"""Upstream's chat templates (`template` in `config.json`), and what ends an answer. They write the same words."""
QUESTION = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
ANSWER = "{}<|im_end|>\n"
IMAGE_TOKEN = "<IMG_CONTEXT>"  # noqa: S105 - a token of the tokenizer, no secret
IMAGE = f"<img>{IMAGE_TOKEN}</img>"
REGION = f"region{{}}<vp>{IMAGE_TOKEN}</vp>"
MOST_TILES = 100
"""More than any checkpoint asks for; upstream's is 12."""


class InternVLConversation(Vocabulary):
    """The tokenizer of an InternVL checkpoint, and upstream's chat template, which is not in the checkpoint.

    Raises `ModelLoadFailed` for another template, and for a tokenizer that lacks one of the template's tokens.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        template = str(checkpoint.config.get("template")).replace("-", "_")
        if template not in TEMPLATES:
            raise checkpoint.unusable("template", template, " or ".join(TEMPLATES))
        if (checkpoint.folder / internlm2_tokenizer.FILE).is_file():
            tokenizer = internlm2_tokenizer.load_tokenizer(checkpoint)
        else:
            tokenizer = load_qwen_tokenizer(checkpoint.folder)
        super().__init__(tokenizer, checkpoint.folder)
        ends = [self.special[name] for name in TEMPLATES[template] if name in self.special]
        self.end_tokens = frozenset([self.end_token, *ends])
        wanted = ("<|im_start|>", "<|im_end|>", "<img>", "</img>", IMAGE_TOKEN, "<vp>", "</vp>")
        if missing := [name for name in wanted if name not in self.special]:
            raise ModelLoadFailed(
                f"the tokenizer in {checkpoint.folder} has no {', '.join(missing)} token.",
                advice="Fetch the checkpoint again.",
            )
        self.image_token = self.special[IMAGE_TOKEN]
        self._begin: list[int] = tokenizer.encode("")

    def encode(
        self,
        prompt: str,
        image_tokens: Sequence[int],
        region_tokens: Sequence[int] = (),
        history: Sequence[Turn] = (),
    ) -> list[int]:
        """Token ids of a conversation: the turns so far, `prompt`, and the assistant's start.

        The images (`image_tokens` each), and after them the regions (`region_tokens` each), stand where the first thing
        said has its first `<image>`, or else before it; other such marks are taken out. Earlier answers are words too,
        but for `[SEG]`.
        """
        questions = [*(turn.prompt for turn in history), prompt]
        before, mark, after = questions[0].partition(IMAGE_MARK)
        around = [before, after] if mark else ["", before]
        said = [(words, False) for words in (around if image_tokens else questions[:1])]
        for turn, question in zip(history, questions[1:], strict=True):
            said += [(turn.answer, True), (question, False)]
        plain = [(words if answer else words.replace(IMAGE_MARK, ""), answer) for words, answer in said]
        pictures = _pictures(len(image_tokens), len(region_tokens))
        first = QUESTION.format(f"{WORDS}{pictures}{WORDS}" if image_tokens else WORDS)
        rendered = first + (ANSWER + QUESTION).format(WORDS, WORDS) * len(history)
        return self._begin + self.fill(rendered, plain, self.image_token, [*image_tokens, *region_tokens])


class InternVLFront:
    """For Sa2VA on InternVL3 and InternVL2.5."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.conversation = InternVLConversation(checkpoint)
        self.conversation.check_size(checkpoint.config["llm_config"].get("vocab_size"))
        self.tiler = _tiler(checkpoint, self.conversation.image_token)
        self.segment_token = self.conversation.segment_token
        self.end_tokens = self.conversation.end_tokens
        self.defaults = read_defaults(checkpoint)

    def prepare(
        self,
        prompt: str,
        pictures: Sequence[NDArray[np.uint8]],
        history: Sequence[Turn] = (),
        regions: Sequence[NDArray[np.bool_]] = (),
    ) -> tuple[Utterance, Tiles | None]:
        """As `Front.prepare`."""
        if not pictures and not regions:
            return Utterance(self.conversation.encode(prompt, [], history=history)), None
        tiles = self.tiler(pictures, regions)
        image_tokens = [count * self.tiler.tokens for count in tiles.counts]
        region_tokens = [] if tiles.regions is None else tiles.regions.sum(dim=(1, 2)).tolist()
        ids = self.conversation.encode(prompt, image_tokens, region_tokens, history)
        return Utterance.about_pictures(ids, self.conversation.image_token), tiles

    def text(self, utterance: Utterance) -> str:
        """The answer as text: `[SEG]` stays visible, the end token does not."""
        return self.conversation.answer(utterance.token_ids, self.end_tokens)

    def decode(self, ids: list[int]) -> str:
        """Text of generated ids, special tokens included."""
        return self.conversation.decode(ids)


def _pictures(images: int, regions: int) -> str:
    """What upstream writes for pictures, and for regions of the one picture."""
    written = "\n".join([IMAGE] * images)
    if regions:
        named = ", ".join(REGION.format(number) for number in range(1, regions + 1))
        written += f"\nThere are {regions} part regions in the picture: {named}.\n"
    return written


def _tiler(checkpoint: Checkpoint, image_token: int) -> Tiler:
    """Upstream's settings where `config.json` has none. Raises `ModelLoadFailed` for impossible ones."""
    config = checkpoint.config
    side = config.get("force_image_size", 448)
    patch = config["vision_config"].get("patch_size", 14)
    ratio = config.get("downsample_ratio", 0.5)
    if not (isinstance(patch, int) and patch > 0):
        raise checkpoint.unusable("vision_config.patch_size", patch, "a whole number above 0")
    if not (isinstance(side, int) and side > 0 and side % patch == 0):
        raise checkpoint.unusable("force_image_size", side, f"a multiple of the patch size ({patch})")
    cells = side // patch * ratio if isinstance(ratio, (int, float)) else 0
    if not (cells >= 1 and cells == int(cells)):
        raise checkpoint.unusable(
            "downsample_ratio", ratio, f"a part of {side // patch} patches that is whole"
        )
    least, most = config.get("min_dynamic_patch", 1), config.get("max_dynamic_patch", 12)
    if not (isinstance(least, int) and least > 0):
        raise checkpoint.unusable("min_dynamic_patch", least, "a whole number above 0")
    if not (isinstance(most, int) and least <= most <= MOST_TILES):
        raise checkpoint.unusable("max_dynamic_patch", most, f"a whole number from {least} to {MOST_TILES}")
    thumbnail = bool(config.get("use_thumbnail", True))
    return Tiler(image_token, side, int(cells), least, most, thumbnail)
