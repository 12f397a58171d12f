"""`sa2va chat`: questions, with or without pictures, answered in words."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sa2va_host.errors import InvalidInput

from . import options, pictures
from .display import Display

if TYPE_CHECKING:
    from pathlib import Path

    from sa2va_host import Sa2VA
    from sa2va_host.media import Picture
    from sa2va_host.outcomes import ChatAnswer

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
    parser.add_argument("images", metavar="IMAGE", nargs="*", help="picture files, folders or patterns")
    parser.add_argument(
        "--prompt", dest="prompts", action="append", metavar="TEXT", help="the question; may be repeated"
    )
    options.add_model(parser)
    options.add_json(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    from sa2va_host import media

    files = pictures.find(arguments.images)
    shown = [media.read_image(file) for file in files]
    history: list[tuple[str, str]] = []
    answer: ChatAnswer | None = None
    with Display() as display, options.connect(arguments, display) as sa:
        for prompt in _prompts(arguments):
            answer = _ask(sa, display, prompt, shown, history)
            if not arguments.json:
                print(answer.text, flush=True)
        if answer is None:
            raise InvalidInput("There is no question.", advice="Give --prompt TEXT, or type one.")
        if arguments.json:
            print(
                json.dumps(document(files, history, sa.settings.model, answer), indent=2, ensure_ascii=False)
            )
    return 0


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


def _ask(
    sa: Sa2VA, display: Display, prompt: str, shown: list[Picture], history: list[tuple[str, str]]
) -> ChatAnswer:
    """One turn, which is added to the history."""
    answer = sa.chat(prompt, images=shown or None, history=history)
    display.rest()
    history.append((prompt, answer.text))
    return answer


def document(
    files: list[Path], history: list[tuple[str, str]], model: str, answer: ChatAnswer
) -> dict[str, Any]:
    """The one document that `--json` prints. `prompt` and `text` are the last turn; `turns` are all of them."""
    return {
        "images": [str(file) for file in files],
        "prompt": history[-1][0],
        "text": answer.text,
        "turns": [{"prompt": prompt, "text": text} for prompt, text in history],
        "model": model,
        "worker": options.worker_document(answer.worker),
        "timings": answer.timings,
    }
