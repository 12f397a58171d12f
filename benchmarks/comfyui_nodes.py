"""What a node costs beyond the call that it makes, and ComfyUI's memory: `python -m benchmarks.comfyui_nodes`.

For Linux. Starts the ComfyUI of COMFYUI_DIR as its tests do (`tests/comfyui_server`). Times are measured with a worker
that answers at once, so that what is left is the node's own: each is a workflow's, less that of the same call from
Python. Memory is the server's resident memory while a VIDEO of 1080p goes through Video Segmentation, by the bundled
model, to masks of full size that another node takes.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sa2va_host import Sa2VA, list_workers, stop_worker
from sa2va_host.config import load_settings
from tests.comfyui_server.comfyui import ComfyUI, prepare, serving
from tests.comfyui_server.workflows import MODEL, node, options
from tests.scripted import scripted_python

KINDS = IMAGE, VIDEO = "Image Segmentation", "Video Segmentation"
SIZES = {"1080p": (1080, 1920), "4K": (2160, 3840)}
COLLECTS_EVERY = 12.0
"""Seconds after which ComfyUI has collected its garbage, which it does every 10 at most."""
SINK = """
from comfy_api.latest import ComfyExtension, io

class Sink(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="Sink", inputs=[io.AnyType.Input("anything")], is_output_node=True)

    @classmethod
    def execute(cls, anything):
        return io.NodeOutput()

class Pack(ComfyExtension):
    async def get_node_list(self):
        return [Sink]

async def comfy_entrypoint():
    return Pack()
"""
"""A node pack with a node that takes anything, so that an output is connected."""


def main() -> int:
    """Print two Markdown tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.comfyui_nodes", description=__doc__)
    parser.add_argument("--repeat", type=int, default=7, help="how often a time is taken; 0 takes none")
    parser.add_argument(
        "--frames", type=int, nargs="*", default=[150, 300, 500], help="lengths of the videos"
    )
    arguments = parser.parse_args()
    directory = Path(os.environ["COMFYUI_DIR"])
    python = os.environ.get("COMFYUI_PYTHON") or str(directory / ".venv" / "bin" / "python")
    with tempfile.TemporaryDirectory(prefix="sa2va-") as folder:
        os.environ |= {"SA2VA_RUN_DIR": f"{folder}/run", "SA2VA_WORKER_PYTHON": sys.executable}
        os.environ["SA2VA_COMFYUI_CACHE_BYTES"] = "0"  # each repetition is to ask the worker
        os.environ["SA2VA_TRUST_WORKFLOWS"] = "1"  # the scripted worker is named by the workflow
        base = prepare(Path(folder) / "base")
        pack = base / "custom_nodes" / "sink"
        pack.mkdir()
        (pack / "__init__.py").write_text(SINK)
        script = scripted_python(Path(folder))
        with serving(directory, base, python=python) as server:
            try:
                if arguments.repeat:
                    print_times(server, str(script), arguments.repeat)
                if arguments.frames:
                    print_memory(server, arguments.frames)
            finally:
                for worker in list_workers():
                    stop_worker(worker, force=True)
    return 0


def print_times(server: ComfyUI, script: str, repeat: int) -> None:
    """Milliseconds of a workflow, of the same call from Python, and what is between them; the fastest of several."""
    settings = load_settings(model="scripted:", worker_python=script)
    print("| the call | workflow | from Python | the node's own |\n|---|---:|---:|---:|")
    with Sa2VA(settings=settings) as sa:
        for name, count in (("1080p", 1), ("4K", 1), ("1080p", 100)):
            pictures = [np.full((*SIZES[name], 3), 255, np.uint8)] * count
            for kind in KINDS:
                workflows = asking(kind, SIZES[name], count, script)
                call = partial(ask, sa, kind, pictures)
                server.run(next(workflows))
                call()
                own = min(seconds(server, next(workflows)) for _ in range(repeat))
                plain = min(timed(call) for _ in range(repeat))
                times = " | ".join(f"{each * 1e3:.0f} ms" for each in (own, plain, own - plain))
                print(f"| {kind}, {count} of {name} | {times} |", flush=True)


def ask(sa: Sa2VA, kind: str, pictures: Sequence[NDArray[np.uint8]]) -> None:
    """The call that the node makes."""
    if kind == VIDEO:
        sa.segment_video(pictures, "objects=1")
        return
    for picture in pictures:
        sa.segment(picture, "objects=1")


def asking(kind: str, size: tuple[int, int], count: int, script: str) -> Iterator[dict[str, Any]]:
    """A workflow again and again, each time with another prompt, so that only the asking node runs."""
    given = {"frames": ["1", 0], "key_frames": 5} if kind == VIDEO else {"image": ["1", 0]}
    for number in itertools.count():
        asked = {"model": "scripted:", "prompt": f"objects=1 number={number}", "threshold": 0.5}
        yield {
            "1": node("EmptyImage", width=size[1], height=size[0], batch_size=count, color=0xFFFFFF),
            "2": options(worker_python=script),
            "3": node(f"Sa2VA{kind.replace(' ', '')}", **asked, **given, options=["2", 0]),
            "4": node("Sink", anything=["3", 1]),
        }


def seconds(server: ComfyUI, workflow: dict[str, Any]) -> float:
    """How long the server worked on it, by its own clock."""
    run = server.run(workflow)
    if run.status != "success":
        raise SystemExit(run.error)
    begun, over = (run.messages[f"execution_{moment}"]["timestamp"] for moment in ("start", "success"))
    return float(over - begun) / 1000


def timed(call: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def print_memory(server: ComfyUI, lengths: list[int]) -> None:
    """Gigabytes of the server's resident memory: before, at the peak, with the masks in its cache, and freed."""
    print("\n| frames | seconds | before | peak | after | freed |\n|---|---:|---:|---:|---:|---:|")
    for count in lengths:
        file = server.base / "input" / f"{count}.mp4"
        write_video(file, count)
        free(server)
        before = memory(server, "VmRSS")
        Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")  # the peak begins anew: proc(5)
        asked = {"model": MODEL, "prompt": "the red circle", "threshold": 0.5, "key_frames": 5}
        took = seconds(
            server,
            {
                "1": node("LoadVideo", file=file.name),
                "2": node("Sa2VAVideoSegmentation", **asked, video=["1", 0]),
                "3": node("Sink", anything=["2", 1]),
            },
        )
        peak, after = memory(server, "VmHWM"), memory(server, "VmRSS")
        free(server)
        shown = " | ".join(f"{each:.2f} GB" for each in (before, peak, after, memory(server, "VmRSS")))
        print(f"| {count} | {took:.0f} | {shown} |", flush=True)


def write_video(file: Path, count: int) -> None:
    """A red disc that crosses a grey 1080p."""
    import av
    import cv2

    with av.open(str(file), "w") as output:
        stream: Any = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.height, stream.width = SIZES["1080p"]
        stream.pix_fmt = "yuv420p"
        for index in range(count):
            picture = np.full((*SIZES["1080p"], 3), 90, np.uint8)
            cv2.circle(picture, (300 + 1300 * index // count, 540), 200, (220, 30, 30), -1)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))


def free(server: ComfyUI) -> None:
    """As the button "Free model and node cache" does; returns when the worker is gone."""
    server.post("/free", {"unload_models": True, "free_memory": True})
    while list_workers():
        time.sleep(0.1)
    time.sleep(COLLECTS_EVERY)


def memory(server: ComfyUI, name: str) -> float:
    """A figure of /proc/PID/status, in GB."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / 1e9


if __name__ == "__main__":
    sys.exit(main())
