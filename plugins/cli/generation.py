"""The options that say how the text of an answer is generated."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sa2va_host import Generation

_SETTINGS = {
    "max_new_tokens": (int, "N", "the longest answer, in tokens (default: 2048)"),
    "temperature": (float, "T", "below 1 likely words become likelier, above 1 less likely"),
    "top_p": (float, "P", "draw from the fewest words whose probabilities add up to P"),
    "top_k": (int, "K", "draw from the K likeliest words"),
    "min_p": (float, "P", "draw from words at least P times as likely as the likeliest"),
    "repetition_penalty": (float, "F", "above 1, what was said already becomes less likely"),
    "seed": (int, "N", "the same seed draws the same words"),
}


def add_to(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("generating text (greedy, unless --sample is given)")
    group.add_argument(
        "--sample", dest="do_sample", action="store_true", help="draw words at random, by their probability"
    )
    for name, (kind, metavar, words) in _SETTINGS.items():
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=metavar, help=words)


def read(arguments: argparse.Namespace) -> Generation:
    """The options as parsed. Raises `InvalidInput` for impossible values, and for what needs `--sample` without it."""
    from sa2va_host import Generation

    values = {name: getattr(arguments, name) for name in _SETTINGS}
    return Generation(do_sample=arguments.do_sample, **values)
