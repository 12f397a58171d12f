"""Workflows: files as the browser saves them, turned into what the server's API takes, and small ones of our own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.model_options import UNCHANGED

FOLDER = Path(__file__).resolve().parents[2] / "example_workflows"
PICTURE = FOLDER / "pictures" / "triangles.jpg"
LOSSLESS = "triangles.png"
"""The same pixels in the server's inputs, which versions of ComfyUI do not decode alike from a JPEG."""
PROMPT = "the red square and the blue triangle"
MODEL = "sa2va-tiny"
MARKUP = "<img src=x onerror=\"window.hacked='yes'\">"
"""What a page that takes text for HTML would run."""
_WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3")
_DRAWN_ONLY = ("MarkdownNote", "Note")
LATER = {
    *("key_frame_sampling", "condition_on", "ask_again", "ask_again_every"),
    *("preview_opacity", "preview_fps", "max_objects"),
    *("top_k", "min_p", "repetition_penalty", "revision", "trust_remote_code"),
}
"""Inputs of our nodes that workflows saved with an earlier version do not have."""


def examples() -> list[Path]:
    """Every example workflow."""
    return sorted(FOLDER.glob("*.json"))


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    """A node in API form; a link is `[id, output]`."""
    return {"class_type": kind, "inputs": inputs}


def graph(amount: int = 1, prompt: str = PROMPT, *, save: bool = False, **more: Any) -> dict[str, Any]:
    """`amount` pictures through Image Segmentation, node 3; ``more`` are inputs of its."""
    asked = {"model": MODEL, "image": ["2", 0], "prompt": prompt, "threshold": 0.5} | more
    nodes = {
        "1": node("LoadImage", image=LOSSLESS),
        "2": node("RepeatImageBatch", image=["1", 0], amount=amount),
        "3": node("Sa2VAImageSegmentation", **asked),
        # Newer versions of ComfyUI run nothing that leads to no output node, and ours is none there.
        "text": node("PreviewAny", source=["3", 0]),
    }
    if save:
        nodes["4"] = node("MaskToImage", mask=["3", 2])
        nodes["5"] = node("SaveImage", images=["4", 0], filename_prefix="mask")
    return nodes


def long_call(frames: int) -> dict[str, Any]:
    """A single call that takes a while: so many frames, which no other test has asked about, through Video
    Segmentation, node 3.
    """
    nodes = graph(amount=frames)
    asked = {"model": MODEL, "prompt": PROMPT, "threshold": 0.5, "key_frames": 5}
    nodes["3"] = node("Sa2VAVideoSegmentation", frames=["2", 0], **asked)
    nodes["4"] = node("MaskPreview", mask=["3", 1])
    return nodes


def options(**changed: Any) -> dict[str, Any]:
    """A node Model Options in API form, as it stands there first."""
    return node("Sa2VAModelOptions", **UNCHANGED | changed)


def as_saved_before(file: Path) -> dict[str, Any]:
    """A workflow file as it was saved before our nodes had the inputs that came later."""
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for each in content["nodes"]:
        later = [slot for slot in each["inputs"] if slot["name"] in LATER]
        if later:
            each["inputs"] = [slot for slot in each["inputs"] if slot not in later]
            each["widgets_values"] = each["widgets_values"][: -len(later)]
    return content


def to_prompt(file: Path, nodes: Mapping[str, Any]) -> dict[str, Any]:
    """A workflow file in API form. ``nodes`` is the server's `/object_info`."""
    graph = json.loads(file.read_text(encoding="utf-8"))
    links = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    return {
        str(node["id"]): {
            "class_type": node["type"],
            "inputs": dict(_values(node, nodes[node["type"]])) | dict(_linked(node, links)),
        }
        for node in graph["nodes"]
        if node["type"] not in _DRAWN_ONLY
    }


def _values(node: Mapping[str, Any], about: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What stands in the node's widgets; some have a second value, which is the browser's own. Those that came after
    the workflow was saved keep their default, as in the browser.
    """
    values = iter(node["widgets_values"])
    for specification in about["input"].values():
        for name, (kind, *more) in specification.items():
            if not (isinstance(kind, list) or kind in _WIDGETS):
                continue
            options = more[0] if more else {}
            saved = next(values, options.get("default"))
            if saved is not None:
                yield name, saved
            if {"control_after_generate", "image_upload", "video_upload"} & {
                key for key, value in options.items() if value
            }:
                next(values, None)


def _linked(node: Mapping[str, Any], links: Mapping[int, list[Any]]) -> Iterator[tuple[str, Any]]:
    yield from ((each["name"], links[each["link"]]) for each in node["inputs"] if each["link"] is not None)
