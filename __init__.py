"""This repository as a node pack: ComfyUI imports this file where the clone lies in `custom_nodes`, under any name.

The packages are registered under their own names, unless they are there already, so that nothing of this folder comes
onto `sys.path` and no module is loaded twice. Elsewhere this file does nothing.
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

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


if "folder_paths" in sys.modules:
    register()

    from sa2va_plugins.comfyui.extension import comfy_entrypoint

    WEB_DIRECTORY = "./plugins/comfyui/web"
    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
