"""The node Sa2VA Chat: a question about pictures, a video or nothing, and an answer in words."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io, ui

from sa2va_host.video.key_frames import pick

from . import model_list
from .clients import client
from .inputs import model_input, options_input, problem_of, schema
from .memory import uses_gpu
from .options import DEFAULT, Options
from .result_cache import Answered, ask_once
from .tensors import Pictures
from .video_frames import VideoFrames, content_of, frames_of
from .watch import answering, watching

if TYPE_CHECKING:
    from sa2va_host.media import Picture


class Sa2VAChat(io.ComfyNode):
    """One question, one answer. Sampling is set in Model Options."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Sa2VAChat",
            "Sa2VA Chat",
            "Answers a question about pictures or a video, or without either.",
            words=("caption", "describe", "VQA", "question", "vision language model", "LLM"),
            inputs=[
                model_input(),
                io.String.Input(
                    "prompt",
                    default="Describe the picture.",
                    multiline=True,
                    tooltip="The question, in words. With several pictures it is about all of them.",
                ),
                io.Image.Input("image", optional=True, tooltip="One picture, or a batch of up to 64."),
                io.Video.Input(
                    "video", optional=True, tooltip="A video, of which some frames are shown to the model."
                ),
                io.Int.Input(
                    "video_frames",
                    default=5,
                    min=1,
                    max=64,
                    tooltip="How many frames of the video are shown, spread evenly.",
                ),
                options_input(),
            ],
            outputs=[io.String.Output("text", display_name="text", tooltip="The answer.")],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, model: Any, prompt: Any = None) -> bool | str:
        """As in Sa2VA Image Segmentation."""
        return problem_of(model, prompt, by_line=False) or True

    @classmethod
    def execute(
        cls,
        model: str,
        prompt: str,
        video_frames: int,
        image: torch.Tensor | None = None,
        video: Any = None,
        options: Options | None = None,
    ) -> io.NodeOutput:
        chosen = options or DEFAULT
        whole = None if image is None else Pictures(image)
        frames = None if video is None else frames_of(None, video)
        each_content = [content_of(each) for each in (whole, frames) if each is not None]

        def content() -> Hashable | None:
            parts = tuple(each() for each in each_content)
            # Words that are drawn at random are wanted anew each time.
            return None if None in parts or chosen.generation.do_sample else parts

        with watching(on_gpu=uses_gpu(chosen.device or "auto")) as watch:
            name = model_list.ensure(model, chosen, watch)
            sa = client(name, chosen)
            watch.model = answering(sa, name)

            def ask() -> Answered[str]:
                pictures: list[Any] = list(whole or ())
                if frames is not None:
                    pictures += spread(frames, video_frames)
                answer = sa.chat(
                    prompt, pictures, generation=chosen.generation, cancellation=watch.cancellation
                )
                return Answered(answer.text, len(answer.text.encode()), answer.notes, answer.worker)

            question = ("chat", prompt, video_frames if frames is not None else 0)
            text = watch.answer = ask_once(sa, watch, question, chosen.generation, content, ask)
        shown = "\n\n".join([text, watch.summary(), *watch.notes])
        return io.NodeOutput(text, ui=ui.PreviewText(shown))


def spread(frames: Pictures | VideoFrames, count: int) -> list[Picture]:
    """So many frames, the first one and then evenly; all of a video that has no more. Decodes twice, holds few."""
    total = frames.count() if isinstance(frames, VideoFrames) else len(frames)
    places = sorted({total * place // count for place in range(count)})
    return list(pick(frames, places).values())
