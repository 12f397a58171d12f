"""`sa2va segment`: pictures and sentences in, mask files and overlays out."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sa2va_host.errors import InvalidInput, OutOfMemory, Sa2VAError

from . import editing, generation, options, pictures, standard_output
from .display import Display, Notes

if TYPE_CHECKING:
    from sa2va_host import Generation, Sa2VA
    from sa2va_host.cancellation import Cancellation
    from sa2va_host.events import Event
    from sa2va_host.exr import ExrDepth
    from sa2va_host.output.names import Kind
    from sa2va_host.output.saving import Saved
    from sa2va_host.results import AnsweredBy
    from sa2va_host.trace import Trace

EXAMPLES = """examples:
  sa2va segment photo.jpg --prompt "the red circle"
  sa2va segment photo.jpg --prompt "the cat and the dog" -o masks --threshold 0.3
  sa2va segment shots/ --prompt "the actor" --prompt "the car" --save masks,cutout -o masks
  sa2va segment "shots/**/*.png" --prompt "hair" --process vitmatte --save probability
  sa2va segment shots/ --recursive --prompt "the actor" -o masks
  sa2va segment photo.jpg --prompt "the cat" --model ./Sa2VA-Qwen3-VL-4B --json
  sa2va segment - --prompt "the cat" -o - < photo.jpg > mask.png

For object N of photo.jpg, `masks` writes photo.N.png (255 inside), `cutout` photo.N.cutout.png, `probability`
photo.N.probability.png (16 bit), `exr` photo.N.probability.exr; for the picture, `overlay` writes photo.overlay.png,
`exr-layers` photo.layers.exr with a channel for each object of all prompts, `rle` and `polygons` photo.rle.json and
photo.polygons.json, `logits` photo.logits.npz. With several prompts the prompt stands after the name. Masks lie on the
image as it is displayed: turned as its EXIF orientation says. What is found in the image on standard input is called
stdin.

OpenEXR, Radiance HDR and float TIFF are scene-linear and shown to the model through the curve of sRGB, clipped above 1.
Their cut-outs are EXR with premultiplied alpha, those of 16-bit PNG and TIFF are 16-bit PNG.
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
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", help="image files, folders or patterns; - is standard input"
    )
    parser.add_argument(
        "--recursive",
        action="store_true",
        help="take the images in a folder's folders too; outputs keep these folders below DIR",
    )
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
        help="where to write (default: this folder); - writes the one mask to standard output",
    )
    parser.add_argument(
        "--save",
        metavar="KINDS",
        help="what to write, of masks, overlay, cutout, probability, exr, exr-layers, rle, polygons, logits, none"
        " (default: masks,overlay; with -o - masks)",
    )
    parser.add_argument(
        "--threshold",
        type=options.probability,
        default=0.5,
        metavar="P",
        help="a pixel belongs to the mask where the probability is above it (default: %(default)s)",
    )
    options.add_layer(parser)
    options.add_output_depth(parser)
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
    stem: Path
    """The name of outputs that belong to all prompts."""


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
    layer: str | None
    exr_depth: ExrDepth
    decontaminate: bool


def run(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    with standard_output.folder_for(arguments) as piped:
        return _run(arguments, piped)


def _run(arguments: argparse.Namespace, piped: standard_output.Piped | None) -> int:
    from sa2va_host.output.names import checked_kinds

    words = (arguments.save or "masks,overlay").split(",")
    kinds = checked_kinds(() if words == ["none"] else words)
    plan = Plan(
        kinds,
        arguments.threshold,
        editing.read(arguments),
        generation.read(arguments),
        arguments.layer,
        arguments.exr_depth,
        arguments.decontaminate,
    )
    options.check_output_depth(arguments, kinds)
    editing.check_processors(plan.editing)
    inputs = pictures.find(arguments.images, recursive=arguments.recursive, output=arguments.output)
    jobs = _jobs(inputs, arguments.prompts, arguments.output)
    if piped:
        piped.check(len(jobs), len(arguments.prompts))
    _check_inputs_stay(jobs)
    _check_packages(jobs, kinds)
    notes = Notes()
    notes.say(inputs.notes)
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
                if piped:
                    piped.write(found[0].saved.files.get("masks", ()), found[0].size, found[0].text)
                elif not arguments.json:
                    _print(found, with_names=len(jobs) > 1 or len(arguments.prompts) > 1)
            display.count(number)
    if arguments.json:
        import json

        printed = {**document(findings, failures, sa.settings.model), "notes": inputs.notes}
        print(json.dumps(printed, indent=2, ensure_ascii=False))
    elif findings and not piped:
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


def _jobs(inputs: pictures.Inputs, prompts: list[str], folder: Path) -> list[Job]:
    from sa2va_host.output.names import distinct_stems
    from sa2va_host.prompts import checked_prompt

    prompts = [checked_prompt(prompt) for prompt in prompts]
    slugs = distinct_stems([pictures.slug(prompt) for prompt in prompts])
    endings = [f".{slug}" for slug in slugs] if len(prompts) > 1 else [""]
    together: dict[Path, list[Path]] = {}
    for image, below in zip(inputs.files, inputs.folders, strict=True):
        together.setdefault(below, []).append(image)
    stems = {below: iter(distinct_stems(images)) for below, images in together.items()}
    named = [
        (image, folder / below / next(stems[below]))
        for image, below in zip(inputs.files, inputs.folders, strict=True)
    ]
    return [
        Job(
            image,
            [
                (prompt, stem.parent / f"{stem.name}{end}")
                for prompt, end in zip(prompts, endings, strict=True)
            ],
            stem,
        )
        for image, stem in named
    ]


def _check_packages(jobs: list[Job], kinds: Sequence[Kind]) -> None:
    """Raises `ConfigError` where OpenEXR is missing for an input, or for cut-outs of scene-linear ones."""
    from sa2va_host.extras import check_exr
    from sa2va_host.image_depth import LINEAR, depth_of

    for job in jobs:
        suffix = job.image.suffix.lower()
        may_be = suffix in (".hdr", ".tif", ".tiff") and "cutout" in kinds and job.image.is_file()
        with contextlib.suppress(OSError):  # said when its turn comes
            if suffix == ".exr" or (may_be and depth_of(job.image) in LINEAR):
                check_exr()
                return


def _check_inputs_stay(jobs: list[Job]) -> None:
    """Raises `InvalidInput` where a mask would be written over a picture that is still to be read, or was."""
    inputs = {job.image.resolve() for job in jobs}
    for job in jobs:
        for stem in (job.stem, *(stem for _, stem in job.asked)):
            ours = re.compile(
                rf"{re.escape(stem.name)}\.(\d+|overlay|layers)(\.\w+)?\.(png|exr)", re.IGNORECASE
            )
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
    notes: list[str] = []
    try:
        with trace.span("read", image=str(job.image)):
            picture = media.read_pixels(pictures.source(job.image), layer=plan.layer, notes=notes)
        prompts = [prompt for prompt, _ in job.asked]
        with trace.call("segment", prompts=prompts) as details:
            results = sa.segment_each(picture, prompts, generation=plan.generation, cancellation=cancellation)
            timings = results[0].timings  # of the call, which all prompts share
            details["timings"] = timings
        from sa2va_host.light import Window
        from sa2va_host.output.exr_layers import ObjectChannels
        from sa2va_host.output.saving import save
        from sa2va_host.plate import Plate

        # What came through standard input cannot be read again at full depth.
        plate = None if job.image is pictures.STDIN else Plate(job.image, plan.layer)
        channels = ObjectChannels(plan.exr_depth)
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
                    plate=plate,
                    exr_depth=plan.exr_depth,
                    decontaminated=plan.decontaminate,
                    channels=channels,
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
                    [*notes, *result.notes],
                )
            )
            timings = {}
        if "exr-layers" in plan.kinds:
            with trace.span("save"):
                window = plate.window() if plate else Window()
                file = channels.write(f"{job.stem}.layers.exr", window=window)
            last = findings[-1]
            files = {**last.saved.files, "exr-layers": (file,)}
            findings[-1] = last._replace(saved=replace(last.saved, files=files))
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
                "notes": list(finding.notes),
            }
            for finding in findings
        ],
        "model": model,
        "worker": options.worker_document(findings[-1].worker) if findings else None,
        "timings": together(finding.timings for finding in findings),
    }
    if failures:
        printed["errors"] = [{"image": str(image), "error": str(error)} for image, error in failures]
    return printed
