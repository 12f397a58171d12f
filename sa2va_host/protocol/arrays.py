"""Arrays beside a message: numpy on one side, raw buffers described by `ArrayHeader` on the other. Pictures may be
memoryviews of uint8 as well, so that a call can leave before NumPy is imported, which takes as long as a picture does.

Knows no sockets, and not where memory comes from: `pack` may be given a place for its copies that the worker sees too
(`sa2va_host.protocol.shared_memory`).

Every buffer that `pack` returns is private to the message: the caller may change its array at once, and
the socket may send the buffer without another copy. Views that `unpack` returns live in the received message, or in
shared memory, and are read-only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from . import wire
from .limits import MAX_BUFFER_BYTES, MAX_BUFFERS, MAX_MESSAGE_BYTES
from .wire import ArrayHeader, BadMessage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CODES = {
    "bool": "?",
    "uint8": "u1",
    "int8": "i1",
    "int16": "<i2",
    "uint16": "<u2",
    "int32": "<i4",
    "int64": "<i8",
    "float16": "<f2",
    "bfloat16": "<u2",  # numpy has no bfloat16: its bits travel as uint16
    "float32": "<f4",
}


def headers(message: wire.Message) -> list[ArrayHeader]:
    """Every array header of a message, in the order of its fields."""
    if isinstance(message, wire.Segment):
        return list(message.key_frames)
    if isinstance(message, wire.Chat):
        return [*message.images, *message.regions]
    if isinstance(message, wire.Frames):
        return [message.frames]
    if isinstance(message, wire.Process):
        return [message.picture, message.probabilities]
    if isinstance(message, wire.Masks):
        return [message.logits]
    if isinstance(message, wire.Processed):
        return [message.probability]
    return []


def pack(
    arrays: Sequence[NDArray[Any] | memoryview],
    *,
    place: Callable[[int], memoryview | None] = lambda _: None,
    bfloat16: bool = False,
) -> tuple[list[ArrayHeader], list[memoryview]]:
    """Headers and private copies of the arrays, in order; a memoryview is one of uint8, C-contiguous.

    ``place`` gives memory for a copy of so many bytes, or None for any. ``bfloat16`` marks uint16 arrays as the bits of
    bfloat16 numbers. Raises `BadMessage` for a dtype that
    is not on the list, or for more or larger buffers than the peer accepts.
    """
    if len(arrays) > MAX_BUFFERS:
        raise BadMessage(f"{len(arrays)} arrays in one message, more than {MAX_BUFFERS}")
    if sum(array.nbytes for array in arrays) > MAX_MESSAGE_BYTES:
        raise BadMessage(f"arrays of more than {MAX_MESSAGE_BYTES} bytes in one message")
    packed: list[ArrayHeader] = []
    buffers: list[memoryview] = []
    for position, array in enumerate(arrays):
        name = _name(array)
        if array.nbytes > MAX_BUFFER_BYTES:
            raise BadMessage(f"an array of {array.nbytes} bytes, more than {MAX_BUFFER_BYTES}")
        if bfloat16 and name == "uint16":
            name = "bfloat16"
        packed.append(ArrayHeader(name, list(array.shape), position, array.nbytes))  # type: ignore[arg-type]
        buffers.append(_copied(array, _CODES[name], place(array.nbytes)))
    return packed, buffers


def unpack(header: ArrayHeader, buffers: Sequence[memoryview]) -> NDArray[Any]:
    """The array a header describes, as a view of its buffer. Raises `BadMessage` when the two do not agree.

    bfloat16 comes as uint16.
    """
    import numpy as np

    dtype = np.dtype(_CODES[header.dtype])
    if header.buffer >= len(buffers):
        raise BadMessage(f"buffer {header.buffer} of a message that has {len(buffers)}")
    buffer = buffers[header.buffer]
    size = math.prod(header.shape) * dtype.itemsize
    if size != header.size or buffer.nbytes != header.size:
        raise BadMessage(f"{header.dtype} {header.shape} takes {size} bytes; {buffer.nbytes} came")
    if size == 0:
        return np.empty(header.shape, dtype)
    array = np.frombuffer(buffer.toreadonly(), dtype).reshape(header.shape)
    return array if array.flags.aligned else array.copy()


def _name(array: NDArray[Any] | memoryview) -> str:
    if isinstance(array, memoryview):
        if array.format != "B":
            raise BadMessage(f"views of {array.format} do not travel")
        return "uint8"
    name = _names().get(array.dtype.newbyteorder("<") if array.dtype.byteorder == ">" else array.dtype)
    if name is None:
        raise BadMessage(f"arrays of {array.dtype} do not travel")
    return name


@cache
def _names() -> dict[np.dtype[Any], str]:
    import numpy as np

    return {np.dtype(code): name for name, code in _CODES.items() if name != "bfloat16"}


def _copied(array: NDArray[Any] | memoryview, code: str, memory: memoryview | None) -> memoryview:
    """The array in ``memory``, or in some of its own."""
    if isinstance(array, memoryview):
        if memory is None:
            return memoryview(array.tobytes())
        memory[:] = array.cast("B")
        return memory
    import numpy as np

    if memory is None:
        memory = np.empty(array.nbytes, np.uint8).data
    np.copyto(
        np.ndarray(array.shape, code, memory), array
    )  # which leaves the interpreter to others meanwhile
    return memory


def unpack_all(packed: Sequence[ArrayHeader], buffers: Sequence[memoryview]) -> list[NDArray[Any]]:
    """All arrays of a message. Raises `BadMessage` unless each buffer is described exactly once."""
    if sum(header.size for header in packed) > MAX_MESSAGE_BYTES:
        raise BadMessage(f"arrays of more than {MAX_MESSAGE_BYTES} bytes in one message")
    if len(packed) != len(buffers) or {header.buffer for header in packed} != set(range(len(buffers))):
        raise BadMessage(f"{len(packed)} array headers for {len(buffers)} buffers")
    return [unpack(header, buffers) for header in packed]
