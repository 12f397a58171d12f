"""A clone of the repository stands for an installation: its metadata is that of its `pyproject.toml`.

So the plugins that it brings are found, `sa2va setup` knows what to install, and nothing has to be installed but the
few packages of `requirements.txt`. Where the distribution is installed, that one counts. Called by the repository's
root, which is a node pack, and by the worker that is started from one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from .distribution import DISTRIBUTION


def register(root: Path) -> bool:
    """Make the clone in the folder ``root`` known to `importlib.metadata`, unless the distribution is installed or
    known already. Returns whether it was.
    """
    if any(metadata.distributions(name=DISTRIBUTION)) or not (root / "pyproject.toml").is_file():
        return False
    sys.meta_path.append(CloneFinder(root))
    return True


def folder() -> Path | None:
    """Where the clone is; None where the distribution is installed, or not there at all."""
    found = next(iter(metadata.distributions(name=DISTRIBUTION)), None)
    return found.root if isinstance(found, CloneDistribution) else None


class CloneFinder(metadata.DistributionFinder):
    """Finds one distribution, and no module."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """No module is found this way."""

    def find_distributions(
        self,
        context: metadata.DistributionFinder.Context = metadata.DistributionFinder.Context(),  # noqa: B008
    ) -> Iterator[metadata.Distribution]:
        if context.name in (None, DISTRIBUTION):
            yield CloneDistribution(self._root)


class CloneDistribution(metadata.Distribution):
    """What installing the clone would write into its `.dist-info`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read_text(self, filename: str) -> str | None:
        if filename == "METADATA":
            return self._metadata()
        if filename == "entry_points.txt":
            return self._entry_points()
        if filename == "direct_url.json":
            return json.dumps({"url": self.root.as_uri(), "dir_info": {}})
        return None

    def locate_file(self, path: Any) -> Path:
        return self.root.joinpath(path)

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
        content: dict[str, Any] = tomllib.loads((self.root / "pyproject.toml").read_text("utf-8"))
        found: dict[str, Any] = content["project"]
        return found


def _assignments(entries: dict[str, str]) -> Iterator[str]:
    yield from (f"{name} = {value}" for name, value in entries.items())
