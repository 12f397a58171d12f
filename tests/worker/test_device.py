"""What PyTorch says when memory fails, in words that a client understands."""

from __future__ import annotations

import pytest
import torch

from sa2va_host.errors import OutOfMemory
from sa2va_worker.device import memory_errors


def test_a_processor_without_room_is_out_of_memory() -> None:
    with pytest.raises(OutOfMemory, match="the CPU ran out of memory"), memory_errors(torch.device("cpu")):
        torch.empty(1 << 60, dtype=torch.uint8)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="size of tensor"), memory_errors(torch.device("cpu")):
        torch.zeros(2) + torch.zeros(3)
