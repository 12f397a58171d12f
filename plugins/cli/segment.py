"""`sa2va segment`: images and sentences in, mask files and overlays out."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sa2va_host.errors import InvalidInput

from . import editing, generation, options, pictures, prompts, standard_output
from .batch import Batch
from .display import Display, Notes
from .main import sentence

if TYPE_CHECKING:
    from sa2va_host import Generation, Sa2VA
    from sa2va_host.cancellation import Cancellation
    from sa2va_host.events import Event
    from sa2va_host.exr import ExrDepth
    from sa2va_host.output.existing import Existing
    from sa2va_host.output.names import Kind
    from sa2va_host.output.saving import Saved
    from sa2va_host.results import AnsweredBy
    from sa2va_host.trace import Trace

EXAMPLES = """examples:
  sa2va segment photo.jpg --prompt "the red circle"
  sa2va segment photo.jpg -p "the cat and the dog" -o masks --threshold 0.3
  sa2va segment shots/ --prompt "the actor" --prompt "the car" --save masks,cutout -o masks
  sa2va segment "shots/**/*.png" --prompt "hair" --process vitmatte --save probability
  sa2va segment shots/ --recursive --prompt-file prompts.txt -o masks --skip-existing
  sa2va segment photo.jpg --prompt "the cat" --model ./Sa2VA-Qwen3-VL-4B --json

For object N of photo.jpg, `masks` writes photo.N.png (255 inside), `cutout` photo.N.cutout.png, `probability`
photo.N.probability.png (16 bit), `exr` photo.N.probability.exr; for the image, `overlay` writes photo.overlay.png,
`exr-layers` photo.layers.exr with a channel for each object of all prompts, `rle` and `polygons` photo.rle.json and
photo.polygons.json, `logits` photo.logits.npz. With several prompts, or names in --prompt-file, the prompt or name
stands after photo. Where nothing is found, photo.0.png is all 0. Masks are in display orientation: turned as the
EXIF orientation of the image says. What is found in the image on standard input is called stdin.

OpenEXR, Radiance HDR and float TIFF are scene-linear and shown to the model through the curve of sRGB, clipped above 1.
Their cut-outs are EXR with premultiplied alpha, those of 16-bit PNG and TIFF are 16-bit PNG.

Polygons list a hole as an outline of its own, the other way round; COCO's tools fill it. Where masks have holes, use
`rle`.
"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "segment",
        help="find what a sentence describes in images",
        description="Find what a sentence describes in images. One that cannot be read or whose masks cannot be"
        " written is reported, and the others are done. Nothing is written over unless you say so.",
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
    prompts.add_to(parser)
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
        metavar="KINDS",
        help="what to write, of masks, overlay, cutout, probability, exr, exr-layers, rle (COCO's, exact), polygons"
        " (holes are outlines of their own), logits, none (default: masks,overlay; with -o - masks)",
    )
    options.add_existing(
        parser,
        "leave out images whose outputs are all there, by their names alone; one with some of them is done again",
    )
    options.add_skip_empty(parser)
    parser.add_argument(
        "--threshold",
        type=options.probability,
        default=0.5,
        metavar="P",
        help="a pixel belongs to the mask where the probability is above it (default: %(default)s)",
    )
    parser.add_argument(
        "--polygon-tolerance",
        type=float,
        default=0.0,
        metavar="PIXELS",
        help="leave out the corners of polygons that change an outline by no more than that (default: 0, exact)",
    )
    options.add_layer(parser)
    options.add_output_depth(parser)
    options.add_model(parser)
    options.add_json(parser)
    options.add_quiet(parser)
    options.add_trace(parser)
    generation.add_to(parser)
    editing.add_to(parser)
    parser.set_defaults(command=run)


class Job(NamedTuple):
    """One picture and what is asked about it: each prompt with the name of its outputs, without an ending."""

    image: Path
    asked: list[tuple[prompts.Asked, Path]]
    stem: Path
    """The name of outputs that belong to all prompts."""


class Finding(NamedTuple):
    """What came of one prompt about one picture; not its logits, since there may be thousands."""

    image: Path
    asked: prompts.Asked
    text: str
    size: tuple[int, int]
    timings: Mapping[str, float]
    """Of the call, which all prompts about a picture share."""
    worker: AnsweredBy | None
    saved: Saved
    notes: Sequence[str]


class Plan(NamedTuple):
    """What is done with every answer."""

    kinds: tuple[Kind, ...]
    threshold: float
    editing: editing.Editing
    generation: Generation
    skip_empty: bool
    polygon_tolerance: float
    overwrite: bool
    layer: str | None
    exr_depth: ExrDepth
    decontaminate: bool

    @property
    def kinds_of_prompts(self) -> tuple[Kind, ...]:
        """The kinds whose files belong to one prompt."""
        return tuple(kind for kind in self.kinds if kind != "exr-layers")


class Report:
    """What came of the run so far, in the order of the images."""

    def __init__(self, skipped: Sequence[Path], notes: Sequence[str]) -> None:
        self.findings: list[Finding] = []
        self.failures: list[tuple[Path, Exception]] = []
        self._notes = notes
        """About the inputs together."""
        self.skipped = list(skipped)
        """Images whose outputs were there."""
        self.left: list[Path] = []
        """Images of a run that ended early which nothing was done about."""
        self._begun = time.monotonic()

    def add(self, job: Job, found: list[Finding] | Exception) -> None:
        """What came of an image."""
        if isinstance(found, Exception):
            self.failures.append((job.image, found))
        else:
            self.findings += found

    @property
    def seconds(self) -> float:
        """Since the run began, by the clock on the wall."""
        return time.monotonic() - self._begun

    def document(self, model: str) -> dict[str, Any]:
        """The one document that `--json` prints; `errors`, `skipped` and `left` are there only where there are some."""
        from sa2va_host.timings import TOTAL, together

        calls = {finding.image: finding.timings for finding in self.findings}
        notes = [*self._notes, *(note for finding in self.findings for note in finding.notes)]
        printed: dict[str, Any] = {
            "results": [_described(finding) for finding in self.findings],
            "model": model,
            "worker": options.worker_document(self.findings[-1].worker) if self.findings else None,
            "notes": list(dict.fromkeys(notes)),
            "timings": {**together(calls.values()), TOTAL: round(self.seconds, 3)},
        }
        if self.failures:
            printed["errors"] = [
                {"image": str(image), "error": sentence(error)} for image, error in self.failures
            ]
        for name, images in (("skipped", self.skipped), ("left", self.left)):
            if images:
                printed[name] = [str(image) for image in images]
        return printed


def run(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    with standard_output.folder_for(arguments) as piped:
        return _run(arguments, piped)


def _run(arguments: argparse.Namespace, piped: standard_output.Piped | None) -> int:
    plan = _plan(arguments)
    if arguments.prompt_file == "-" and "-" in arguments.images:
        raise InvalidInput(
            "Standard input cannot hold both an image and the prompts.", advice="Name a file for one of them."
        )
    asked = prompts.read(arguments)
    inputs = pictures.find(arguments.images, recursive=arguments.recursive, output=arguments.output)
    jobs = _jobs(inputs, asked, arguments.output)
    if piped:
        piped.check(len(jobs), len(asked))
    _check_inputs_stay(jobs)
    _check_packages(jobs, plan.kinds)
    jobs, skipped = _without_existing(jobs, plan, skip=arguments.skip_existing)
    report = Report(skipped, inputs.notes)
    notes = Notes(quiet=arguments.quiet)
    notes.say(inputs.notes)
    if not jobs:
        if arguments.json:
            _print_document(report.document(arguments.model or "auto"))
        elif not arguments.quiet:
            print(
                f"Nothing is left to do: the outputs of all {len(skipped)} images are there, by their names."
                " For other prompts or settings use --overwrite, or another folder (-o)."
            )
        return 0
    speaker = _Speaker(
        arguments, report, notes, piped, single=len(jobs) == 1 and not skipped, asked=len(asked)
    )
    model = ""
    try:
        with (
            options.tracing(arguments) as trace,
            _Display(pictures=len(jobs), quiet=arguments.quiet) as display,
            options.connect(arguments, display, trace) as sa,
        ):
            model = sa.settings.model

            def tell(job: Job, found: list[Finding] | Exception) -> None:
                report.add(job, found)
                speaker.tell(job, found)
                display.count(len(report.findings) // len(asked) + len(report.failures))

            _work(sa, jobs, plan, trace, tell, report)
    except BaseException:
        speaker.break_off(len(jobs), model)
        raise
    speaker.finish(model, "started for this call" if display.started_worker else "warm")
    if report.failures:
        if speaker.single:
            raise report.failures[0][1]
        raise _SomeFailed(len(report.failures), len(jobs) + len(skipped))
    return 0


class _Speaker:
    """What the command prints: each image's answer as it comes, and the document or the time at the end."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        report: Report,
        notes: Notes,
        piped: standard_output.Piped | None,
        *,
        single: bool,
        asked: int,
    ) -> None:
        """``single``: there is one image, of which the command's own error tells. ``asked``: how many prompts."""
        self.single = single
        self._report = report
        self._notes = notes
        self._piped = piped
        self._json = arguments.json
        self._silent = arguments.json or arguments.quiet or piped is not None
        self._with_names = not single or asked > 1

    def tell(self, job: Job, found: list[Finding] | Exception) -> None:
        """Of one image."""
        if isinstance(found, Exception):
            if not self.single:
                said = sentence(found)
                about = "" if str(job.image) in said else f"{job.image}: "
                print(f"sa2va: {about}{said}", file=sys.stderr)
            return
        for finding in found:
            self._notes.say(finding.notes)
        if self._piped:
            self._piped.write(found[0].saved.files["masks"], found[0].text)
        elif not self._silent:
            _print(found, with_names=self._with_names)

    def break_off(self, jobs: int, model: str) -> None:
        """The run ends early: what is done by then."""
        report = self._report
        if not self.single and report.findings:
            done = jobs - len(report.left) - len(report.failures)
            print(f"sa2va: {done} of {jobs} images are done.", file=sys.stderr)
        if self._json and (report.findings or report.failures):
            _print_document(report.document(model))

    def finish(self, model: str, how: str) -> None:
        """The run is whole; ``how`` its worker came about."""
        report = self._report
        if self._json:
            _print_document(report.document(model))
        elif report.findings and not self._silent:
            worker = report.findings[-1].worker
            pid = worker.pid if worker else 0
            print(f"{report.seconds:.2f} s, model {model}, worker {pid} ({how})")


def _plan(arguments: argparse.Namespace) -> Plan:
    from sa2va_host.masks.regions import check_tolerance
    from sa2va_host.output.names import checked_kinds

    words = (arguments.save or "masks,overlay").split(",")
    plan = Plan(
        checked_kinds(() if words == ["none"] else words),
        arguments.threshold,
        editing.read(arguments),
        generation.read(arguments),
        arguments.skip_empty,
        arguments.polygon_tolerance,
        arguments.overwrite,
        arguments.layer,
        arguments.exr_depth,
        arguments.decontaminate,
    )
    check_tolerance(plan.polygon_tolerance)
    options.check_output_depth(arguments, plan.kinds)
    editing.check_processors(plan.editing)
    return plan


def _print_document(document: dict[str, Any]) -> None:
    import json

    print(json.dumps(document, indent=2, ensure_ascii=False))


class _SomeFailed(InvalidInput):
    def __init__(self, failed: int, jobs: int) -> None:
        rest = "; the others are done" if failed < jobs else ""
        super().__init__(f"{failed} of {jobs} images failed, as said above{rest}.")


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
        from sa2va_host.extras import has_opencv

        has_opencv()  # which imports it
        import sa2va_host.output.saving  # noqa: F401
    finally:
        if ours:  # a worker that is started later may have as many as it likes
            del os.environ[threads]


def _jobs(inputs: pictures.Inputs, asked: list[prompts.Asked], folder: Path) -> list[Job]:
    from sa2va_host.output.names import distinct_stems

    endings = [f".{each.name}" if len(asked) > 1 or each.is_named else "" for each in asked]
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
            [(each, stem.parent / f"{stem.name}{end}") for each, end in zip(asked, endings, strict=True)],
            stem,
        )
        for image, stem in named
    ]


_MAY_BE_DEEP = (".hdr", ".png", ".tif", ".tiff")
"""Endings of files of which cut-outs have more than 8 bits, beside OpenEXR."""


def _check_packages(jobs: list[Job], kinds: Sequence[Kind]) -> None:
    """Raises `ConfigError` where OpenEXR is missing for an input, or for cut-outs of scene-linear ones, or OpenCV for
    cut-outs of 16 bits.
    """
    from sa2va_host.extras import check_exr, check_opencv
    from sa2va_host.image_depth import LINEAR, depth_of

    for job in jobs:
        suffix = job.image.suffix.lower()
        may_be = suffix in _MAY_BE_DEEP and "cutout" in kinds and job.image.is_file()
        with contextlib.suppress(OSError):  # said when its turn comes
            depth = depth_of(job.image) if may_be else "other"
            if suffix == ".exr" or depth in LINEAR:
                check_exr()
            elif depth != "other":
                check_opencv(f"A cut-out of {job.image}, which has 16 bits,", tried=False)


def _without_existing(jobs: list[Job], plan: Plan, *, skip: bool) -> tuple[list[Job], list[Path]]:
    """The jobs that are to be done, and the images of the others. Raises `InvalidInput` where an output is there and
    nobody said what then, and `OSError` for a folder that cannot be written into.
    """
    from sa2va_host.output.existing import Existing, check_writable, is_whole, refuse

    if not plan.kinds:
        return jobs, []
    check_writable(stem.parent for job in jobs for _, stem in job.asked)
    if plan.overwrite:
        return jobs, []
    existing = Existing()
    there = {job.image: list(_outputs(existing, job, plan)) for job in jobs}
    if not skip:
        refuse(
            path
            for kinds in there.values()
            for each in kinds
            for files in each.values()
            for path in files.values()
        )
    done = {
        image
        for image, kinds in there.items()
        if all(is_whole(each, skip_empty=plan.skip_empty) for each in kinds)
    }
    return [job for job in jobs if job.image not in done], [job.image for job in jobs if job.image in done]


def _outputs(existing: Existing, job: Job, plan: Plan) -> Iterator[dict[Kind, dict[int, Path]]]:
    """What is there of each prompt, and of all prompts together."""
    if kinds := plan.kinds_of_prompts:
        yield from (existing.of(stem, kinds) for _, stem in job.asked)
    if "exr-layers" in plan.kinds:
        yield existing.of(job.stem, ["exr-layers"])


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
    sa: Sa2VA,
    jobs: list[Job],
    plan: Plan,
    trace: Trace,
    tell: Callable[[Job, list[Finding] | Exception], None],
    report: Report,
) -> None:
    """Every job, a few in work at once. Raises what is no fault of one picture."""
    from sa2va_host.cancellation import Cancellation
    from sa2va_host.output.existing import Existing

    cancellation = Cancellation()
    existing = Existing()
    batch = Batch(lambda job: _do(sa, job, plan, trace, cancellation, existing), tell)
    try:
        batch.run(jobs, cancellation)
    except Exception as error:
        if batch.left:  # the one that it happened to
            report.failures.append((batch.left.pop(0).image, error))
        raise
    finally:
        report.left += [job.image for job in batch.left]


def _do(
    sa: Sa2VA, job: Job, plan: Plan, trace: Trace, cancellation: Cancellation, existing: Existing
) -> list[Finding]:
    """One picture, and all prompts about it in one call."""
    from sa2va_host import media

    findings: list[Finding] = []
    notes: list[str] = []
    with trace.span("read", image=str(job.image)):
        picture = media.read_pixels(pictures.source(job.image), layer=plan.layer, notes=notes)
    texts = [asked.prompt for asked, _ in job.asked]
    with trace.call("segment", prompts=texts) as details:
        results = sa.segment_each(picture, texts, generation=plan.generation, cancellation=cancellation)
        timings = results[0].timings
        details["timings"] = timings
    from sa2va_host.light import Window
    from sa2va_host.output.existing import remove_leftovers
    from sa2va_host.output.exr_layers import ObjectChannels
    from sa2va_host.output.saving import save
    from sa2va_host.plate import Plate

    # What came through standard input cannot be read again at full depth.
    plate = None if job.image is pictures.STDIN else Plate(job.image, plan.layer)
    channels = ObjectChannels(plan.exr_depth)
    for (asked, stem), result in zip(job.asked, results, strict=True):
        with trace.call("edit"):
            maps = plan.editing.probabilities(sa, picture, result, cancellation)
        with trace.span("save"):
            saved = save(
                result,
                picture,
                stem,
                plan.kinds,
                prompt=asked.prompt,
                threshold=plan.threshold,
                refinement=plan.editing.refinement,
                probabilities=maps,
                plate=plate,
                exr_depth=plan.exr_depth,
                decontaminated=plan.decontaminate,
                name=asked.name,
                channels=channels,
                skip_empty=plan.skip_empty,
                polygon_tolerance=plan.polygon_tolerance,
            )
            if plan.overwrite:
                kept = max(len(saved.objects), 0 if plan.skip_empty else 1)
                remove_leftovers(existing.of(stem, plan.kinds_of_prompts), kept, result.size)
        said = [*notes, *(note for note in result.notes if note not in notes)]
        findings.append(
            Finding(job.image, asked, result.text, result.size, timings, result.worker, saved, said)
        )
    if "exr-layers" in plan.kinds:
        with trace.span("save"):
            window = plate.window() if plate else Window()
            file = channels.write(f"{job.stem}.layers.exr", window=window)
        last = findings[-1]
        files = {**last.saved.files, "exr-layers": (file,)}
        findings[-1] = last._replace(saved=replace(last.saved, files=files))
    return findings


def _print(findings: list[Finding], *, with_names: bool) -> None:
    for finding in findings:
        about = f"{finding.image}, {finding.asked.prompt!r}: " if with_names else ""
        print(f"{about}{finding.text}")
        for found in finding.saved.objects:
            mask = found.mask or f"object {found.index}"
            print(f"  {mask}  {found.area} pixels, mean probability {found.mean_probability:.2f}")
        for kind, files in finding.saved.files.items():
            for file in files if kind != "masks" or not finding.saved.objects else ():
                print(
                    f"  {file}" + ("" if finding.saved.objects or kind == "overlay" else "  (nothing found)")
                )
    sys.stdout.flush()


def _described(finding: Finding) -> dict[str, Any]:
    """One answer in the document."""
    from dataclasses import asdict

    return {
        "image": str(finding.image),
        "prompt": finding.asked.prompt,
        "name": finding.asked.name,
        "text": finding.text,
        "count": len(finding.saved.objects),
        "objects": [asdict(found) for found in finding.saved.objects],
        "files": {kind: list(map(str, files)) for kind, files in finding.saved.files.items() if files},
        "size": list(finding.size),
        "notes": list(finding.notes),
        "timings": dict(finding.timings),
    }
