"""What the NVIDIA driver says of itself and of its GPUs, through NVML. Needs neither CUDA nor torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

Answer = TypeVar("Answer")
_DEVICES = ("/dev/nvidiactl", "/dev/dxg")
"""What a Linux with an NVIDIA driver has, or one inside Windows; looking costs less than loading the library."""


class Gpu(msgspec.Struct, frozen=True):
    """One GPU. Memory in bytes, 0 where the driver does not tell (it is shared with the processor)."""

    name: str
    memory: int
    free: int


class Driver(msgspec.Struct, frozen=True):
    """The driver's version, the newest CUDA version that it runs (as `12.4`), and its GPUs in its own order."""

    version: str
    cuda: str
    gpus: tuple[Gpu, ...]


def find_driver() -> Driver | None:
    """The driver of this machine; None where there is none, or none that answers."""
    return _ask(_driver)


def compute_pids() -> set[int]:
    """The processes that hold memory of any GPU, as the driver lists them; none where there is no driver."""
    return _ask(_pids) or set()


def _ask(question: Callable[[], Answer]) -> Answer | None:
    """What NVML answers; None where it is not there or fails."""
    if sys.platform == "linux" and not any(Path(device).exists() for device in _DEVICES):
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001 - no such library or no such driver
        return None
    try:
        return question()
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _driver() -> Driver:
    import pynvml

    # 12040 is CUDA 12.4 (NVML API reference, nvmlSystemGetCudaDriverVersion).
    cuda = pynvml.nvmlSystemGetCudaDriverVersion()
    gpus = tuple(_gpu(index) for index in range(pynvml.nvmlDeviceGetCount()))
    return Driver(pynvml.nvmlSystemGetDriverVersion(), f"{cuda // 1000}.{cuda % 1000 // 10}", gpus)


def _pids() -> set[int]:
    import pynvml

    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    return {
        process.pid for handle in handles for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    }


def _gpu(index: int) -> Gpu:
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    name = pynvml.nvmlDeviceGetName(handle)
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError_NotSupported:
        return Gpu(name, 0, 0)
    return Gpu(name, int(memory.total), int(memory.free))
