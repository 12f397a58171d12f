"""The V3 schema, reduced to what is declared: types, inputs, outputs, nodes, previews."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from comfy_api.video import VideoFromFile


class Slot:
    io_type = ""

    def __init__(self, id: str, **options: Any) -> None:  # noqa: A002 - ComfyUI's own name
        self.id = id
        self.options = options

    def get_io_type(self) -> str:
        return self.io_type

    def as_dict(self) -> dict[str, Any]:
        return self.options


def Custom(name: str) -> Any:  # noqa: N802
    said = {"io_type": "*" if name == "AnyType" else name.upper()}
    return type(
        name,
        (),
        {"name": name, "Input": type("Input", (Slot,), said), "Output": type("Output", (Slot,), said)},
    )


class Schema:
    def __init__(self, **said: Any) -> None:
        self.__dict__ |= {"inputs": [], "outputs": [], "description": "", "is_output_node": False} | said


class NodeOutput:
    def __init__(self, *values: Any, ui: Any = None) -> None:
        self.args = values
        self.ui = ui


class ComfyNode:
    hidden: Any = None


class ComfyExtension:
    pass


class Preview:
    def __init__(self, shown: Any, cls: Any = None) -> None:
        self.shown = shown


class NodeReplace:
    def __init__(self, **said: Any) -> None:
        self.__dict__ |= said


replacements: list[NodeReplace] = []


class ComfyAPI:
    class node_replacement:  # noqa: N801 - ComfyUI's own name
        @staticmethod
        async def register(said: NodeReplace) -> None:
            replacements.append(said)


class SavedResult(dict[str, Any]):
    def __init__(self, filename: str, subfolder: str, type: str) -> None:  # noqa: A002 - ComfyUI's own name
        super().__init__(filename=filename, subfolder=subfolder, type=type)


io = SimpleNamespace(
    **{
        name: Custom(name)
        for name in (
            "Image",
            "Mask",
            "String",
            "Combo",
            "Float",
            "Int",
            "Boolean",
            "Video",
            "BBOX",
            "AnyType",
        )
    },
    Custom=Custom,
    Schema=Schema,
    NodeOutput=NodeOutput,
    ComfyNode=ComfyNode,
    NodeReplace=NodeReplace,
    FolderType=SimpleNamespace(temp="temp"),
    NumberDisplay=SimpleNamespace(slider="slider"),
)
ui = SimpleNamespace(
    PreviewImage=Preview,
    PreviewMask=Preview,
    PreviewText=Preview,
    PreviewVideo=Preview,
    SavedResult=SavedResult,
)
InputImpl = SimpleNamespace(VideoFromFile=VideoFromFile)
