"""The node Sa2VA Masks from Tracks: another threshold, single objects, post-processing, and no run of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from comfy_api.latest import io

from sa2va_host.masks.refine import combine
from sa2va_host.masks.refinement import LARGEST_RADIUS, Combination, Refinement

from . import preview
from .colours import paint
from .connections import fingerprint, is_connected
from .inputs import OBJECTS, schema, threshold_input
from .tensors import no_mask, to_mask, to_object_batch
from .watch import check_interrupt

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from sa2va_host.media import Picture

    from .found_objects import FoundObjects

_MASKS, _OBJECT_MASKS, _SOFT, _OBJECT_BATCH = 0, 1, 2, 3


class Sa2VAMasksFromTracks(io.ComfyNode):
    """Takes what either segmentation node found."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Sa2VAMasksFromTracks",
            "Sa2VA Masks from Tracks",
            "Makes masks of tracks or probabilities: threshold, objects, clean-up. The model does not run again.",
            words=("threshold", "grow", "shrink", "fill holes", "invert", "track", "probability"),
            inputs=[
                OBJECTS.Input("tracks", tooltip="Tracks or probabilities of a Sa2VA segmentation node."),
                threshold_input(0.5),
                io.String.Input(
                    "objects",
                    default="",
                    tooltip="Which objects: numbers from 1 or names, separated by commas. Empty takes all.",
                ),
                io.Combo.Input(
                    "combine",
                    options=list(get_args(Combination)),
                    default="union",
                    tooltip="How several objects become one mask: where any is, where all are, or the first without"
                    " the others.",
                ),
                io.Int.Input(
                    "grow",
                    default=0,
                    min=-LARGEST_RADIUS,
                    max=LARGEST_RADIUS,
                    tooltip="Pixels by which each object grows; negative shrinks it.",
                ),
                io.Boolean.Input("fill_holes", default=False, tooltip="Close holes inside of objects."),
                io.Int.Input(
                    "smallest_area",
                    default=0,
                    min=0,
                    max=1 << 30,
                    tooltip="Drop parts of an object with fewer pixels.",
                ),
                io.Boolean.Input("invert", default=False, tooltip="Everything but the objects."),
            ],
            outputs=[
                io.Mask.Output(
                    "masks",
                    display_name="masks",
                    tooltip="One mask for each frame, of the objects combined. Made only if it is connected.",
                ),
                io.Mask.Output(
                    "object_masks",
                    display_name="object masks",
                    is_output_list=True,
                    tooltip="A list with one mask batch for each object. Made only if it is connected.",
                ),
                io.Mask.Output(
                    "soft_masks",
                    display_name="soft masks",
                    tooltip="Probabilities 0..1 of the objects combined, not cut at the threshold. Made only if it is"
                    " connected.",
                ),
                io.Mask.Output(
                    "object_mask_batch",
                    display_name="object mask batch",
                    tooltip="One batch of all objects: those of the first frame, then those of the second one. Made"
                    " only if it is connected.",
                ),
            ],
            has_preview=True,
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> str:
        return fingerprint(_MASKS, _OBJECT_MASKS, _SOFT, _OBJECT_BATCH)

    @classmethod
    def execute(
        cls,
        tracks: FoundObjects,
        threshold: float,
        objects: str,
        combine: Combination,
        grow: int,
        fill_holes: bool,
        smallest_area: int,
        invert: bool,
    ) -> io.NodeOutput:
        wanted = Wanted(
            tracks.choose(objects),
            threshold,
            combine,
            Refinement(fill_holes=fill_holes, smallest_area=smallest_area, grow=grow),
            invert,
        )
        return io.NodeOutput(
            wanted.combined() if is_connected(_MASKS) else wanted.nothing(),
            wanted.each_object() if is_connected(_OBJECT_MASKS) else [wanted.nothing()],
            wanted.soft() if is_connected(_SOFT) else wanted.nothing(),
            wanted.object_batch() if is_connected(_OBJECT_BATCH) else wanted.nothing(len(wanted.objects)),
            ui=preview.show_objects([wanted.painted(frame) for frame in preview.spread(tracks.frames)], cls),
        )


@dataclass(frozen=True)
class Wanted:
    """What the node was asked for."""

    objects: FoundObjects
    threshold: float
    combination: Combination
    refinement: Refinement
    invert: bool

    def combined(self) -> torch.Tensor:
        """MASK `[frames, height, width]` of all objects."""
        return self._each_frame(lambda frame: combine(self._masks(frame), self.combination))

    def object_batch(self) -> torch.Tensor:
        """MASK `[frames * objects, height, width]`, as `tensors.to_object_batch` orders them."""
        return to_object_batch(
            lambda index, frame: self._mask(index, frame) ^ self.invert,
            len(self.objects),
            self.objects.frames,
            self.objects.size,
        )

    def painted(self, frame: int) -> Picture:
        """The mask of a frame in the colours of its objects, as `colours.paint` has it."""
        check_interrupt()
        each = self._masks(frame)
        places = [self.objects.place(index) for index in range(len(self.objects))]
        return paint(combine(each, self.combination) ^ self.invert, each, places)

    def each_object(self) -> list[torch.Tensor]:
        """A MASK of all frames for each object."""
        return [self._each_frame(partial(self._mask, index)) for index in range(len(self.objects))]

    def soft(self) -> torch.Tensor:
        """The same as `combined`, with the refined probabilities that it is cut from."""
        return self._each_frame(lambda frame: combine(self._probabilities(frame), self.combination))

    def nothing(self, each: int = 1) -> torch.Tensor:
        """A MASK of so many for each frame, without memory."""
        return no_mask(self.objects.frames * each, self.objects.size)

    def _mask(self, index: int, frame: int) -> NDArray[np.bool_]:
        return self.objects.mask(index, frame, self.threshold, self.refinement)

    def _masks(self, frame: int) -> NDArray[np.bool_]:
        return np.stack([self._mask(index, frame) for index in range(len(self.objects))])

    def _probabilities(self, frame: int) -> NDArray[np.float32]:
        from sa2va_host.masks.refine import refine

        return np.stack(
            [
                refine(self.objects.probability(index, frame), self.refinement, self.threshold)
                for index in range(len(self.objects))
            ]
        )

    def _each_frame(self, make: Callable[[int], NDArray[Any]]) -> torch.Tensor:
        made = (make(frame) for frame in range(self.objects.frames))
        each = (1 - mask.astype(np.float32) for mask in made) if self.invert else made
        return to_mask(each, self.objects.frames, self.objects.size)
