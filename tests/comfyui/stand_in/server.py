"""The queue, and words on a node."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

texts: list[str] = []
running: list[Any] = []
routes: dict[str, Any] = {}
"""Path -> handler of GET."""


class _Routes:
    def get(self, path: str) -> Any:
        return lambda handler: routes.setdefault(path, handler)


class PromptServer:
    instance = SimpleNamespace(
        routes=_Routes(),
        send_progress_text=lambda text, node: texts.append(text),
        prompt_queue=SimpleNamespace(get_current_queue_volatile=lambda: (running, [])),
    )
