"""What ComfyUI is given: the nodes, once it has loaded the pack."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import legacy, memory, model_list, preferences, replacements, routes
from .chat import Sa2VAChat
from .checked import checked
from .model_options import Sa2VAModelOptions
from .refine_edges import Sa2VARefineEdges
from .segment_image import Sa2VAImageSegmentation
from .segment_video import Sa2VAVideoSegmentation
from .track_masks import Sa2VAMasksFromTracks
from .unload import Sa2VAUnload

NODES: list[type[io.ComfyNode]] = [
    Sa2VAImageSegmentation,
    Sa2VAVideoSegmentation,
    Sa2VAMasksFromTracks,
    Sa2VARefineEdges,
    Sa2VAChat,
    Sa2VAModelOptions,
    Sa2VAUnload,
]


class Sa2VAExtension(ComfyExtension):
    """The node pack."""

    async def on_load(self) -> None:
        """Called by newer versions of ComfyUI, before the nodes are listed."""
        await replacements.register()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        offered = NODES + (legacy.NODES if preferences.is_on(preferences.OLD_NAMES) else [])
        return [checked(node) for node in offered]


async def comfy_entrypoint() -> Sa2VAExtension:
    """Called once by ComfyUI. Starts no process."""
    model_list.register_folder()
    memory.follow_comfyui()
    routes.register()
    return Sa2VAExtension()
