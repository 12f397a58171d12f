"""Which of a node's outputs somebody uses: masks of full size are made for those alone.

ComfyUI keeps a node's outputs until its inputs change, and asks `fingerprint_inputs` what else they depend on. A node
that leaves outputs out names the connected ones there, so that it runs again when another one is connected.
"""

from __future__ import annotations

from typing import Any

from comfy_execution.utils import get_executing_context


def connected_outputs() -> frozenset[int] | None:
    """The indexes of the outputs of the node that is executed now; None where this ComfyUI does not tell: take all."""
    context = get_executing_context()
    if context is None:
        return None
    prompt = _prompt(context.prompt_id)
    if not prompt or context.node_id not in prompt:  # a node that another one made while it ran
        return None
    links = (value for node in prompt.values() for value in node.get("inputs", {}).values())
    return frozenset(
        link[1]
        for link in links
        if isinstance(link, list) and len(link) == 2 and str(link[0]) == str(context.node_id)
    )


def is_connected(index: int) -> bool:
    """Whether an output of the node that is executed now may be used."""
    outputs = connected_outputs()
    return outputs is None or index in outputs


def fingerprint(*left_out: int) -> str:
    """What belongs into the `fingerprint_inputs` of a node that leaves out these outputs where nobody uses them."""
    return ",".join(str(index) for index in left_out if is_connected(index))


def _prompt(prompt_id: str) -> dict[str, Any]:
    """The workflow that is running, by node id; empty where this ComfyUI keeps it elsewhere."""
    try:
        from server import PromptServer

        running, _ = PromptServer.instance.prompt_queue.get_current_queue_volatile()
        found = next((item[2] for item in running if item[1] == prompt_id), None)
    except (ImportError, AttributeError, IndexError, TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
