"""A grounded answer names its masks."""

from __future__ import annotations

import pytest

from sa2va_host.grounding import caption, phrases


@pytest.mark.parametrize(
    ("text", "objects", "expected"),
    [
        ("It is [SEG].", 1, [""]),
        ("There is no such thing here.", 0, []),
        ("<p> A white cat </p>  [SEG] on <p>the\n table</p> [SEG].", 2, ["A white cat", "the table"]),
        ("<p>a cat</p> [SEG] and [SEG]", 2, ["a cat", ""]),
        ("<p>a cat</p> near <p>a dog</p> [SEG]", 1, ["a dog"]),
        ("<p>a cat</p> [SEG] <p>a dog</p> [SEG]", 1, ["a cat"]),
        ("<p>never closed [SEG]", 1, [""]),
        ("nothing said", 2, ["", ""]),
    ],
)
def test_each_mask_has_the_words_before_it(text, objects, expected):
    assert phrases(text, objects) == expected


def test_a_caption_reads_as_a_sentence():
    text = "<p> A white cat </p>  [SEG] lies on <p> a table </p> [SEG] , asleep."
    assert caption(text) == "A white cat lies on a table, asleep."
