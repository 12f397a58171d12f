"""`sa2va video`: a video and sentences in; masks, mattes and videos out, frame by frame."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sa2va_host.errors import InvalidInput

from . import editing, generation, options, prompts
from .display import Display
from .main import sentence
from .tracking import Outcome, Plan, follow

if TYPE_CHECKING:
    from sa2va_host import Sa2VA
    from sa2va_host.output.recording import Kind, Recording
    from sa2va_host.video.clip import Clip

EXAMPLES = """examples:
  sa2va video clip.mp4 --prompt "the dancer"
  sa2va video clip.mp4 --prompt "the dancer" --prompt "the dog" --save masks,overlay --resolve-overlaps
  sa2va video "shot.####.exr" -p "the car" --save probability -o mattes --start 1001 --end 1100
  sa2va video clip.mp4 --prompt-file prompts.txt --save masks -o masks
  sa2va video frames/ --prompt "the cat" --save alpha,rle --fps 25 -o cat
  sa2va video clip.mp4 --prompt "the dancer" --resume

In DIR, for each object and frame, `masks` writes masks/OBJECT/FRAME.png (255 inside), `probability` the soft matte in
16 bits, `exr` as OpenEXR, `cutout` the object with its alpha; `exr-layers` writes exr-layers/FRAME.exr with a channel
for each object. `overlay` writes overlay.mp4 with the sound, `alpha` a video of each object alone (alpha/OBJECT.mov or
.webm), `rle` rle.jsonl with COCO's RLE, `davis` the folders of DAVIS and YouTube-VOS. run.json says how it was made
and what was found. OBJECT is the prompt in short, or its name in --prompt-file; frames keep the numbers of their files,
and count from 0 in a video, or from --first-frame. A prompt that nothing is found for has masks that are all 0. Masks
are in display orientation: turned as the file says.

Single images are ordered by every number in their names. Where two orders are equally plausible (8.9, 8.10), the
command names both and does nothing. A frame that cannot be read is named and passed over.

For the model 16-bit images are cut to 8 bits; EXR, Radiance HDR and float TIFF are taken as scene-linear and shown as
sRGB, clipped above 1. Cut-outs keep the depth of the frames: EXR with premultiplied alpha of scene-linear ones, 16-bit
PNG of 16-bit ones. 10-bit and HDR video is brought to 8 bits without tone mapping, with a note. Transparent parts are
white for the model.
"""

_SEEN_EARLY = (
    "The model was shown the first frames alone, and found nothing there. What comes later is found with --key-frames"
    " uniform:5 or --ask-again every:10."
)


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "video",
        help="find what a sentence describes in a video, and follow it",
        description="Find what a sentence describes in a video, and follow it through the frames. Memory does not grow"
        " with the length. An interrupted run keeps every frame that was finished.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "input",
        metavar="INPUT",
        help="a video file, an animated image, a folder of frames, a pattern, or numbers: shot.####.exr",
    )
    prompts.add_to(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="where to write (default: INPUT's name with -tracked)",
    )
    parser.add_argument(
        "--save",
        default="masks,overlay",
        metavar="KINDS",
        help="what to write, of masks, probability, exr, exr-layers, cutout, overlay, alpha, rle, davis, none"
        " (default: %(default)s)",
    )
    existing = options.add_existing(
        parser, "go on with a run that is in DIR, and do nothing where it is finished: as --resume"
    )
    existing.add_argument("--resume", action="store_true", help="go on with an interrupted run in DIR")
    options.add_skip_empty(parser)
    frames = parser.add_argument_group("which frames")
    options.add_layer(frames)
    frames.add_argument(
        "--first-frame",
        type=int,
        metavar="N",
        help="the number of a video file's first frame, such as 1001, by which --start, --end and all outputs count"
        " (default: 0)",
    )
    frames.add_argument("--start", type=int, metavar="N", help="the first frame, by its number")
    frames.add_argument("--end", type=int, metavar="N", help="the last frame, by its number")
    frames.add_argument("--stride", type=int, default=1, metavar="N", help="every Nth frame (default: 1)")
    frames.add_argument(
        "--max-size",
        type=int,
        metavar="N",
        help="scale frames and outputs down to N pixels on the longer side",
    )
    frames.add_argument(
        "--fps",
        type=_rate,
        metavar="N",
        help="frames per second of single images: 25, 24000/1001 (default: 24)",
    )
    frames.add_argument(
        "--deinterlace",
        action="store_true",
        help="of interlaced video make whole frames, one for each (FFmpeg's bwdif)",
    )
    frames.add_argument(
        "--key-frames",
        default="first:5",
        metavar="WHICH",
        help="the frames that the language model sees, and the tracker is conditioned on: first:N, or uniform:N for N"
        " evenly over the video, which is read twice then (default: %(default)s)",
    )
    frames.add_argument(
        "--condition-on",
        choices=("vectors", "masks"),
        default="vectors",
        help="what the tracker is told of the key frames: vectors as upstream does, or masks that are found there"
        " first, as Sa2VA-i does (default: vectors)",
    )
    frames.add_argument(
        "--tracker-decoder",
        metavar="MODEL",
        help="with masks: a folder or ORG/NAME whose SAM2 mask decoder propagates them, which should be SAM2's original"
        " one: facebook/sam2-hiera-large (default: the model's own)",
    )
    frames.add_argument(
        "--ask-again",
        default="never",
        metavar="WHEN",
        help="for videos with cuts: every:N asks the model anew every N frames, cuts at each cut; a prompt is one"
        " object then (default: never)",
    )
    masks = parser.add_argument_group("masks")
    masks.add_argument(
        "--threshold",
        type=options.probability,
        default=0.5,
        metavar="P",
        help="a pixel belongs to the mask where the probability is above it (default: %(default)s)",
    )
    masks.add_argument(
        "--resolve-overlaps", action="store_true", help="give each pixel to the most probable object alone"
    )
    masks.add_argument(
        "--presence",
        type=options.probability,
        default=0.5,
        metavar="P",
        help="leave an object out of frames where the model is less sure that it is there; 0 never does"
        " (default: %(default)s)",
    )
    masks.add_argument(
        "--alpha-codec", choices=("prores", "vp9"), default="prores", help="of alpha videos (default: prores)"
    )
    options.add_output_depth(masks)
    options.add_model(parser)
    options.add_json(parser)
    options.add_quiet(parser)
    options.add_trace(parser)
    generation.add_to(parser)
    editing.add_to(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    from sa2va_host.discovery import expanded
    from sa2va_host.output.existing import check_writable
    from sa2va_host.output.recording import ALPHA_CODECS, KINDS, Recording, checked_kinds
    from sa2va_host.output.run_note import RunNote
    from sa2va_host.video.clip import Selection, open_clip

    words = arguments.save.split(",")
    kinds = checked_kinds(() if words == ["none"] else words)
    options.check_output_depth(arguments, kinds)
    resume = arguments.resume or arguments.skip_existing
    plan = _plan(arguments, resume=resume)
    selection = Selection(arguments.start, arguments.end, arguments.stride, arguments.max_size)
    _check_no_streams(arguments)
    arguments.input = str(expanded(arguments.input))
    clip = open_clip(
        arguments.input,
        selection,
        rate=arguments.fps,
        layer=arguments.layer,
        first_frame=arguments.first_frame,
        deinterlace=arguments.deinterlace,
    )
    folder = arguments.output or Path(f"{clip.name}-tracked")
    # What is written over is all that an earlier run left, of whatever kind.
    _check_input_stays(Path(arguments.input), folder, KINDS if arguments.overwrite else kinds)
    check_writable([folder])
    outcome = Outcome()
    with (
        options.tracing(arguments) as trace,
        Display(quiet=arguments.quiet) as display,
        options.connect(arguments, display, trace, tracker_decoder=arguments.tracker_decoder) as sa,
        RunNote(
            folder, _settings(arguments, clip, sa, plan, kinds), resume=resume, overwrite=arguments.overwrite
        ) as note,
    ):
        if note.before is not None and _all_there(note.before):
            return _say_finished(note.before, folder, arguments)
        for warning in clip.warnings:
            display.note(warning)
        said = len(clip.warnings)
        recording = Recording(
            folder,
            clip,
            kinds,
            alpha=ALPHA_CODECS[arguments.alpha_codec],
            resume=resume,
            exr_depth=arguments.exr_depth,
            decontaminated=arguments.decontaminate,
            skip_empty=arguments.skip_empty,
        )
        if not (arguments.overwrite or note.path.exists()):
            _refuse_strangers(recording)
        try:
            with recording, trace.call("follow", prompts=plan.prompts) as details:
                follow(sa, clip, plan, recording, note.begin, display, outcome)
                details["timings"] = dict(outcome.timings)
        except BaseException as error:
            if recording.frames:
                # What was wrong with the request will be so again.
                way = "." if isinstance(error, InvalidInput) else "; the same command with --resume goes on."
                print(f"sa2va: {recording.frames} frames are in {folder}{way}", file=sys.stderr)
                if arguments.json:
                    warnings = [*clip.warnings, *recording.warnings]
                    printed = document(outcome, plan, recording, warnings, arguments.input, sa.settings.model)
                    _print_document({**printed, "finished": False, "error": sentence(error)})
            raise
        warnings = [*clip.warnings, *recording.warnings, *outcome.notes]
        if not outcome.objects and plan.key_frames.startswith("first:"):
            warnings.append(_SEEN_EARLY)
        for warning in warnings[said:]:
            display.note(warning)
        printed = document(outcome, plan, recording, warnings, arguments.input, sa.settings.model)
        note.finish(printed)
    if arguments.json:
        _print_document(printed)
    elif not arguments.quiet:
        _print(printed, started=display.started_worker)
    return 0


def _check_no_streams(arguments: argparse.Namespace) -> None:
    """Raises `InvalidInput` for `-`, which `segment` takes as its input and output: a video is many files, read twice
    where key frames are spread.
    """
    if arguments.input == "-":
        raise InvalidInput("A video is not read from standard input.", advice="Name a file or a folder.")
    if str(arguments.output) == "-":
        raise InvalidInput(
            "The outputs of a video are several files, and standard output takes none of them.",
            advice="Name a folder with -o.",
        )


def document(
    outcome: Outcome, plan: Plan, recording: Recording, warnings: Sequence[str], source: str, model: str
) -> dict[str, Any]:
    """The one document that `--json` prints, and run.json keeps. Answers are there once the model has given them."""
    return {
        "input": source,
        "output": str(recording.folder),
        "answers": [
            {"prompt": asked.prompt, "name": asked.name, "text": answer.text, "objects": count}
            for asked, answer, count in zip(plan.asked, outcome.answers, outcome.counts, strict=False)
        ],
        "objects": [asdict(found) for found in outcome.objects],
        "frames": recording.frames,
        "size": list(outcome.size),
        "files": {kind: str(path) for kind, path in recording.paths.items() if path.exists()},
        "warnings": list(warnings),
        "notes": list(outcome.notes),
        "model": model,
        "worker": options.worker_document(outcome.worker),
        "timings": dict(outcome.timings),
    }


def _all_there(before: Mapping[str, Any]) -> bool:
    """Whether what a finished run has written is where it was."""
    files = before.get("files")
    return isinstance(files, dict) and all(Path(str(path)).exists() for path in files.values())


def _say_finished(before: Mapping[str, Any], folder: Path, arguments: argparse.Namespace) -> int:
    """Of a run that is finished already; returns the exit code."""
    if arguments.json:
        _print_document(
            {name: value for name, value in before.items() if name not in ("format", "settings", "finished")}
        )
    elif not arguments.quiet:
        print(
            f"The run in {folder} is finished, with {before.get('frames')} frames; nothing is left to do."
            " --overwrite does it again."
        )
    return 0


def _refuse_strangers(recording: Recording) -> None:
    """Raises `InvalidInput` where the folder holds outputs, and no manifest that says how they were made."""
    from sa2va_host.output.existing import refuse

    paths = [*recording.paths.values(), recording.folder / "meta.json"]
    written = paths if "davis" in recording.paths else paths[:-1]
    refuse(path for path in written if path.is_file() or (path.is_dir() and any(path.iterdir())))


def _print_document(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))


def _plan(arguments: argparse.Namespace, *, resume: bool) -> Plan:
    plan = Plan(
        prompts.read(arguments),
        arguments.key_frames,
        arguments.condition_on,
        arguments.ask_again,
        arguments.threshold,
        arguments.presence,
        arguments.resolve_overlaps,
        arguments.skip_empty,
        editing.read(arguments),
        generation.read(arguments),
    )
    editing.check_processors(plan.editing)
    if resume and plan.generation.do_sample and plan.generation.seed is None:
        raise InvalidInput(
            "A run that draws words at random cannot be resumed: it would find something else.",
            advice="Give both runs the same --seed.",
        )
    return plan


def _settings(
    arguments: argparse.Namespace, clip: Clip, sa: Sa2VA, plan: Plan, kinds: Sequence[Kind]
) -> dict[str, Any]:
    """All that the outputs depend on, by name."""
    from msgspec import to_builtins

    changes = plan.editing
    return {
        "input": str(Path(arguments.input).absolute()),
        "input's files": clip.version,
        "frames": {
            "start": arguments.start,
            "end": arguments.end,
            "stride": arguments.stride,
            "max_size": arguments.max_size,
            "first_frame": arguments.first_frame,
            "deinterlace": arguments.deinterlace,
        },
        "fps": None if arguments.fps is None else str(arguments.fps),
        "layer": arguments.layer,
        "model": {
            "name": sa.settings.model,
            "revision": sa.settings.revision,
            "dtype": sa.settings.dtype,
            "quantization": sa.settings.quantization,
        },
        "tracker_decoder": sa.specification.tracker_decoder,
        "prompts": [{"name": asked.name, "prompt": asked.prompt} for asked in plan.asked],
        "key_frames": plan.key_frames,
        "condition_on": plan.condition_on,
        "ask_again": plan.ask_again,
        "masks": {
            "threshold": plan.threshold,
            "presence": plan.presence,
            "resolve_overlaps": plan.resolve_overlaps,
            "skip_empty": plan.skip_empty,
        },
        "editing": {
            "processors": [{"name": name, "options": dict(values)} for name, values in changes.processors],
            "combination": changes.combination,
            "refinement": to_builtins(changes.refinement),
        },
        "generation": to_builtins(plan.generation),
        "save": list(kinds),
        "alpha_codec": arguments.alpha_codec,
        "outputs": {"exr_depth": arguments.exr_depth, "decontaminate": arguments.decontaminate},
    }


def _check_input_stays(source: Path, folder: Path, kinds: Sequence[Kind]) -> None:
    """Raises `InvalidInput` where an output would be written over the video that is being read, or among its frames."""
    where = source.resolve()
    written = [folder / {"davis": "Annotations", "overlay": "overlay.mp4"}.get(kind, kind) for kind in kinds]
    if any(where.is_relative_to(path.resolve()) for path in written):
        raise InvalidInput(
            f"{source} would be written over while it is read.", advice="Name another folder with -o."
        )


def _print(printed: dict[str, Any], *, started: bool) -> None:
    for answer in printed["answers"]:
        about = f"{answer['prompt']!r}: " if len(printed["answers"]) > 1 else ""
        print(f"{about}{answer['text']}")
        if not answer["objects"]:
            print(f"  {answer['name']}  not found")
    for found in printed["objects"]:
        print(f"  {found['name']}  in {found['frames']} of {printed['frames']} frames")
    for path in printed["files"].values():
        print(f"  {path}")
    worker = printed["worker"]["pid"] if printed["worker"] else 0
    how = "started for this call" if started else "warm"
    print(
        f"{printed['frames']} frames in {printed['timings']['total']:.1f} s, model {printed['model']},"
        f" worker {worker} ({how})"
    )


def _rate(text: str) -> Fraction:
    """Frames per second from `25`, `23.976` or `24000/1001`; for argparse."""
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if rate <= 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of frames per second; write 25 or 24000/1001"
        )
    return rate
