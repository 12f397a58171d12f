"""A clone in `custom_nodes` stands for an installation: its metadata is that of its `pyproject.toml`.

So the plugins that it brings are found, `sa2va setup` knows what to install, and nothing has to be installed but the
few packages of `requirements.txt`. Where the distribution is installed, that one counts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from sa2va_host.machine.distribution import DISTRIBUTION


def root() -> Path:
    """The folder of the clone."""
    return Path(__file__).resolve().parents[2]


def is_clone() -> bool:
    """Whether the distribution is a clone's, and not installed."""
    try:
        return isinstance(metadata.distribution(DISTRIBUTION), CloneDistribution)
    except metadata.PackageNotFoundError:
        return False


def register() -> None:
    """Make the clone known to `importlib.metadata`, unless the distribution is installed or known already."""
    if not any(metadata.distributions(name=DISTRIBUTION)):
        sys.meta_path.append(CloneFinder(root()))


class CloneFinder(metadata.DistributionFinder):
    """Finds one distribution, and no module."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """No module is found this way."""

    def find_distributions(
        self,
        context: metadata.DistributionFinder.Context = metadata.DistributionFinder.Context(),  # noqa: B008
    ) -> Iterator[metadata.Distribution]:
        if context.name in (None, DISTRIBUTION) and (self._folder / "pyproject.toml").is_file():
            yield CloneDistribution(self._folder)


class CloneDistribution(metadata.Distribution):
    """What installing the clone would write into its `.dist-info`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read_text(self, filename: str) -> str | None:
        if filename == "METADATA":
            return self._metadata()
        if filename == "entry_points.txt":
            return self._entry_points()
        if filename == "direct_url.json":
            return json.dumps({"url": self._folder.as_uri(), "dir_info": {}})
        return None

    def locate_file(self, path: Any) -> Path:
        return self._folder.joinpath(path)

    def _metadata(self) -> str:
        project = self._project()
        lines = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {project['version']}"]
        lines += [f"Requires-Dist: {each}" for each in project["dependencies"]]
        for extra, needed in project["optional-dependencies"].items():
            lines.append(f"Provides-Extra: {extra}")
            lines += [f'Requires-Dist: {each}; extra == "{extra}"' for each in needed]
        return "\n".join(lines) + "\n"

    def _entry_points(self) -> str:
        project = self._project()
        groups = {"console_scripts": project["scripts"], **project["entry-points"]}
        return "\n".join(
            line for group, entries in groups.items() for line in (f"[{group}]", *_assignments(entries))
        )

    def _project(self) -> dict[str, Any]:
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
        content: dict[str, Any] = tomllib.loads((self._folder / "pyproject.toml").read_text("utf-8"))
        found: dict[str, Any] = content["project"]
        return found


def _assignments(entries: dict[str, str]) -> Iterator[str]:
    yield from (f"{name} = {value}" for name, value in entries.items())
