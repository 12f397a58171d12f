"""The node Sa2VA Video Segmentation: frames and words in, tracks out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from comfy_api.latest import io

from sa2va_host.protocol.limits import MAX_BUFFERS, ConditionOn
from sa2va_host.results import Segmentation
from sa2va_host.video.key_frames import KeyFrames, pick

from . import model_list
from .clients import client
from .connections import fingerprint, is_connected
from .found_objects import FoundObjects, each_text, gather
from .inputs import (
    OBJECTS,
    UNCONNECTED,
    lines_of,
    max_objects_input,
    model_input,
    one_of,
    options_input,
    problem_of,
    prompt_input,
    schema,
    threshold_input,
)
from .memory import uses_gpu
from .options import DEFAULT, Options
from .result_cache import Answered, ask_once, size_of
from .segment_image import limited, union_masks
from .tensors import no_image
from .video_frames import VideoFrames, content_of, frames_of
from .video_preview import LivePreview, Look, overlay_image, overlay_video, show
from .watch import Watch, answering, watching

if TYPE_CHECKING:
    from sa2va_host import Sa2VA
    from sa2va_host.generation import Generation
    from sa2va_host.video.stream import WhichFrames
    from sa2va_host.video.tracked_frame import TrackedFrame
    from sa2va_host.video.tracks import Track

    from .tensors import Pictures

FIRST, UNIFORM = "first", "uniform"
NEVER, EVERY, CUTS = "never", "every", "cuts"
_MASKS, _OVERLAY, _OVERLAY_VIDEO = 1, 3, 4


@dataclass(frozen=True)
class Following:
    """What `sa2va_host.video.tracks.Track` is told of a video."""

    key_frames: KeyFrames
    condition_on: ConditionOn = "vectors"
    ask_again: str = NEVER


class Sa2VAVideoSegmentation(io.ComfyNode):
    """The model sees a few key frames; what it marks there is followed through all."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Sa2VAVideoSegmentation",
            "Sa2VA Video Segmentation",
            "Finds what you describe in a video and follows it through all frames.",
            words=("Sa2VA", "segment", "mask", "track", "SAM2", "video", "rotoscope", "key frames", "cuts"),
            inputs=[
                model_input(),
                prompt_input("the person"),
                threshold_input(0.7),
                io.Int.Input(
                    "key_frames",
                    default=5,
                    min=1,
                    max=MAX_BUFFERS,
                    tooltip="How many frames the language model looks at. What you describe must be visible in one of"
                    " them.",
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
                *_following_inputs(),
                *_preview_inputs(),
                max_objects_input(),
            ],
            outputs=[
                io.String.Output(
                    "text",
                    display_name="text",
                    tooltip="What the model answered; where it was asked again, each answer once.",
                ),
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
                io.Image.Output(
                    "overlay",
                    display_name="overlay",
                    tooltip="All frames with each object in its colour. Takes memory as every IMAGE of a video does;"
                    " overlay video does not. Made only if it is connected.",
                ),
                io.Video.Output(
                    "overlay_video",
                    display_name="overlay video",
                    tooltip="The same as a VIDEO without sound, for Save Video. Made only if it is connected.",
                ),
            ],
            has_preview=True,
        )

    @classmethod
    def validate_inputs(
        cls,
        model: Any,
        prompt: Any = None,
        frames: Any = UNCONNECTED,
        video: Any = UNCONNECTED,
        key_frame_sampling: Any = FIRST,
        ask_again: Any = NEVER,
    ) -> bool | str:
        """Tells before anything is decoded what `execute` would. A link is None: nothing is known of it yet."""
        if key_frame_sampling == UNIFORM and ask_again not in (None, NEVER):
            return "A model that is asked again sees the first frames of each part: set key_frame_sampling to first."
        return problem_of(model, prompt) or one_of(frames=frames, video=video) or True

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> str:
        return fingerprint(_MASKS, _OVERLAY, _OVERLAY_VIDEO)

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
        key_frame_sampling: Any = FIRST,
        condition_on: ConditionOn = "vectors",
        ask_again: str = NEVER,
        ask_again_every: int = 100,
        preview_opacity: float = 0.4,
        preview_fps: float = 0.0,
        max_objects: int = 0,
    ) -> io.NodeOutput:
        following = Following(
            KeyFrames(key_frame_sampling, key_frames),
            condition_on,
            f"{EVERY}:{ask_again_every}" if ask_again == EVERY else ask_again,
        )
        look = Look(threshold, preview_opacity, preview_fps, max_objects)
        source = frames_of(frames, video)
        everything, text = track(model, source, prompt, following, options or DEFAULT, LivePreview(look))
        tracks = limited(everything, max_objects)
        return io.NodeOutput(
            text,
            union_masks(tracks, threshold, connected=is_connected(_MASKS)),
            tracks,
            overlay_image(source, tracks, look)
            if is_connected(_OVERLAY)
            else no_image(tracks.frames, tracks.size),
            overlay_video(source, tracks, look) if is_connected(_OVERLAY_VIDEO) else None,
            ui=show(source, tracks, look),
        )


def track(
    model: str,
    frames: Pictures | VideoFrames,
    prompt: str,
    following: Following,
    options: Options,
    preview: LivePreview | None = None,
) -> tuple[FoundObjects, str]:
    """What each line of the prompt finds and follows, and the answers in words. No frame of a file is kept."""
    lines = lines_of(prompt)
    seen = preview or LivePreview()
    with watching(on_gpu=uses_gpu(options.device or "auto")) as watch:
        name = model_list.ensure(model, options, watch)
        sa = client(name, options)
        watch.model = answering(sa, name)
        question = ("video", following, *lines)
        ask = partial(_follow, sa, watch, frames, lines, following, options.generation, seen)
        tracks, watch.answer = ask_once(sa, watch, question, options.generation, content_of(frames), ask)
        return tracks, watch.answer


def _follow(
    sa: Sa2VA,
    watch: Watch,
    frames: Pictures | VideoFrames,
    lines: list[str],
    following: Following,
    generation: Generation,
    seen: LivePreview,
) -> Answered[tuple[FoundObjects, str]]:
    key_frames, count = _key_frames(frames, following.key_frames)
    with sa.track(
        seen.reading(frames),
        lines,
        key_frames,
        frame_count=count,
        condition_on=following.condition_on,
        ask_again=following.ask_again,
        generation=generation,
        cancellation=watch.cancellation,
    ) as running:
        tracked = list(seen.tracking(running, count))
        together = _together(tracked) if tracked else _nothing(running, frames)
        notes, worker = running.notes, running.worker
    said = tracked[0].answers if tracked else running.answers
    ends = accumulate(each.objects for each in said)
    answers = [
        [
            replace(
                together,
                text="\n".join(dict.fromkeys(frame.answers[index].text for frame in tracked)) or each.text,
                logits=together.logits[end - each.objects : end],
            )
        ]
        for index, (each, end) in enumerate(zip(said, ends, strict=True))
    ]
    tracks, text = gather(lines, answers), "\n".join(each_text(lines, answers))
    return Answered((tracks, text), size_of([tracks.answer]) + len(text.encode()), notes, worker)


def _following_inputs() -> list[Any]:
    """They came later than the others: workflows that do not have them mean the first of each list."""
    return [
        io.Combo.Input(
            "key_frame_sampling",
            options=[FIRST, UNIFORM],
            default=FIRST,
            optional=True,
            tooltip="Which key frames: the first ones, or as many spread evenly over the whole video, for what shows"
            " up late. Uniform decodes a video twice more.",
        ),
        io.Combo.Input(
            "condition_on",
            options=list(get_args(ConditionOn)),
            default="vectors",
            optional=True,
            tooltip="What the tracker is told of the key frames: the model's vectors, as Sa2VA does, or the masks that"
            " these give there, as Sa2VA-i does.",
        ),
        io.Combo.Input(
            "ask_again",
            options=[NEVER, EVERY, CUTS],
            default=NEVER,
            optional=True,
            tooltip="For videos with cuts or things that come and go: ask the model anew every so many frames, or at"
            " each cut that is seen. Each line of the prompt is one object then.",
        ),
        io.Int.Input(
            "ask_again_every",
            default=100,
            min=1,
            max=1_000_000,
            optional=True,
            tooltip="For ask_again 'every': after how many frames.",
        ),
    ]


def _preview_inputs() -> list[Any]:
    """They came later still."""
    return [
        io.Float.Input(
            "preview_opacity",
            default=0.4,
            min=0.0,
            max=1.0,
            step=0.05,
            optional=True,
            tooltip="How strongly its colour fills an object in the preview and in the overlays; 0 leaves an outline.",
        ),
        io.Float.Input(
            "preview_fps",
            default=0.0,
            min=0.0,
            max=240.0,
            step=1.0,
            optional=True,
            tooltip="Frames a second of the preview and of overlay video; 0 takes the video's own (24 for frames)."
            " The preview has at most 240 frames of 512 pixels, spread over the whole video.",
        ),
    ]


def _key_frames(frames: Pictures | VideoFrames, wanted: KeyFrames) -> tuple[WhichFrames, int | None]:
    """What `Sa2VA.track` is told of the key frames, and how many frames it may expect."""
    words = f"{wanted.kind}:{wanted.count}"
    if not isinstance(frames, VideoFrames):
        return words, len(frames)
    if wanted.kind == FIRST:
        return words, frames.promised
    count = frames.count()
    return pick(frames, wanted.positions(count)), count


def _together(tracked: Sequence[TrackedFrame]) -> Segmentation:
    """All frames as one answer."""
    first = tracked[0]
    logits = np.stack([frame.logits for frame in tracked], axis=1)
    return Segmentation(first.text, logits, first.size, first.image_size, is_video=True)


def _nothing(running: Track, frames: Pictures | VideoFrames) -> Segmentation:
    """No object in each of the frames, of which not all were read."""
    found = running.collect()
    count = frames.count() if isinstance(frames, VideoFrames) else len(frames)
    return replace(found, logits=np.zeros((0, count, *found.logits.shape[2:]), np.float32))
