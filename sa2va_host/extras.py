"""Optional packages for image files: whether they are installed, and what to run where they are not."""

from __future__ import annotations

from importlib.util import find_spec

from .errors import ConfigError


def check_exr() -> None:
    """Raises `ConfigError` where the package that reads and writes OpenEXR is not installed."""
    if find_spec("OpenEXR") is None:
        raise _missing("OpenEXR files need the package OpenEXR.", "exr")


def check_matting() -> None:
    """Raises `ConfigError` where the package that estimates foreground colours is not installed."""
    if find_spec("pymatting") is None:
        raise _missing("Decontaminating colours needs the package pymatting.", "matting")


def _missing(what: str, extra: str) -> ConfigError:
    from .machine.commands import extra_command

    return ConfigError(what, advice=f"Run: {extra_command(extra)}")
