"""What PyTorch says when memory fails, in words that a client understands; and how many threads a model takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from sa2va_host.errors import OutOfMemory
from sa2va_host.plugins.hookspecs import MaskProcessor
from sa2va_host.protocol.specification import Specification
from sa2va_worker import device
from sa2va_worker.device import memory_errors, take_threads
from sa2va_worker.engine import Sa2VAEngine
from sa2va_worker.extensions import PluginEngine
from sa2va_worker.models.checkpoint import BUNDLED
from sa2va_worker.steps import Processed, ProcessRequest

TINY = Specification(checkpoint=str(BUNDLED / "sa2va-tiny"), device="cpu")


def test_a_processor_without_room_is_out_of_memory() -> None:
    with pytest.raises(OutOfMemory, match="the CPU ran out of memory"), memory_errors(torch.device("cpu")):
        torch.empty(1 << 60, dtype=torch.uint8)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="size of tensor"), memory_errors(torch.device("cpu")):
        torch.zeros(2) + torch.zeros(3)


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """How many threads PyTorch takes by itself, here: four."""
    before = torch.get_num_threads()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(device, "_THREADS", 4)
    yield 4
    torch.set_num_threads(before)


def test_the_bundled_model_leaves_a_core_to_its_clients(cores: int) -> None:
    for _ in Sa2VAEngine().load(TINY):
        pass
    assert torch.get_num_threads() == cores - 1


def test_a_large_model_and_one_on_a_gpu_take_all(cores: int) -> None:
    for where, parameters in (("cpu", 4_000_000_000), ("cuda", 1000)):
        take_threads(torch.device(where), parameters)
        assert torch.get_num_threads() == cores


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_number_of_threads_that_is_asked_for_is_taken(
    cores: int, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "4")
    take_threads(torch.device("cpu"), 1000)
    assert torch.get_num_threads() == cores


def test_beside_a_small_model_a_mask_processor_takes_all_threads(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count(probability: Any, picture: Any, options: Any) -> Any:
        return np.full_like(probability, torch.get_num_threads())

    engine = PluginEngine()
    monkeypatch.setitem(
        engine._processors, "count", MaskProcessor("count", "", lambda _: count, in_worker=True)
    )
    for _ in engine.load(TINY):
        pass
    request = ProcessRequest("count", {}, np.zeros((5, 6, 3), np.uint8), np.zeros((1, 5, 6), np.float32))
    (done,) = (step for step in engine.process(request) if isinstance(step, Processed))
    assert done.probability[0, 0] == cores
    assert torch.get_num_threads() == cores - 1
