"""Sockets: the only file that imports zmq. Both the host and the worker build theirs here.

The worker binds a ROUTER, each client connects a DEALER. An owner-only ipc path is used where it works;
where it does not (Windows, a file system without sockets, a path too long) loopback TCP with CURVE keys.
Both refuse frames above the cap before allocating them (MAXMSGSIZE). Sockets have one owner thread;
`Waker` is how other threads reach it.
"""

from __future__ import annotations

import contextlib
import os
import socket as system_socket
from collections.abc import Sequence
from pathlib import Path

import msgspec
import zmq

from .limits import MAX_BUFFER_BYTES, MAX_BUFFERS

MAX_PATH = 103
"""Bytes of an ipc path: 107 on Linux, 103 on macOS."""

DESCRIPTORS = 24
"""File descriptors that a connection may take: a context and its threads 6, a socket with its monitor 3, the waker 2,
a pidfd 1, and as many again for whatever another thread opens meanwhile.
"""
_SHARING_DESCRIPTORS = 16
"""The same for the context and the two sockets that pyzmq has of its own for buffers that it does not copy: 7, and as
many again.
"""
Buffer = bytes | memoryview
_SMALL = 1 << 16
"""Frames below this are cheaper to copy than to share with the socket's thread."""


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a worker listens. ``server_key`` is its CURVE public key (z85) on TCP, else empty."""

    address: str
    server_key: str = ""

    @property
    def path(self) -> Path | None:
        """The socket file of an ipc endpoint."""
        return Path(self.address.removeprefix("ipc://")) if self.address.startswith("ipc://") else None


class TransportError(Exception):
    """No endpoint could be made, or the other side's frames are not a message."""


class Incoming(msgspec.Struct, frozen=True):
    """One received message, undecoded. ``route`` is empty on the client's side."""

    route: bytes
    envelope: bytes
    payload: bytes
    buffers: list[memoryview]


def make_context() -> zmq.Context[zmq.Socket[bytes]]:
    """A context of our own, so that its end waits for nobody else's sockets.

    Raises `OSError` where this process has too few file descriptors left for it and its sockets: libzmq would abort the
    whole process then (errno_assert in its poller), and with it whoever hosts us.
    """
    _require_descriptors(DESCRIPTORS)
    context = zmq.Context(io_threads=1)
    # libzmq starts its threads, which take most of the descriptors, with the first socket; later ones fail as errors.
    context.socket(zmq.PAIR).close(0)
    return context


def _require_descriptors(count: int) -> None:
    """Raises `OSError` unless so many more files can be opened now."""
    held: list[int] = []
    try:
        while len(held) < count:
            held.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for descriptor in held:
            os.close(descriptor)


def bind(
    context: zmq.Context[zmq.Socket[bytes]], path: Path, transport: str = "auto"
) -> tuple[zmq.Socket[bytes], Endpoint]:
    """A listening ROUTER at ``path`` (ipc) or at a free loopback port with CURVE (tcp).

    ``transport`` is ``auto``, ``ipc`` or ``tcp``. Raises `TransportError`.
    """
    if transport in ("auto", "ipc"):
        socket = _configured(context.socket(zmq.ROUTER))
        try:
            if not zmq.has("ipc") or len(os.fsencode(path)) > MAX_PATH:
                raise TransportError(f"ipc sockets do not work at {path}")
            if path.exists():
                # Binding would silently steal the path. Ours are named after a random incarnation.
                raise TransportError(f"{path} exists already")
            socket.bind(f"ipc://{path}")
        except (zmq.ZMQError, TransportError) as error:
            socket.close(0)
            if transport == "ipc":
                raise TransportError(str(error)) from error
        else:
            return socket, Endpoint(f"ipc://{path}")
    if not zmq.has("curve"):
        raise TransportError("neither ipc sockets nor CURVE encryption work with this libzmq")
    public, secret = zmq.curve_keypair()
    socket = _configured(context.socket(zmq.ROUTER))
    socket.curve_server = True
    socket.curve_secretkey = secret
    socket.curve_publickey = public
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    return socket, Endpoint(f"tcp://127.0.0.1:{port}", public.decode("ascii"))


def connect(context: zmq.Context[zmq.Socket[bytes]], endpoint: Endpoint) -> zmq.Socket[bytes]:
    """A DEALER towards a worker. Raises `TransportError` for an address that is not local."""
    if not endpoint.address.startswith(("ipc://", "tcp://127.0.0.1:")):
        raise TransportError(f"{endpoint.address!r} is not a local endpoint")
    if endpoint.address.startswith("tcp:") and not endpoint.server_key:
        raise TransportError("a TCP endpoint without a CURVE key")
    socket = _configured(context.socket(zmq.DEALER))
    if endpoint.server_key:
        public, secret = zmq.curve_keypair()
        socket.curve_serverkey = endpoint.server_key.encode("ascii")
        socket.curve_publickey = public
        socket.curve_secretkey = secret
    socket.connect(endpoint.address)
    return socket


def watch_disconnection(socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    """A socket that becomes readable once the peer is gone and everything it sent has been taken in.

    Whoever closes ``socket`` does ``socket.disable_monitor()`` before, and closes this one too.
    """
    return socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)


def _configured(socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    socket.linger = 0
    # Nothing is dropped at a high-water mark: the protocol bounds the queues (credit, Busy) instead.
    socket.sndhwm = 0
    socket.rcvhwm = 0
    socket.maxmsgsize = MAX_BUFFER_BYTES
    if socket.type == zmq.ROUTER:
        socket.router_mandatory = True
    return socket


def send(socket: zmq.Socket[bytes], frames: Sequence[Buffer], route: bytes = b"") -> bool:
    """Queue a message; never blocks. Large buffers are handed over, so nobody may change them any more; where file
    descriptors are short they are copied.

    False when the peer of ``route`` is gone.
    """
    parts: list[Buffer] = [route, *frames] if route else list(frames)
    copied = all(len(part) < _SMALL for part in parts) or not _can_share()
    try:
        for position, part in enumerate(parts):
            more = zmq.SNDMORE if position < len(parts) - 1 else 0
            socket.send(part, zmq.DONTWAIT | more, copy=copied or len(part) < _SMALL)
    except zmq.ZMQError as error:
        if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
            return False
        raise
    return True


def _can_share() -> bool:
    """Whether buffers can be handed to ZeroMQ without a copy. The first time that takes a context, which libzmq would
    abort this process for where descriptors are short, as `make_context` says.
    """
    from zmq.utils.garbage import gc

    if not gc.is_alive():
        try:
            _require_descriptors(_SHARING_DESCRIPTORS)
        except OSError:
            return False
        zmq.Frame(b"", copy=False)  # has pyzmq make all of it now
    return True


def receive(socket: zmq.Socket[bytes], *, routed: bool) -> Incoming | None:
    """The next message, or None when none is waiting. A malformed one raises `TransportError` and is
    consumed.
    """
    try:
        frame = socket.recv(zmq.DONTWAIT, copy=False)
    except zmq.Again:
        return None
    limit = MAX_BUFFERS + 2 + routed
    frames = [frame]
    excess = False
    while frame.more:
        frame = socket.recv(copy=False)
        excess = excess or len(frames) >= limit
        if not excess:
            frames.append(frame)
    if excess:
        raise TransportError("a message of too many frames")
    route = frames.pop(0).bytes if routed else b""
    if not frames:
        raise TransportError("a message without frames")
    return Incoming(
        route=route,
        envelope=frames[0].bytes if len(frames[0]) <= _SMALL else b"",
        payload=frames[1].bytes if len(frames) > 1 and len(frames[1]) <= 1 << 22 else b"",
        buffers=[memoryview(frame.buffer).cast("B") for frame in frames[2:]],
    )


class Waker:
    """Wakes the thread that polls ``fileno()``. ``wake`` may be called from any thread, and from signal
    handlers.
    """

    def __init__(self) -> None:
        self._reader, self._writer = system_socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        return self._reader.fileno()

    def wake(self) -> None:
        # A full pipe has woken the reader already; a closed one has nobody to wake.
        with contextlib.suppress(OSError):
            self._writer.send(b"\0")

    def clear(self) -> None:
        with contextlib.suppress(OSError):
            while self._reader.recv(4096):
                pass

    def close(self) -> None:
        self._reader.close()
        self._writer.close()
