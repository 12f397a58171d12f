"""What a check of `sa2va doctor` says: one line, and what mends it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One line of the report. A warning: something may surprise; a problem: something does not work.

    ``advice`` is what to do about it, a command wherever one does it.
    """

    level: Literal["ok", "warning", "problem"]
    message: str
    advice: str = ""


def listed(versions: Mapping[str, str | None]) -> str:
    """Distributions with their versions, those that are installed."""
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)
