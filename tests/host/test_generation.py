"""The settings of generation: what is allowed, what is refused by name, and that the documents say the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sa2va_host import Generation, InvalidInput, timings
from sa2va_host.generation import GREEDY, MAX_NEW_TOKENS
from sa2va_host.protocol import wire

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "generation.md").read_text(encoding="utf-8")
SAMPLED = Generation(
    max_new_tokens=7,
    do_sample=True,
    temperature=0.7,
    top_p=0.8,
    top_k=20,
    min_p=0.05,
    repetition_penalty=1.1,
    seed=2**63 - 1,
)


def rows(title):
    """The first and second column of a table of the document."""
    section = DOCUMENT.split(f"## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([\w]+)` \| (.*?) \|", section, re.MULTILINE)


def test_without_a_word_decoding_is_greedy():
    assert not GREEDY.do_sample
    assert {getattr(GREEDY, name) for name in GREEDY.__struct_fields__ if name != "do_sample"} == {None}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0. It must be a whole number >= 1."),
        ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5. It must be a whole number."),
        ({"max_new_tokens": 1 << 21}, "max_new_tokens is 2097152. It must be a whole number <= 1048576."),
        ({"do_sample": "yes"}, "do_sample is 'yes'. It must be true or false."),
        ({"temperature": 0.0}, "temperature is 0.0. It must be a number >= 0.01."),
        ({"temperature": float("nan")}, "temperature is nan. It must be a number >= 0.01."),
        ({"temperature": float("inf")}, "temperature is inf. It must be a number <= 100.0."),
        ({"top_p": 0}, "top_p is 0. It must be a number > 0.0."),
        ({"top_p": 1.5}, "top_p is 1.5. It must be a number <= 1.0."),
        ({"top_k": 0}, "top_k is 0. It must be a whole number >= 1."),
        ({"top_k": True}, "top_k is True. It must be a whole number."),
        ({"min_p": -0.1}, "min_p is -0.1. It must be a number > 0.0."),
        ({"repetition_penalty": 0}, "repetition_penalty is 0. It must be a number >= 0.01."),
        ({"seed": -1}, "seed is -1. It must be a whole number >= 0."),
        ({"seed": 2**63}, f"seed is {2**63}. It must be a whole number <= {2**63 - 1}."),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(settings, said):
    with pytest.raises(InvalidInput) as caught:
        Generation(**{"do_sample": True, **settings})
    assert str(caught.value) == f"The generation setting {said}"


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k", "min_p", "seed"])
def test_settings_of_sampling_are_refused_without_it(name):
    settings: dict[str, Any] = {name: 1}
    with pytest.raises(InvalidInput, match=f"^Greedy decoding does not use {name}. Set do_sample"):
        Generation(**settings)
    Generation(do_sample=True, **settings)


def test_all_that_contradict_are_named_at_once():
    with pytest.raises(InvalidInput, match="does not use temperature and seed"):
        Generation(temperature=0.5, seed=1)


def test_an_unknown_setting_is_named():
    with pytest.raises(TypeError, match="'heat'"):
        Generation(heat=0.5)  # type: ignore[call-arg]


def chat(**generation):
    """A `Chat` on the wire, made by somebody who checked nothing."""
    message = msgspec.to_builtins(wire.Chat(call=1, keep_alive=1.0, prompt="p"))
    return msgspec.msgpack.encode({**message, "generation": generation})


def test_settings_travel_whole():
    message = wire.Chat(call=1, keep_alive=1.0, prompt="p", generation=SAMPLED)
    assert wire.decode_from_client(wire.encode(message)) == message


@pytest.mark.parametrize(
    ("generation", "said"),
    [
        ({"temperature": 0.5}, "does not use temperature"),
        ({"do_sample": True, "top_p": 2.0}, "top_p"),
        ({"do_sample": True, "temperature": float("nan")}, "temperature"),
        ({"heat": 1.0}, "unknown field `heat`"),
        ({"seed": "1", "do_sample": True}, "seed"),
    ],
)
def test_what_no_client_sends_the_worker_refuses(generation, said):
    with pytest.raises(wire.BadMessage, match=said):
        wire.decode_from_client(chat(**generation))


def test_every_setting_is_documented():
    assert [name for name, _ in rows("Settings")] == list(Generation.__struct_fields__)
    assert str(MAX_NEW_TOKENS) in dict(rows("Settings"))["max_new_tokens"]


def test_every_timing_is_documented():
    named = {value for name, value in vars(timings).items() if name.isupper() and isinstance(value, str)}
    assert {name for name, _ in rows("Timings")} >= named
