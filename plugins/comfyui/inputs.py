"""Inputs and types that several nodes share."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io

from sa2va_host.errors import InvalidInput

from . import model_list

CATEGORY = "Sa2VA"
OBJECTS = io.Custom("SA2VA_OBJECTS")
"""`found_objects.FoundObjects`: names, and probabilities or tracks at the model's resolution."""
OPTIONS = io.Custom("SA2VA_OPTIONS")
"""`options.Options`."""


def schema(
    node_id: str, display_name: str, description: str, *, words: Sequence[str], **more: Any
) -> io.Schema:
    """A node of the pack. ``words`` are what people may search for: newer versions of ComfyUI find nodes by them."""
    if "search_aliases" in inspect.signature(io.Schema).parameters:
        more["search_aliases"] = list(words)
    return io.Schema(
        node_id=node_id,
        display_name=display_name,
        category=CATEGORY,
        description=f"{description} Search words: {', '.join(words)}.",
        **more,
    )


def model_input() -> Any:
    """The model: on disk first, downloads marked."""
    return io.Combo.Input(
        "model",
        options=model_list.choices(),
        default="auto",
        tooltip="auto takes the best that is on this machine. An entry marked 'download' is fetched into the"
        " Hugging Face cache when the node runs. Folders: models/sa2va/<org>/<name> or models/sa2va/<name>.",
    )


def prompt_input(example: str) -> Any:
    """What to find, one object a line."""
    return io.String.Input(
        "prompt",
        default=example,
        multiline=True,
        tooltip="What to find, in words. Write one thing a line to get one named object each; a single line gives"
        " one object for each thing that the model marks.",
    )


def threshold_input(default: float) -> Any:
    """A probability."""
    return io.Float.Input(
        "threshold",
        default=default,
        min=0.0,
        max=1.0,
        step=0.05,
        tooltip="A pixel belongs to the mask where the model's probability is above it: 0.5 means 0.5.",
    )


def fixed_seed() -> Any:
    """For `control_after_generate`: a seed stays as it is after each run, unless the user says otherwise.

    Older versions of ComfyUI know only whether there is such a control; there the page sets it (`web/seeds.js`).
    """
    return getattr(getattr(io, "ControlAfterGenerate", None), "fixed", True)


def options_input() -> Any:
    """From Model Options."""
    return OPTIONS.Input(
        "options",
        optional=True,
        tooltip="From Sa2VA Model Options: quantization, attention, device, unloading, sampling. Not needed.",
    )


def lines_of(prompt: str) -> list[str]:
    """The lines of a prompt that say something. Raises `InvalidInput` where there is none."""
    lines = [line.strip() for line in prompt.splitlines() if line.strip()]
    if not lines:
        raise InvalidInput("The prompt is empty.", advice="Say what to look for, such as 'the red circle'.")
    return lines
