"""A run of several parts as files: `report.md` to read, `figures.json` to compute with, a picture for each part."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .figures import Figure, table
from .plot import bars

NAME = "report.md"


@dataclass(frozen=True)
class Section:
    """What one part measured. `reason` says why there are no figures, or no more than these."""

    name: str
    title: str
    figures: Sequence[Figure]
    reason: str = ""


def write(folder: Path, about: Mapping[str, str], sections: Sequence[Section]) -> None:
    """Write the report into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for section in sections:
        if picture := bars(section.figures):
            (folder / f"{section.name}.svg").write_text(picture)
    document = {"about": dict(about), "sections": [asdict(section) for section in sections]}
    (folder / "figures.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    (folder / NAME).write_text(markdown(about, sections))


def markdown(about: Mapping[str, str], sections: Sequence[Section]) -> str:
    """The report's text."""
    lines = [
        "# Benchmarks",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {said} |" for name, said in about.items()),
    ]
    lines += [
        "",
        "Medians; a time's row has the fastest and the slowest too. The orange bars miss their aim (red line).",
    ]
    for section in sections:
        lines += ["", f"## {section.title}", ""]
        if section.reason:
            lines.append(f"Not measured: {section.reason}")
        if not section.figures:
            continue
        if section.reason:
            lines.append("")
        if any(figure.values for figure in section.figures):
            lines += [f"![{section.title}]({section.name}.svg)", ""]
        lines.append(table(section.figures))
    return "\n".join(lines) + "\n"
