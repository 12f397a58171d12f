"""`sa2va chat`: a question, with or without pictures, answered in words."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from . import options


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "chat",
        help="ask a question about pictures",
        description="Ask a question, with or without pictures, and get words.",
        epilog='example:\n  sa2va chat photo.jpg --prompt "how many circles are there?"',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("images", metavar="IMAGE", nargs="*", type=Path, help="picture files")
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="the question")
    options.add_model(parser)
    options.add_json(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    from sa2va_host import media

    from .display import Display

    pictures = [media.read_image(path) for path in arguments.images]
    with (
        Display() as display,
        options.connect(arguments, display) as sa,
    ):
        answer = sa.chat(arguments.prompt, images=pictures or None)
    if arguments.json:
        document = {
            "images": [str(path) for path in arguments.images],
            "prompt": arguments.prompt,
            "text": answer.text,
            "model": sa.settings.model,
            "worker": options.worker_document(answer.worker),
            "timings": answer.timings,
        }
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        print(answer.text)
    return 0
