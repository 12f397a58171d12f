"""Grounded answers: which words of an answer each of its masks stands for.

A model that describes a picture and segments what it speaks of writes ``<p> the red circle </p> [SEG] lies on ...``.
"""

from __future__ import annotations

import re

SEGMENT = "[SEG]"
_MARK = re.compile(r"<p>(?P<phrase>.*?)</p>|\[SEG\]", re.DOTALL)


def phrases(text: str, objects: int) -> list[str]:
    """For each object of an answer the words it stands for; empty where the answer does not say.

    A phrase belongs to the first `[SEG]` after it. An answer can end in a `[SEG]` more than it has objects.
    """
    found: list[str] = []
    said = ""
    for mark in _MARK.finditer(text):
        if mark["phrase"] is not None:
            said = " ".join(mark["phrase"].split())
        else:
            found.append(said)
            said = ""
    return (found + [""] * objects)[:objects]


def caption(text: str) -> str:
    """The answer as a person reads it: without the marks of phrases and masks."""
    plain = text.replace("<p>", "").replace("</p>", "").replace(SEGMENT, "")
    return re.sub(r"\s+([.,;:!?])", r"\1", " ".join(plain.split()))
