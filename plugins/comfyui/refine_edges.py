"""The node Sa2VA Refine Edges: soft edges, hair and glass, by the guided filter here or by ViTMatte in the worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from comfy_api.latest import io

from sa2va_host.errors import InvalidInput, ModelNotFound, Sa2VAError

from . import download, model_list, preview
from .clients import client, latest_model
from .connections import fingerprint, is_connected
from .inputs import OBJECTS, UNCONNECTED, one_of, options_input, schema
from .memory import uses_gpu
from .options import DEFAULT, Options
from .tensors import Pictures, no_mask, to_mask, to_probabilities
from .watch import watching

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .found_objects import FoundObjects

GUIDED, VITMATTE = "guided filter", "ViTMatte"
WEIGHTS, WEIGHTS_SIZE = "hustvl/vitmatte-small-composition-1k", "103 MB"
"""What ViTMatte is on the hub: 25.8 million parameters in float32."""
_MASKS = 0


class Sa2VARefineEdges(io.ComfyNode):
    """Takes a MASK of anybody's, or tracks and probabilities, which know more than a mask."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Sa2VARefineEdges",
            "Sa2VA Refine Edges",
            "Makes edges follow the picture: soft mattes for hair, fur and glass.",
            words=("matting", "alpha", "trimap", "guided filter", "ViTMatte", "hair", "detail"),
            inputs=[
                io.Image.Input("image", tooltip="The pictures or frames that the masks belong to."),
                io.Combo.Input(
                    "method",
                    options=[GUIDED, vitmatte_choice()],
                    default=GUIDED,
                    tooltip="The guided filter is fast and needs no model. ViTMatte is a matting model in the worker;"
                    " marked 'download', its weights are fetched into the Hugging Face cache when the node runs.",
                ),
                io.Int.Input(
                    "radius",
                    default=8,
                    min=1,
                    max=256,
                    tooltip="Guided filter: how far from the edge, in pixels, the picture is followed.",
                ),
                *vitmatte_inputs("erode", "dilate"),
                io.Mask.Input("mask", optional=True, tooltip="Any mask. Connect this or tracks."),
                OBJECTS.Input(
                    "tracks", optional=True, tooltip="Of a Sa2VA segmentation node. Connect this or mask."
                ),
                options_input(),
            ],
            outputs=[
                io.Mask.Output(
                    "masks",
                    display_name="masks",
                    tooltip="Soft masks 0..1, one for each picture or frame. Where it is not connected, only those"
                    " of the preview are made.",
                )
            ],
            has_preview=True,
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls, method: str = GUIDED, mask: Any = UNCONNECTED, tracks: Any = UNCONNECTED
    ) -> bool | str:
        """Tells before anything runs what `execute` would. ViTMatte is accepted with and without its mark, which
        depends on where a workflow was saved.
        """
        if model_list.plain(method) not in (GUIDED, VITMATTE):
            return f"There is no method {method!r}: choose {GUIDED!r} or {vitmatte_choice()!r}."
        return one_of(mask=mask, tracks=tracks) or True

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> str:
        return fingerprint(_MASKS)

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        method: str,
        radius: int,
        erode: int,
        dilate: int,
        black_point: float,
        white_point: float,
        max_megapixels: float,
        mask: torch.Tensor | None = None,
        tracks: FoundObjects | None = None,
        options: Options | None = None,
    ) -> io.NodeOutput:
        whole = Pictures(image)
        map_of = _maps(mask, tracks, whole)
        connected = is_connected(_MASKS)
        places = range(len(whole)) if connected else preview.spread(len(whole))
        pictures = whole if connected else whole.choose(places)
        maps = (map_of(place) for place in places)
        if method == GUIDED:
            refined = to_mask(_guided(pictures, maps, radius), len(pictures), pictures.size)
        else:
            details = {
                "erode": float(erode),
                "dilate": float(dilate),
                "black_point": black_point,
                "white_point": white_point,
                "max_megapixels": max_megapixels,
            }
            chosen = options or DEFAULT
            refined = vitmatte(pictures, maps, latest_model(), details, chosen, fetches=method != VITMATTE)
        masks = refined if connected else no_mask(len(whole), whole.size)
        return io.NodeOutput(masks, ui=preview.show_masks(refined, cls))


def vitmatte_choice() -> str:
    """The entry of ViTMatte, marked where its weights are to be fetched. Never raises: the node is to be drawn."""
    try:
        return VITMATTE if model_list.is_here(WEIGHTS) else model_list.marked(VITMATTE, WEIGHTS_SIZE)
    except (Sa2VAError, OSError):
        return VITMATTE


def check_vitmatte() -> None:
    """Raises `ModelNotFound` where ViTMatte's weights are not on this machine, with what fetches them."""
    from sa2va_host.models.checkpoints import pull_command

    if model_list.is_here(WEIGHTS):
        return
    raise ModelNotFound(
        f"ViTMatte's weights, {WEIGHTS}, are not on this machine.",
        advice=f"Choose {vitmatte_choice()!r} as the method of Sa2VA Refine Edges, which fetches them. Or outside of"
        f" ComfyUI: `{pull_command(WEIGHTS)}`.",
    )


def vitmatte_inputs(erode: str, dilate: str) -> list[Any]:
    """ViTMatte's options, with the names that the first two have on this node."""
    return [
        io.Int.Input(
            erode, default=6, min=1, max=255, tooltip="ViTMatte: how far inside the edge it is uncertain."
        ),
        io.Int.Input(
            dilate, default=6, min=1, max=255, tooltip="ViTMatte: how far outside the edge it is uncertain."
        ),
        io.Float.Input(
            "black_point",
            default=0.15,
            min=0.01,
            max=0.98,
            step=0.01,
            display_mode=io.NumberDisplay.slider,
            tooltip="ViTMatte: below it the mask becomes 0, which removes grey halos.",
        ),
        io.Float.Input(
            "white_point",
            default=0.99,
            min=0.02,
            max=0.99,
            step=0.01,
            display_mode=io.NumberDisplay.slider,
            tooltip="ViTMatte: above it the mask becomes 1.",
        ),
        io.Float.Input(
            "max_megapixels",
            default=2.0,
            min=0.5,
            max=10.0,
            step=0.5,
            tooltip="ViTMatte: larger pictures are shrunk for it. Higher is finer and takes more memory.",
        ),
    ]


def vitmatte(
    pictures: Pictures,
    maps: Iterator[NDArray[np.float32]],
    model: str,
    details: dict[str, float],
    options: Options,
    *,
    fetches: bool = False,
) -> torch.Tensor:
    """A MASK of what ViTMatte makes of probabilities `[height, width]`, one for each picture.

    ``fetches``: whether the user chose to have its weights fetched, where they are not here. Raises `ModelNotFound`.
    """
    with watching(len(pictures), on_gpu=uses_gpu(options.device or "auto")) as watch:
        sa = client(model, options)
        if fetches and not model_list.is_here(WEIGHTS):
            download.fetch(WEIGHTS, "", watch)

        def frames() -> Iterator[NDArray[np.float32]]:
            for picture, values in zip(pictures, maps, strict=True):
                yield sa.process(picture, values[None], "vitmatte", details, cancellation=watch.cancellation)[
                    0
                ]
                watch.call_done()

        try:
            return to_mask(frames(), len(pictures), pictures.size)
        except ModelNotFound:
            check_vitmatte()
            raise


def _guided(
    pictures: Pictures, maps: Iterator[NDArray[np.float32]], radius: int
) -> Iterator[NDArray[np.float32]]:
    from sa2va_host.masks.refine import refine
    from sa2va_host.masks.refinement import Refinement

    for picture, values in zip(pictures, maps, strict=True):
        yield refine(values, Refinement(guide_radius=radius), 0.5, picture)


def _maps(
    mask: torch.Tensor | None, tracks: FoundObjects | None, pictures: Pictures
) -> Callable[[int], NDArray[np.float32]]:
    """Gives a picture's probabilities `[height, width]` by its place. Raises `InvalidInput` where they do not fit."""
    if (mask is None) == (tracks is None):
        both = "Both a mask and tracks are" if tracks is not None else "Neither a mask nor tracks are"
        raise InvalidInput(f"{both} connected.", advice="Connect one of them.")
    if tracks is not None:
        _check(tracks.frames, tracks.size, pictures)
        return partial(_union, tracks)
    assert mask is not None
    values = to_probabilities(mask)
    if len(values) == 1:
        values = np.broadcast_to(values, (len(pictures), *values.shape[1:]))
    _check(len(values), values.shape[1:], pictures)
    return values.__getitem__


def _union(tracks: FoundObjects, frame: int) -> NDArray[np.float32]:
    maps = [tracks.probability(index, frame) for index in range(len(tracks))]
    return np.asarray(np.maximum.reduce(maps), np.float32)


def _check(count: int, size: tuple[int, ...], pictures: Pictures) -> None:
    if (count, *size) != (len(pictures), *pictures.size):
        raise InvalidInput(
            f"There are {count} masks of {size[1]} x {size[0]} pixels for {len(pictures)} pictures of"
            f" {pictures.size[1]} x {pictures.size[0]}.",
            advice="Connect the pictures that the masks were made of.",
        )
