"""What a node is given is checked against its own schema.

ComfyUI compares the types of connected nodes and the bounds of widgets. It looks neither at a number or a choice that
comes over a wire, nor at a value that stands where a wire belongs.
"""

from __future__ import annotations

import math
import reprlib
import unicodedata
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

import torch
from comfy_api.latest import io

from sa2va_host.errors import InvalidInput

from .found_objects import FoundObjects
from .model_list import plain
from .options import Options

OPEN_LISTS = frozenset({"model", "model_name", "attention"})
"""Choices whose list does not hold all that may be meant; the node itself judges them."""
LONGEST_NAME = 4096
"""Characters of a choice or of a line of text: Linux's PATH_MAX, the longest path of a folder."""


def checked(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The same node, whose `execute` raises `InvalidInput` for a value that its schema does not allow."""

    class Checked(node):
        @classmethod
        def execute(cls, **given: Any) -> io.NodeOutput:
            schema = getattr(cls, "SCHEMA", None) or cls.define_schema()
            for slot in schema.inputs:
                if slot.id in given:
                    _check(slot, given[slot.id])
            return super().execute(**given)

    Checked.__name__, Checked.__qualname__, Checked.__doc__ = node.__name__, node.__qualname__, node.__doc__
    Checked.__module__ = node.__module__
    return Checked


def _check(slot: Any, value: Any) -> None:
    limits = slot.as_dict()
    if value is None and limits.get("optional"):
        return
    judge = _JUDGES.get(str(slot.get_io_type()))
    advice = judge(slot.id, value, limits) if judge else ""
    if advice:
        raise InvalidInput(f"{slot.id} is {_spoken(value)}.", advice=advice)


def _spoken(value: Any) -> str:
    """A plain value as Python writes it, shortened; of others what they are."""
    plain = value is None or isinstance(value, (str, Integral, Real))
    return reprlib.repr(value) if plain else f"a {type(value).__name__}"


def _whole(_name: str, value: Any, limits: Mapping[str, Any]) -> str:
    return (
        ""
        if isinstance(value, Integral) and _within(value, limits)
        else f"Use {_numbers('a whole', limits)}."
    )


def _number(_name: str, value: Any, limits: Mapping[str, Any]) -> str:
    fits = isinstance(value, Real) and math.isfinite(value) and _within(value, limits)
    return "" if fits else f"Use {_numbers('a', limits)}."


def _within(value: Any, limits: Mapping[str, Any]) -> bool:
    low, high = limits.get("min"), limits.get("max")
    return (low is None or value >= low) and (high is None or value <= high)


def _numbers(which: str, limits: Mapping[str, Any]) -> str:
    low, high = limits.get("min"), limits.get("max")
    return f"{which} number" + ("" if low is None or high is None else f" from {low} to {high}")


def _choice(name: str, value: Any, limits: Mapping[str, Any]) -> str:
    if name in OPEN_LISTS:
        return _text(name, value, limits)
    offered = [
        plain(str(each)) for each in limits.get("options") or []
    ]  # a download loses its mark when it is here
    return "" if isinstance(value, str) and plain(value) in offered else f"Use one of {', '.join(offered)}."


def _text(_name: str, value: Any, limits: Mapping[str, Any]) -> str:
    if not isinstance(value, str):
        return "Use text."
    if limits.get("multiline"):
        return ""
    if len(value) > LONGEST_NAME:
        return f"Use at most {LONGEST_NAME} characters."
    # What an error repeats, and the command in it, goes to a terminal.
    hidden = any(unicodedata.category(letter) in ("Cc", "Cs") for letter in value.strip())
    return "Use text without control characters." if hidden else ""


def _instance(kind: type | tuple[type, ...], advice: str) -> Callable[[str, Any, Mapping[str, Any]], str]:
    return lambda _name, value, _limits: "" if isinstance(value, kind) else advice


def _video(_name: str, value: Any, _limits: Mapping[str, Any]) -> str:
    return "" if hasattr(value, "get_components") else "Connect a VIDEO, as from Load Video."


_JUDGES: dict[str, Callable[[str, Any, Mapping[str, Any]], str]] = {
    "INT": _whole,
    "FLOAT": _number,
    "COMBO": _choice,
    "STRING": _text,
    "BOOLEAN": _instance((bool, Integral), "Use true or false."),
    "IMAGE": _instance(torch.Tensor, "Connect an IMAGE, as from Load Image."),
    "MASK": _instance(torch.Tensor, "Connect a MASK."),
    "VIDEO": _video,
    "SA2VA_OPTIONS": _instance(Options, "Connect Sa2VA Model Options, or nothing."),
    "SA2VA_OBJECTS": _instance(
        FoundObjects, "Connect the tracks or probabilities of a Sa2VA segmentation node."
    ),
}
"""For each type what to do instead, of a value that is none; empty where it is one. Others are not looked at."""
