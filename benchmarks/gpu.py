"""All of it at true dimensions on a GPU: Qwen3-VL-4B's and Hiera-Large's, with random weights, offline.

`python -m benchmarks gpu`, or alone `python -m benchmarks.gpu [--device cpu --tiny]`; needs torch, transformers and
the light dependencies, nothing of the project installed, and 12 GB of disk. Random weights never say `[SEG]`, so
answers are dictated (`cases`). Where `UPSTREAM_DIR` names a checkout of upstream, its code is asked the same.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from sa2va_host import Sa2VA

from . import cases, checkpoint, tokens, unloading, upstream, whole_call
from .cases import Case
from .figures import Figure, NotMeasured, Plan, not_measured, ratio
from .model import Model
from .runner import Part, run
from .whole_call import Answered

FLAT = 1.05
"""How much more device memory the last case, the longest video, may take than the one before it."""
SAM2_ALONE = ((1, 1), (4, 1), (1, 5), (2, 32))
"""(objects, frames) against upstream's SAM2, which needs little of its environment."""


def measure(plan: Plan) -> Iterator[Figure]:
    """All of it. Raises `NotMeasured` where there is no CUDA device."""
    if not torch.cuda.is_available():
        raise NotMeasured("there is no CUDA device here.")
    return figures("cuda", checkpoint.QWEN3_VL_4B, cases.CASES, plan.few)


def figures(
    device: str, dimensions: checkpoint.Dimensions, asked: Sequence[Case], repeat: int
) -> Iterator[Figure]:
    """Seconds of each case by phase, and what unloading leaves; upstream's seconds; peaks of device memory; tokens per
    second.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory(prefix="sa2va-benchmark-") as name:
        folder = checkpoint.write(Path(name), dimensions, device)
        torch.cuda.empty_cache()  # what drawing the weights took
        ours = yield from _ours(folder, device, asked, repeat)
        theirs = yield from _upstream(folder, device, asked, repeat, ours)
        model = Model(folder, device)
        yield from _peaks(model, asked, theirs)
        yield from tokens.against_generate(model, repeat)
        del model  # a GPU may have no room for two
        yield from tokens.otherwise(folder, device, repeat)


def _ours(
    folder: Path, device: str, asked: Sequence[Case], repeat: int
) -> Generator[Figure, None, dict[str, Answered]]:
    """Whole calls by the names of the cases, then the unload."""
    answers = {}
    before = unloading.free_memory()
    # SDPA, as upstream's language model has it.
    with Sa2VA(model=folder, device=device, attention="sdpa") as sa:
        whole_call.ask(sa, asked[0], 1)  # the first call chooses kernels
        for case in asked:
            answers[case.name] = whole_call.ask(sa, case, 1 if case.long else repeat)
            yield from whole_call.ours(case, answers[case.name])
        yield from unloading.measure(sa.unload, before)
    return answers


def _upstream(
    folder: Path, device: str, asked: Sequence[Case], repeat: int, ours: Mapping[str, Answered]
) -> Generator[Figure, None, dict[str, Answered]]:
    """Upstream's whole calls, as many as it manages; in their place its SAM2 where it manages none."""
    answers = {}
    left = [case for case in asked if not case.long]
    try:
        for answered in whole_call.ask_upstream(folder, device, left, repeat):
            case = left.pop(0)
            answers[case.name] = answered
            yield from whole_call.against(case, ours[case.name], answered)
    except NotMeasured as why:
        for case in left:
            yield not_measured(f"{case.name}: upstream", why)
    if not answers and device != "cpu" and "UPSTREAM_DIR" in os.environ:
        for figure in upstream.measure(Plan(), device, SAM2_ALONE):
            yield replace(figure, name=f"SAM2 alone, {figure.name}")
    return answers


def _peaks(model: Model, asked: Sequence[Case], theirs: Mapping[str, Answered]) -> Iterator[Figure]:
    """Peaks of device memory, weights included, and whether that of the longest video is flat."""
    if model.device.type != "cuda":
        yield not_measured("peak of device memory", "a processor has none.")
        return
    peaks = []
    for case in asked:
        model.peak()
        model.answer(case)
        peaks.append(
            Figure("ours", (model.peak(),), unit="bytes", panel=f"peak of device memory, {case.name}")
        )
        yield peaks[-1]
        if case.name in theirs:
            bytes_ = float(theirs[case.name].peak_bytes)
            yield Figure("upstream", (bytes_,), unit="bytes", panel=peaks[-1].panel)
    if asked[-1].long:
        yield ratio(f"peak of {asked[-1].name} against {asked[-2].name}", peaks[-1], peaks[-2], FLAT)


def main() -> int:
    """Print a Markdown table and write a report. Returns 1 when a figure misses its aim, 2 when something failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--tiny",
        action="store_true",
        help="the bundled model's dimensions and few frames; with UPSTREAM_DIR but for SAM2, of which upstream's code"
        " has one size, and one image",
    )
    parser.add_argument("--repeat", type=int, default=Plan().few)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="default: benchmarks/results/DATE-gpu"
    )
    arguments = parser.parse_args()
    size: checkpoint.Dimensions = checkpoint.QWEN3_VL_4B
    asked: Sequence[Case] = cases.CASES
    if arguments.tiny:
        size, asked = checkpoint.TINY, cases.TINY
        if os.environ.get("UPSTREAM_DIR"):
            size, asked = checkpoint.TINY_WITH_HIERA_LARGE, cases.ONE
    part = Part("On a GPU", partial(figures, arguments.device, size, asked, arguments.repeat))
    return run({"gpu": part}, arguments.output, "-gpu-tiny" if arguments.tiny else "-gpu")


if __name__ == "__main__":
    sys.exit(main())
