"""How the text of an answer is generated. Imports neither sockets nor numpy; front ends, wire and worker share it."""

from __future__ import annotations

import functools
from typing import Annotated

import msgspec
from msgspec import Meta

from .errors import InvalidInput
from .protocol.limits import Count

MAX_NEW_TOKENS = 2048
"""The longest answer where nobody says otherwise, as upstream's `predict_forward` has it."""

_Tokens = Annotated[int, Meta(ge=1, le=1 << 20)]
_Scale = Annotated[float, Meta(ge=0.01, le=100)]
_Share = Annotated[float, Meta(gt=0, le=1)]

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "seed")
_KINDS = {"`int`": "a whole number", "`float`": "a number", "`bool`": "true or false"}


class Generation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of one answer: greedy unless `do_sample` is set, as upstream decodes.

    What is None is off, or what the checkpoint asks for. Checked when it is made, and again where it arrives: raises
    `InvalidInput`, which names the setting, for a value outside its range and for settings of sampling without
    `do_sample`. An unknown setting is a `TypeError`, as of any function.
    """

    max_new_tokens: _Tokens | None = None
    """The longest answer, 1 to 1048576 tokens. None: `MAX_NEW_TOKENS`, or less where the model has room for less."""
    do_sample: bool = False
    """Draw each token at random, by the model's probabilities; else the likeliest is taken (greedy decoding)."""
    temperature: _Scale | None = None
    """Divides the logits, 0.01 to 100: below 1 likely tokens become likelier (https://arxiv.org/abs/1503.02531)."""
    top_p: _Share | None = None
    """Draw from the fewest tokens whose probabilities add up to this, above 0 and up to 1
    (https://arxiv.org/abs/1904.09751).
    """
    top_k: _Tokens | None = None
    """Draw from this many of the likeliest tokens, 1 or more (https://arxiv.org/abs/1805.04833)."""
    min_p: _Share | None = None
    """Draw from tokens at least this many times as likely as the likeliest, above 0 and up to 1
    (https://arxiv.org/abs/2407.01082).
    """
    repetition_penalty: _Scale | None = None
    """Makes tokens that were said already less likely, 0.01 to 100; 1 does nothing, below 1 they become likelier
    (https://arxiv.org/abs/1909.05858). None: what the checkpoint's `generation_config.json` says. Works without
    `do_sample` too.
    """
    seed: Count | None = None
    """Of the random numbers, 0 to 2^63 - 1: the same seed draws the same words from the same logits. None: a new one
    for each call.
    """

    def __post_init__(self) -> None:
        for field in _fields():
            value = getattr(self, field.name)
            try:
                msgspec.convert(value, field.type)
            except msgspec.ValidationError as error:
                wanted = str(error).removeprefix("Expected ").partition(", got")[0].replace(" | null", "")
                for kind, words in _KINDS.items():
                    wanted = wanted.replace(kind, words)
                raise InvalidInput(
                    f"The generation setting {field.name} is {value!r}.", advice=f"It must be {wanted}."
                ) from error
        unused = [name for name in _SAMPLING if getattr(self, name) is not None]
        if unused and not self.do_sample:
            raise InvalidInput(
                f"Greedy decoding does not use {' and '.join(unused)}.",
                advice="Set do_sample (--sample) too, or leave that out.",
            )


@functools.cache
def _fields() -> tuple[msgspec.structs.FieldInfo, ...]:
    """Found once: it means to evaluate every annotation above, and each message with settings is checked."""
    return msgspec.structs.fields(Generation)


GREEDY = Generation()
"""Upstream's settings."""
