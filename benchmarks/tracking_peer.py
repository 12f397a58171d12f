"""Upstream's SAM2 on its own way of tracking, in upstream's interpreter: one JSON document on standard output.

`python -m benchmarks.tracking_peer CHECKOUT DEVICE OBJECTS FRAMES REPEAT`. Upstream's code is not changed:
its file `sam2.py` is loaded from the checkout, with random weights, and what it sends to CUDA goes to the device. Needs
torch and tqdm.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from sa2va_worker.own_code.without_cuda import OnDevice

from .machine import status

SAM2 = Path("projects/sa2va/hf/models_qwen3vl/sam2.py")
WIDTH = 256
"""Numbers in what the language model says of an object."""


class InFloat32(OnDevice):
    """Off CUDA there is no autocast to bfloat16, so memories must not be rounded to it either."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.Tensor.to and torch.bfloat16 in args[1:]:
            return args[0]
        return super().__torch_function__(func, types, args, kwargs)


def load(checkout: Path) -> Any:
    """Its SAM2 with random weights, on the processor, in float32."""
    spec = importlib.util.spec_from_file_location("upstream_sam2", checkout / SAM2)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    return module.SAM2().eval()


def track(sam2: Any, objects: int, frames: int, size: tuple[int, int] = (1080, 1920)) -> None:
    """As `predict_forward` does it: object after object, all frames anew for each, masks at full size on the device."""
    vectors = torch.randn(objects, 1, WIDTH, generator=torch.Generator().manual_seed(0)).to(
        next(sam2.parameters())
    )
    pixels = torch.zeros(frames, 3, 1024, 1024).to(vectors)
    for vector in vectors:
        state = sam2.get_sam2_embeddings(pixels)
        masks = sam2.language_embd_inference(state, [vector] * min(5, frames))
        masks = torch.nn.functional.interpolate(masks, size=size, mode="bilinear", align_corners=False)
        (masks[:, 0].sigmoid() > 0.5).cpu().numpy()


def main(checkout: str, device: str, objects: str, frames: str, repeat: str) -> None:
    """Print seconds, calls of the image encoder in one run, and bytes at the peak."""
    where = torch.device(device)
    sam2 = load(Path(checkout))
    if where.type == "cuda":
        sam2 = sam2.to(where, torch.bfloat16)
    calls: list[int] = []
    sam2.sam2_model.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    seconds = []
    with InFloat32(where) if where.type != "cuda" else torch.cuda.device(where), torch.inference_mode():
        for _ in range(int(repeat)):
            calls.clear()
            begun = time.perf_counter()
            track(sam2, int(objects), int(frames))
            seconds.append(time.perf_counter() - begun)
    peak = torch.cuda.max_memory_allocated() if where.type == "cuda" else peak_bytes()
    print(json.dumps({"seconds": seconds, "encoder_calls": len(calls), "peak_bytes": peak}))


def peak_bytes() -> int:
    """The most main memory that this program ever held. On Linux `getrusage` would count what its parent held too."""
    if Path("/proc/self/status").exists():
        return status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])
