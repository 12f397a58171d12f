"""What the answer about a picture leaves on disk: masks, overlay, cut-outs, soft mattes, regions, logits.

Called by front ends. Files appear whole or not at all. Objects are made one after the other, and a few are written at a
time.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
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
from .names import checked_kinds

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
    """By kind, in the order of `names.KINDS`; a kind of the objects has a file for each, in their order."""


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
    channels: ObjectChannels | None = None,
) -> Saved:
    """Write what was found in a picture, which is anything that `media.read_image` reads.

    ``stem`` is the path that all names begin with, ``prompt`` is noted in the files that have room for words.
    ``probabilities`` `[objects, height, width]`, 0..1, stand for the result's own (mask processors and combinations
    make such); they are refined like those. Logits are the model's in any case.

    ``plate`` is the picture's file, from which cut-outs and OpenEXR files take what 8 bits do not hold; where the
    picture itself is a file's name, it is that file. ``exr_depth`` is that of OpenEXR files, ``decontaminated`` frees
    the soft edges of cut-outs of the background's colour. With ``channels`` the objects of `exr-layers` are added
    there, for a file that holds those of several prompts and that the caller writes.

    Raises `InvalidInput` for a picture or probabilities of another size, what `checked_kinds` and `refine` raise,
    `ConfigError` where a package is missing, and `OSError` as the system does.
    """
    if result.is_video:
        raise TypeError("A video has a mask in each frame: save its frames one by one.")
    picture, plate = _read(image, plate, result.size)
    masks.threshold_logit(threshold)
    refinement = refinement or Refinement()
    files: dict[Kind, list[Path]] = {kind: [] for kind in checked_kinds(kinds)}
    objects: list[FoundObject] = []
    drawn: list[Mask] = []
    shapes: dict[Kind, list[Any]] = {kind: [] for kind in _REGIONS if kind in files}
    # Maps that were combined are no longer the answer's objects.
    named = probabilities is None or len(probabilities) == len(result)
    files_of = _ObjectFiles(files, picture, plate, exr_depth, decontaminated)
    layers = ObjectChannels(exr_depth) if channels is None else channels
    layer_names = object_names([prompt], [len(result) if probabilities is None else len(probabilities)])
    names = result.phrases if named else []
    with _Writers() as writers:
        for index, plain in enumerate(_maps(result, probabilities)):
            probability = refine(plain, refinement, threshold, picture)
            mask = to_mask(probability, refinement, threshold)
            for kind, (ending, write) in files_of.writers.items():
                files[kind].append(Path(f"{stem}.{index}{ending}"))
                writers.submit(write, str(files[kind][-1]), probability, mask)
            if "exr-layers" in files:
                layers.add(layer_names[index], probability)
            for kind, found in shapes.items():
                found.append(_REGIONS[kind](mask))
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
    if "exr-layers" in files:
        if not objects:  # a channel that is missing would be taken for a run that failed
            layers.add(prompt, np.zeros(result.size, np.float32))
        if channels is None:
            files["exr-layers"].append(layers.write(f"{stem}.layers.exr", window=files_of.window))
    if "overlay" in files:
        files["overlay"].append(media.write_overlay(f"{stem}.overlay.png", picture, drawn))
    for kind, found in shapes.items():
        described = [{**asdict(item), kind: shape} for item, shape in zip(objects, found, strict=True)]
        document = {
            "prompt": prompt,
            "text": result.text,
            "size": list(result.size),
            "objects": described,
        }
        files[kind].append(media.write_json(f"{stem}.{kind}.json", document))
    if "logits" in files:
        files["logits"].append(_write_logits(f"{stem}.logits.npz", result, prompt))
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
            for future in self._pending:
                future.result()

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


class _ObjectFiles:
    """The kinds that have a file for each object: what the name ends in, and who writes it."""

    def __init__(
        self,
        kinds: Collection[Kind],
        picture: Picture,
        plate: Plate | None,
        exr_depth: ExrDepth,
        decontaminated: bool,
    ) -> None:
        self.window = plate.window() if plate and {"exr", "exr-layers"} & {*kinds} else Window()
        if decontaminated:
            check_matting()
        self.writers: dict[Kind, tuple[str, Callable[[str, Probability, Mask], Path]]] = {}
        if "masks" in kinds:
            self.writers["masks"] = ".png", lambda path, _probability, mask: media.write_mask(path, mask)
        if "cutout" in kinds:
            cutouts = Cutouts(picture, plate, exr_depth=exr_depth, decontaminated=decontaminated)
            self.writers["cutout"] = (
                f".cutout{cutouts.suffix}",
                lambda path, probability, _mask: cutouts.write(path, probability),
            )
        if "probability" in kinds:
            self.writers["probability"] = (
                ".probability.png",
                lambda path, probability, _mask: _write_probability(path, probability),
            )
        if "exr" in kinds:
            self.writers["exr"] = (
                ".probability.exr",
                lambda path, probability, _mask: exr.write_exr(
                    path, {"Y": probability}, depth=exr_depth, window=self.window
                ),
            )


_REGIONS: Mapping[Kind, Callable[[Mask], Any]] = {"rle": regions.encode, "polygons": regions.polygons}
