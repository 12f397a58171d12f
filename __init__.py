"""This repository as a node pack: ComfyUI imports this file where the clone lies in `custom_nodes`, under any name.

The packages are registered under their own names, unless they are there already, so that nothing of this folder comes
onto `sys.path` and no module is loaded twice. Elsewhere this file does nothing.
"""

import re
import sys
from importlib import metadata
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import NoReturn

_ROOT = Path(__file__).resolve().parent
_PACKAGES = {"sa2va_host": "sa2va_host", "sa2va_plugins": "plugins"}
"""What is imported here, and the folder that it is in. The worker's program is found by its file."""


def register() -> None:
    """Make this repository's packages importable, and as good as installed."""
    for name, folder in _PACKAGES.items():
        if name not in sys.modules:
            _load(name, _ROOT / folder)

    from sa2va_host.machine import clone

    clone.register(_ROOT)


def _load(name: str, folder: Path) -> None:
    spec = spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} is no package; clone the repository again.")
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def _explained(error: Exception) -> Exception:
    """The error for nodes that could not be imported: what ComfyUI's Python lacks and the command that brings it, or
    ``error`` itself where it lacks nothing.

    Uses the standard library alone, since anything else may be what is missing. Raises ImportError where this ComfyUI
    is too old to ask for an entry point.
    """
    if isinstance(error, ImportError) and (error.name or "").startswith("comfy_api"):
        raise ImportError("Sa2VA's nodes need ComfyUI 0.3.64 or newer. Update ComfyUI.") from None
    missing = _missing()
    if not missing:
        return error
    from sa2va_host.machine.commands import pip_command

    return ImportError(
        f"Sa2VA's nodes are not loaded, since ComfyUI's Python lacks {', '.join(missing)}. Run this once in a terminal,"
        f" then restart ComfyUI: {pip_command(missing)}"
    )


def _missing() -> list[str]:
    """The lines of `requirements.txt` that this Python does not fulfil; by their names alone where `packaging` is
    missing too.
    """
    lines = (_ROOT / "requirements.txt").read_text("utf-8").splitlines()
    needed = [line for line in lines if line.strip() and not line.startswith("#")]
    try:
        from packaging.requirements import Requirement
    except ImportError:
        names = ((line, re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in needed if ";" not in line)
        return [line for line, name in names if not _version(name)]
    wanted = [each for each in map(Requirement, needed) if each.marker is None or each.marker.evaluate()]
    return [
        f"{each.name}{each.specifier}"
        for each in wanted
        if not each.specifier.contains(_version(each.name) or "0", prereleases=True)
    ]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


if "folder_paths" in sys.modules:
    try:
        register()

        from sa2va_plugins.comfyui.extension import comfy_entrypoint
    except Exception as error:
        _reason = _explained(error)
        if _reason is error:
            raise

        async def comfy_entrypoint() -> NoReturn:
            """ComfyUI says in one line why a pack's entry point fails, where it prints a traceback of its import."""
            raise _reason

    WEB_DIRECTORY = "./plugins/comfyui/web"
    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
