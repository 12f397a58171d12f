"""A Python in which `import cv2` finds nothing, as in an environment without any of OpenCV's distributions."""

from __future__ import annotations

from pathlib import Path

_SITE = """
import sys
from importlib.machinery import PathFinder

class WithoutOpenCV(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == "cv2" else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutOpenCV
"""


def without_opencv(folder: Path) -> dict[str, str]:
    """The environment variables that make a Python such a one, by a file in the folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_SITE)
    return {"PYTHONPATH": str(folder)}
