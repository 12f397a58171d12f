"""The node Sa2VA Unload: the model leaves the memory, and the workflow goes on when it has."""

from __future__ import annotations

import time
from typing import Any

from comfy_api.latest import io, ui

from sa2va_host import list_workers, stop_worker
from sa2va_host.errors import UnloadRefused

from .inputs import schema


class Sa2VAUnload(io.ComfyNode):
    """Passes on what it is given, so that it has a place in the order of nodes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Sa2VAUnload",
            "Sa2VA Unload",
            "Ends the worker and waits until its memory is back. Connect anything through it, to say when.",
            words=("free memory", "VRAM", "clean", "purge", "release"),
            inputs=[
                io.AnyType.Input("anything", optional=True, tooltip="Comes out again unchanged."),
                io.Boolean.Input(
                    "force",
                    default=False,
                    tooltip="End the calls of other programs that use the same worker, instead of leaving it to them.",
                ),
            ],
            outputs=[
                io.AnyType.Output("passed", display_name="anything", tooltip="What came in."),
                io.String.Output(
                    "report", display_name="report", tooltip="What was ended, and how much memory it had."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> float:
        """Another time, so that it runs each time."""
        return time.time()

    @classmethod
    def execute(cls, force: bool = False, anything: Any = None) -> io.NodeOutput:
        report = unload(force=force)
        return io.NodeOutput(anything, report, ui=ui.PreviewText(report))


def unload(*, force: bool, wait: float | None = None) -> str:
    """End every worker of this user, and say what came of it. A worker that others use stays, unless forced.

    ``wait`` is how many seconds others' calls are waited for; None takes the setting `unload_wait`.
    """
    lines = []
    for worker in list_workers():
        memory = worker.memory_reserved or worker.memory_used or worker.host_memory
        kind = "GPU memory" if worker.memory_reserved or worker.memory_used else "memory"
        try:
            stopped = stop_worker(worker, force=force, timeout=wait)
        except UnloadRefused as refusal:
            lines.append(f"The worker {worker.pid} stays: {refusal}")
        else:
            lines.append(
                f"{memory / 1e9:.1f} GB of {kind} are back: the worker {worker.pid} ended"
                f" within {stopped.seconds:.1f} s."
            )
    return "\n".join(lines) or "No worker is running, so there is nothing to unload."
