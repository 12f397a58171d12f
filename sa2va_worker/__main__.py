"""The worker's program: ``python .../sa2va_worker/__main__.py``, with the boot line on standard input.

Started by its file and not with ``-m``: the packages it needs are found beside this file and registered by
name, so a checkout or a node pack that holds them puts nothing else of its folder on ``sys.path``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sa2va_worker.steps import ProcessingEngine

HERE = Path(__file__).resolve().parent
OURS = {"sa2va_host": "sa2va_host", "sa2va_worker": "sa2va_worker"}
"""What the worker cannot do without, and the folder beside this one that it is in."""


def register_packages(root: Path, packages: Mapping[str, str] = OURS) -> None:
    """Make packages importable from their folders in ``root``, whatever ``sys.path`` holds."""
    for name, place in packages.items():
        folder = root / place
        if name in sys.modules or not (folder / "__init__.py").is_file():
            continue
        spec: ModuleSpec | None = spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        if spec is None or spec.loader is None:
            raise ImportError(f"{folder} is not a package")
        module = module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)


def make_engine() -> ProcessingEngine:
    """The real engine. Runs on the engine's thread; torch is imported when it loads."""
    from sa2va_host.machine import clone

    if clone.register(HERE.parent):  # else our plugins are installed, under the name that they have then
        register_packages(HERE.parent, {"sa2va_plugins": "plugins"})
    from sa2va_worker.extensions import PluginEngine

    return PluginEngine()


if __name__ == "__main__":
    # A script's own folder comes first on sys.path; `calls` and `steps` are not meant as names for the world.
    if sys.path and Path(sys.path[0] or ".").resolve() == HERE:
        del sys.path[0]
    register_packages(HERE.parent)
    from sa2va_worker.process import main

    main(make_engine)
