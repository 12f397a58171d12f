"""What can be saved of a picture, and what its files are called. Known before NumPy and the model are.

Called by front ends, and by `saving`, which writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from sa2va_host.errors import InvalidInput

Kind: TypeAlias = Literal[
    "masks", "overlay", "cutout", "probability", "exr", "exr-layers", "rle", "polygons", "logits"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What can be saved. For object N of STEM:

- `masks`: STEM.N.png, 8-bit grey, 255 inside; where nothing is found STEM.0.png is all 0, and so are the next three
- `cutout`: STEM.N.cutout.png or .exr, RGBA, the object alone with the probability as its alpha
(`sa2va_host.output.cutouts`)
- `probability`: STEM.N.probability.png, 16-bit grey, 65535 for 1
- `exr`: STEM.N.probability.exr, the same in the channel Y, half or float

and for the picture:

- `overlay`: STEM.overlay.png
- `exr-layers`: STEM.layers.exr, a channel for each object (`sa2va_host.output.exr_layers`)
- `rle`, `polygons`: STEM.rle.json, STEM.polygons.json, the forms of `sa2va_host.masks.regions`
- `logits`: STEM.logits.npz, all that the masks are made of
"""
OBJECT_ENDINGS: Mapping[Kind, tuple[str, ...]] = {
    "masks": (".png",),
    "cutout": (".cutout.png", ".cutout.exr"),
    "probability": (".probability.png",),
    "exr": (".probability.exr",),
}
"""The kinds that have a file for each object, and what may follow STEM.N in its name."""
PICTURE_ENDINGS: Mapping[Kind, str] = {
    "overlay": ".overlay.png",
    "exr-layers": ".layers.exr",
    "rle": ".rle.json",
    "polygons": ".polygons.json",
    "logits": ".logits.npz",
}
"""The kinds that have one file for each image, and what follows STEM in its name."""
_OTHER_SPELLINGS: Mapping[str, str] = {"matte": "probability"}
"""Names that a kind had in earlier versions."""


def checked_kinds(kinds: Iterable[str]) -> tuple[Kind, ...]:
    """The kinds in the order of `KINDS`, each once, such as of ``"masks,overlay".split(",")``.

    Raises `InvalidInput` for an unknown one and `ConfigError` where the library that `exr` or `polygons` needs is
    missing, so that it can be asked before the model is.
    """
    wanted = spelled(kinds)
    for unknown in sorted(wanted - set(KINDS)):
        raise InvalidInput(
            f"There is nothing to save of the kind {unknown!r}.", advice=f"Use {', '.join(KINDS)}."
        )
    if wanted & {"exr", "exr-layers"}:
        from sa2va_host.extras import check_exr

        check_exr()
    if "polygons" in wanted:
        from sa2va_host.extras import check_opencv

        check_opencv("Saving polygons", tried=False)
    return tuple(kind for kind in KINDS if kind in wanted)


def spelled(kinds: Iterable[str]) -> set[str]:
    """The kinds by the names that they have here: without spaces, and `probability` for `matte`."""
    return {_OTHER_SPELLINGS.get(kind.strip(), kind.strip()) for kind in kinds}


def distinct_stems(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """A name for each file's outputs in one folder: its name without the ending, numbered where that is taken.

    `a/x.png, b/x.jpg, x-2.png` become `x, x-3, x-2`: a file whose own name nobody else has keeps it. Names that differ
    in case alone count as one, as they do on macOS and Windows.
    """
    plain = [Path(path).stem for path in paths]
    reserved = {stem.casefold() for stem in plain}
    used: set[str] = set()
    stems = []
    for stem in plain:
        name, number = stem, 1
        while name.casefold() in (used if number == 1 else reserved):
            number += 1
            name = f"{stem}-{number}"
        used.add(name.casefold())
        reserved.add(name.casefold())
        stems.append(name)
    return stems
