"""The `sa2va` command of a clone that is not installed: `python FOLDER setup`."""

import runpy
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    # Python has put this folder first; `tests` and `plugins` are not meant as names for the world.
    if sys.path and Path(sys.path[0] or ".").resolve() == _HERE:
        del sys.path[0]
    runpy.run_path(str(_HERE / "__init__.py"))["register"]()

    from sa2va_plugins.command import main

    raise SystemExit(main())
