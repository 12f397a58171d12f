"""What the answer about a picture leaves on disk: masks, overlay, cut-outs, soft mattes, regions, logits.

Called by front ends. Files appear whole or not at all. Objects are made one after the other, and a few are written at a
time.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sa2va_host import media
from sa2va_host.errors import InvalidInput
from sa2va_host.masks import masks, regions
from sa2va_host.masks.refine import refine, to_mask
from sa2va_host.masks.refinement import Refinement
from sa2va_host.plugins import processing

from .names import OBJECT_ENDINGS, PICTURE_ENDINGS, checked_kinds

if TYPE_CHECKING:
    from typing_extensions import Self

    from sa2va_host.masks.masks import Box, Mask, Probability
    from sa2va_host.media import Picture, Source
    from sa2va_host.results import Segmentation

    from .names import Kind

_WRITERS = 4
"""Threads that write; compressing a PNG leaves the interpreter to others."""
_AHEAD = 4
"""Files in work at a time, each of which holds its object's map at full size."""


@dataclass(frozen=True, slots=True)
class FoundObject:
    """One object of a picture, as documents show it."""

    index: int
    mask: str | None
    """The file of its mask; None where masks are not saved."""
    area: int
    """Pixels of its mask."""
    box: Box | None
    """`(x0, y0, x1, y1)` of its mask, ends exclusive; None where it is empty."""
    mean_probability: float
    """How sure the model is: the mean of the (refined) probability over the mask, 0..1; 0 where it is empty."""
    phrase: str
    """The words of a grounded answer that it stands for; empty where the answer does not say."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What `save` found and wrote."""

    objects: tuple[FoundObject, ...]
    files: Mapping[Kind, tuple[Path, ...]]
    """By kind, in the order of `names.KINDS`; a kind of the objects has a file for each, in their order, and one that
    is all 0 where there is no object.
    """


def save(
    result: Segmentation,
    image: Source,
    stem: str | os.PathLike[str],
    kinds: Iterable[str] = ("masks", "overlay"),
    *,
    prompt: str = "",
    threshold: float = 0.5,
    refinement: Refinement | None = None,
    probabilities: NDArray[Any] | None = None,
    skip_empty: bool = False,
    polygon_tolerance: float = 0.0,
) -> Saved:
    """Write what was found in a picture, which is anything that `media.read_image` reads.

    ``stem`` is the path that all names begin with, ``prompt`` is noted in the files that have room for words.
    ``probabilities`` `[objects, height, width]`, 0..1, stand for the result's own (mask processors and combinations
    make such); they are refined like those. Logits are the model's in any case. ``polygon_tolerance`` is that of
    `sa2va_host.masks.regions.polygons`, in pixels.

    Where nothing was found, the kinds that have a file for each object get one for object 0 that is all 0, so that
    who comes after can tell "not there" from "failed"; ``skip_empty`` leaves it out. The files of object 0 are written
    after those of the other objects, and the picture's own after them: who finds them all finds a whole set.

    Raises `InvalidInput` for a picture or probabilities of another size, what `checked_kinds`, `refine` and `polygons`
    raise, and `OSError` as the system does.
    """
    if result.is_video:
        raise TypeError("A video has a mask in each frame: save its frames one by one.")
    picture = media.read_image(image)
    if picture.shape[:2] != result.size:
        raise InvalidInput(
            f"The picture is {picture.shape[1]} x {picture.shape[0]} pixels, but the masks belong to one of"
            f" {result.size[1]} x {result.size[0]}."
        )
    masks.threshold_logit(threshold)
    regions.check_tolerance(polygon_tolerance)
    refinement = refinement or Refinement()
    files: dict[Kind, list[Path]] = {kind: [] for kind in checked_kinds(kinds)}
    objects: list[FoundObject] = []
    drawn: list[Mask] = []
    describe: Mapping[Kind, Callable[[Mask], Any]] = {
        "rle": regions.encode,
        "polygons": partial(regions.polygons, tolerance=polygon_tolerance),
    }
    shapes: dict[Kind, list[Any]] = {kind: [] for kind in describe if kind in files}
    writes = {kind: write for kind, write in _OBJECT_WRITERS.items() if kind in files}
    # Maps that were combined are no longer the answer's objects.
    named = probabilities is None or len(probabilities) == len(result)
    names = result.phrases if named else []
    with _Writers() as writers:
        last: list[tuple[Callable[..., Path], str, Picture, Probability, Mask]] = []
        for index, plain in enumerate(_maps(result, probabilities)):
            probability = refine(plain, refinement, threshold, picture)
            mask = to_mask(probability, refinement, threshold)
            for kind, write in writes.items():
                files[kind].append(Path(f"{stem}.{index}{OBJECT_ENDINGS[kind]}"))
                order = (write, str(files[kind][-1]), picture, probability, mask)
                if index:
                    writers.submit(*order)
                else:
                    last.append(order)
            for kind, found in shapes.items():
                found.append(describe[kind](mask))
            if "overlay" in files:
                drawn.append(mask)
            objects.append(
                FoundObject(
                    index=index,
                    mask=str(files["masks"][index]) if "masks" in files else None,
                    area=int(mask.sum()),
                    box=masks.box(mask),
                    mean_probability=round(masks.mean_inside(probability, mask), 4),
                    phrase=names[index] if named else "",
                )
            )
        if not objects and not skip_empty:
            nothing = np.zeros(result.size, np.float32)
            for kind, write in writes.items():
                files[kind].append(Path(f"{stem}.0{OBJECT_ENDINGS[kind]}"))
                last.append((write, str(files[kind][-1]), picture, nothing, nothing.astype(np.bool_)))
        writers.wait()
        for order in last:
            writers.submit(*order)
    ends = {kind: f"{stem}{ending}" for kind, ending in PICTURE_ENDINGS.items()}
    if "overlay" in files:
        files["overlay"].append(media.write_overlay(ends["overlay"], picture, drawn))
    for kind, found in shapes.items():
        described = [{**asdict(item), kind: shape} for item, shape in zip(objects, found, strict=True)]
        document = {
            "prompt": prompt,
            "text": result.text,
            "size": list(result.size),
            "objects": described,
        }
        files[kind].append(media.write_json(ends[kind], document))
    if "logits" in files:
        files["logits"].append(_write_logits(ends["logits"], result, prompt))
    return Saved(tuple(objects), {kind: tuple(paths) for kind, paths in files.items()})


class _Writers:
    """Threads that write files while the next object's map is made. At most `_AHEAD` files wait, so that no more maps
    than that are held; leaving waits for all of them and raises what the first one that failed did.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_WRITERS, "sa2va-writer")
        self._pending: deque[Future[Path]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._pool.shutdown(wait=True)
        if kind is None:
            self.wait()

    def wait(self) -> None:
        """Until everything so far is written; raises what a writer did."""
        while self._pending:
            self._pending.popleft().result()

    def submit(self, write: Callable[..., Path], *arguments: Any) -> None:
        """Have a file written; waits where too many are in work, and raises what one of those did."""
        self._pending.append(self._pool.submit(write, *arguments))
        if len(self._pending) > _AHEAD:
            self._pending.popleft().result()


def _maps(result: Segmentation, given: NDArray[Any] | None) -> Iterable[Probability]:
    """The map of each object, `[height, width]`, before its refinement."""
    if given is None:
        return (probability for _, probability in result.each_probability())
    return processing.probabilities_of(given, result.size)


def _write_logits(path: str, result: Segmentation, prompt: str) -> Path:
    """The fields of `Segmentation` by their names, and the prompt; `numpy.load` reads them without pickle."""
    return media.write_whole(
        path,
        lambda stream: np.savez_compressed(
            stream,
            logits=result.logits,
            size=np.array(result.size),
            image_size=np.array(result.image_size),
            text=np.array(result.text),
            prompt=np.array(prompt),
        ),
    )


def _write_probability(path: str, probability: Probability) -> Path:
    return media.write_image(path, np.rint(probability * np.float32(65535)).astype(np.uint16))


_OBJECT_WRITERS: Mapping[Kind, Callable[[str, Picture, Probability, Mask], Path]] = {
    "masks": lambda path, _picture, _probability, mask: media.write_mask(path, mask),
    "cutout": lambda path, picture, probability, _mask: media.write_image(
        path, masks.cutout(picture, probability)
    ),
    "probability": lambda path, _picture, probability, _mask: _write_probability(path, probability),
    "exr": lambda path, _picture, probability, _mask: media.write_exr(path, probability),
}
"""Who writes the kinds of `names.OBJECT_ENDINGS`."""
