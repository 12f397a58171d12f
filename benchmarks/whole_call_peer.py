"""Upstream's whole call, in upstream's interpreter: one JSON document for each case on standard output.

`python -m benchmarks.whole_call_peer CHECKOUT FOLDER DEVICE REPEAT OUT CASES`: its class `Sa2VAChatModelQwen` is loaded
from the checkout, unchanged, with the weights in FOLDER, and asked what CASES (JSON) say. The masks of each first frame
go to OUT. Needs what upstream's code needs: transformers 4.57, torchvision, qwen-vl-utils, tqdm.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sa2va_worker.own_code.without_cuda import placed

from .cases import Case
from .tracking_peer import InFloat32, peak_bytes

CODE = Path("projects/sa2va/hf")


class Upstream:
    """Upstream's model and what goes with it, on one device: bfloat16 on CUDA, as it is published, else float32."""

    def __init__(self, checkout: Path, folder: Path, device: torch.device) -> None:
        sys.path.insert(0, str(checkout / CODE))
        code: Any = importlib.import_module("models_qwen3vl.modeling_sa2va_qwen")
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.device = device
        with placed(device):
            self.model = code.Sa2VAChatModelQwen.from_pretrained(
                folder, dtype=dtype, device_map={"": device}
            ).eval()
        self.model.torch_dtype = dtype  # its code writes bfloat16 there
        self.processor = _processor(folder)

    @property
    def attention(self) -> str:
        """The attention of its language model, by transformers' name."""
        return str(self.model.model.config.get_text_config()._attn_implementation)  # noqa: SLF001 - no public name

    def answer(self, images: list[Image.Image], prompt: str) -> tuple[str, list[NDArray[np.bool_]]]:
        """What `predict_forward` says, and bool `[frames, height, width]` for each object."""
        tokenizer = self.processor.tokenizer
        what = {"video": images} if len(images) > 1 else {"image": images[0]}
        on_device = torch.cuda.device(self.device) if self.device.type == "cuda" else InFloat32(self.device)
        with on_device, torch.inference_mode():
            found = self.model.predict_forward(
                **what, text=f"<image>{prompt}", tokenizer=tokenizer, processor=self.processor
            )
        return found["prediction"].removesuffix(tokenizer.eos_token), found["prediction_masks"]


def _processor(folder: Path) -> Any:
    """What the folder's processor would be, with transformers' own choice of an image processor."""
    transformers: Any = importlib.import_module("transformers")  # as old as upstream's code wants it
    return transformers.Qwen3VLProcessor(
        image_processor=transformers.AutoImageProcessor.from_pretrained(folder),
        tokenizer=transformers.Qwen2TokenizerFast.from_pretrained(folder),
        video_processor=transformers.Qwen3VLVideoProcessor(),
        chat_template=(folder / "chat_template.jinja").read_text(),
    )


def measure(upstream: Upstream, case: Case, repeat: int, out: Path) -> dict[str, Any]:
    """Seconds of each call, what it answered, and bytes at the peak of the device; on a processor of the process."""
    cuda = upstream.device.type == "cuda"
    images = [Image.fromarray(picture) for picture in case.pictures()]
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds: list[float] = []
    answers: list[tuple[str, list[NDArray[np.bool_]]]] = []
    for _ in range(repeat):
        answers.clear()  # so that no two are in memory
        begun = time.perf_counter()
        answers.append(upstream.answer(images, case.prompt))
        seconds.append(time.perf_counter() - begun)
    text, masks = answers.pop()
    first = out / f"{case.name}.npy"
    np.save(first, np.stack([mask[0] for mask in masks]))
    return {
        "case": case.name,
        "text": text,
        "shape": [len(masks), *masks[0].shape],
        "first": str(first),
        "seconds": seconds,
        "peak_bytes": torch.cuda.max_memory_allocated() if cuda else peak_bytes(),
        "attention": upstream.attention,
    }


def main(checkout: str, folder: str, device: str, repeat: str, out: str, cases: str) -> None:
    """Print what each case took."""
    asked = [Case(**case) for case in json.loads(cases)]
    upstream = Upstream(Path(checkout), Path(folder), torch.device(device))
    # The first call chooses kernels.
    upstream.answer([Image.fromarray(picture) for picture in asked[0].pictures()], asked[0].prompt)
    for case in asked:
        print(json.dumps(measure(upstream, case, int(repeat), Path(out))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
