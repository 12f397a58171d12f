"""ComfyUI's tensors to the host's arrays and back. An IMAGE is float32 `[batch, height, width, channels]`, 0..1, on any
device; a MASK float32 `[batch, height, width]`, 0..1.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sa2va_host import resizing
from sa2va_host.errors import InvalidInput

from .watch import check_interrupt

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sa2va_host.media import Picture


_HASHING = 4
"""Threads at most that read images for their digests: memory is not faster for more."""


class Pictures(Sequence["Picture"]):
    """The pictures of an IMAGE, each converted when it is asked for: uint8 RGB `[height, width, 3]`.

    Values outside 0..1, which resampling leaves, are cut off; transparent parts are shown on white. Raises
    `InvalidInput` for what is no IMAGE.
    """

    def __init__(self, images: torch.Tensor) -> None:
        batch = images.unsqueeze(0) if images.ndim == 3 else images
        if batch.ndim != 4 or 0 in batch.shape or batch.shape[3] not in (1, 3, 4):
            raise InvalidInput(
                f"The image has shape {list(images.shape)}.",
                advice="Connect an IMAGE: [batch, height, width, 3], with at least one picture in it.",
            )
        self._batch = batch
        self.size: tuple[int, int] = (int(batch.shape[1]), int(batch.shape[2]))
        """(height, width)."""

    def __len__(self) -> int:
        return int(self._batch.shape[0])

    def choose(self, places: Sequence[int]) -> Pictures:
        """Those at these places."""
        return Pictures(self._batch[list(places)])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return _to_picture(self._values(index))

    def digest(self, index: int) -> bytes:
        """Names the content of the one at this place (20 bytes): the same for the same values and shape."""
        values = self._values(index).contiguous()
        # The fastest hash of hashlib: CPUs have instructions for it. Nobody gains from a collision here.
        digest = hashlib.sha1(repr(tuple(values.shape)).encode(), usedforsecurity=False)
        digest.update(values.numpy().data)
        return digest.digest()

    def digests(self) -> tuple[bytes, ...]:
        """The same of all. An interrupt ends it between two."""

        def digest(index: int) -> bytes:
            check_interrupt()
            return self.digest(index)

        with ThreadPoolExecutor(min(_HASHING, len(self), os.cpu_count() or 1)) as threads:
            return tuple(threads.map(digest, range(len(self))))

    def shrunk(self, index: int, longest: int) -> Picture:
        """The one at this place, at most so many pixels long: each the mean of those that it stands for."""
        return _to_picture(torch.from_numpy(shrink(self._values(index).numpy(), longest)))

    def cut_out(self, index: int, mask: torch.Tensor) -> torch.Tensor:
        """float32 RGBA `[height, width, 4]`, 0..1, of the one at this place under a MASK `[height, width]`.

        Alpha is the mask, times the picture's own alpha where it has one; colours are 0 where alpha is.
        """
        values = torch.nan_to_num(self._values(index)).clamp(0.0, 1.0)
        own = values[..., 3] if values.shape[2] == 4 else 1.0
        alpha = mask * own
        colours = values[..., :3].expand(*self.size, 3) * (alpha > 0)[..., None]
        return torch.cat((colours, alpha[..., None]), dim=2)

    def _values(self, index: int) -> torch.Tensor:
        return self._batch[index].detach().to("cpu", torch.float32)


def shrink(values: NDArray[Any], longest: int) -> NDArray[Any]:
    """`[height, width]` or `[height, width, channels]`, at most so many pixels long."""
    height, width = values.shape[:2]
    if max(height, width) <= longest:
        return values
    return resizing.shrink(values, resizing.longest_side(height, width, longest))


def to_image(pictures: Sequence[Picture]) -> torch.Tensor:
    """Pictures of one size as an IMAGE."""
    return torch.from_numpy(np.stack(pictures)).float() / 255.0


def to_mask(frames: Iterator[NDArray[Any]], count: int, size: tuple[int, int]) -> torch.Tensor:
    """Masks or probabilities `[height, width]`, one for each of ``count`` frames, as a MASK.

    They are taken one after the other into memory that is there already, so that a long video is held once. An
    interrupt ends it between two.
    """
    result = torch.empty((count, *size), dtype=torch.float32)
    for target, frame in zip(result, frames, strict=True):
        check_interrupt()
        target.copy_(torch.from_numpy(frame))
    return result


def to_object_batch(
    make: Callable[[int, int], NDArray[Any]], objects: int, frames: int, size: tuple[int, int]
) -> torch.Tensor:
    """A MASK `[frames * objects, height, width]`: all objects of the first frame, then all of the second one.

    ``make`` gives a mask by object and frame.
    """
    each = (make(index, frame) for frame in range(frames) for index in range(objects))
    return to_mask(each, frames * objects, size)


def fill_image(frames: Iterator[NDArray[Any]], shape: tuple[int, int, int, int]) -> torch.Tensor:
    """Pictures uint8 `[height, width, channels]`, one after the other as in `to_mask`, as an IMAGE of this shape."""
    result = torch.empty(shape, dtype=torch.float32)
    for target, frame in zip(result, frames, strict=True):
        check_interrupt()
        torch.div(torch.from_numpy(np.ascontiguousarray(frame)), 255.0, out=target)
    return result


def no_image(count: int, size: tuple[int, int], channels: int = 3) -> torch.Tensor:
    """A black IMAGE that takes no memory, as `no_mask`."""
    return torch.zeros(1).expand(count, *size, channels)


def no_mask(count: int, size: tuple[int, int]) -> torch.Tensor:
    """An empty MASK that takes no memory, whatever its size: for outputs that nobody uses."""
    return torch.zeros(1).expand(count, *size)


def to_probabilities(mask: torch.Tensor) -> NDArray[np.float32]:
    """A MASK as float32 `[batch, height, width]`, 0..1. Raises `InvalidInput` for what is none."""
    batch = mask.unsqueeze(0) if mask.ndim == 2 else mask
    if batch.ndim != 3 or 0 in batch.shape:
        raise InvalidInput(
            f"The mask has shape {list(mask.shape)}.", advice="Connect a MASK: [batch, height, width]."
        )
    values = torch.nan_to_num(batch.detach().to("cpu", torch.float32)).clamp(0.0, 1.0)
    return np.ascontiguousarray(values.numpy())


def _to_picture(values: torch.Tensor) -> Picture:
    from sa2va_host.media import read_image

    low, high = torch.aminmax(values)  # NaN if any is
    if not (low >= 0 and high <= 1):
        values = torch.nan_to_num(values).clamp_(0.0, 1.0)
    return read_image(values.numpy())
