"""Text of others (file names, checkpoints, answers) made safe to show: a terminal obeys control characters."""

from __future__ import annotations

import re

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and newline, DEL, and C1, which terminals take as ESC and a letter
    "\u202a-\u202e\u2066-\u2069]"  # what reorders text on the screen: embeddings, overrides and isolates (UAX 9)
)


def escape_controls(text: str) -> str:
    """The same text with each control character spelled, as `\\x1b`; tabs, newlines and printed text stay."""
    return _CONTROLS.sub(_spelled, text)


def _spelled(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
