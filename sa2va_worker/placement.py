"""Whether a model has room on its device, told before any memory is taken for it; and what would have room.

What a model needs follows from the shapes in its checkpoint's headers, its precision, and an allowance for the numbers
that a call computes. That allowance was counted, not guessed: each operation of a full-size model (Qwen3-VL-4B, SAM2's
Hiera-Large) was run on PyTorch's meta device and the storages alive after it were added up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sa2va_host.errors import OutOfMemory
from sa2va_host.specification import QUANTIZATIONS

from .models.language import Language
from .models.quantization import is_quantized, linear_layers, weight_bytes

TOKENS = 2048
"""Of the call that the allowance is for: a picture at upstream's largest size for Qwen3-VL (1,568), and an answer."""
MLP_COPIES = 4
"""While a layer reads a prompt, so many times its MLP's width is alive for each token; 3.9 for 4,096 tokens."""
TRACKED_NUMBERS = 205
"""Numbers alive for each pixel that SAM2 sees, at the most, while it follows one object: 430 MB in 16 bit at 1024."""
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
        rounded = weight_bytes(self.layers, dtype, quantization)
        return (self.others + self.work) * dtype.itemsize + rounded

    def smaller(self, dtype: torch.dtype, quantization: str = "none") -> Iterator[tuple[str, int]]:
        """What takes less than this precision, the most exact first: the command's options, and bytes."""
        now = self.bytes(dtype, quantization)
        for bits in QUANTIZATIONS:
            for kind in dict.fromkeys((dtype, torch.bfloat16 if dtype is torch.float32 else dtype)):
                options = [
                    *([] if kind is dtype else [f"--dtype {_word(kind)}"]),
                    *([] if bits == quantization else [f"--quantization {bits}"]),
                ]
                if self.bytes(kind, bits) < now:
                    yield " ".join(options), self.bytes(kind, bits)

    def advice(self, dtype: torch.dtype, quantization: str = "none") -> str:
        """What a user can do when a loaded model runs out of memory during a call."""
        now = _gigabytes(self.bytes(dtype, quantization))
        for options, size in self.smaller(dtype, quantization):
            return f"Use {options} (about {_gigabytes(size)} instead of {now}), or show fewer or smaller pictures."
        return f"Show fewer or smaller pictures. {ELSE}"


def check_room(
    name: str,
    need: Need,
    device: torch.device,
    dtype: torch.dtype,
    quantization: str,
    free: int | None = None,
) -> None:
    """Raises `OutOfMemory` where a model does not fit into what `device` has free, naming the precision that would.

    ``free`` says what `free_memory` says, in bytes.
    """
    free = free_memory(device) if free is None else free
    if need.bytes(dtype, quantization) <= free:
        return
    precision = _word(dtype) if quantization == "none" else f"{quantization} with {_word(dtype)}"
    fitting = [
        f"Use {options} (about {_gigabytes(size)})."
        for options, size in need.smaller(dtype, quantization)
        if size <= free
    ]
    raise OutOfMemory(
        f"{name} needs about {_gigabytes(need.bytes(dtype, quantization))} in {precision} and {device} has"
        f" {_gigabytes(free)} free.",
        advice=fitting[0] if fitting else ELSE,
    )


def allocate(model: nn.Module, device: torch.device) -> None:
    """Give the parameters of an empty model their memory, but for quantized ones, which take it as they are filled."""
    for owner in model.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if parameter.is_meta and not is_quantized(parameter):
                setattr(owner, name, nn.Parameter(torch.empty_like(parameter, device=device)))


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on a device; on a processor without swapping, caches counted as free."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    import psutil

    return psutil.virtual_memory().available


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
