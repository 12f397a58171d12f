"""The wire: what goes out comes back, and what is not a message is refused without cost."""

import random
import resource
from typing import get_args

import msgspec
import numpy as np
import pytest

from sa2va_host.protocol import envelope, wire
from sa2va_host.protocol.arrays import pack, unpack, unpack_all
from sa2va_host.protocol.limits import MAX_BUFFERS, MAX_PAYLOAD, Turn
from sa2va_host.protocol.reports import CallReport, WorkerReport
from sa2va_host.protocol.specification import ModelInfo, Specification

HEADER = wire.ArrayHeader("float32", [2, 8, 8], 0, 512)
INFO = ModelInfo(
    name="m", family="f", image_size=8, device="cpu", dtype="float32", attention="sdpa", parameters=1
)
REPORT = WorkerReport(
    pid=1,
    phase="ready",
    phase_seconds=0.0,
    silent=0.0,
    uptime=1.0,
    specification=Specification(checkpoint="m"),
    info=INFO,
    active=[CallReport(kind="chat", client="c", pid=2, phase="queued", seconds=0.5)],
)
FROM_CLIENT = [
    wire.Hello(program="p", arena=wire.SharedArena(fd=3, inode=4, size=4096)),
    wire.Load(call=1, keep_alive=-1.0),
    wire.Segment(call=1, keep_alive=1.0, prompts=["p"], key_frames=[HEADER], tracked=True, frame_count=3),
    wire.Frames(call=1, start=0, frames=HEADER),
    wire.EndOfFrames(call=1),
    wire.Chat(call=1, keep_alive=1.0, prompt="p", images=[HEADER], history=[Turn("p", "a")]),
    wire.Process(
        call=1,
        keep_alive=1.0,
        processor="p",
        options={"a": 1.5, "b": "c"},
        picture=HEADER,
        probabilities=HEADER,
    ),
    wire.Cancel(call=1),
    wire.Status(call=1),
    wire.Unload(call=1, force=True, wait=1.0),
    wire.Bye(),
]
FROM_WORKER = [
    wire.Ready(phase="ready", info=INFO),
    wire.Returned(lease=1),
    wire.Loaded(call=1, info=INFO),
    wire.Started(call=1, image_size=8),
    wire.Credit(call=1, frames=8),
    wire.Progress(call=1, phase="loading", done=1, total=None),
    wire.Log(level="info", text="t"),
    wire.Said(call=1, text="It is [SEG].", objects=1),
    wire.Token(call=1, text="t"),
    wire.Masks(call=1, frame=0, logits=HEADER),
    wire.Processed(call=1, index=0, probability=HEADER),
    wire.Answer(call=1, text="t", objects=2, timings={"encoding": 0.1}),
    wire.Failed(call=1, code="c", message="m", holders=["h"], log_tail=["l"]),
    wire.Ending(call=1),
    wire.Unloading(call=1),
    wire.StatusReply(call=1, report=REPORT),
]


@pytest.mark.parametrize("message", FROM_CLIENT, ids=lambda message: type(message).__name__)
def test_what_a_client_says_comes_back(message):
    assert wire.decode_from_client(wire.encode(message)) == message
    with pytest.raises(wire.BadMessage):
        wire.decode_from_worker(wire.encode(message))


@pytest.mark.parametrize("message", FROM_WORKER, ids=lambda message: type(message).__name__)
def test_what_a_worker_says_comes_back(message):
    assert wire.decode_from_worker(wire.encode(message)) == message
    with pytest.raises(wire.BadMessage):
        wire.decode_from_client(wire.encode(message))


def test_every_message_is_covered_here():
    assert {type(message) for message in FROM_CLIENT} == set(get_args(wire.ClientMessage))
    assert {type(message) for message in FROM_WORKER} == set(get_args(wire.WorkerMessage))


def changed(message, **changes):
    fields = msgspec.to_builtins(message) | changes
    return msgspec.msgpack.encode(fields)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x80",
        msgspec.msgpack.encode({"type": "Exec", "call": 1}),
        msgspec.msgpack.encode(["Cancel", 1]),
        changed(wire.Cancel(call=1), extra=1),
        changed(wire.Cancel(call=1), call=-1),
        changed(wire.Cancel(call=1), call="1"),
        changed(wire.Cancel(call=1), call=1.0),
        changed(wire.Cancel(call=1), call=2**64 - 1),
        changed(wire.Load(call=1, keep_alive=1.0), keep_alive=float("nan")),
        changed(wire.Load(call=1, keep_alive=1.0), keep_alive=float("inf")),
        changed(wire.Hello(program="p"), program="p" * 1000),
        changed(wire.Chat(call=1, keep_alive=1.0, prompt="p"), images=[{}] * 100),
        changed(
            wire.Chat(call=1, keep_alive=1.0, prompt="p"),
            images=[{"dtype": "object", "shape": [1], "buffer": 0, "size": 8}],
        ),
        changed(
            wire.Chat(call=1, keep_alive=1.0, prompt="p"),
            images=[{"dtype": "uint8", "shape": [-1], "buffer": 0, "size": 8}],
        ),
        changed(
            wire.Chat(call=1, keep_alive=1.0, prompt="p"),
            images=[{"dtype": "uint8", "shape": [1] * 9, "buffer": 0, "size": 1}],
        ),
    ],
)
def test_what_is_not_a_message_is_refused(payload):
    with pytest.raises(wire.BadMessage):
        wire.decode_from_client(payload)


@pytest.mark.parametrize("head", [b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"], ids=lambda head: head.hex())
def test_a_header_that_claims_four_thousand_million_elements_costs_nothing(head):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for payload in (head + b"\xff" * 4, b"\x82\xa4type\xa4Chat\xa6images" + head + b"\xff" * 4 + b"\x01"):
        with pytest.raises(wire.BadMessage):
            wire.decode_from_client(payload)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10


def test_a_payload_above_the_limit_is_refused_on_both_sides():
    with pytest.raises(wire.BadMessage):
        wire.decode_from_client(bytes(MAX_PAYLOAD + 1))
    with pytest.raises(wire.BadMessage):
        wire.encode(wire.Log(level="info", text="x" * (MAX_PAYLOAD + 1)))


def test_deep_nesting_is_refused():
    with pytest.raises(wire.BadMessage):
        wire.decode_from_client(b"\x91" * 100_000)


def test_mutations_decode_to_a_message_or_to_nothing():
    rng = random.Random(1)
    payloads = [wire.encode(message) for message in FROM_CLIENT]
    for _ in range(20_000):
        payload = bytearray(rng.choice(payloads))
        for _ in range(rng.randint(1, 5)):
            payload[rng.randrange(len(payload))] = rng.randrange(256)
        try:
            message = wire.decode_from_client(bytes(payload))
        except wire.BadMessage:
            continue
        assert isinstance(message, get_args(wire.ClientMessage))


ARRAYS = {
    "uint8": np.arange(48, dtype=np.uint8).reshape(4, 4, 3),
    "bool": np.array([[True, False]]),
    "float32": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    "float16": np.array([1.5, np.inf, np.nan], np.float16),
    "int64": np.array([-(2**60)]),
    "scalar": np.array(3.0, np.float32),
    "empty": np.zeros((0, 256, 256), np.float32),
    "strided": np.arange(100, dtype=np.int32)[::7],
    "negative stride": np.arange(10, dtype=np.uint8)[::-1],
    "Fortran order": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "big endian": np.arange(5, dtype=">f4"),
    "read-only": np.broadcast_to(np.uint8(7), (3, 5)),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_an_array_comes_back_bit_by_bit(array):
    headers, buffers = pack([array])
    back = unpack_all(headers, [memoryview(bytes(buffer)) for buffer in buffers])
    assert len(buffers) == 1
    assert back[0].shape == array.shape
    np.testing.assert_array_equal(back[0], array)


def test_bfloat16_travels_as_its_bits():
    bits = np.array([0x3F80, 0xC000, 0x7FC0], np.uint16)
    headers, buffers = pack([bits], bfloat16=True)
    assert headers[0].dtype == "bfloat16"
    np.testing.assert_array_equal(unpack_all(headers, buffers)[0], bits)


def test_buffers_are_private():
    array = np.zeros(1000, np.uint8)
    headers, buffers = pack([array])
    array[:] = 1
    assert not unpack_all(headers, buffers)[0].any()


@pytest.mark.parametrize("dtype", [object, "U4", "datetime64[s]", np.complex64, [("a", np.uint8)]])
def test_other_dtypes_do_not_travel(dtype):
    with pytest.raises(wire.BadMessage):
        pack([np.zeros(2, dtype)])


@pytest.mark.parametrize("place", [lambda _: None, lambda size: memoryview(bytearray(size))])
def test_a_view_of_bytes_travels_like_the_array_that_it_shows(place):
    array = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    shown = bytearray(array.tobytes())
    headers, buffers = pack([memoryview(shown).cast("B", (4, 5, 3))], place=place)
    assert headers == pack([array])[0]
    shown[:] = bytes(60)
    np.testing.assert_array_equal(unpack_all(headers, buffers)[0], array)


def test_a_view_of_other_numbers_does_not_travel():
    with pytest.raises(wire.BadMessage, match="views of f"):
        pack([np.zeros(2, np.float32).data])


def test_an_unaligned_buffer_is_copied():
    raw = bytearray(401)
    view = memoryview(raw)[1:]
    array = unpack(wire.ArrayHeader("float32", [100], 0, 400), [view])
    assert array.flags.aligned


def test_an_overflowing_shape_is_refused():
    header = wire.ArrayHeader("float32", [2**31] * 8, 0, 0)
    with pytest.raises(wire.BadMessage):
        unpack(header, [memoryview(b"")])


def test_more_arrays_than_the_peer_takes_are_refused():
    with pytest.raises(wire.BadMessage):
        pack([np.zeros(1, np.uint8)] * (MAX_BUFFERS + 1))


def test_the_envelope_comes_back():
    mine = envelope.Envelope(b"i" * 16, b"t" * 32, 4711, 2**40)
    frame = mine.pack()
    assert len(frame) == envelope.SIZE == 72
    assert envelope.check(frame, incarnation=b"i" * 16, token=b"t" * 32) == mine


def test_a_refusal_tells_its_reason_across_versions():
    frame = bytearray(envelope.refusal(envelope.Reason.VERSION))
    frame[4:6] = b"\x00\x07"
    with pytest.raises(envelope.Refusal) as caught:
        envelope.check(
            bytes(frame) + b"whatever a later version adds", incarnation=bytes(16), token=bytes(32)
        )
    assert caught.value.reason is envelope.Reason.VERSION
    assert caught.value.version == 7
