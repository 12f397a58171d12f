"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import argparse
import math

DEFAULT_MODEL = "sa2va-tiny"
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def add_model(parser: argparse.ArgumentParser) -> None:
    """The options that say which worker answers."""
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="MODEL",
        help="a bundled name or a checkpoint folder (default: %(default)s)",
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: %(default)s)"
    )
    parser.add_argument(
        "--dtype", default="auto", help="auto, float32, bfloat16, float16 (default: %(default)s)"
    )
    parser.add_argument(
        "--keep-alive",
        type=duration,
        default=300.0,
        metavar="TIME",
        help="how long the worker stays after this call: seconds, 5m, 1h, 0 (not at all), -1 (for ever);"
        " default: 5m",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`, the same on every command."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of lines")


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
