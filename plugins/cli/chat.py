"""`sa2va chat`: questions, with or without pictures, answered in words."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sa2va_host.errors import InvalidInput
from sa2va_host.events import TextPiece

from . import generation, options, pictures
from .display import Display, Notes

if TYPE_CHECKING:
    from pathlib import Path

    from sa2va_host.calls.outcomes import ChatAnswer
    from sa2va_host.region_prompts import Region

EXAMPLES = """examples:
  sa2va chat photo.jpg --prompt "how many circles are there?"
  sa2va chat photo.jpg --prompt "what is this?" --prompt "and what colour is it?"
  sa2va chat photo.jpg                      (a conversation; an empty line or Ctrl-D ends it)
  echo "what is this?" | sa2va chat photo.jpg
"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "chat",
        help="ask questions about pictures",
        description="Ask questions, with or without pictures, and get words. Each one is asked in the light of those"
        " before it. Without --prompt they are read from standard input, a line each.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "images", metavar="IMAGE", nargs="*", help="image files, folders or patterns; - is standard input"
    )
    parser.add_argument(
        "-p",
        "--prompt",
        dest="prompts",
        action="append",
        metavar="TEXT",
        help="the question; may be repeated",
    )
    parser.add_argument(
        "--region",
        dest="regions",
        action="append",
        default=[],
        metavar="BOX|FILE",
        help="a part of the one picture, called region1, region2 ... in the prompt: x0,y0,x1,y1 in pixels or a mask's"
        " file; may be repeated (checkpoints of the InternVL families)",
    )
    options.add_layer(parser)
    options.add_model(parser)
    options.add_json(parser)
    options.add_quiet(parser)
    options.add_trace(parser)
    generation.add_to(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    from sa2va_host import media

    settings = generation.read(arguments)
    inputs = pictures.find(arguments.images)
    if not arguments.prompts and any(file is pictures.STDIN for file in inputs.files):
        raise InvalidInput(
            "Standard input cannot hold both the image and the questions.", advice="Give --prompt TEXT."
        )
    said = Notes(quiet=arguments.quiet)
    notes = inputs.notes
    shown = [
        media.read_image(pictures.source(file), layer=arguments.layer, notes=notes) for file in inputs.files
    ]
    said.say(notes)
    regions = [_region(text) for text in arguments.regions]
    history: list[tuple[str, str]] = []
    answer: ChatAnswer | None = None
    streams = sys.stdout.isatty() and not arguments.json
    with (
        options.tracing(arguments) as trace,
        _Speech(streams=streams, quiet=arguments.quiet) as speech,
        options.connect(arguments, speech, trace) as sa,
    ):
        for prompt in _prompts(arguments):
            with trace.call("chat", prompt=prompt) as details:
                answer = sa.chat(
                    prompt, images=shown or None, regions=regions, history=history, generation=settings
                )
                details["timings"] = answer.timings
            history.append((prompt, answer.text))
            notes += [note for note in answer.notes if note not in notes]
            speech.rest()
            if not arguments.json:
                speech.finish(answer.text)
            said.say(notes)
        if answer is None:
            raise InvalidInput("There is no question.", advice="Give --prompt TEXT, or type one.")
        if arguments.json:
            print(
                json.dumps(
                    document(inputs.files, history, sa.settings.model, answer, notes),
                    indent=2,
                    ensure_ascii=False,
                )
            )
    return 0


class _Speech(Display):
    """A display that, with `streams`, prints the answer as it is generated; what else moves rests meanwhile."""

    def __init__(self, *, streams: bool, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._streams = streams
        self._said = ""

    def event(self, event: Any) -> None:
        """As `Display.event`; a piece of text goes to stdout."""
        if self._streams and isinstance(event, TextPiece):
            # Answers are stripped: what comes before the first word is not theirs.
            piece = event.text if self._said else event.text.lstrip()
            if piece and not self._said:
                self.rest()
            self._said += piece
            print(piece, end="", flush=True)
        elif not self._said:
            super().event(event)

    def __exit__(self, *_: object) -> None:
        """What was said when a call failed has its line ended."""
        if self._said:
            print(flush=True)
        self.rest()

    def finish(self, text: str) -> None:
        """Print what is still missing of the whole answer, and end the line."""
        said, self._said = self._said, ""
        if text.startswith(said.rstrip()):
            print(text.removeprefix(said.rstrip()), flush=True)
        else:  # an engine's pieces need not add up to its answer, which is what counts
            print(f"\n{text}", flush=True)


def _prompts(arguments: argparse.Namespace) -> Iterator[str]:
    """The questions: those of the options, else lines of standard input, with a prompt on a terminal."""
    if arguments.prompts:
        yield from arguments.prompts
        return
    on_terminal = sys.stdin.isatty()
    while True:
        if on_terminal:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line or (on_terminal and not line.strip()):
            return
        if line.strip():
            yield line.strip()


def _region(text: str) -> Region:
    """A box of four numbers, or what is bright in the picture of a file."""
    from sa2va_host import media
    from sa2va_host.discovery import expanded

    numbers = text.split(",")
    if len(numbers) == 4 and all(number.strip().isdecimal() for number in numbers):
        return [int(number) for number in numbers]
    bright: Region = media.read_image(expanded(text)).max(axis=2) > 127
    return bright


def document(
    files: list[Path], history: list[tuple[str, str]], model: str, answer: ChatAnswer, notes: list[str]
) -> dict[str, Any]:
    """The one document that `--json` prints. `prompt` and `text` are the last turn; `turns` are all of them."""
    return {
        "images": [str(file) for file in files],
        "prompt": history[-1][0],
        "text": answer.text,
        "turns": [{"prompt": prompt, "text": text} for prompt, text in history],
        "model": model,
        "worker": options.worker_document(answer.worker),
        "notes": notes,
        "timings": answer.timings,
    }
