"""Pictures as InternVL sees them: square tiles of one size, cut after upstream's recipe.

One picture becomes a grid of tiles, whose shape is the nearest to its own, and a thumbnail of the whole where the grid
has more than one tile; of several pictures (a video's key frames) each becomes one tile. Each tile is resized by PIL's
bicubic filter, aspect not kept, and normalised with ImageNet's mean and deviation, which upstream leaves unrounded here
(SAM2's are rounded: `sam2.PIXEL_MEAN`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers.utils.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from sa2va_host.errors import InvalidInput


@dataclass(frozen=True)
class Tiles:
    """Pictures cut into tiles, and the regions of interest in the last of them."""

    values: Tensor
    """float32 `[tiles, 3, side, side]`, normalised."""
    counts: tuple[int, ...]
    """How many tiles each picture has."""
    image_token: int
    """The token that keeps a place in the prompt for each of their tokens."""
    regions: Tensor | None = None
    """bool `[regions, cells, cells]`: which language model tokens of the last tile each region covers."""


def grid(height: int, width: int, least: int, most: int, side: int) -> tuple[int, int]:
    """(columns, rows) of the grid of `least` to `most` tiles whose aspect ratio is nearest the picture's.

    Of grids with the same ratio the larger one is taken where the picture has more than half its pixels
    (InternVL's `find_closest_aspect_ratio`).
    """
    ratio = width / height
    sizes = range(1, most + 1)
    grids = sorted(
        ((columns, rows) for columns in sizes for rows in sizes if least <= columns * rows <= most),
        key=lambda each: each[0] * each[1],
    )
    nearest = min(abs(ratio - columns / rows) for columns, rows in grids)
    chosen, *larger = [each for each in grids if abs(ratio - each[0] / each[1]) == nearest]
    for columns, rows in larger:
        if height * width > 0.5 * side**2 * columns * rows:
            chosen = (columns, rows)
    return chosen


def cut(picture: NDArray[np.uint8], columns: int, rows: int, side: int) -> NDArray[np.uint8]:
    """uint8 `[height, width, 3]` -> `[columns * rows, side, side, 3]`, row by row."""
    resized = Image.fromarray(picture).resize((columns * side, rows * side), Image.Resampling.BICUBIC)
    tiles = np.asarray(resized).reshape(rows, side, columns, side, 3)
    return tiles.swapaxes(1, 2).reshape(-1, side, side, 3)


class Tiler:
    """Cuts pictures for one checkpoint's vision tower."""

    def __init__(
        self, image_token: int, side: int, cells: int, least: int, most: int, thumbnail: bool
    ) -> None:
        """`side` is a tile's in pixels, `cells` the same in language model tokens; a grid has `least` to `most` tiles,
        and where it has several, `thumbnail` adds one.
        """
        self._image_token = image_token
        self._side, self._cells = side, cells
        self._least, self._most = least, most
        self._thumbnail = thumbnail

    @property
    def tokens(self) -> int:
        """How many language model tokens a tile becomes."""
        return self._cells**2

    def __call__(
        self, pictures: Sequence[NDArray[np.uint8]], regions: Sequence[NDArray[np.bool_]] = ()
    ) -> Tiles:
        """`pictures` uint8 `[height, width, 3]` each; `regions` bool `[height, width]` each, in the one picture.

        Raises `InvalidInput` for regions of several pictures, of another size, or too small to be seen.
        """
        seen = self._regions(pictures, regions) if regions else None
        cuts = [self._single(pictures[0])] if len(pictures) == 1 else [self._whole(each) for each in pictures]
        values = torch.from_numpy(np.concatenate(cuts)).permute(0, 3, 1, 2).to(torch.float32) / 255.0
        mean, std = (
            torch.tensor(colour).view(3, 1, 1) for colour in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        )
        return Tiles(
            (values - mean) / std,
            tuple(len(tiles) for tiles in cuts),
            self._image_token,
            seen,
        )

    def _whole(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return cut(picture, 1, 1, self._side)

    def _single(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width, _ = picture.shape
        columns, rows = grid(height, width, self._least, self._most, self._side)
        tiles = cut(picture, columns, rows, self._side)
        if self._thumbnail and len(tiles) > 1:
            return np.concatenate([tiles, self._whole(picture)])
        return tiles

    def _regions(self, pictures: Sequence[NDArray[np.uint8]], regions: Sequence[NDArray[np.bool_]]) -> Tensor:
        if len(pictures) != 1:
            raise InvalidInput(
                f"regions belong to one picture, and {len(pictures)} were given.",
                advice="Ask about one picture at a time.",
            )
        height, width = pictures[0].shape[:2]
        for number, region in enumerate(regions, 1):
            if region.shape != (height, width):
                raise InvalidInput(
                    f"region {number} has shape {region.shape}, and the picture is {height} x {width}.",
                    advice="Give a mask [height, width] of the picture's size.",
                )
        masks = torch.from_numpy(np.stack(regions).astype(np.float32)).unsqueeze(0)
        seen = F.interpolate(masks, size=(self._cells, self._cells), mode="nearest")[0].bool()
        for number, cells in enumerate(seen, 1):
            if not cells.any():
                raise InvalidInput(
                    f"region {number} is too small to be seen: it covers none of the {self._cells} x {self._cells} "
                    "points that the model looks at.",
                    advice="Mark a larger region, or crop the picture around it.",
                )
        return seen
