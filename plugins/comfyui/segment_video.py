"""The node Sa2VA Video Segmentation: frames and words in, tracks out."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io

from . import model_list
from .clients import client
from .connections import fingerprint, is_connected
from .found_objects import FoundObjects, each_text, gather
from .inputs import CATEGORY, OBJECTS, lines_of, model_input, options_input, prompt_input, threshold_input
from .memory import uses_gpu
from .options import DEFAULT, Options
from .tensors import no_mask, to_mask
from .video_frames import frames_of
from .watch import check_interrupt, watching

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sa2va_host.masks.masks import Mask
    from sa2va_host.media import Picture

_MASKS = 1


class Sa2VAVideoSegmentation(io.ComfyNode):
    """The model sees a few key frames; what it marks there is followed through all."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Sa2VAVideoSegmentation",
            display_name="Sa2VA Video Segmentation",
            category=CATEGORY,
            description="Finds what you describe in a video and follows it through all frames."
            " Search words: segment, mask, track, SAM2, video, rotoscope.",
            inputs=[
                model_input(),
                prompt_input("the person"),
                threshold_input(0.7),
                io.Int.Input(
                    "key_frames",
                    default=5,
                    min=1,
                    max=64,
                    tooltip="How many frames, from the first on, the language model looks at. What you describe must"
                    " be visible in one of them.",
                ),
                io.Image.Input(
                    "frames", optional=True, tooltip="The frames as a batch. Connect this or video."
                ),
                io.Video.Input(
                    "video",
                    optional=True,
                    tooltip="The video, decoded frame by frame: long ones fit into memory. Connect this or frames.",
                ),
                options_input(),
            ],
            outputs=[
                io.String.Output("text", display_name="text", tooltip="What the model answered."),
                io.Mask.Output(
                    "masks",
                    display_name="masks",
                    tooltip="One mask for each frame: everything that is followed. Made only if it is connected.",
                ),
                OBJECTS.Output(
                    "tracks",
                    display_name="tracks",
                    tooltip="For Sa2VA Masks from Tracks and Sa2VA Refine Edges: single objects, another threshold.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, model: str) -> bool | str:
        """Any model is accepted, as in Sa2VA Image Segmentation."""
        return bool(model) or "Choose a model."

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> str:
        return fingerprint(_MASKS)

    @classmethod
    def execute(
        cls,
        model: str,
        prompt: str,
        threshold: float,
        key_frames: int,
        frames: torch.Tensor | None = None,
        video: Any = None,
        options: Options | None = None,
    ) -> io.NodeOutput:
        tracks, text = track(model, frames_of(frames, video), prompt, key_frames, options or DEFAULT)
        masks = (
            to_mask(each_union(tracks, threshold), tracks.frames, tracks.size)
            if is_connected(_MASKS)
            else no_mask(tracks.frames, tracks.size)
        )
        return io.NodeOutput(text, masks, tracks)


def track(
    model: str, frames: Iterable[Picture], prompt: str, key_frames: int, options: Options
) -> tuple[FoundObjects, str]:
    """What each line of the prompt finds and follows, and the answers in words. Frames are read once."""
    lines = lines_of(prompt)
    with watching(on_gpu=uses_gpu(options.device or "auto")) as watch:
        sa = client(model_list.ensure(model, watch), options)
        with sa.track(
            frames,
            lines,
            f"first:{key_frames}",
            generation=options.generation,
            cancellation=watch.cancellation,
        ) as running:
            together = running.collect()
        ends = accumulate(said.objects for said in running.answers)
        answers = [
            [replace(together, text=said.text, logits=together.logits[end - said.objects : end])]
            for said, end in zip(running.answers, ends, strict=True)
        ]
    return gather(lines, answers), "\n".join(each_text(lines, answers))


def each_union(tracks: FoundObjects, threshold: float) -> Iterator[Mask]:
    """Where any object is, frame by frame; an interrupt ends it."""
    for frame in range(tracks.frames):
        check_interrupt()
        yield tracks.union(frame, threshold)
