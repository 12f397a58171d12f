"""What it costs to bring a picture to another process and a mask back.

Every peer is a function that makes a `Peer`: something that takes a picture to a process of its own, where one byte of
each page is read, and brings back the logits of one mask. Without a picture (the small call) only word comes back. No
model runs.
"""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from sa2va_host.lifecycle.connection import Connection
from sa2va_host.lifecycle.rendezvous import Record
from sa2va_host.machine import processes
from sa2va_host.protocol import arrays, envelope, transport, wire
from sa2va_host.protocol.shared_memory import Arena, Borrowed, Ledger
from sa2va_host.protocol.specification import Specification
from sa2va_worker.payloads import arrays_of

from . import peers
from .figures import Figure, NotMeasured, Plan, not_measured, ratio

SIZES = {"HD": (1080, 1920, 3), "4K": (2160, 3840, 3)}
MASK = (1, 256, 256)
"""Logits of one object, float32, as the decoder gives them."""
SMALL_CALL = 0.15e-3
"""Seconds: the aim for a call without a picture."""
WARM = 3
"""Calls that are not counted."""
SMALL_REPEATS = 20
"""Times as many small calls are counted, and not counted: thirty take four milliseconds, which is one breath of a
machine.
"""
_END = b"end"

Picture = NDArray[np.uint8] | NDArray[np.float32]
Peer = Callable[[Picture | None], NDArray[np.float32] | None]


def measure(plan: Plan) -> list[Figure]:
    """Each case for each peer, and what ours takes against the peers that its aims name."""
    figures: dict[str, dict[str, Figure]] = {case: {} for case, _ in _cases()}
    for name, make in {**PEERS, **peers.PEERS}.items():
        for case, figure in _of_peer(name, make, plan.repeat):
            figures[case][name] = figure
    ratios = [
        replace(ratio(f"ours against {peer}", figures[case][OURS], figures[case][peer], aim), panel=case)
        for case, peer, aim in AIMS
    ]
    figures[SMALL][OURS] = replace(figures[SMALL][OURS], aim=SMALL_CALL)
    return [*(figure for case in figures.values() for figure in case.values()), *ratios]


def _of_peer(
    name: str, make: Callable[[], contextlib.AbstractContextManager[Peer]], repeat: int
) -> Iterator[tuple[str, Figure]]:
    """Every case of one peer."""
    try:
        with make() as peer:
            for case, picture in _cases():
                yield case, Figure(name, _times(peer, picture, repeat), panel=case)
    except NotMeasured as why:
        for case, _ in _cases():
            yield case, replace(not_measured(name, why), panel=case)


@contextlib.contextmanager
def memcpy() -> Iterator[Peer]:
    """The floor: picture and mask are copied in and out of memory that is there already, in one process."""
    memory: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}
    mask = np.zeros(MASK, np.float32)

    def twice(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if array.size not in memory:
            memory[array.size] = np.ones_like(array), np.ones_like(array)
        there, back = memory[array.size]
        np.copyto(there, array)
        np.copyto(back, there)
        return back

    def call(picture: Picture | None) -> NDArray[np.float32] | None:
        if picture is None:
            return None
        twice(picture.reshape(-1).view(np.uint8))
        return twice(mask.reshape(-1).view(np.uint8)).view(np.float32).reshape(MASK)

    yield call


@contextlib.contextmanager
def plain_frames() -> Iterator[Peer]:
    """ZeroMQ alone: the bytes of the picture as a frame, sent without a copy of ours, over ipc."""
    with _process(_serve_plain_frames) as address:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.connect(address)

        def call(picture: Picture | None) -> NDArray[np.float32] | None:
            socket.send(b"" if picture is None else picture.data, copy=False)
            answer = socket.recv(copy=False)
            return (
                np.frombuffer(answer.buffer, np.float32).reshape(MASK).copy() if picture is not None else None
            )

        yield call
        socket.send(_END)
        socket.close()
        context.term()


def _serve_plain_frames(path: Path, started: Pipe) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.bind(f"ipc://{path}")
    started.send(f"ipc://{path}")
    mask = np.ones(MASK, np.float32)
    while True:
        route, frame = socket.recv_multipart(copy=False)
        if len(frame) == len(_END):
            break
        if len(frame):
            _look(np.frombuffer(frame.buffer, np.uint8))
        socket.send_multipart([route.bytes, mask.data if len(frame) else b""], copy=False)
    socket.close()
    context.term()


@contextlib.contextmanager
def shared_memory() -> Iterator[Peer]:
    """This project: pictures in memory that is lent, around them the protocol with all its checks."""
    arena = Arena()
    with _ours(Ledger(arena), arena.take) as peer:
        yield peer
    arena.close()


@contextlib.contextmanager
def frames() -> Iterator[Peer]:
    """This project where no memory can be shared: private copies as frames."""
    with _ours(None, lambda _: None) as peer:
        yield peer


@contextlib.contextmanager
def _ours(ledger: Ledger | None, place: Callable[[int], memoryview | None]) -> Iterator[Peer]:
    with _process(_serve_ours) as record:
        context = transport.make_context()
        connection = Connection(context, record, ledger)

        def receive() -> tuple[wire.WorkerReply, list[memoryview]]:
            while (received := connection.receive()) is None:
                connection.socket.poll()
            return received.message, received.buffers

        def call(picture: Picture | None) -> NDArray[np.float32] | None:
            headers, buffers = arrays.pack([] if picture is None else [picture], place=place)
            connection.send(wire.Chat(call=1, keep_alive=0.0, prompt="", images=headers), buffers)
            message, answer = receive()
            if not isinstance(message, wire.Masks):
                return None
            return arrays.unpack_all([message.logits], answer)[0].astype(
                np.float32
            )  # a copy, as a call makes

        assert isinstance(receive()[0], wire.Ready)
        yield call
        connection.say_goodbye()
        connection.close(linger=1.0)
        context.term()


def _serve_ours(path: Path, started: Pipe) -> None:
    """The talking half of a worker."""
    context = transport.make_context()
    socket, endpoint = transport.bind(context, path, "ipc")
    me = processes.current()
    record = Record(
        incarnation=os.urandom(16).hex(),
        token=os.urandom(32).hex(),
        process=me,
        specification=Specification(checkpoint="none"),
        endpoint=endpoint,
        log="",
        created=time.time(),
        launcher=me,
    )
    started.send(record)
    incarnation, token = bytes.fromhex(record.incarnation), bytes.fromhex(record.token)
    mine = envelope.Envelope(incarnation, token, me.pid, me.started).pack()
    mask = np.ones(MASK, np.float32)
    returned: list[int] = []
    borrowed: Borrowed | None = None
    message: wire.ClientMessage | None = None
    while not isinstance(message, wire.Bye):
        socket.poll()
        incoming = transport.receive(socket, routed=True)
        assert incoming is not None
        sender = envelope.check(incoming.envelope, incarnation=incarnation, token=token)
        message = wire.decode_from_client(incoming.payload)
        if isinstance(message, wire.Hello):
            if message.arena is not None:
                borrowed = Borrowed(message.arena, sender.pid, returned.append)
            ready = wire.Ready(phase="ready", shares=borrowed is not None)
            transport.send(socket, [mine, wire.encode(ready)], incoming.route)
        elif isinstance(message, wire.Chat):
            for array in arrays_of(message, incoming.buffers, borrowed):
                _look(array)
                del array  # so that its lease ends
            headers, packed = arrays.pack([mask] if message.images else [])
            answer = (
                wire.Masks(call=1, frame=0, logits=headers[0]) if headers else wire.Token(call=1, text="")
            )
            transport.send(socket, [mine, wire.encode(answer), *packed], incoming.route)
            while returned:
                back = wire.Returned(lease=returned.pop())
                transport.send(socket, [mine, wire.encode(back)], incoming.route)
    socket.close()
    context.term()


def _look(array: NDArray[np.generic]) -> int:
    """Read a byte of each page: a picture that is not here yet has to come now."""
    return int(array.reshape(-1).view(np.uint8)[:: mmap.PAGESIZE].sum())


@contextlib.contextmanager
def _process(serve: Callable[[Path, Pipe], None]) -> Iterator[Any]:
    """Another process that serves at a path; gives what it says when it listens."""
    ours, theirs = multiprocessing.Pipe()
    with tempfile.TemporaryDirectory(prefix="sa2va-") as folder:
        process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(Path(folder) / "peer", theirs), daemon=True
        )
        process.start()
        yield ours.recv()
        process.join()


def _cases() -> Iterator[tuple[str, Picture | None]]:
    yield SMALL, None
    for size, shape in SIZES.items():
        noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        yield f"{size} uint8", noise
        yield f"{size} float32", noise.astype(np.float32)


def _times(peer: Peer, picture: Picture | None, repeat: int) -> tuple[float, ...]:
    times = SMALL_REPEATS if picture is None else 1
    seconds = []
    for _ in range(times * (repeat + WARM)):
        begun = time.perf_counter()
        peer(picture)
        seconds.append(time.perf_counter() - begun)
    return tuple(seconds[times * WARM :])


SMALL = "small call"
MEMCPY, OURS, FRESH = "two memcpy", "shared memory", "pyisolate, fresh tensors"
AIMS = (
    (SMALL, FRESH, 1 / 2),
    ("HD float32", FRESH, 1 / 10),
    ("4K float32", FRESH, 1 / 8),
    ("HD float32", MEMCPY, 1.7),
)
"""Of a case, a peer, and how much of its time ours may take at the most."""
PEERS: dict[str, Callable[[], contextlib.AbstractContextManager[Peer]]] = {
    MEMCPY: memcpy,
    OURS: shared_memory,
    "frames": frames,
    "plain ZeroMQ frames": plain_frames,
}
