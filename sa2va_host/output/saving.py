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

from sa2va_host import exr, media
from sa2va_host.errors import InvalidInput
from sa2va_host.exr import ExrDepth
from sa2va_host.extras import check_matting
from sa2va_host.light import Window
from sa2va_host.masks import masks, regions
from sa2va_host.masks.refine import refine, to_mask
from sa2va_host.masks.refinement import Refinement
from sa2va_host.plate import Plate
from sa2va_host.plugins import processing

from .cutouts import Cutouts
from .exr_layers import ObjectChannels
from .layers import object_names
from .names import PICTURE_ENDINGS, checked_kinds

if TYPE_CHECKING:
    from typing_extensions import Self

    from sa2va_host.masks.masks import Box, Mask, Probability
    from sa2va_host.media import Picture, Source
    from sa2va_host.results import Segmentation

    from .layers import object_names
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
    plate: Plate | None = None,
    exr_depth: ExrDepth = "half",
    decontaminated: bool = False,
    name: str = "",
    channels: ObjectChannels | None = None,
    skip_empty: bool = False,
    polygon_tolerance: float = 0.0,
) -> Saved:
    """Write what was found in a picture, which is anything that `media.read_image` reads.

    ``stem`` is the path that all names begin with, ``prompt`` is noted in the files that have room for words.
    ``probabilities`` `[objects, height, width]`, 0..1, stand for the result's own (mask processors and combinations
    make such); they are refined like those. Logits are the model's in any case. ``polygon_tolerance`` is that of
    `sa2va_host.masks.regions.polygons`, in pixels.

    ``plate`` is the picture's file, from which cut-outs and OpenEXR files take what 8 bits do not hold; where the
    picture itself is a file's name, it is that file. ``exr_depth`` is that of OpenEXR files, ``decontaminated`` frees
    the soft edges of cut-outs of the background's colour. The objects of `exr-layers` are called ``name``, or after the
    prompt; with ``channels`` they are added there, for a file that holds those of several prompts and that the caller
    writes.

    Where nothing was found, the kinds that have a file for each object get one for object 0 that is all 0, so that
    who comes after can tell "not there" from "failed"; ``skip_empty`` leaves it out. The files of object 0 are written
    after those of the other objects, and the picture's own after them: who finds them all finds a whole set.

    Raises `InvalidInput` for a picture or probabilities of another size, what `checked_kinds`, `refine` and `polygons`
    raise, `ConfigError` where a package is missing, and `OSError` as the system does.
    """
    if result.is_video:
        raise TypeError("A video has a mask in each frame: save its frames one by one.")
    picture, plate = _read(image, plate, result.size)
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
    # Maps that were combined are no longer the answer's objects.
    named = probabilities is None or len(probabilities) == len(result)
    files_of = _ObjectFiles(stem, files, picture, plate, exr_depth, decontaminated)
    layers = ObjectChannels(exr_depth) if channels is None else channels
    layer_names = object_names(
        [name or prompt], [len(result) if probabilities is None else len(probabilities)]
    )
    names = result.phrases if named else []
    with files_of:
        for index, plain in enumerate(_maps(result, probabilities)):
            probability = refine(plain, refinement, threshold, picture)
            mask = to_mask(probability, refinement, threshold)
            files_of.add(index, probability, mask)
            if "exr-layers" in files:
                layers.add(layer_names[index], probability)
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
            files_of.add(0, np.zeros(result.size, np.float32), np.zeros(result.size, np.bool_))
    ends = {kind: f"{stem}{ending}" for kind, ending in PICTURE_ENDINGS.items()}
    if "exr-layers" in files:
        if not objects:  # a channel that is missing would be taken for a run that failed
            layers.add(name or prompt, np.zeros(result.size, np.float32))
        if channels is None:
            files["exr-layers"].append(layers.write(ends["exr-layers"], window=files_of.window))
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


def _read(image: Source, plate: Plate | None, size: tuple[int, int]) -> tuple[Picture, Plate | None]:
    """The picture, and its file where there is one."""
    is_file = isinstance(image, (str, os.PathLike))
    if is_file and plate is None:
        plate = Plate(Path(image))  # type: ignore[arg-type]
    picture = media.read_image(image, layer=plate.layer if is_file and plate else None)
    if picture.shape[:2] != size:
        raise InvalidInput(
            f"The picture is {picture.shape[1]} x {picture.shape[0]} pixels, but the masks belong to one of"
            f" {size[1]} x {size[0]}."
        )
    return picture, plate


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


class _ObjectFiles:
    """The kinds that have a file for each object, written on threads while the next object's map is made: a context
    manager.

    At most `_AHEAD` files wait, so that no more maps than that are held. Leaving writes the files of object 0, once all
    others are there; what the first writer that failed did is raised.
    """

    def __init__(
        self,
        stem: str | os.PathLike[str],
        files: dict[Kind, list[Path]],
        picture: Picture,
        plate: Plate | None,
        exr_depth: ExrDepth,
        decontaminated: bool,
    ) -> None:
        """``files`` has the kinds, and gets the paths."""
        kinds = set(files)
        self.window = plate.window() if plate and {"exr", "exr-layers"} & kinds else Window()
        if decontaminated:
            check_matting()
        self._stem = os.fspath(stem)
        self._files = files
        self._pool = ThreadPoolExecutor(_WRITERS, "sa2va-writer")
        self._pending: deque[Future[Path]] = deque()
        self._first: list[tuple[Callable[..., Path], str, Probability, Mask]] = []
        self._kinds: dict[Kind, tuple[str, Callable[[str, Probability, Mask], Path]]] = {}
        """What names end in, and who writes them."""
        if "masks" in kinds:
            self._kinds["masks"] = ".png", lambda path, _probability, mask: media.write_mask(path, mask)
        if "cutout" in kinds:
            cutouts = Cutouts(picture, plate, exr_depth=exr_depth, decontaminated=decontaminated)
            self._kinds["cutout"] = (
                f".cutout{cutouts.suffix}",
                lambda path, probability, _mask: cutouts.write(path, probability),
            )
        if "probability" in kinds:
            self._kinds["probability"] = (
                ".probability.png",
                lambda path, probability, _mask: _write_probability(path, probability),
            )
        if "exr" in kinds:
            self._kinds["exr"] = (
                ".probability.exr",
                lambda path, probability, _mask: exr.write_exr(
                    path, {"Y": probability}, depth=exr_depth, window=self.window
                ),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._settle(0)
                for order in self._first:
                    self._submit(order)
                self._settle(0)
        finally:
            self._pool.shutdown(wait=True)

    def add(self, index: int, probability: Probability, mask: Mask) -> None:
        """Have the files of an object written; waits where too many are in work."""
        for kind, (ending, write) in self._kinds.items():
            path = Path(f"{self._stem}.{index}{ending}")
            self._files[kind].append(path)
            order = (write, str(path), probability, mask)
            if index:
                self._submit(order)
            else:
                self._first.append(order)

    def _submit(self, order: tuple[Callable[..., Path], str, Probability, Mask]) -> None:
        self._pending.append(self._pool.submit(order[0], *order[1:]))
        self._settle(_AHEAD)

    def _settle(self, left: int) -> None:
        while len(self._pending) > left:
            self._pending.popleft().result()
