"""Workflow files as the browser saves them, turned into what the server's API takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "example_workflows"
_WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
_DRAWN_ONLY = ("MarkdownNote", "Note")


def examples() -> list[Path]:
    """Every example workflow."""
    return sorted(FOLDER.glob("*.json"))


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
    """What stands in the node's widgets; some have a second value, which is the browser's own. Those that came after the
    workflow was saved keep their default, as in the browser.
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
