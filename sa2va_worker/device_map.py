"""Where each decoder layer of a language model lies that one device does not hold, by accelerate's device maps.

The layers are nearly all of a model. Everything else (vision tower, embeddings, final norm, `lm_head`,
`text_hidden_fcs`, SAM2) is on the first device. A layer on another accelerator computes there; one that a processor
keeps comes to the first device whenever it computes, and its weights leave again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from accelerate import infer_auto_device_map
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from accelerate.utils import CustomDtype, get_balanced_memory
from torch import nn
from transformers import PreTrainedModel

_ROUNDED = {"8bit": torch.int8, "4bit": CustomDtype.INT4}


def infer(
    layers: nn.ModuleList, room: Mapping[torch.device, int], dtype: torch.dtype, quantization: str
) -> tuple[torch.device, ...] | None:
    """The device of each layer, the same number on each accelerator if that fits; None where they find no room.

    `layers` may be empty, on the meta device. `room` is what each device has for them, in bytes, the first device
    first; a processor behind it takes what no accelerator has room for, while the first keeps room for one layer more.
    """
    devices = {"cpu" if place and each.type == "cpu" else place: each for place, each in enumerate(room)}
    most = {key: room[device] for key, device in devices.items()}
    whole = [type(layer).__name__ for layer in layers]
    special = {
        f"{name}.weight": _ROUNDED[quantization]
        for name, module in layers.named_modules()
        if quantization in _ROUNDED and isinstance(module, nn.Linear)
    }
    # Even shares are tried first. They fail where one device has room for less than its share and another for more.
    for shares in (get_balanced_memory(layers, most, whole, dtype, special), most):
        found = infer_auto_device_map(layers, shares, whole, dtype, special, clean_result=False)
        if "disk" not in found.values():
            return tuple(devices[found[name]] for name, _ in layers.named_children())
    return None


def dispatch(model: PreTrainedModel, places: Sequence[torch.device]) -> None:
    """Have a filled model compute across devices. `places` is where each decoder layer lies, the first device in front.

    The layers of a processor leave `model.parameters()` for the meta device. Each of the other layers has one hook;
    accelerate's `dispatch_model` would give one to every module in them, which each token pays for.
    """
    first, decoder = model.device, model.get_decoder()
    for layer, place in zip(decoder.layers, places, strict=True):
        if place != first:
            kept = place.type == "cpu"
            add_hook_to_module(
                layer, AlignDevicesHook(first if kept else place, offload=kept, place_submodules=kept)
            )
    if any(place != first for place in places):
        add_hook_to_module(decoder.norm, AlignDevicesHook(first))
