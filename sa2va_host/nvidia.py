"""What the NVIDIA driver says of itself and of its GPUs, through NVML. Needs neither CUDA nor torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. Memory in bytes, 0 where the driver does not tell (it is shared with the processor)."""

    name: str
    memory: int
    free: int


@dataclass(frozen=True, slots=True)
class Driver:
    """The driver's version, the newest CUDA version that it runs (as `12.4`), and its GPUs in its own order."""

    version: str
    cuda: str
    gpus: tuple[Gpu, ...]


def find_driver() -> Driver | None:
    """The driver of this machine; None where there is none, or none that answers."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001 - no such library or no such driver
        return None
    try:
        # 12040 is CUDA 12.4 (NVML API reference, nvmlSystemGetCudaDriverVersion).
        cuda = pynvml.nvmlSystemGetCudaDriverVersion()
        gpus = tuple(_gpu(index) for index in range(pynvml.nvmlDeviceGetCount()))
        return Driver(pynvml.nvmlSystemGetDriverVersion(), f"{cuda // 1000}.{cuda % 1000 // 10}", gpus)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _gpu(index: int) -> Gpu:
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    name = pynvml.nvmlDeviceGetName(handle)
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError_NotSupported:
        return Gpu(name, 0, 0)
    return Gpu(name, int(memory.total), int(memory.free))
