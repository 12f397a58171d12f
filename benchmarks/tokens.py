"""Tokens per second about a picture, reading the prompt included: against `generate`, by attention and by precision."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import starmap
from pathlib import Path

import torch

from sa2va_host.errors import Sa2VAError
from sa2va_worker.attention import FLASH

from .figures import Figure, NotMeasured, not_measured, ratio, times
from .model import Model
from .pictures import noise

TOKENS = 64
PICTURE = (448, 448)
PANEL = "tokens per second"
PRECISIONS = ("8bit", "4bit")
GROWING = "transformers' generate, dynamic cache"
STATIC = "transformers' generate, static cache and compile"
"""What these would bring: our cache grows, and nothing of ours is compiled."""
_LONGEST_REASON = 200


def against_generate(model: Model, repeat: int) -> Iterator[Figure]:
    """Our loop, and transformers' own on the same weights."""
    picture = noise(PICTURE)
    speak, generate = partial(model.speak, picture, TOKENS), partial(model.generate, picture, TOKENS)
    ours, growing = starmap(_speed, zip(("ours, sdpa", GROWING), times(repeat, speak, generate), strict=True))
    static = _measured(STATIC, partial(_compiled, model), repeat)
    if model.compiled:
        torch.compiler.reset()  # what is compiled holds the weights
    yield from (ours, growing, static)
    yield ratio("time of a token, ours against generate with a dynamic cache", growing, ours)
    yield ratio("time of a token, generate with a static cache and compile against ours", ours, static)


def otherwise(folder: Path, device: str, repeat: int) -> Iterator[Figure]:
    """Our loop with the other attention, and with rounded weights."""
    for attending, bits in ((FLASH, "none"), *(("sdpa", bits) for bits in PRECISIONS)):
        name = ", ".join(["ours", attending, *([] if bits == "none" else [bits])])
        yield _measured(name, partial(_loaded, folder, device, attending, bits), repeat)


def _speed(name: str, seconds: Sequence[float]) -> Figure:
    return Figure(name, tuple(TOKENS / second for second in seconds), unit="tokens/s", panel=PANEL)


def _measured(name: str, make: Callable[[], Callable[[], object]], repeat: int) -> Figure:
    """The speed of what `make` makes, which says `TOKENS` each time."""
    gc.collect()
    torch.cuda.empty_cache()
    try:
        (seconds,) = times(repeat, make())
    except (NotMeasured, Sa2VAError) as error:
        return not_measured(f"{PANEL}: {name}", error)
    return _speed(name, seconds)


def _loaded(folder: Path, device: str, attending: str, bits: str) -> Callable[[], object]:
    return partial(Model(folder, device, attending, bits).speak, noise(PICTURE), TOKENS)


def _compiled(model: Model) -> Callable[[], object]:
    """`generate` with a static cache, compiled. Raises `NotMeasured` where that cannot be had."""
    say = partial(model.generate, noise(PICTURE), TOKENS, "static")
    try:
        say()
    except Exception as error:  # a compiler's failures have many classes
        why = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_REASON]
        raise NotMeasured(f"it does not run here: {why}") from error
    if not model.compiled:
        raise NotMeasured(f"transformers compiles nothing on {model.device.type}.")
    return say
