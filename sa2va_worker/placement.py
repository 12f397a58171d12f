"""Whether a model has room on its devices, told before any memory is taken for it; and what would have room.

What a model needs follows from the shapes in its checkpoint's headers, its precision, and an allowance for the numbers
that a call computes. That allowance was counted, not guessed: each operation of a full-size model (Qwen3-VL-4B, SAM2's
Hiera-Large) was run on PyTorch's meta device and the storages alive after it were added up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sa2va_host.errors import OutOfMemory
from sa2va_host.protocol.specification import QUANTIZATIONS

from .device_map import infer
from .models.language import Language
from .models.quantization import NONE, is_quantized, linear_layers, weight_bytes

TOKENS = 2048
"""Of the call that the allowance is for: a picture at upstream's largest size for Qwen3-VL (1,568), and an answer."""
MLP_COPIES = 4
"""While a layer reads a prompt, so many times its MLP's width is alive for each token; 3.9 for 4,096 tokens."""
TRACKED_NUMBERS = 205
"""Numbers alive for each pixel that SAM2 sees, at the most, while it follows one object: 430 MB in 16 bit at 1024."""
PROCESSOR = torch.device("cpu")
ELSE = "Use a smaller checkpoint, or free memory that other programs hold."


@dataclass(frozen=True, slots=True)
class Need:
    """What a model takes of memory, in numbers; the precision says how many bytes that is."""

    layers: int
    """In the weights that quantization rounds."""
    others: int
    """In all other weights."""
    work: int
    """In what a call computes: the language model's cache, and what is alive at its widest point and at SAM2's."""

    @classmethod
    def of(cls, model: nn.Module, language: Language[Any], image_size: int) -> Need:
        """The need of a model, empty on the meta device or loaded. `image_size` is the side that SAM2 sees, or 0."""
        linear = [layer for _, layer in linear_layers(language.model)]
        rounded = {id(layer.weight) for layer in linear}
        config = language.model.config.get_text_config()
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        cached = 2 * config.num_hidden_layers * config.num_key_value_heads * head
        return cls(
            layers=sum(layer.in_features * layer.out_features for layer in linear),
            others=sum(each.numel() for each in model.parameters() if id(each) not in rounded),
            work=TOKENS * (cached + MLP_COPIES * config.intermediate_size) + TRACKED_NUMBERS * image_size**2,
        )

    @property
    def parameters(self) -> int:
        """How many weights the model has."""
        return self.layers + self.others

    def bytes(self, dtype: torch.dtype, quantization: str = "none") -> int:
        """Bytes in a precision."""
        return self.outside(dtype) + weight_bytes(self.layers, dtype, quantization)

    def outside(self, dtype: torch.dtype) -> int:
        """Bytes of all but the weights that quantization rounds."""
        return (self.others + self.work) * dtype.itemsize

    def smaller(
        self, dtype: torch.dtype, quantization: str = "none"
    ) -> Iterator[tuple[str, torch.dtype, str]]:
        """What takes less than this precision, the most exact first: the command's options, dtype, quantization."""
        now = self.bytes(dtype, quantization)
        for bits in QUANTIZATIONS:
            for kind in dict.fromkeys((dtype, torch.bfloat16 if dtype is torch.float32 else dtype)):
                options = [
                    *([] if kind is dtype else [f"--dtype {_word(kind)}"]),
                    *([] if bits == quantization else [f"--quantization {bits}"]),
                ]
                if self.bytes(kind, bits) < now:
                    yield " ".join(options), kind, bits

    def advice(self, dtype: torch.dtype, quantization: str = "none") -> str:
        """What a user can do when a loaded model runs out of memory during a call."""
        now = _gigabytes(self.bytes(dtype, quantization))
        for options, kind, bits in self.smaller(dtype, quantization):
            size = _gigabytes(self.bytes(kind, bits))
            return f"Use {options} (about {size} instead of {now}), or show fewer or smaller pictures."
        return f"Show fewer or smaller pictures. {ELSE}"


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on a device; on a processor without swapping, caches counted as free."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    import psutil

    return psutil.virtual_memory().available


def check_room(
    name: str,
    need: Need,
    layers: nn.ModuleList,
    devices: Sequence[torch.device],
    dtype: torch.dtype,
    quantization: str,
    memory: Callable[[torch.device], int] = free_memory,
) -> tuple[torch.device, ...]:
    """Where each decoder layer of a model goes: on the first of `devices`, or spread over several.

    Raises `OutOfMemory` where they find no room, naming what would have. `layers` may be on the meta device. `memory`
    says what `free_memory` says.
    """
    free = {device: memory(device) for device in devices}
    places = _spread(need, layers, free, dtype, quantization)
    if places is not None:
        return places
    first = devices[0]
    precision = _word(dtype) if quantization == NONE else f"{quantization} with {_word(dtype)}"
    there = f", of which {_gigabytes(need.outside(dtype))} on {first}," if len(devices) > 1 else ""
    fitting = [
        f"{options} (about {_gigabytes(need.bytes(kind, bits))})"
        for options, kind, bits in need.smaller(dtype, quantization)
        if _spread(need, layers, free, kind, bits) is not None
    ][:1]
    if len(devices) == 1 and first.type == "cuda":
        beside = {**free, PROCESSOR: memory(PROCESSOR)}
        if _spread(need, layers, beside, dtype, quantization) is not None:
            fitting.append("--device offload, which is slower")
    raise OutOfMemory(
        f"{name} needs about {_gigabytes(need.bytes(dtype, quantization))}{there} in {precision} and"
        f" {', '.join(f'{device} has {_gigabytes(size)} free' for device, size in free.items())}.",
        advice=f"Use {', or '.join(fitting)}." if fitting else ELSE,
    )


def _spread(
    need: Need,
    layers: nn.ModuleList,
    free: Mapping[torch.device, int],
    dtype: torch.dtype,
    quantization: str,
) -> tuple[torch.device, ...] | None:
    """The device of each layer, or None where they find no room in what is free on each device, the first one first."""
    first, *others = free
    if not others:
        return (first,) * len(layers) if need.bytes(dtype, quantization) <= free[first] else None
    if PROCESSOR in others and quantization != NONE:
        return None  # rounded weights stay where they were rounded
    work = need.work * dtype.itemsize
    room = {device: free[device] - (0 if device == PROCESSOR else work) for device in others}
    room = {first: free[first] - need.outside(dtype), **room}
    # A layer that a processor keeps computes on the first device.
    if room[first] < weight_bytes(need.layers, dtype, quantization) // len(layers):
        return None
    return infer(layers, room, dtype, quantization)


def allocate(model: nn.Module, device: torch.device) -> None:
    """Give the parameters of an empty model their memory, but for quantized ones, which take it as they are filled."""
    for owner in model.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if parameter.is_meta and not is_quantized(parameter):
                setattr(owner, name, nn.Parameter(torch.empty_like(parameter, device=device)))


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
