"""This distribution by its own metadata: what it needs, what of that is missing, and where it was installed from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from sa2va_host.errors import ConfigError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DISTRIBUTION = "sa2va-host"
WORKER = "worker"
"""The extra that the worker cannot do without."""
REMOTE_CODE = "remote-code"
"""The extra that takes its place where checkpoints run their own code."""


@dataclass(frozen=True)
class Missing:
    """A requirement (`torch>=2.6`), and the version that is there instead."""

    requirement: str
    installed: str | None = None

    @property
    def name(self) -> str:
        """The distribution's name, without a version."""
        return re.split(r"[^\w.-]", self.requirement, maxsplit=1)[0]

    def __str__(self) -> str:
        return self.requirement + (f" ({self.installed} is installed)" if self.installed else "")


def are_small(missing: Iterable[Missing]) -> bool:
    """Whether pip may add these to an environment without much ado: neither the gigabytes of PyTorch, nor another
    transformers than the one that others there rely on.
    """
    return not {each.name for each in missing} & {"torch", "transformers", "torchvision"}


def requirements(*extras: str) -> list[Requirement]:
    """What the extras add to the needs of this distribution; without extras, its own needs for this Python. An extra
    that an extra brings along (`worker` brings `opencv`) is a convenience of installing, and not among them.

    Raises `ConfigError` where it is not installed.
    """
    from packaging.requirements import Requirement

    lines = [Requirement(line) for line in _distribution().requires or ()]
    needed = [each for each in lines if each.name != DISTRIBUTION]
    own = [each for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    if not extras:
        return own
    return [
        each
        for extra in extras
        for each in needed
        if each not in own and each.marker is not None and each.marker.evaluate({"extra": extra})
    ]


def extras() -> list[str]:
    """The names of all extras. Raises `ConfigError` where this distribution is not installed."""
    return list(_distribution().metadata.get_all("Provides-Extra") or ())


def unmet(needed: Iterable[Requirement], versions: Mapping[str, str | None]) -> list[Missing]:
    """What is not installed, or in a version that does not fit. ``versions``: of each distribution by its name."""
    missing = []
    for requirement in needed:
        version = versions.get(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            missing.append(Missing(f"{requirement.name}{requirement.specifier}", version))
    return missing


def installed_versions(names: Iterable[str]) -> dict[str, str | None]:
    """The version of each distribution in this environment, None for what is not there."""
    return {
        name: next((found.version for found in metadata.distributions(name=name)), None) for name in names
    }


def install_arguments(extras: Iterable[str]) -> list[str]:
    """How pip and uv install this very distribution elsewhere, with these extras.

    From the folder, file or repository that it was installed from, which `direct_url.json` names (PEP 610); without
    one, the same version from an index. Raises `ConfigError` when it is not installed, or from a folder that is gone.
    """
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    distribution = _distribution()
    bracket = f"[{','.join(extras)}]"
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    url = origin.get("url", "")
    if "dir_info" in origin:
        folder = Path(url2pathname(urlsplit(url).path))
        if not (folder / "pyproject.toml").is_file():
            raise ConfigError(
                f"{DISTRIBUTION} was installed from {folder}, which is gone.", advice="Install it again."
            )
        editable = ["--editable"] if origin["dir_info"].get("editable") else []
        return [*editable, f"{folder}{bracket}"]
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    return [f"{DISTRIBUTION}{bracket}" + (f" @ {url}" if url else f"=={distribution.version}")]


def _distribution() -> metadata.Distribution:
    try:
        return metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError as error:
        raise ConfigError(
            f"{DISTRIBUTION} is not installed, so it cannot be told what it needs.",
            advice="Install it with pip instead of copying its folders.",
        ) from error
