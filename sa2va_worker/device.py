"""Where and how a model runs: device and dtype; and what PyTorch says when memory or device fail."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Iterator

import torch

from sa2va_host.errors import ModelLoadFailed, OutOfMemory
from sa2va_host.protocol.specification import AUTO, Specification

from .steps import EngineBroken, MemoryUse

BALANCED = "balanced"
"""The word for all NVIDIA GPUs together."""
OFFLOAD = "offload"
"""The word for one NVIDIA GPU and, for what it has no room for, the computer's memory."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_NO_ROOM = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory", "Cannot allocate memory")
"""How PyTorch says it on a processor, in a plain RuntimeError (c10/core/impl/alloc_cpu.cpp), the last one of files that
are mapped (aten/src/ATen/MapAllocator.cpp).
"""

_THREADS = torch.get_num_threads()
"""What PyTorch takes for itself: a thread for each core."""
_SAID = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Where a user says how many it takes."""
_SMALL = 50_000_000
"""With fewer parameters than these, a step is too short for its threads to share it well."""


def take_threads(device: torch.device, parameters: int) -> None:
    """Let a small model on the processor leave a core to its clients, unless the user said how many to take.

    The threads of a step wait for each other in loops that keep their cores busy (libgomp: for 3 ms); that time is lost
    to whoever scales the next frame and writes the last one.
    """
    leaves_one = device.type == "cpu" and parameters < _SMALL and not any(map(os.environ.get, _SAID))
    torch.set_num_threads(max(1, _THREADS - leaves_one))


@contextlib.contextmanager
def all_threads() -> Iterator[None]:
    """Around what has long steps although the model beside it is small."""
    before = torch.get_num_threads()
    torch.set_num_threads(_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def memory_errors(device: torch.device, advice: str = "") -> Iterator[None]:
    """Turn what PyTorch raises when memory or the device fails into what the server understands.

    ``advice`` is what to do when memory fails.
    """
    try:
        yield
    except OutOfMemory:  # said in our own words already
        raise
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(say in text for say in _NO_ROOM):
            traceback.clear_frames(error.__traceback__)  # they hold what the failed call computed so far
            if device.type == "cuda":
                torch.cuda.empty_cache()
            raise OutOfMemory(
                f"the {device.type.upper()} ran out of memory: {text.splitlines()[0] if text else 'no room'}.",
                advice=advice or "Use a smaller checkpoint, or free memory that other programs hold.",
            ) from error
        if "CUDA error" in text or "device-side assert" in text:
            raise EngineBroken(text.splitlines()[0]) from error
        raise


def memory_use(*devices: torch.device) -> MemoryUse:
    """Device memory in bytes, of all devices together; on a CPU zero, since the process's own memory is the system's
    to tell.
    """
    gpus = [device for device in devices if device.type == "cuda"]
    return MemoryUse(
        sum(map(torch.cuda.memory_allocated, gpus)),
        sum(map(torch.cuda.memory_reserved, gpus)),
        sum(map(torch.cuda.max_memory_allocated, gpus)),
    )


def choose(spec: Specification) -> tuple[torch.device, torch.dtype]:
    """The one concrete device, and dtype, for a specification. Raises `ModelLoadFailed` for what cannot be had."""
    (device, *others), dtype = choose_all(spec)
    if others:
        raise ModelLoadFailed(
            f"device {spec.device!r} is for models that load natively, and this one runs code of its own.",
            advice="Use auto, cpu, cuda, cuda:N or mps.",
        )
    return device, dtype


def choose_all(spec: Specification) -> tuple[tuple[torch.device, ...], torch.dtype]:
    """Concrete devices, and dtype, for a specification. Raises `ModelLoadFailed` for what cannot be had.

    The first device computes everything but what others hold of the language model's layers; a processor after it
    only keeps them.
    """
    if spec.device == OFFLOAD and spec.quantization not in (AUTO, "none"):
        raise ModelLoadFailed(
            f"quantization {spec.quantization} does not go with device 'offload': rounded weights stay on one device.",
            advice="Leave out one of the two.",
        )
    devices = _devices(spec.device)
    if spec.dtype == AUTO:
        return devices, _best_dtype(devices[0])
    if spec.dtype not in DTYPES:
        raise ModelLoadFailed(
            f"dtype {spec.dtype!r} is unknown.", advice=f"Use one of: auto, {', '.join(DTYPES)}."
        )
    return devices, DTYPES[spec.dtype]


def _devices(name: str) -> tuple[torch.device, ...]:
    if name not in (BALANCED, OFFLOAD):
        return (_device(name),)
    gpus = tuple(torch.device("cuda", index) for index in range(torch.cuda.device_count()))
    if not gpus:
        raise ModelLoadFailed(
            f"device {name!r} needs an NVIDIA GPU, and PyTorch {torch.__version__} finds none on this machine.",
            advice="Use --device auto, or install a PyTorch build for the GPU.",
        )
    return gpus if name == BALANCED else (gpus[0], torch.device("cpu"))


def _device(name: str) -> torch.device:
    mps = torch.backends.mps.is_available()
    if name == AUTO:
        return torch.device("cuda:0" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelLoadFailed(
            f"device {name!r} is unknown.", advice="Use auto, cpu, cuda, cuda:N, mps, balanced or offload."
        ) from error
    usable = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": mps}
    if not usable.get(device.type, False) or (
        device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    ):
        raise ModelLoadFailed(
            f"device {name!r} cannot be used by PyTorch {torch.__version__} on this machine.",
            advice="Use --device cpu, or install a PyTorch build for the device.",
        )
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def _best_dtype(device: torch.device) -> torch.dtype:
    """What the model was trained in where the device is good at it, else what is exact."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.float16 if device.type == "mps" else torch.float32
