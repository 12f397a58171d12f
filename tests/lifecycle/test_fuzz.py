"""Bytes that nobody agreed on, at the decoder and at a living worker. ``SA2VA_FUZZ=1000000`` sets how many."""

from __future__ import annotations

import contextlib
import os
import random
import socket as system_socket
import struct
import sys
import threading
import time
from typing import get_args

import numpy as np

from sa2va_host.generation import Generation
from sa2va_host.lifecycle.control import ask
from sa2va_host.protocol import arrays, limits, wire
from sa2va_host.protocol.shared_memory import _REFERENCE, Arena, Borrowed

SAMPLED = Generation(do_sample=True, seed=1)
COUNT = int(os.environ.get("SA2VA_FUZZ") or 4000)  # read at import; a fixture cleans the environment
BATCH = 250
MEGABYTES = 64 << 20
"""How much more memory noise may cost at any moment: a small part of what one honest message may hold."""
SMALL = wire.ArrayHeader("uint8", [2, 2, 3], 0, 12)
LARGE = wire.ArrayHeader("uint8", [600, 600, 3], 0, 1_080_000)
LIAR = wire.ArrayHeader("float32", [1 << 14, 1 << 14], 0, limits.MAX_BUFFER_BYTES)
NAMES = ["os.system", "__import__('os').abort()", "builtins.exec", "../../etc/passwd", "\0", "\ud7ff" * 500]
CALL_BY_NAME = ("import", "exec", "compile", "open", "os.", "subprocess.", "ctypes.", "pickle.", "socket.")
HEADS = [b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9", b"\xdc", b"\xcf", b"\xcb", b"\xc1", b"\xd4"]
"""Of msgpack: lists, maps, texts and extensions that say themselves how long they are; and what is none."""


def honest(rng):
    """Messages that a client may send, of names that would be a pity to call."""
    name = rng.choice(NAMES)
    header = rng.choice([SMALL, LARGE, LIAR])
    return rng.choice(
        [
            wire.Segment(call=1, keep_alive=9.0, prompts=["objects=1", name], key_frames=[header]),
            wire.Chat(
                call=2,
                keep_alive=9.0,
                prompt=name,
                images=[header],
                generation=SAMPLED,
            ),
            wire.Process(
                call=3,
                keep_alive=9.0,
                processor=name,
                options={name[:9]: 1.0},
                picture=header,
                probabilities=header,
            ),
            wire.Frames(call=1, start=0, frames=header),
            wire.EndOfFrames(call=1),
            wire.Cancel(call=1),
            wire.Load(call=4, keep_alive=9.0),
            wire.Hello(
                program=name, arena=wire.SharedArena(rng.randrange(64), rng.randrange(1 << 20), 1 << 20)
            ),
        ]
    )


def mutated(rng, payload):
    """A payload with a few bytes changed, cut out, put in, or taken from another one."""
    changed = bytearray(payload)
    for _ in range(rng.randint(0, 4)):
        place = rng.randrange(len(changed) + 1)
        act = rng.randrange(6)
        if act == 0:
            changed[place:place] = rng.choice(HEADS) + b"\xff" * rng.randrange(6)
        elif act == 1:
            del changed[place : place + rng.randrange(1, 9)]
        elif act == 2:
            changed[place:] = wire.encode(honest(rng))[place:]
        elif act == 3:
            changed[place:place] = b"\x91" * rng.choice([1, 100, 5000])
        else:
            changed[place : place + 1] = bytes([rng.randrange(256)])
    return bytes(changed)


def noise(rng):
    """A payload and the frames beside it: too many, too few, too short, or references to anywhere."""
    frames = []
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        offset = rng.choice([0, 4096, limits.ARENA_BYTES, rng.randrange(limits.ARENA_BYTES), 2**64 - 1])
        reference = _REFERENCE.pack(rng.choice([1, 2**64 - 1]), offset)
        frames.append(rng.choice([bytes(SMALL.size), reference, reference, rng.randbytes(rng.randrange(40))]))
    return mutated(rng, wire.encode(honest(rng))), frames


def test_the_decoder_gives_a_message_or_a_refusal_and_calls_nothing(peak):
    """What an audit hook hears of meanwhile: every import, opened file, started process, compiled code."""
    heard = []
    listening = False
    ours = threading.get_ident()

    def hear(event, _):
        if listening and threading.get_ident() == ours and event.startswith(CALL_BY_NAME):
            heard.append(event)

    rng = random.Random(18)
    arena = Arena()
    borrowed = Borrowed(arena.offer, os.getpid(), lambda _: None) if arena.offer else None
    sys.addaudithook(hear)
    memory = peak("self")
    decoded = 0
    for _ in range(COUNT * 5):
        payload, frames = noise(rng)
        listening = True
        with contextlib.suppress(wire.BadMessage):
            message = wire.decode_from_client(payload)
            assert isinstance(message, get_args(wire.ClientMessage))
            decoded += 1
            headers = arrays.headers(message)
            buffers = [memoryview(frame) for frame in frames]
            found = arrays.unpack_all(headers, borrowed.resolve(headers, buffers) if borrowed else buffers)
            assert [array.nbytes for array in found] == [header.size for header in headers]
        with contextlib.suppress(wire.BadMessage):
            assert isinstance(wire.decode_from_worker(payload), get_args(wire.WorkerMessage))
        listening = False
    assert decoded > COUNT / 10, "noise so far from a message tests nothing"
    assert heard == []
    assert memory.rise() < MEGABYTES
    arena.close()


def test_noise_on_the_socket_harms_nobody(bare, connect, picture, peak, promise):
    """From a client that knows the token. All of it is read, and the next good message is answered at once."""
    rng = random.Random(5)
    bystander = connect()
    want = bystander.segment(picture, "objects=1").logits
    # Noise may well ask for a keep_alive of no time; while this call is open, that ends nobody.
    opening = wire.Segment(
        call=10**6, keep_alive=60.0, prompts=["objects=1"], key_frames=[SMALL], tracked=True
    )
    holder = bare()
    holder.send(opening, bytes(SMALL.size))
    client = bare()
    memory = peak(holder.record.process.pid)
    for begin in range(0, COUNT, BATCH):
        for number in range(BATCH):
            payload, frames = noise(rng)
            head = mutated(rng, client.true) if rng.random() < 0.1 else client.true
            client.socket.send_multipart([head, payload, *frames])
            if number % 50 == 49:
                client.pass_over()
                holder.pass_over()  # the worker's log goes to all who have a call open
        client.send(wire.Bye())
        client.send(wire.Status(call=10**9 + begin))
        client.wait_for(lambda reply, last=10**9 + begin: getattr(reply, "call", 0) == last)
        begun = time.monotonic()
        assert isinstance(ask(client.record, wire.Status(call=1), 5.0), wire.StatusReply)
        promise(time.monotonic() - begun, 0.1)
        assert memory.rise() < MEGABYTES
    np.testing.assert_array_equal(bystander.segment(picture, "objects=1").logits, want)
    assert bystander.status().pid == client.record.process.pid


def test_noise_below_the_protocol_harms_nobody(bare, connect, picture, peak, promise):
    """Bytes that are no ZeroMQ, and frames that claim more than may be: connections that end, and nothing more."""
    rng = random.Random(7)
    client = bare()
    address = client.record.endpoint
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
    ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
    head = greeting + b"\x04" + bytes([len(ready)]) + ready
    claims = [limits.MAX_BUFFER_BYTES + 1, 1 << 40, 2**63 - 1, 2**64 - 1]
    memory = peak(client.record.process.pid)
    for number in range(max(40, COUNT // 100)):
        bytes_sent = [
            rng.randbytes(rng.randrange(64, 4096)),
            mutated(rng, head),
            head + b"\x02" + struct.pack("!Q", claims[number % 4]) + rng.randbytes(1000),
        ][number % 3]
        if address.path is not None:
            knocking = system_socket.socket(system_socket.AF_UNIX)
            knocking.connect(str(address.path))
        else:
            host, port = address.address.removeprefix("tcp://").split(":")
            knocking = system_socket.create_connection((host, int(port)))
        with knocking, contextlib.suppress(ConnectionError):
            knocking.sendall(bytes_sent)
            knocking.settimeout(10)
            while knocking.recv(4096) and number % 3 == 2:
                pass  # until it hangs up on us
        assert memory.address_space() < limits.MAX_BUFFER_BYTES
    assert memory.rise() < MEGABYTES
    begun = time.monotonic()
    client.send(wire.Status(call=1))
    client.wait_for(lambda reply: isinstance(reply, wire.StatusReply))
    promise(time.monotonic() - begun, 0.1)
    assert connect().segment(picture, "objects=1").worker.pid == client.record.process.pid
