"""Which of our nodes take the place of other packs' where those packs are not installed, told to ComfyUI.

Newer versions of ComfyUI offer such a replacement when a workflow is opened, and apply it to prompts over the API. The
nodes of `legacy` have the other packs' own names, so they come before a replacement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api import latest
from comfy_api.latest import io

from .segment_image import Sa2VAImageSegmentation
from .segment_video import Sa2VAVideoSegmentation

if TYPE_CHECKING:
    from collections.abc import Iterator

_EACH_OBJECT = ("object_masks_batch", "object_mask_batch", "object_batch", "masks")
"""The outputs of Image Segmentation with a mask for each object in one batch, best first; `masks` has all in one."""


async def register() -> None:
    """Tell ComfyUI, where it asks for such things."""
    api = latest.ComfyAPI() if hasattr(latest, "ComfyAPI") else None
    registry = getattr(api, "node_replacement", None)
    if registry is None or not hasattr(io, "NodeReplace"):
        return
    for said in replacements():
        await registry.register(io.NodeReplace(**said))


def replacements() -> Iterator[dict[str, Any]]:
    """The arguments of each `NodeReplace`.

    What the other node has besides (morphology, ViTMatte, 8 bit, unloading) has nodes of its own here and is not taken
    over.
    """
    text, masks = _output(Sa2VAImageSegmentation, "text"), _output(Sa2VAImageSegmentation, *_EACH_OBJECT)
    of_image = [{"old_idx": 0, "new_idx": text}, {"old_idx": 1, "new_idx": masks}]
    widgets = ["model_name", "segmentation_prompt", "threshold", "use_8bit", "use_flash_attn", "unload"]
    names = {"model": "model_name", "prompt": "segmentation_prompt", "threshold": "threshold"}
    morphs = ["morph", "erode_kernel", "dilate_kernel", "iterations"]
    details = [
        "process_detail",
        "detail_erode",
        "detail_dilate",
        "black_point",
        "white_point",
        "max_megapixels",
    ]
    for name, more in (("XJSa2VAImageSegmentation", morphs), ("XJSa2VAImageSegmentationV2", details)):
        yield {
            "old_node_id": name,
            "new_node_id": "Sa2VAImageSegmentation",
            "old_widget_ids": [*widgets, *more],
            "input_mapping": _renamed(image="image", **names),
            "output_mapping": of_image,
        }
    yield {
        "old_node_id": "XJSa2VAVideoSegmentation",
        "new_node_id": "Sa2VAVideoSegmentation",
        "old_widget_ids": [*widgets, *morphs],
        "input_mapping": _renamed(frames="images", **names),
        "output_mapping": [
            {"old_idx": 0, "new_idx": _output(Sa2VAVideoSegmentation, "text")},
            {"old_idx": 1, "new_idx": _output(Sa2VAVideoSegmentation, "masks")},
        ],
    }
    yield {
        "old_node_id": "Sa2VANodeTpl",
        "new_node_id": "Sa2VAImageSegmentation",
        "old_widget_ids": [
            "model_name",
            "mask_threshold",
            "use_8bit_quantization",
            "use_flash_attn",
            "segmentation_prompt",
        ],
        # That pack's threshold did nothing: its masks are cut at 0.5.
        "input_mapping": [
            *_renamed(model="model_name", image="image", prompt="segmentation_prompt"),
            {"new_id": "threshold", "set_value": 0.5},
        ],
        "output_mapping": of_image,
    }


def _renamed(**names: str) -> list[dict[str, Any]]:
    return [{"new_id": new, "old_id": old} for new, old in names.items()]


def _output(node: type[Any], *wanted: str) -> int:
    """The place of the first of these outputs that the node has."""
    ids = [each.id for each in node.define_schema().outputs]
    return next(ids.index(each) for each in wanted if each in ids)
