"""The node Sa2VA Image Segmentation: pictures and words in, masks out."""

from __future__ import annotations

import json
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io

from . import model_list, preview
from .clients import client
from .connections import fingerprint, is_connected
from .found_objects import FoundObjects, each_text, gather
from .inputs import OBJECTS, lines_of, model_input, options_input, prompt_input, schema, threshold_input
from .memory import uses_gpu
from .options import DEFAULT, Options
from .result_cache import Answered, ask_once, size_of
from .tensors import Pictures, no_mask, to_mask
from .watch import answering, check_interrupt, watching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sa2va_host.results import Segmentation

_MASKS, _OBJECT_MASKS, _BOXES, _DETAILS = 1, 2, 3, 4


class Sa2VAImageSegmentation(io.ComfyNode):
    """Each picture of a batch is asked about on its own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Sa2VAImageSegmentation",
            "Sa2VA Image Segmentation",
            "Finds what you describe in pictures: an answer in words, and masks.",
            words=("segment", "mask", "SAM2", "prompt", "grounding", "vision language model"),
            inputs=[
                model_input(),
                io.Image.Input("image", tooltip="One picture, or a batch; each is segmented on its own."),
                prompt_input("the person"),
                threshold_input(0.5),
                options_input(),
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
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, model: str) -> bool | str:
        """Any model is accepted: what is missing is told when it is looked for, with the command that fetches it."""
        return bool(model) or "Choose a model."

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> str:
        return fingerprint(_MASKS, _OBJECT_MASKS, _BOXES, _DETAILS)

    @classmethod
    def execute(
        cls,
        model: str,
        image: torch.Tensor,
        prompt: str,
        threshold: float,
        options: Options | None = None,
    ) -> io.NodeOutput:
        pictures = Pictures(image)
        objects, text = segment(model, pictures, prompt, options or DEFAULT)
        found = list(measure(objects, threshold)) if is_connected(_BOXES) or is_connected(_DETAILS) else []
        return io.NodeOutput(
            text,
            union_masks(objects, threshold, connected=is_connected(_MASKS)),
            object_masks(objects, threshold, connected=is_connected(_OBJECT_MASKS)),
            [[each["box"] for each in found if each["picture"] == index] for index in range(len(pictures))],
            json.dumps(found, ensure_ascii=False),
            objects,
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
