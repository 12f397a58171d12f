"""Quantization by bitsandbytes: 8 or 4 bits for each weight of the language model's decoder layers.

Their Linear layers hold nearly all of a checkpoint's bytes. The vision tower, the projector, `lm_head`,
`text_hidden_fcs` and SAM2 are small beside them and stay in the model's dtype.
`quantize` prepares an empty model, `pack` rounds one weight on its way to the device.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import logging
import sys
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sa2va_host.errors import ModelLoadFailed
from sa2va_host.machine.commands import extra_command, pip_command
from sa2va_host.protocol.specification import AUTO, QUANTIZATIONS
from sa2va_worker.libraries import absent

NONE = "none"
BITS = {"8bit": 8.0, "4bit": 4.127}
"""Bits for each weight, scales included: LLM.int8's row scales are next to nothing; nf4 with double quantization takes
0.127 on top (Dettmers et al. 2023, QLoRA, section 3).
"""
OUTLIER = 6.0
"""Columns of 8-bit layers whose input goes beyond this are multiplied in 16 bit (Dettmers et al. 2022, LLM.int8,
section 3.2).
"""
TALKATIVE = ("bitsandbytes.autograd._functions", "bitsandbytes.backends.cpu.ops")
"""Its loggers that warn of what is meant to be so: that inputs are rounded to float16, on every multiplication, and
that the library `kernels` is missing.
"""


def choose(asked: str) -> str:
    """The quantization for a specification's word. Raises `ModelLoadFailed` for one that this Python cannot do."""
    quantization = NONE if asked == AUTO else asked
    if quantization not in QUANTIZATIONS:
        raise ModelLoadFailed(
            f"quantization {quantization!r} is not supported.",
            advice=f"Use one of: {', '.join(QUANTIZATIONS)}.",
        )
    if quantization == NONE:
        return quantization
    try:
        import_bitsandbytes()
    except ModuleNotFoundError as error:
        if error.name != "bitsandbytes":
            raise _broken(error) from error
        raise ModelLoadFailed(
            f"quantization {quantization} needs bitsandbytes, which the worker's Python does not have.",
            advice=f"Run: {extra_command('quantization')}",
        ) from error
    except Exception as error:
        raise _broken(error) from error
    return quantization


def import_bitsandbytes() -> None:
    """Import it without the library `kernels`: where that is installed, bitsandbytes fetches code from the hub as soon
    as it is imported (its `backends/cpu/ops.py`), which nobody asked for. Raises what the import raises.
    """
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    with absent("kernels"):
        importlib.import_module("bitsandbytes")


def _broken(error: Exception) -> ModelLoadFailed:
    return ModelLoadFailed(
        f"bitsandbytes is installed and cannot be imported: {error}.",
        advice=f"Install it again: {pip_command(['--force-reinstall', 'bitsandbytes'])}",
    )


def linear_layers(model: PreTrainedModel) -> Iterator[tuple[str, nn.Linear]]:
    """The layers that quantization rounds, by their names within `model`, a language model of transformers."""
    layers: nn.ModuleList = model.get_decoder().layers
    inside = set(layers.modules())
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module in inside:
            yield name, module


def quantize(model: PreTrainedModel, quantization: str) -> None:
    """Put layers of `quantization` in the place of those of `linear_layers`: without memory until they are filled.

    4-bit layers compute in the dtype that the model has.
    """
    if quantization == NONE:
        return
    from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt

    for name, old in list(linear_layers(model)):
        shape, bias = (old.in_features, old.out_features), old.bias is not None
        with torch.device("meta"):
            new: nn.Linear = (
                Linear8bitLt(*shape, bias, has_fp16_weights=False, threshold=OUTLIER)
                if quantization == "8bit"
                else Linear4bit(
                    *shape, bias, compute_dtype=old.weight.dtype, compress_statistics=True, quant_type="nf4"
                )
            )
        new.bias = old.bias
        model.set_submodule(name, new)


def is_quantized(parameter: Tensor) -> bool:
    """Whether it is the weight of a layer that `quantize` made."""
    return type(parameter).__module__.startswith("bitsandbytes.")


def pack(model: nn.Module, name: str, values: Tensor) -> None:
    """Fill the weight `name` of a layer that `quantize` made with `values` `[out, in]`, rounding them on its device.

    That is where its nearest neighbour is: the norms beside it are never quantized.
    """
    owner, _, leaf = name.rpartition(".")
    layer = model.get_submodule(owner)
    empty: nn.Parameter = getattr(layer, leaf)
    # bitsandbytes rounds a weight when it moves; how, its attributes say.
    full = type(empty)(values.to("cpu", empty.dtype), requires_grad=False, **vars(empty))
    device = _device_near(model, owner)
    setattr(layer, leaf, full.to(device))
    if device.type == "cpu":
        _give_back_freed_memory()


def _give_back_freed_memory() -> None:
    """To the system: glibc keeps what rounding a weight leaves behind, in all several times what the weights take."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # other C libraries have no such function
            ctypes.CDLL(None).malloc_trim(0)


def _device_near(model: nn.Module, name: str) -> torch.device:
    while name:
        name = name.rpartition(".")[0]
        for parameter in model.get_submodule(name).parameters():
            if not parameter.is_meta:
                return parameter.device
    raise ValueError("nothing of the model is in memory")


def weight_bytes(numbers: int, dtype: torch.dtype, quantization: str) -> int:
    """Bytes that so many weights of `linear_layers` take."""
    return round(numbers * BITS.get(quantization, dtype.itemsize * 8) / 8)
