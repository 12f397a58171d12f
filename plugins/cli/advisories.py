"""Published vulnerabilities of the libraries that load models, as far as the worker could be hit by them.

From the National Vulnerability Database and GitHub's advisories, as of September 2026. Those that need PyTorch before
2.6, which the worker does not run with, are left out, and those that were fixed before transformers 4.57, the oldest
version that anything here runs with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from packaging.version import Version


@dataclass(frozen=True)
class Advisory:
    """One vulnerability: in every version of the distribution before ``fixed``."""

    cve: str
    distribution: str
    fixed: str
    effect: str


ADVISORIES = (
    Advisory("CVE-2026-4372", "transformers", "5.3.0", "a model's config.json can run code"),
    Advisory("CVE-2026-5241", "transformers", "5.5.0", "a LightGlue model's config.json can run code"),
    Advisory("CVE-2026-9856", "transformers", "5.10.0", "saving a tokenizer can write outside its folder"),
)


def affecting(versions: Mapping[str, str | None]) -> list[Advisory]:
    """The vulnerabilities of these versions, by distribution; one that is not installed has none."""
    return [
        advisory
        for advisory in ADVISORIES
        if (version := versions.get(advisory.distribution)) and Version(version) < Version(advisory.fixed)
    ]
