"""What PyTorch says when memory fails, in words that a client understands; and how many threads a model takes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sa2va_host.config import load_settings
from sa2va_host.errors import OutOfMemory
from sa2va_host.models.choice import specify
from sa2va_worker import device
from sa2va_worker.device import all_threads, memory_errors, take_threads
from sa2va_worker.engine import Sa2VAEngine


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
    for _ in Sa2VAEngine().load(specify(load_settings(model="sa2va-tiny", device="cpu"))):
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


def test_beside_a_small_model_a_mask_processor_takes_all_threads(cores: int) -> None:
    take_threads(torch.device("cpu"), 1000)
    with all_threads():
        assert torch.get_num_threads() == cores
    assert torch.get_num_threads() == cores - 1
