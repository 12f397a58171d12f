"""Inputs and types that several nodes share."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from typing import Any

from comfy_api.latest import io

from sa2va_host.errors import InvalidInput

from . import model_list

CATEGORY = "Sa2VA"
OBJECTS = io.Custom("SA2VA_OBJECTS")
"""`found_objects.FoundObjects`: names, and probabilities or tracks at the model's resolution."""
OPTIONS = io.Custom("SA2VA_OPTIONS")
"""`options.Options`."""


UNCONNECTED = object()
"""The default of an input in `validate_inputs`: ComfyUI leaves out what is not connected, and has None for a link."""


def schema(
    node_id: str,
    display_name: str,
    description: str,
    *,
    words: Sequence[str],
    has_preview: bool = False,
    rarer: Collection[str] = (),
    **more: Any,
) -> io.Schema:
    """A node of the pack.

    ``words`` are what people search for, where this ComfyUI finds nodes by them. ``rarer`` are the inputs that it shows
    on demand, where it can. A node that ``has_preview`` runs only when another one needs it, so that it may stand in a
    branch that is not taken, where this ComfyUI has such nodes; elsewhere ``is_output_node`` counts.
    """
    known = inspect.signature(io.Schema).parameters
    if "search_aliases" in known:
        more["search_aliases"] = list(words)
    if has_preview and "has_intermediate_output" in known:
        more |= {"has_intermediate_output": True, "is_output_node": False}
    for each in more["inputs"]:
        if each.id in rarer and hasattr(each, "advanced"):
            each.advanced = True
    return io.Schema(
        node_id=node_id, display_name=display_name, category=CATEGORY, description=description, **more
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


def max_objects_input() -> Any:
    """How many objects are kept. It came later than the others: a workflow without it keeps all."""
    return io.Int.Input(
        "max_objects",
        default=0,
        min=0,
        max=1 << 16,
        optional=True,
        tooltip="Keep at most this many objects, in the order of the answer (of several lines in theirs); 0 keeps all."
        " The model does not run again for it.",
    )


def lines_of(prompt: str) -> list[str]:
    """The lines of a prompt that say something. Raises `InvalidInput` where there is none."""
    lines = [line.strip() for line in prompt.splitlines() if line.strip()]
    if not lines:
        raise InvalidInput("The prompt is empty.", advice="Say what to look for, such as 'the red circle'.")
    return lines


def problem_of(model: Any, prompt: Any = None, *, by_line: bool = True) -> str:
    """What is wrong with these widgets before anything runs, or nothing. None is a link, of which nothing is known yet.

    Any model is accepted: what is missing is told when it is looked for, with the command that fetches it. Whether each
    line of the prompt is asked on its own is ``by_line``.
    """
    from sa2va_host.prompts import checked_prompt

    if model is not None and not model:
        return "Choose a model."
    if prompt is not None:
        try:
            for each in lines_of(str(prompt)) if by_line else [str(prompt)]:
                checked_prompt(each)
        except InvalidInput as error:
            return str(error)
    return ""


def one_of(**inputs: Any) -> str:
    """What is wrong where not exactly one of two inputs is connected, or nothing; `UNCONNECTED` is one that is not."""
    first, second = inputs
    there = [name for name, value in inputs.items() if value is not UNCONNECTED]
    if len(there) == 1:
        return ""
    which = f"Both {first} and {second} are" if there else f"Neither {first} nor {second} is"
    return f"{which} connected. Connect one of them."
