"""The queue, and words on a node."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

texts: list[str] = []
running: list[Any] = []


class PromptServer:
    instance = SimpleNamespace(
        send_progress_text=lambda text, node: texts.append(text),
        prompt_queue=SimpleNamespace(get_current_queue_volatile=lambda: (running, [])),
    )
