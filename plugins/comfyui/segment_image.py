"""The node Sa2VA Image Segmentation: pictures and words in, masks out."""

from __future__ import annotations

import json
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io

from . import model_list, preview
from .clients import client
from .colours import cut_out_image, overlay_image
from .connections import fingerprint, is_connected
from .found_objects import FoundObjects, each_text, gather
from .inputs import (
    OBJECTS,
    lines_of,
    max_objects_input,
    model_input,
    options_input,
    problem_of,
    prompt_input,
    schema,
    threshold_input,
)
from .memory import uses_gpu
from .options import DEFAULT, Options
from .result_cache import Answered, ask_once, size_of
from .tensors import Pictures, no_image, no_mask, to_mask, to_object_batch
from .watch import answering, check_interrupt, remark, watching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sa2va_host.results import Segmentation

_MASKS, _OBJECT_MASKS, _BOXES, _DETAILS = 1, 2, 3, 4
_OBJECT_BATCH, _BOUNDING_BOXES, _OVERLAY, _CUT_OUT = 6, 7, 8, 9
BOUNDING_BOX = getattr(io, "BoundingBox", None) or io.Custom("BOUNDING_BOX")
"""The type that newer versions of ComfyUI have for boxes."""


class Sa2VAImageSegmentation(io.ComfyNode):
    """Each picture of a batch is asked about on its own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Sa2VAImageSegmentation",
            "Sa2VA Image Segmentation",
            "Finds what you describe in pictures: an answer in words, and masks.",
            words=("Sa2VA", "segment", "mask", "SAM2", "prompt", "grounding", "vision language model"),
            inputs=[
                model_input(),
                io.Image.Input("image", tooltip="One picture, or a batch; each is segmented on its own."),
                prompt_input("the person"),
                threshold_input(0.5),
                options_input(),
                max_objects_input(),
            ],
            outputs=[
                io.String.Output("text", display_name="text", tooltip="What the model answered."),
                io.Mask.Output(
                    "masks",
                    display_name="masks",
                    tooltip="One mask for each picture: everything that was found. Made only if it is connected.",
                ),
                io.Mask.Output(
                    "object_masks",
                    display_name="object masks",
                    is_output_list=True,
                    tooltip="A list with one mask batch for each object. Made only if it is connected.",
                ),
                io.BBOX.Output(
                    "boxes",
                    display_name="boxes",
                    tooltip="For each picture a list of [x0, y0, x1, y1] in pixels, one for each object that is in it.",
                ),
                io.String.Output(
                    "details",
                    display_name="details",
                    tooltip="JSON: picture, object, box, score (mean probability inside the mask), area in pixels.",
                ),
                OBJECTS.Output(
                    "probabilities",
                    display_name="probabilities",
                    tooltip="For Sa2VA Masks from Tracks and Sa2VA Refine Edges: another threshold without another"
                    " run.",
                ),
                *_later_outputs(),
            ],
            has_preview=True,
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, model: Any, prompt: Any = None) -> bool | str:
        """Tells before anything runs what `execute` would."""
        return problem_of(model, prompt) or True

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> str:
        return fingerprint(
            *(_MASKS, _OBJECT_MASKS, _BOXES, _DETAILS),
            *(_OBJECT_BATCH, _BOUNDING_BOXES, _OVERLAY, _CUT_OUT),
        )

    @classmethod
    def execute(
        cls,
        model: str,
        image: torch.Tensor,
        prompt: str,
        threshold: float,
        options: Options | None = None,
        max_objects: int = 0,
    ) -> io.NodeOutput:
        pictures = Pictures(image)
        everything, text = segment(model, pictures, prompt, options or DEFAULT)
        objects = limited(everything, max_objects)
        measured = any(map(is_connected, (_BOXES, _DETAILS, _BOUNDING_BOXES)))
        found = list(measure(objects, threshold)) if measured else []
        return io.NodeOutput(
            text,
            union_masks(objects, threshold, connected=is_connected(_MASKS)),
            object_masks(objects, threshold, connected=is_connected(_OBJECT_MASKS)),
            [[each["box"] for each in found if each["picture"] == index] for index in range(len(pictures))],
            json.dumps(found, ensure_ascii=False),
            objects,
            _object_batch(objects, threshold, connected=is_connected(_OBJECT_BATCH)),
            [
                [bounding_box(each) for each in found if each["picture"] == index]
                for index in range(len(pictures))
            ],
            overlay_image(pictures, objects, threshold)
            if is_connected(_OVERLAY)
            else no_image(len(pictures), pictures.size),
            cut_out_image(pictures, objects, threshold)
            if is_connected(_CUT_OUT)
            else no_image(len(pictures), pictures.size, 4),
            ui=preview.show(pictures, objects, threshold, cls),
        )


def segment(model: str, pictures: Pictures, prompt: str, options: Options) -> tuple[FoundObjects, str]:
    """What each line of the prompt finds in each picture, and the answers in words."""
    lines = lines_of(prompt)
    with watching(len(pictures), on_gpu=uses_gpu(options.device or "auto")) as watch:
        name = model_list.ensure(model, options, watch)
        sa = client(name, options)
        watch.model = answering(sa, name)
        answers: list[list[Segmentation]] = [[] for _ in lines]

        def ask(index: int) -> Answered[list[Segmentation]]:
            found = sa.segment_each(
                pictures[index], lines, generation=options.generation, cancellation=watch.cancellation
            )
            notes = [note for answer in found for note in answer.notes]
            return Answered(found, size_of(found), notes, found[0].worker)

        question = ("image", *lines)
        for index in range(len(pictures)):
            check_interrupt()
            content, asking = cache(partial(pictures.digest, index)), partial(ask, index)
            each = ask_once(sa, watch, question, options.generation, content, asking)
            for answer, found in zip(each, answers, strict=True):
                found.append(answer)
            watch.call_done()
        text = watch.answer = "\n".join(each_text(lines, answers))
    return gather(lines, answers), text


def limited(objects: FoundObjects, most: int) -> FoundObjects:
    """The objects that ``max_objects`` keeps. The node says when some were left out."""
    kept = objects.first(most)
    if len(kept) < len(objects):
        remark(f"Of {len(objects)} objects max_objects keeps {len(kept)}, in the order of the answer.")
    return kept


def bounding_box(found: dict[str, Any]) -> dict[str, Any]:
    """What `measure` says of an object, as ComfyUI's BOUNDING_BOX has it."""
    x0, y0, x1, y1 = found["box"]
    return {
        "x": x0,
        "y": y0,
        "width": x1 - x0,
        "height": y1 - y0,
        "label": found["object"],
        "score": found["score"],
    }


def union_masks(objects: FoundObjects, threshold: float, *, connected: bool) -> torch.Tensor:
    """A MASK of all frames: where any object is."""
    if not connected:
        return no_mask(objects.frames, objects.size)
    each = (objects.union(frame, threshold) for frame in range(objects.frames))
    return to_mask(each, objects.frames, objects.size)


def object_masks(objects: FoundObjects, threshold: float, *, connected: bool) -> list[torch.Tensor]:
    """A MASK of all frames for each object."""
    if not connected:
        return [no_mask(objects.frames, objects.size)]
    return [
        to_mask(
            (objects.mask(index, frame, threshold) for frame in range(objects.frames)),
            objects.frames,
            objects.size,
        )
        for index in range(len(objects))
    ]


def measure(objects: FoundObjects, threshold: float) -> Iterator[dict[str, Any]]:
    """Each object in each picture that it is in: box, score and area."""
    from sa2va_host.masks.masks import box, mean_inside

    for frame in range(objects.frames):
        check_interrupt()
        for index, name in enumerate(objects.names):
            mask = objects.mask(index, frame, threshold)
            around = box(mask)
            if around is None:
                continue
            yield {
                "picture": frame,
                "object": name,
                "box": list(around),
                "score": round(mean_inside(objects.probability(index, frame), mask), 4),
                "area": int(mask.sum()),
            }


def _object_batch(objects: FoundObjects, threshold: float, *, connected: bool) -> torch.Tensor:
    count = len(objects) * objects.frames
    if not connected:
        return no_mask(count, objects.size)
    return to_object_batch(
        lambda index, frame: objects.mask(index, frame, threshold), len(objects), objects.frames, objects.size
    )


def _later_outputs() -> list[Any]:
    """They came later than the others, so that links of saved workflows keep their places."""
    return [
        io.Mask.Output(
            "object_mask_batch",
            display_name="object mask batch",
            tooltip="One batch [objects, height, width] of all objects; of several pictures all objects of the first,"
            " then all of the second one. Made only if it is connected.",
        ),
        BOUNDING_BOX.Output(
            "bounding_boxes",
            display_name="bounding boxes",
            tooltip="The same as boxes for ComfyUI's own nodes: for each picture a list of x, y, width, height, label"
            " and score.",
        ),
        io.Image.Output(
            "overlay",
            display_name="overlay",
            tooltip="The pictures with each object outlined in its colour. Made only if it is connected.",
        ),
        io.Image.Output(
            "cut_out",
            display_name="cut-out",
            tooltip="RGBA: what was found, with the rest transparent (alpha 0). Made only if it is connected.",
        ),
    ]
