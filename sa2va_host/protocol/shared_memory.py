"""Large arrays in memory that a client shares with its worker, so that a message need not carry their bytes.

The client owns an `Arena`: one memory file without a name (memfd), of which it lends pieces. `Hello` offers it, the
worker maps it once, and says in `Ready` whether it could; until then, and wherever it cannot, arrays travel as frames
with the same bits. A lent piece is named by a reference, a frame of 16 bytes in the place of the array's own, and
belongs to the worker until it says `Returned`.

What this rests on:

- No name, so nothing to guess, to sweep or to unlink: the kernel frees the memory when the last process that maps it
  ends, however it ends. Only the owner may open it (mode 0600, and the kernel's check on /proc/PID/fd).
- The file is sealed against shrinking before it is offered, and the worker maps no other, so no access to it can end in
  SIGBUS for want of a page. Every page is reserved before it is written, which fails as an error where memory is short.
- A piece is lent anew only when nothing refers to it any more: neither an array nor a message here, nor one there.
  Nobody waits for one; when none is free the array travels as a frame.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import stat
import struct
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache

from .limits import ARENA_BYTES, MIN_SHARED_BYTES
from .messages import ArrayHeader, SharedArena
from .wire import BadMessage

_REFERENCE = struct.Struct("!QQ")
"""Lease, offset in the arena."""
_PAGE = mmap.PAGESIZE


class Arena:
    """The client's side: memory of `ARENA_BYTES` at most, taken as it is needed. Thread-safe.

    Where the system has no such memory, `take` finds none.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: dict[int, int] = {}
        """Where each piece in use begins, and where it ends."""
        self._freed: deque[int] = deque()
        self._reserved = 0
        self.offer: SharedArena | None = None
        """What `Hello` says of it."""
        with contextlib.suppress(ImportError, AttributeError, OSError, ValueError):
            self._fd, self._memory = _make()
            self._address = ctypes.addressof(ctypes.c_ubyte.from_buffer(self._memory))
            self.offer = SharedArena(fd=self._fd, inode=os.fstat(self._fd).st_ino, size=ARENA_BYTES)

    def take(self, size: int) -> memoryview | None:
        """Room for ``size`` bytes until nothing refers to it any more; None where there is none, or frames are as
        fast.
        """
        with self._lock:
            if self.offer is None or size < MIN_SHARED_BYTES:
                return None
            while self._freed:
                del self._taken[self._freed.popleft()]
            begin = self._gap(size)
            if not self._reserve(begin + size):
                return None
            self._taken[begin] = -(-(begin + size) // _PAGE) * _PAGE
            piece = _bytes(size).from_buffer(self._memory, begin)
        # Into a queue: this runs wherever the last reference happens to be dropped, with the lock held perhaps.
        weakref.finalize(piece, self._freed.append, begin).atexit = False
        return memoryview(piece).cast("B")

    def offset(self, buffer: memoryview) -> int | None:
        """Where in the arena a buffer begins; None when it lies elsewhere."""
        piece = buffer.obj
        if self.offer is None or not isinstance(piece, ctypes.Array):
            return None
        offset = ctypes.addressof(piece) - self._address
        return offset if 0 <= offset < ARENA_BYTES else None

    def trim(self) -> None:
        """Give the memory back to the system if none of it is in use."""
        with self._lock:
            if self._reserved and len(self._freed) == len(self._taken):
                self._memory.madvise(mmap.MADV_REMOVE)
                self._reserved = 0

    def close(self) -> None:
        """Offer it to nobody any more; idempotent. Pieces in use stay valid here."""
        with self._lock:
            if self.offer is not None:
                self.offer, self._reserved = None, 0
                os.close(self._fd)
                del self._memory  # the pieces keep it for as long as they need it

    def _gap(self, size: int) -> int:
        """The first place with room, so that the pages that are here already are used again."""
        begin = 0
        for start, end in sorted(self._taken.items()):
            if start - begin >= size:
                break
            begin = end
        return begin

    def _reserve(self, end: int) -> bool:
        """Have the system set memory aside up to ``end``: writing to a page that it lacks would be our death."""
        if end > ARENA_BYTES:
            return False
        if end > self._reserved:
            try:
                os.posix_fallocate(self._fd, self._reserved, end - self._reserved)
            except OSError:
                return False
            self._reserved = end
        return True


class Ledger:
    """What one worker has been lent by one client. Closing a connection is forgetting its ledger."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._lent: dict[int, memoryview] = {}
        self._leases = 0
        self.offer = arena.offer
        self.is_open = False
        """Whether the worker has mapped the arena."""

    def lend(self, buffer: memoryview) -> bytes | memoryview:
        """A reference to the buffer in its place, where that will do; else the buffer."""
        offset = self._arena.offset(buffer) if self.is_open else None
        if offset is None:
            return buffer
        self._leases += 1
        self._lent[self._leases] = buffer
        return _REFERENCE.pack(self._leases, offset)

    def take_back(self, lease: int) -> None:
        """The worker is done with it."""
        self._lent.pop(lease, None)


class Borrowed:
    """The worker's side: the arena of one client, mapped to be read. Raises `OSError` or `BadMessage` where that fails.

    ``done`` is told each lease that nothing here refers to any more, on whichever thread that comes about.
    """

    def __init__(self, offer: SharedArena, pid: int, done: Callable[[int], None]) -> None:
        self._size = offer.size
        self._memory = _map(offer, pid)
        self._done = done

    def resolve(self, headers: Sequence[ArrayHeader], buffers: Sequence[memoryview]) -> list[memoryview]:
        """The buffers of a message, where they lie. Raises `BadMessage` for a reference that leads out of the arena."""
        sizes = {header.buffer: header.size for header in headers}
        return [self._resolve(sizes.get(number, 0), buffer) for number, buffer in enumerate(buffers)]

    def _resolve(self, size: int, buffer: memoryview) -> memoryview:
        # By its length no reference can be taken for an array: those that are shared are larger.
        if size < MIN_SHARED_BYTES or buffer.nbytes != _REFERENCE.size:
            return buffer
        lease, offset = _REFERENCE.unpack(buffer)
        if offset + size > self._size:
            raise BadMessage(f"{size} bytes at {offset} of shared memory that has {self._size}")
        import numpy as np

        # An array, since ctypes makes none of memory that may only be read.
        piece = np.frombuffer(self._memory, np.uint8, size, offset)
        weakref.finalize(piece, self._done, lease).atexit = False
        return piece.data


@lru_cache(maxsize=64)
def _bytes(size: int) -> type[ctypes.Array[ctypes.c_ubyte]]:
    """What a piece is: unlike a memoryview it is kept by every view of it, and tells when the last one is dropped. Made
    without NumPy, which a program that reads one picture has no need of before the worker is at work.
    """
    return ctypes.c_ubyte * size


def _make() -> tuple[int, mmap.mmap]:
    """The file and its mapping. Raises where the system has no such thing."""
    import fcntl

    fd = os.memfd_create("sa2va", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.fchmod(fd, 0o600)
        os.ftruncate(fd, ARENA_BYTES)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return fd, mmap.mmap(fd, ARENA_BYTES)
    except BaseException:
        os.close(fd)
        raise


def _map(offer: SharedArena, pid: int) -> mmap.mmap:
    """Map what a client offers, if it is what it must be. Raises `OSError` or `BadMessage`."""
    try:
        import fcntl

        path_only = os.O_PATH
    except (ImportError, AttributeError) as error:
        raise BadMessage("this system shares no memory") from error
    # By path only at first: to open what the number happens to name, a pipe or a device, could wait or do something.
    named = os.open(f"/proc/{pid}/fd/{offer.fd}", path_only | os.O_CLOEXEC)
    try:
        found = os.fstat(named)
        ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
        if not ours or (found.st_ino, found.st_size) != (offer.inode, offer.size):
            raise BadMessage("what was offered as shared memory is something else")
        opened = os.open(f"/proc/self/fd/{named}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(named)
    try:
        if not fcntl.fcntl(opened, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
            raise BadMessage("shared memory that its owner may still shrink")
        return mmap.mmap(opened, offer.size, access=mmap.ACCESS_READ)
    finally:
        os.close(opened)
