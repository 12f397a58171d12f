"""The nodes of alexjx/ComfyUI-Sa2VA-XJ and adambarbato/ComfyUI-Sa2VA by their names, inputs and outputs, on our worker:
their workflows load and run.

Offered only where the user asks for them (`preferences`). Masks are cut from the model's own probabilities, where the
nodes of XJ stretch each mask to its own range before, so the same threshold cuts a little differently.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from sa2va_host.video.key_frames import KeyFrames

from . import segment_image, segment_video
from .inputs import CATEGORY, problem_of, threshold_input
from .model_list import entry, plain
from .options import Options
from .refine_edges import check_vitmatte, vitmatte, vitmatte_inputs
from .tensors import Pictures
from .unload import unload as end_workers

_MODELS = (
    "ByteDance/Sa2VA-Qwen3-VL-4B",
    "ByteDance/Sa2VA-InternVL3-2B",
    "ByteDance/Sa2VA-Qwen2_5-VL-3B",
    "ByteDance/Sa2VA-Qwen2_5-VL-7B",
    "ByteDance/Sa2VA-InternVL3-8B",
    "ByteDance/Sa2VA-InternVL3-14B",
)
_MORPHS = ("none", "opening", "closing", "erode", "dilate")
_FOLLOWING = segment_video.Following(KeyFrames("first", 5))
"""What that pack shows the language model, as upstream does."""


class _OldNode(io.ComfyNode):
    """What the nodes of both packs have in common."""

    @classmethod
    def validate_inputs(cls, model_name: str | None) -> bool | str:
        """Any model is accepted, as in the new nodes."""
        return problem_of(model_name) or True


class XJSa2VAImageSegmentation(_OldNode):
    """One picture; of a batch the first."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "XJSa2VAImageSegmentation",
            "Sa2VA Image Segmentation (XJ)",
            [*_inputs("image", "Please provide segmentation masks for all objects.", 0.5), *_morph_inputs()],
        )

    @classmethod
    def execute(
        cls,
        model_name: str,
        image: torch.Tensor,
        segmentation_prompt: str,
        threshold: float,
        use_8bit: bool,
        use_flash_attn: bool,
        unload: bool,
        morph: str = "none",
        erode_kernel: int = 3,
        dilate_kernel: int = 3,
        iterations: int = 1,
    ) -> io.NodeOutput:
        options = _options(use_8bit, use_flash_attn)
        objects, text = segment_image.segment(
            model_name, Pictures(image[:1]), _one_line(segmentation_prompt), options
        )
        _leave(unload)
        masks = torch.cat(segment_image.object_masks(objects, threshold, connected=True))
        return io.NodeOutput(text, _morphed(masks, morph, erode_kernel, dilate_kernel, iterations))


class XJSa2VAImageSegmentationV2(_OldNode):
    """One picture, with ViTMatte after the threshold's own map."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "XJSa2VAImageSegmentationV2",
            "Sa2VA Image Segmentation V2 (XJ)",
            [
                *_inputs("image", "Please provide segmentation masks for all objects.", 0.5),
                io.Boolean.Input("process_detail", default=True, tooltip="Soft edges by ViTMatte."),
                *vitmatte_inputs("detail_erode", "detail_dilate"),
            ],
        )

    @classmethod
    def execute(
        cls,
        model_name: str,
        image: torch.Tensor,
        segmentation_prompt: str,
        threshold: float,
        use_8bit: bool,
        use_flash_attn: bool,
        unload: bool,
        process_detail: bool = True,
        detail_erode: int = 6,
        detail_dilate: int = 6,
        black_point: float = 0.15,
        white_point: float = 0.99,
        max_megapixels: float = 2.0,
    ) -> io.NodeOutput:
        if process_detail:
            check_vitmatte()
        options = _options(use_8bit, use_flash_attn)
        pictures = Pictures(image[:1])
        objects, text = segment_image.segment(model_name, pictures, _one_line(segmentation_prompt), options)
        if not process_detail:
            _leave(unload)
            return io.NodeOutput(
                text, torch.cat(segment_image.object_masks(objects, threshold, connected=True))
            )
        details = {
            "erode": float(detail_erode),
            "dilate": float(detail_dilate),
            "black_point": black_point,
            "white_point": white_point,
            "max_megapixels": max_megapixels,
        }
        mattes = [
            vitmatte(pictures, iter([objects.probability(index, 0)]), plain(model_name), details, options)
            for index in range(len(objects))
        ]
        _leave(unload)
        return io.NodeOutput(text, (torch.cat(mattes) > threshold).float())


class XJSa2VAVideoSegmentation(_OldNode):
    """A batch of frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "XJSa2VAVideoSegmentation",
            "Sa2VA Video Segmentation (XJ)",
            [
                *_inputs("images", "Please provide segmentation masks for the objects in this video.", 0.7),
                *_morph_inputs(),
            ],
        )

    @classmethod
    def execute(
        cls,
        model_name: str,
        images: torch.Tensor,
        segmentation_prompt: str,
        threshold: float,
        use_8bit: bool,
        use_flash_attn: bool,
        unload: bool,
        morph: str = "none",
        erode_kernel: int = 3,
        dilate_kernel: int = 3,
        iterations: int = 1,
    ) -> io.NodeOutput:
        options = _options(use_8bit, use_flash_attn)
        tracks, text = segment_video.track(
            model_name, Pictures(images), _one_line(segmentation_prompt), _FOLLOWING, options
        )
        _leave(unload)
        masks = segment_image.union_masks(tracks, threshold, connected=True)
        return io.NodeOutput(text, _morphed(masks, morph, erode_kernel, dilate_kernel, iterations))


class Sa2VANodeTpl(_OldNode):
    """One picture; of a batch the first. A mask for each object."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Sa2VANodeTpl",
            display_name="Sa2VA Segmentation (ComfyUI-Sa2VA)",
            category=_CATEGORY,
            description="For workflows made with ComfyUI-Sa2VA. New ones are better off with the nodes of Sa2VA.",
            inputs=[
                _model_input("ByteDance/Sa2VA-Qwen3-VL-4B"),
                io.Image.Input("image", tooltip="What to segment."),
                io.Float.Input(
                    "mask_threshold",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Without effect, as in that pack: a mask is where the model's probability is above 0.5.",
                ),
                io.Boolean.Input(
                    "use_8bit_quantization",
                    default=False,
                    tooltip="8-bit weights, where there is a GPU for them.",
                ),
                io.Boolean.Input(
                    "use_flash_attn", default=True, tooltip="The fastest attention that works here."
                ),
                io.String.Input(
                    "segmentation_prompt",
                    default="Could you please give me a brief description of the image? Please respond with interleaved"
                    " segmentation masks for the corresponding parts of the answer.",
                    multiline=True,
                    tooltip="What to find, in words.",
                ),
            ],
            outputs=[
                io.Custom("LIST").Output(
                    "text_outputs",
                    display_name="text_outputs",
                    tooltip="What the model answered, in a list of one.",
                ),
                io.Mask.Output(
                    "masks", display_name="masks", tooltip="One mask for each object, in a batch."
                ),
                io.Image.Output(
                    "mask_images", display_name="mask_images", tooltip="The masks as images, white on black."
                ),
            ],
            is_deprecated=True,
        )

    @classmethod
    def execute(
        cls,
        model_name: str,
        image: torch.Tensor,
        mask_threshold: float,
        use_8bit_quantization: bool,
        use_flash_attn: bool,
        segmentation_prompt: str,
    ) -> io.NodeOutput:
        del mask_threshold  # workflows hold 1.0 there, and worked
        pictures = Pictures(image if image.ndim == 3 else image[:1])
        objects, text = segment_image.segment(
            model_name,
            pictures,
            _one_line(segmentation_prompt),
            _options(use_8bit_quantization, use_flash_attn),
        )
        masks = torch.cat(segment_image.object_masks(objects, 0.5, connected=True))
        return io.NodeOutput([text], masks, masks.unsqueeze(-1).repeat(1, 1, 1, 3))


NODES: list[type[io.ComfyNode]] = [
    XJSa2VAImageSegmentation,
    XJSa2VAVideoSegmentation,
    XJSa2VAImageSegmentationV2,
    Sa2VANodeTpl,
]
_CATEGORY = f"{CATEGORY}/old names"


def _schema(node_id: str, display_name: str, inputs: list[Any]) -> io.Schema:
    return io.Schema(
        node_id=node_id,
        display_name=display_name,
        category=_CATEGORY,
        description="For workflows made with ComfyUI-Sa2VA-XJ. New ones are better off with the nodes of Sa2VA.",
        inputs=inputs,
        outputs=[
            io.String.Output("text_output", display_name="text_output", tooltip="What the model answered."),
            io.Mask.Output("masks", display_name="masks", tooltip="The masks."),
        ],
        is_deprecated=True,
    )


def _model_input(default: str) -> Any:
    """The checkpoints of those packs, and for what is not here an entry that fetches it: never the default."""
    return io.Combo.Input(
        "model_name",
        options=list(dict.fromkeys([*_MODELS, *map(entry, _MODELS)])),
        default=default,
        tooltip="The checkpoint. An entry marked 'download' is fetched when the node runs; others never are.",
    )


def _inputs(image: str, prompt: str, threshold: float) -> list[Any]:
    """In the order of that pack, which is how workflows store their values."""
    return [
        _model_input(_MODELS[0]),
        io.Image.Input(image, tooltip="What to segment."),
        io.String.Input(
            "segmentation_prompt", default=prompt, multiline=True, tooltip="What to find, in words."
        ),
        threshold_input(threshold),
        io.Boolean.Input("use_8bit", default=True, tooltip="8-bit weights, where there is a GPU for them."),
        io.Boolean.Input("use_flash_attn", default=True, tooltip="The fastest attention that works here."),
        io.Boolean.Input("unload", default=True, tooltip="End the worker afterwards."),
    ]


def _morph_inputs() -> list[Any]:
    return [
        io.Combo.Input("morph", options=list(_MORPHS), default="none", tooltip="What is done to the mask."),
        io.Int.Input(
            "erode_kernel", default=3, min=1, max=50, step=2, tooltip="Diameter of the erosion, in pixels."
        ),
        io.Int.Input(
            "dilate_kernel", default=3, min=1, max=50, step=2, tooltip="Diameter of the dilation, in pixels."
        ),
        io.Int.Input("iterations", default=1, min=1, max=10, tooltip="How often."),
    ]


def _options(use_8bit: bool, use_flash_attn: bool) -> Options:
    """8 bit needs a CUDA device, and was ignored without one; attention is chosen by what works either way."""
    del use_flash_attn
    import comfy.model_management

    on_cuda = comfy.model_management.get_torch_device().type == "cuda"
    return replace(Options(), quantization="8bit" if use_8bit and on_cuda else None)


def _one_line(prompt: str) -> str:
    """That pack's prompt is one sentence, however it is wrapped."""
    return " ".join(prompt.split())


def _leave(unload: bool) -> None:
    if unload:
        end_workers(force=False)


def _morphed(
    masks: torch.Tensor, morph: str, erode_kernel: int, dilate_kernel: int, iterations: int
) -> torch.Tensor:
    """The MASK after that pack's morphology: ellipses of odd diameters, in its order. Raises `ConfigError` where
    OpenCV is missing.
    """
    if morph == "none":
        return masks
    from sa2va_host.extras import check_opencv

    check_opencv(f"The input morph ({morph})")
    import cv2

    erode = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (erode_kernel | 1, erode_kernel | 1))
    dilate = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (dilate_kernel | 1, dilate_kernel | 1))
    steps = {
        "opening": [(cv2.MORPH_ERODE, erode), (cv2.MORPH_DILATE, dilate)],
        "closing": [(cv2.MORPH_DILATE, dilate), (cv2.MORPH_ERODE, erode)],
        "erode": [(cv2.MORPH_ERODE, erode)],
        "dilate": [(cv2.MORPH_DILATE, dilate)],
    }[morph]
    result = masks.numpy()
    for _ in range(iterations):
        for operation, kernel in steps:
            result = np.stack([cv2.morphologyEx(mask, operation, kernel) for mask in result])
    return torch.from_numpy(result)
