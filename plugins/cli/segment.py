"""`sa2va segment`: pictures and sentences in, mask files and overlays out."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sa2va_host.errors import InvalidInput, OutOfMemory, Sa2VAError

from . import editing, generation, options, pictures
from .display import Display, Notes

if TYPE_CHECKING:
    from sa2va_host import Generation, Sa2VA
    from sa2va_host.cancellation import Cancellation
    from sa2va_host.events import Event
    from sa2va_host.output.names import Kind
    from sa2va_host.output.saving import Saved
    from sa2va_host.results import AnsweredBy
    from sa2va_host.trace import Trace

EXAMPLES = """examples:
  sa2va segment photo.jpg --prompt "the red circle"
  sa2va segment photo.jpg --prompt "the cat and the dog" -o masks --threshold 0.3
  sa2va segment shots/ --prompt "the actor" --prompt "the car" --save masks,cutout -o masks
  sa2va segment "shots/**/*.png" --prompt "hair" --process vitmatte --save probability
  sa2va segment photo.jpg --prompt "the cat" --model ./Sa2VA-Qwen3-VL-4B --json

For object N of photo.jpg, `masks` writes photo.N.png (255 inside), `cutout` photo.N.cutout.png, `probability`
photo.N.probability.png (16 bit), `exr` photo.N.probability.exr; for the picture, `overlay` writes photo.overlay.png,
`rle` and `polygons` photo.rle.json and photo.polygons.json, `logits` photo.logits.npz. With several prompts the prompt
stands after the name.
"""
_AHEAD = 3
"""How many pictures are in work: while the worker has one, another is read and a third one written."""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "segment",
        help="find what a sentence describes in pictures",
        description="Find what a sentence describes in pictures. A picture that cannot be read is reported and the"
        " others are done.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="picture files, folders or patterns")
    parser.add_argument(
        "--prompt",
        dest="prompts",
        action="append",
        required=True,
        metavar="TEXT",
        help="what to find, in words; may be repeated",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where to write (default: this folder)",
    )
    parser.add_argument(
        "--save",
        default="masks,overlay",
        metavar="KINDS",
        help="what to write, of masks, overlay, cutout, probability, exr, rle, polygons, logits, none"
        " (default: %(default)s)",
    )
    parser.add_argument(
        "--threshold",
        type=options.probability,
        default=0.5,
        metavar="P",
        help="a pixel belongs to the mask where the probability is above it (default: %(default)s)",
    )
    options.add_model(parser)
    options.add_json(parser)
    options.add_trace(parser)
    generation.add_to(parser)
    editing.add_to(parser)
    parser.set_defaults(command=run)


class Job(NamedTuple):
    """One picture and what is asked about it: each prompt with the name of its outputs, without an ending."""

    image: Path
    asked: list[tuple[str, Path]]


class Finding(NamedTuple):
    """What came of one prompt about one picture; not its logits, since there may be thousands."""

    image: Path
    prompt: str
    text: str
    size: tuple[int, int]
    timings: Mapping[str, float]
    worker: AnsweredBy | None
    saved: Saved
    notes: Sequence[str] = ()


class Plan(NamedTuple):
    """What is done with every answer."""

    kinds: tuple[Kind, ...]
    threshold: float
    editing: editing.Editing
    generation: Generation


def run(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    from sa2va_host.output.names import checked_kinds

    words = arguments.save.split(",")
    kinds = checked_kinds(() if words == ["none"] else words)
    plan = Plan(kinds, arguments.threshold, editing.read(arguments), generation.read(arguments))
    editing.check_processors(plan.editing)
    jobs = _jobs(pictures.find(arguments.images), arguments.prompts, arguments.output)
    _check_inputs_stay(jobs)
    notes = Notes()
    findings: list[Finding] = []
    failures: list[tuple[Path, Sa2VAError]] = []
    with (
        options.tracing(arguments) as trace,
        _Display(pictures=len(jobs)) as display,
        options.connect(arguments, display, trace) as sa,
    ):
        for number, (job, found) in enumerate(_work(sa, jobs, plan, trace), start=1):
            if isinstance(found, Sa2VAError):
                failures.append((job.image, found))
                if len(jobs) > 1:
                    print(f"sa2va: {found}", file=sys.stderr)
            else:
                findings += found
                for finding in found:
                    notes.say(finding.notes)
                if not arguments.json:
                    _print(found, with_names=len(jobs) > 1 or len(arguments.prompts) > 1)
            display.count(number)
    if arguments.json:
        import json

        print(json.dumps(document(findings, failures, sa.settings.model), indent=2, ensure_ascii=False))
    elif findings:
        worker = findings[-1].worker
        pid = worker.pid if worker else 0
        how = "started for this call" if display.started_worker else "warm"
        seconds = sum(finding.timings.get("total", 0.0) for finding in findings)
        print(f"{seconds:.2f} s, model {sa.settings.model}, worker {pid} ({how})")
    if failures:
        raise failures[0][1] if len(jobs) == 1 else _SomeFailed(len(failures), len(jobs))
    return 0


class _SomeFailed(InvalidInput):
    def __init__(self, failed: int, jobs: int) -> None:
        super().__init__(f"{failed} of {jobs} pictures failed, as said above; the others are done.")


class _Display(Display):
    """A display that imports what the masks need while the worker works, which hides the time that takes."""

    def event(self, event: Event) -> None:
        """As `Display.event`; the first one says that a worker has the call."""
        super().event(event)
        if getattr(event, "phase", "") != "starting":
            _import_what_masks_need()


def _import_what_masks_need() -> None:
    """NumPy's BLAS would start a thread for each core, which spins for a while where the model is at work; nothing here
    multiplies matrices.
    """
    threads = "OPENBLAS_NUM_THREADS"
    ours = threads not in os.environ and "numpy" not in sys.modules
    if ours:
        os.environ[threads] = "1"
    try:
        with contextlib.suppress(ImportError):  # the masks will say it in words, or do without
            import cv2  # noqa: F401

            import sa2va_host.output.saving  # noqa: F401
    finally:
        if ours:  # a worker that is started later may have as many as it likes
            del os.environ[threads]


def _jobs(images: list[Path], prompts: list[str], folder: Path) -> list[Job]:
    from sa2va_host.output.names import distinct_stems
    from sa2va_host.prompts import checked_prompt

    prompts = [checked_prompt(prompt) for prompt in prompts]
    slugs = distinct_stems([pictures.slug(prompt) for prompt in prompts])
    endings = [f".{slug}" for slug in slugs] if len(prompts) > 1 else [""]
    return [
        Job(image, [(prompt, folder / f"{stem}{end}") for prompt, end in zip(prompts, endings, strict=True)])
        for image, stem in zip(images, distinct_stems(images), strict=True)
    ]


def _check_inputs_stay(jobs: list[Job]) -> None:
    """Raises `InvalidInput` where a mask would be written over a picture that is still to be read, or was."""
    inputs = {job.image.resolve() for job in jobs}
    for job in jobs:
        for _, stem in job.asked:
            ours = re.compile(rf"{re.escape(stem.name)}\.(\d+|overlay)(\.\w+)?\.png", re.IGNORECASE)
            for other in inputs:
                if ours.fullmatch(other.name) and other.parent == stem.parent.resolve():
                    raise InvalidInput(
                        f"What is found in {job.image} could be written over {other.name}, which is an input too.",
                        advice="Name another folder with -o.",
                    )


def _work(
    sa: Sa2VA, jobs: list[Job], plan: Plan, trace: Trace
) -> Iterator[tuple[Job, list[Finding] | Sa2VAError]]:
    """Every job with what came of it, in order, a few in work at once. Raises what is no fault of one picture."""
    from sa2va_host.cancellation import Cancellation

    cancellation = Cancellation()
    with ThreadPoolExecutor(_AHEAD, "sa2va-picture") as pool:
        try:
            pending = [pool.submit(_do, sa, job, plan, trace, cancellation) for job in jobs]
            for job, future in zip(jobs, pending, strict=True):
                yield job, future.result()
        finally:
            cancellation.cancel()
            pool.shutdown(wait=True, cancel_futures=True)


def _do(
    sa: Sa2VA, job: Job, plan: Plan, trace: Trace, cancellation: Cancellation
) -> list[Finding] | Sa2VAError:
    """One picture, and all prompts about it in one call."""
    from sa2va_host import media

    findings: list[Finding] = []
    try:
        with trace.span("read", image=str(job.image)):
            picture = media.read_pixels(job.image)
        prompts = [prompt for prompt, _ in job.asked]
        with trace.call("segment", prompts=prompts) as details:
            results = sa.segment_each(picture, prompts, generation=plan.generation, cancellation=cancellation)
            timings = results[0].timings  # of the call, which all prompts share
            details["timings"] = timings
        from sa2va_host.output.saving import save

        for (prompt, stem), result in zip(job.asked, results, strict=True):
            with trace.call("edit"):
                maps = plan.editing.probabilities(sa, picture, result, cancellation)
            with trace.span("save"):
                saved = save(
                    result,
                    picture,
                    stem,
                    plan.kinds,
                    prompt=prompt,
                    threshold=plan.threshold,
                    refinement=plan.editing.refinement,
                    probabilities=maps,
                )
            findings.append(
                Finding(
                    job.image,
                    prompt,
                    result.text,
                    result.size,
                    timings,
                    result.worker,
                    saved,
                    result.notes,
                )
            )
            timings = {}
    except (InvalidInput, OutOfMemory) as error:
        return error
    return findings


def _print(findings: list[Finding], *, with_names: bool) -> None:
    for finding in findings:
        about = f"{finding.image}, {finding.prompt!r}: " if with_names else ""
        print(f"{about}{finding.text}")
        for found in finding.saved.objects:
            mask = found.mask or f"object {found.index}"
            print(f"  {mask}  {found.area} pixels, mean probability {found.mean_probability:.2f}")
        for kind, files in finding.saved.files.items():
            if kind != "masks":
                for file in files:
                    print(f"  {file}")
    sys.stdout.flush()


def document(findings: list[Finding], failures: list[tuple[Path, Sa2VAError]], model: str) -> dict[str, Any]:
    """The one document that `--json` prints; `errors` is there only where a picture failed."""
    from dataclasses import asdict

    from sa2va_host.timings import together

    printed: dict[str, Any] = {
        "results": [
            {
                "image": str(finding.image),
                "prompt": finding.prompt,
                "text": finding.text,
                "objects": [asdict(found) for found in finding.saved.objects],
                "size": list(finding.size),
            }
            for finding in findings
        ],
        "model": model,
        "worker": options.worker_document(findings[-1].worker) if findings else None,
        "notes": list(dict.fromkeys(note for finding in findings for note in finding.notes)),
        "timings": together(finding.timings for finding in findings),
    }
    if failures:
        printed["errors"] = [{"image": str(image), "error": str(error)} for image, error in failures]
    return printed
