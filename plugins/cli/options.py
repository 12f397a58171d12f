"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sa2va_host import Sa2VA
    from sa2va_host.events import Event
    from sa2va_host.results import AnsweredBy
    from sa2va_host.trace import Trace

    from .display import Display

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def add_model(
    parser: argparse.ArgumentParser, default: str | None = None, *, positional: bool = False
) -> None:
    """The options that say which worker answers. What is not given comes from the settings.

    With ``positional`` the model is a word of its own, which may be left out.
    """
    where: dict[str, Any] = {"nargs": "?"} if positional else {}
    parser.add_argument(
        *(["model"] if positional else ["--model"]),
        **where,
        metavar="MODEL",
        default=default,
        help="a bundled name, a checkpoint folder or ORG/NAME"
        f" (default: {default or 'the largest known one here that fits the GPU; see sa2va models'})",
    )
    add_revision(parser)
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="auto, cpu, cuda, cuda:1, mps, balanced (over all GPUs), offload (default: auto)",
    )
    parser.add_argument("--dtype", metavar="NAME", help="auto, float32, bfloat16, float16 (default: auto)")
    parser.add_argument(
        "--quantization",
        metavar="BITS",
        help="none, 8bit, 4bit: round the language model's weights, to fit a smaller GPU (default: none)",
    )
    parser.add_argument(
        "--attention",
        metavar="NAME",
        help="auto, sdpa, flash_attention_2, eager, or a kernel of the hub; what does not run here falls back"
        " (default: auto)",
    )
    parser.add_argument(
        "--keep-alive",
        type=duration,
        metavar="TIME",
        help="how long the worker stays after this call: 300, 90s, 5m, 1h, 0 (not at all), -1 (for ever);"
        " default: 5m",
    )


def add_revision(parser: argparse.ArgumentParser) -> None:
    """The options that pin a model of the hub, and trust the code in it."""
    parser.add_argument(
        "--revision", metavar="NAME", help="the branch, tag or commit of a model of the hub (default: main)"
    )
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        default=None,
        help="use the Python code that comes with the checkpoint, which may do whatever you may; for a model of the"
        " hub --revision must be a commit",
    )


def connect(
    arguments: argparse.Namespace,
    display: Display,
    trace: Trace | None = None,
    *,
    tracker_decoder: str | None = None,
) -> Sa2VA:
    """The client that the options ask for, which attaches to its worker at once; its events go to `display`, and to
    `trace` first. A model that nobody named is announced.
    """
    from sa2va_host import Sa2VA

    def event(event: Event) -> None:
        if trace is not None:
            trace.event(event)
        display.event(event)

    sa = Sa2VA(
        arguments.model,
        revision=arguments.revision,
        device=arguments.device,
        dtype=arguments.dtype,
        attention=arguments.attention,
        quantization=arguments.quantization,
        trust_remote_code=arguments.trust_remote_code,
        tracker_decoder=tracker_decoder,
        keep_alive=arguments.keep_alive,
        on_event=event,
    )
    # That the bundled model answers for want of another is a note of every answer.
    if sa.choice.reason and not sa.choice.fallback:
        print(f"Model {sa.choice.model}: {sa.choice.reason}", file=sys.stderr)
    sa.attach()
    return sa


def worker_document(worker: AnsweredBy | None) -> dict[str, int | float] | None:
    """A worker as `--json` names it: `started` in seconds since 1970 tells two processes of one pid apart."""
    return None if worker is None else {"pid": worker.pid, "started": worker.started}


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`, the same on every command."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of lines")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """`--quiet`, the same on every command that shows progress."""
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="print errors alone, and with --json the document"
    )


def add_existing(parser: argparse.ArgumentParser, skip: str) -> argparse._MutuallyExclusiveGroup:
    """What is done where outputs are there already; by default they are named and nothing is done.

    ``skip`` is the help of `--skip-existing`. The options exclude each other, and what is added to the result.
    """
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--overwrite", action="store_true", help="write over what an earlier run left")
    which.add_argument("--skip-existing", action="store_true", help=skip)
    return which


def add_skip_empty(parser: argparse.ArgumentParser) -> None:
    """`--skip-empty`, the same on the commands that write masks."""
    parser.add_argument(
        "--skip-empty",
        action="store_true",
        help="write no masks for a prompt that nothing is found for (default: masks that are all 0)",
    )


def add_trace(parser: argparse.ArgumentParser) -> None:
    """`--trace`, the same on every command that asks the model."""
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="write a timeline of host, transport, worker and model, which https://ui.perfetto.dev opens",
    )


@contextlib.contextmanager
def tracing(arguments: argparse.Namespace) -> Iterator[Trace]:
    """Records the command; what there is, is written to the file of `--trace` also where the command fails.

    Raises `OSError` where the file cannot be written, before anything is done; at the end that is a warning.
    """
    from sa2va_host.trace import Trace

    trace = Trace()
    file: Path | None = arguments.trace
    if file is not None and not (file.is_char_device() or file.is_fifo()):
        trace.write(file)
    try:
        yield trace
    finally:
        if file is not None:
            try:
                trace.write(file)
            except OSError as error:
                print(f"sa2va: The timeline {file} is not written: {error.strerror}.", file=sys.stderr)


def add_layer(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """`--layer`, the same on every command that reads image files."""
    parser.add_argument(
        "--layer",
        metavar="NAME",
        help="which layer, part or view of OpenEXR files: beauty, ViewLayer.Combined, right (default: the plain R, G"
        " and B, else the only layer)",
    )


def add_output_depth(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """How exactly values and colours are written, the same in `segment` and `video`."""
    parser.add_argument(
        "--exr-depth",
        choices=("half", "float"),
        default="half",
        help="of OpenEXR outputs: 16-bit half or 32-bit float (default: half)",
    )
    parser.add_argument(
        "--decontaminate",
        action="store_true",
        help="free soft edges of cut-outs and alpha videos of the background's colour (the extra matting)",
    )


def check_output_depth(arguments: argparse.Namespace, kinds: Collection[str]) -> None:
    """Raises `InvalidInput` where `--decontaminate` has nothing to change, `ConfigError` without its package."""
    if not arguments.decontaminate:
        return
    from sa2va_host.errors import InvalidInput
    from sa2va_host.extras import check_matting

    if not {"cutout", "alpha"} & {*kinds}:
        raise InvalidInput(
            "--decontaminate changes cut-outs and alpha videos, and none is saved.",
            advice="Add --save cutout.",
        )
    check_matting()


def duration(text: str) -> float:
    """Seconds from `300`, `90s`, `5m`, `1h` or `-1`; for argparse."""
    number, unit = (text[:-1], _UNITS[text[-1]]) if text[-1:] in _UNITS else (text, 1.0)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = math.nan
    if math.isnan(seconds):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 300, 90s, 5m, 1h, 0 or -1")
    return seconds


def probability(text: str) -> float:
    """A number from 0 to 1; for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no probability from 0 to 1")
    return value
