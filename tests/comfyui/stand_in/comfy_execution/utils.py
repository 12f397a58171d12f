"""Which node is executed now."""

from __future__ import annotations

from typing import NamedTuple


class ExecutionContext(NamedTuple):
    prompt_id: str
    node_id: str
    list_index: int | None = None


context: ExecutionContext | None = None


def get_executing_context() -> ExecutionContext | None:
    return context
