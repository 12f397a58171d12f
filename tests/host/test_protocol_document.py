"""docs/protocol.md says what the code does."""

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from sa2va_host.protocol import envelope, limits, wire

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")


def section(title):
    return TEXT.split(f"## {title}\n")[1].split("\n## ")[0]


def test_the_version_and_the_sizes_are_those_of_the_code():
    assert f"Version **{envelope.PROTOCOL}**" in TEXT
    assert f"envelope, {envelope.SIZE} bytes" in TEXT
    assert limits.MAX_PAYLOAD == 1 << 20
    assert limits.MAX_BUFFER_BYTES == 1 << 30
    assert limits.MAX_MESSAGE_BYTES == 2 << 30
    assert f"{limits.MAX_BUFFERS} of them" in TEXT
    assert f"come {limits.FRAME_WINDOW} credits" in TEXT


@pytest.mark.parametrize(
    ("title", "union"),
    [("From client to worker", wire.ClientMessage), ("From worker to client", wire.WorkerMessage)],
)
def test_every_message_is_listed_with_its_fields(title, union):
    listed = dict(re.findall(r"^\| `(\w+)` \| ([\w, ]*?) ?\|", section(title), re.MULTILINE))
    real = {
        kind.__name__: ", ".join(field.name for field in msgspec.structs.fields(kind))
        for kind in get_args(union)
    }
    assert listed == real


def test_every_dtype_is_listed():
    for name in get_args(limits.DType):
        assert re.search(rf"\b{name}\b", TEXT), name


def test_every_reason_is_listed():
    for reason in envelope.Reason:
        if reason:
            assert f"{reason.value} {reason.name.lower()}" in TEXT
