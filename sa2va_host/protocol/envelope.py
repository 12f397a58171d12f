"""The first frame of every message: who speaks, to which worker process, in which protocol version.

Both sides check it before they look at anything else, in the order magic, version, token, incarnation. The
layout up to and including ``reason`` never changes, so that peers of any two versions can tell each other
that they differ.

::

    offset  bytes  field
    0       4      magic ``S2VA``
    4       2      protocol version, big endian
    6       1      kind: 0 a message follows, 1 refused (nothing follows)
    7       1      reason of a refusal (`Reason`)
    8       16     incarnation of the worker process
    24      32     token, from the connection record
    56      8      process id of the sender
    64      8      start time of the sender (`sa2va_host.machine.processes`)
"""

from __future__ import annotations

import enum
import hmac
import struct

import msgspec

PROTOCOL = 4
"""The protocol version. The one place; docs/protocol.md is tested against it."""

_LAYOUT = struct.Struct("!4sHBB16s32sQQ")
_MAGIC = b"S2VA"
SIZE = _LAYOUT.size


class Reason(enum.IntEnum):
    """Why a peer refuses to read on."""

    NONE = 0
    MALFORMED = 1
    VERSION = 2
    TOKEN = 3
    INCARNATION = 4


class Refusal(Exception):
    """The envelope is not one we answer. ``version`` is the peer's, where it could be read."""

    def __init__(self, reason: Reason, version: int = 0) -> None:
        super().__init__(reason.name.lower())
        self.reason = reason
        self.version = version


class Envelope(msgspec.Struct, frozen=True):
    """The parts that identify one worker process to its clients, and the sender to both."""

    incarnation: bytes
    token: bytes
    pid: int
    started: int

    def pack(self) -> bytes:
        """The frame that precedes a message, `SIZE` bytes."""
        return _LAYOUT.pack(_MAGIC, PROTOCOL, 0, 0, self.incarnation, self.token, self.pid, self.started)


def refusal(reason: Reason) -> bytes:
    """The only frame of a refusal; it tells our version and no secret."""
    return _LAYOUT.pack(_MAGIC, PROTOCOL, 1, reason, bytes(16), bytes(32), 0, 0)


def check(frame: bytes, *, incarnation: bytes, token: bytes) -> Envelope:
    """Parse an envelope meant for this incarnation. Raises `Refusal` (from the peer's refusals too)."""
    if len(frame) < 8 or frame[:4] != _MAGIC:
        raise Refusal(Reason.MALFORMED)
    version = int.from_bytes(frame[4:6], "big")
    if frame[6] == 1:
        raise Refusal(_reason(frame[7]), version)
    if version != PROTOCOL:
        raise Refusal(Reason.VERSION, version)
    if len(frame) != SIZE or frame[6] != 0:
        raise Refusal(Reason.MALFORMED, version)
    _, _, _, _, their_incarnation, their_token, pid, started = _LAYOUT.unpack(frame)
    if not hmac.compare_digest(their_token, token):
        raise Refusal(Reason.TOKEN, version)
    if their_incarnation != incarnation:
        raise Refusal(Reason.INCARNATION, version)
    return Envelope(their_incarnation, their_token, pid, started)


def _reason(value: int) -> Reason:
    return Reason(value) if value in Reason.__members__.values() else Reason.MALFORMED
