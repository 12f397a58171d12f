"""This repository as a node pack: ComfyUI imports this file where the clone lies in `custom_nodes`, under any name.

The packages are registered under their own names, unless they are there already, so that nothing of this folder comes
onto `sys.path` and no module is loaded twice. Elsewhere this file does nothing.
"""

import re
import sys
from importlib import metadata
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import NoReturn

_ROOT = Path(__file__).resolve().parent
_PACKAGES = {"sa2va_host": "sa2va_host", "sa2va_plugins": "plugins"}
"""What is imported here, and the folder that it is in. The worker's program is found by its file."""
_MODULES = {
    "nvidia-ml-py": "pynvml",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pyzmq": "zmq",
}
"""Of the requirements those whose module has another name."""


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


def _refusal(missing: list[str]) -> ImportError:
    """Why there are no nodes, with the command that brings what is missing."""
    from sa2va_host.machine.commands import pip_command

    return ImportError(
        f"Sa2VA's nodes are not loaded, since ComfyUI's Python lacks {', '.join(missing)}. Run this once in a terminal,"
        f" then restart ComfyUI: {pip_command(missing)}"
    )


def _missing(*, too_old: bool) -> list[str]:
    """The requirements that this Python lacks: neither the distribution is there nor the module, which another one may
    bring. ``too_old``: also those of a version that does not fit.

    Uses the standard library, since anything else may be what is missing.
    """
    missing = []
    for line in (_ROOT / "requirements.txt").read_text("utf-8").splitlines():
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        if not requirement or requirement.startswith("#") or not _applies(marker):
            continue
        name, specifier = re.fullmatch(r"([\w.-]+)(.*)", requirement, re.ASCII).groups()  # type: ignore[union-attr]
        version = _version(name)
        absent = not version and find_spec(_MODULES.get(name, name)) is None
        if absent or (too_old and version and not _fits(version, specifier)):
            missing.append(requirement)
    return missing


def _applies(marker: str) -> bool:
    try:
        from packaging.markers import Marker
    except ImportError:
        return not marker
    return not marker or Marker(marker).evaluate()


def _fits(version: str, specifier: str) -> bool:
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:
        return True
    return SpecifierSet(specifier).contains(version, prereleases=True)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


if "folder_paths" in sys.modules:
    register()
    _lacks = _missing(too_old=False)
    if not _lacks:
        try:
            from sa2va_plugins.comfyui.extension import comfy_entrypoint
        except Exception as error:
            if isinstance(error, ImportError) and (error.name or "").startswith("comfy_api"):
                raise ImportError("Sa2VA's nodes need ComfyUI 0.3.64 or newer. Update ComfyUI.") from None
            _lacks = _missing(too_old=True)
            if not _lacks:
                raise
    if _lacks:
        _reason = _refusal(_lacks)

        async def comfy_entrypoint() -> NoReturn:
            """ComfyUI says in one line why an entry point fails, where it prints the traceback of an import."""
            raise _reason

    WEB_DIRECTORY = "./plugins/comfyui/web"
    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
