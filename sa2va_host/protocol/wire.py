"""The protocol: the one codec for the messages of `sa2va_host.protocol.messages`, which are named here too.

A message on a socket is ``[envelope, payload, buffer, buffer, ...]``. The envelope (`sa2va_host.protocol.envelope`)
is checked first. The payload is msgpack, at most `MAX_PAYLOAD` bytes, and decodes into exactly one tagged
struct of the union of its direction or not at all. Arrays are not in the payload: an `ArrayHeader` there
describes a buffer beside it (`sa2va_host.protocol.arrays`).

The decoder is msgspec's own msgpack decoder behind an explicit length check. It builds the typed struct
directly, so no intermediate dictionary of foreign shape exists; it refuses unknown tags and unknown
fields; and a header that claims four thousand million elements fails on the missing bytes before anything
of that size is allocated (tested). Strings, lists and numbers carry their own limits in their types.

Imports neither sockets nor numpy; the worker and the host share it.
"""

from __future__ import annotations

import msgspec

from sa2va_host.errors import Sa2VAError, UnloadRefused, WorkerBusy, from_wire

from .limits import MAX_PAYLOAD
from .messages import (
    Answer,
    ArrayHeader,
    Arrays,
    Bye,
    Cancel,
    Chat,
    ClientMessage,
    Credit,
    Ending,
    EndOfFrames,
    Failed,
    Frames,
    Hello,
    Load,
    Loaded,
    Log,
    Masks,
    Message,
    Process,
    Processed,
    Progress,
    Ready,
    Returned,
    Said,
    Segment,
    SharedArena,
    Started,
    Status,
    StatusReply,
    Token,
    Unload,
    Unloading,
    WorkerMessage,
    WorkerReply,
)

__all__ = [
    "Answer",
    "ArrayHeader",
    "Arrays",
    "BadMessage",
    "Bye",
    "Cancel",
    "Chat",
    "ClientMessage",
    "Credit",
    "EndOfFrames",
    "Ending",
    "Failed",
    "Frames",
    "Hello",
    "Load",
    "Loaded",
    "Log",
    "Masks",
    "Message",
    "Process",
    "Processed",
    "Progress",
    "Ready",
    "Returned",
    "Said",
    "Segment",
    "SharedArena",
    "Started",
    "Status",
    "StatusReply",
    "Token",
    "Unload",
    "Unloading",
    "WorkerMessage",
    "WorkerReply",
    "decode_from_client",
    "decode_from_worker",
    "encode",
]


class BadMessage(Exception):
    """Bytes that are not a message of the expected direction."""


_encoder = msgspec.msgpack.Encoder()
_from_client: msgspec.msgpack.Decoder[ClientMessage] = msgspec.msgpack.Decoder(ClientMessage)
_from_worker: msgspec.msgpack.Decoder[WorkerMessage] = msgspec.msgpack.Decoder(WorkerMessage)


def encode(message: Message) -> bytes:
    """The payload of a message. Raises `BadMessage` where the peer would refuse its size."""
    try:
        payload = _encoder.encode(message)
    except UnicodeEncodeError as error:
        raise BadMessage(f"{type(message).__name__} has text that is no text: {error}") from error
    if len(payload) > MAX_PAYLOAD:
        raise BadMessage(f"{type(message).__name__} takes {len(payload)} bytes, more than {MAX_PAYLOAD}")
    return payload


def decode_from_client(payload: bytes | memoryview) -> ClientMessage:
    """The message a client sent. Raises `BadMessage`."""
    _check_length(payload)
    try:
        return _from_client.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage(str(error)) from error


def decode_from_worker(payload: bytes | memoryview) -> WorkerMessage:
    """The message a worker sent. Raises `BadMessage`."""
    _check_length(payload)
    try:
        return _from_worker.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage(str(error)) from error


def _check_length(payload: bytes | memoryview) -> None:
    if len(payload) > MAX_PAYLOAD:
        raise BadMessage(f"a payload of {len(payload)} bytes, more than {MAX_PAYLOAD}")


def to_error(message: Failed) -> Sa2VAError:
    """The exception that a `Failed` message stands for."""
    error = from_wire(message.code, message.message, message.advice, message.log_tail)
    if isinstance(error, WorkerBusy):
        error.retry_after = message.retry_after
    if isinstance(error, UnloadRefused):
        error.holders = tuple(message.holders)
    return error
