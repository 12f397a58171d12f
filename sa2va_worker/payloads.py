"""The arrays beside a message, as what they must be. What they are not fails the call that they came with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sa2va_host.errors import InvalidInput
from sa2va_host.protocol import arrays
from sa2va_host.protocol.shared_memory import Borrowed
from sa2va_host.protocol.wire import Message


def arrays_of(
    message: Message, buffers: list[memoryview], borrowed: Borrowed | None
) -> list[NDArray[np.generic]]:
    """Every array of a message in order, read-only, from its frames and from memory that its client shares. Raises
    `BadMessage`.
    """
    headers = arrays.headers(message)
    return arrays.unpack_all(headers, buffers if borrowed is None else borrowed.resolve(headers, buffers))


def pictures_of(found: list[NDArray[np.generic]]) -> list[NDArray[np.uint8]]:
    """The arrays as pictures, or `InvalidInput`."""
    pictures: list[NDArray[np.uint8]] = []
    for array in found:
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
            raise InvalidInput(
                f"a picture is uint8 [height, width, 3], not {array.dtype} {list(array.shape)}"
            )
        pictures.append(array.view(np.uint8))
    return pictures


def check_positions(positions: Sequence[int], pictures: int) -> None:
    """Raises `InvalidInput` unless each key frame has a place of its own. Tracking goes forwards: one is the first."""
    ascending = all(before < after for before, after in pairwise(positions))
    if len(positions) != pictures or positions[0] != 0 or not ascending:
        raise InvalidInput(
            f"{pictures} key frames have {len(positions)} places, which must ascend from 0: {positions}"
        )


def regions_of(
    found: list[NDArray[np.generic]], pictures: list[NDArray[np.uint8]]
) -> list[NDArray[np.bool_]]:
    """The arrays as masks in the one picture, or `InvalidInput`."""
    if found and len(pictures) != 1:
        raise InvalidInput(f"regions in {len(pictures)} pictures: they are parts of exactly one")
    for array in found:
        if array.dtype != np.bool_ or array.shape != pictures[0].shape[:2]:
            raise InvalidInput(
                f"a region is bool {list(pictures[0].shape[:2])}, not {array.dtype} {list(array.shape)}"
            )
    return [array.view(np.bool_) for array in found]


def probabilities_of(found: NDArray[np.generic], size: tuple[int, ...]) -> NDArray[np.float32]:
    """The array as probabilities of a picture of this size, or `InvalidInput`."""
    if found.dtype != np.float32 or found.ndim != 3 or found.shape[1:] != size:
        raise InvalidInput(
            f"probabilities are float32 [objects, {', '.join(map(str, size))}], not {found.dtype} {list(found.shape)}"
        )
    return found.view(np.float32)
