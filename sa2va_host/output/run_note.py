"""run.json: what a recording was made from, so that it can be taken up again, and what came of it.

Called by front ends that write with `sa2va_host.output.recording`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sa2va_host import media
from sa2va_host.errors import InvalidInput


class RunNote:
    """The note in a folder. Raises `InvalidInput` where the folder holds a run already that is not to be resumed, or
    was made with other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        """``settings`` are all that the outputs depend on, as JSON has it. Nothing is written yet."""
        self.path = folder / "run.json"
        self._settings = json.loads(json.dumps(settings))
        if self.path.exists():
            self._check(resume)

    def begin(self) -> None:
        """From here on the folder holds this run."""
        self._write({"finished": False})

    def finish(self, summary: Mapping[str, Any]) -> None:
        """The run is whole; note what came of it."""
        self._write({"finished": True, **summary})

    def _check(self, resume: bool) -> None:
        if not resume:
            raise InvalidInput(
                f"{self.path.parent} holds a run already.",
                advice="Go on with it (--resume), name another folder (-o), or remove it.",
            )
        try:
            before = json.loads(self.path.read_text(encoding="utf-8"))["settings"]
            changed = [name for name in self._settings if before.get(name) != self._settings[name]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidInput(
                f"{self.path} is damaged, so the run cannot be resumed.",
                advice="Remove the folder and begin anew.",
            ) from error
        if changed:
            raise InvalidInput(
                f"The run in {self.path.parent} was made with other settings: {', '.join(changed)}.",
                advice="Resume it with the same ones, or name another folder (-o).",
            )

    def _write(self, rest: Mapping[str, Any]) -> None:
        text = json.dumps({"settings": self._settings, **rest}, indent=2, ensure_ascii=False)
        media.write_whole(self.path, lambda stream: stream.write(text.encode()))
