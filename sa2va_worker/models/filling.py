"""How a checkpoint's tensors get into a module: straight into its parameters, one at a time, and every one of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from sa2va_host.errors import ModelLoadFailed

from .checkpoint import Checkpoint
from .names import row
from .quantization import is_quantized, pack

Unpack = Callable[[str, Tensor], Iterable[tuple[str, Tensor]]]
"""(on-disk name, tensor) -> (name in the module, tensor), several where the file holds them fused, none where the
module has no use for it.
"""


def fill(
    module: nn.Module,
    checkpoint: Checkpoint,
    unpack: Unpack,
    aliases: Mapping[str, str],
    rehearsal: bool = False,
) -> Iterator[int]:
    """Copy a checkpoint into a module; yields the bytes of each tensor as it is done.

    `aliases` names parameters that are another one where the file lacks them (tied embeddings, shared buffers). With
    `rehearsal` the module is on the meta device and of the files only the headers are read: all checks but that for
    infinite weights, at no cost. Raises `ModelLoadFailed` unless every tensor of the file has a place and every
    parameter and persistent buffer of the module was filled, with finite numbers.
    """
    targets = module.state_dict(keep_vars=True)
    rows: dict[str, set[int]] = {}
    filled: set[str] = set()
    unknown: list[str] = []
    with torch.no_grad():
        for name, values in checkpoint.tensors(shapes_only=rehearsal):
            for place_name, part in unpack(name, values):
                ours, index = row(place_name)
                target = targets.get(ours)
                if target is None:
                    unknown.append(name)
                    continue
                place = target if index is None else target[index : index + 1]
                _check_fit(checkpoint, name, part, place)
                if is_quantized(target):
                    _check_finite(checkpoint, name, part)
                    pack(module, ours, part)
                else:
                    place.copy_(part)
                    if not rehearsal:
                        _check_finite(checkpoint, name, place)
                if index is None:
                    filled.add(ours)
                else:
                    rows.setdefault(ours, set()).add(index)
            yield values.nbytes
        filled |= {name for name, seen in rows.items() if len(seen) == len(targets[name])}
        for name, source in aliases.items():
            if name in targets and name not in filled and source in filled:
                _tie(module, name, targets[name], targets[source])
                filled.add(name)
    _check_complete(checkpoint, sorted(set(targets) - filled), unknown)


def _tie(module: nn.Module, name: str, own: Tensor, source: Tensor) -> None:
    """Make a parameter or buffer the same memory as another one, or on another device a copy of it."""
    if own.device == source.device:
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, source)
    else:
        own.copy_(source)


def _check_fit(checkpoint: Checkpoint, name: str, values: Tensor, place: Tensor) -> None:
    if place.shape != values.shape:
        raise ModelLoadFailed(
            f"{name} has shape {tuple(values.shape)} in {checkpoint.folder}, but config.json means "
            f"{tuple(place.shape)}.",
            advice="The folder mixes two checkpoints: fetch it again.",
        )
    if place.is_floating_point() and not values.is_floating_point():
        raise ModelLoadFailed(
            f"{name} in {checkpoint.folder} holds {str(values.dtype).removeprefix('torch.')} numbers, "
            "where the model has weights.",
            advice="Use a checkpoint that is not quantized, or fetch it again.",
        )


def _check_finite(checkpoint: Checkpoint, name: str, place: Tensor) -> None:
    """One pass over the weights where they are now, without a copy: a sum is a number only if every part of it is.

    Sums of such as are numbers may be too large to be one, in float16 above all; both ends tell then.
    """
    if not place.is_floating_point() or math.isfinite(place.sum()):
        return
    if not torch.stack(place.aminmax()).isfinite().all():
        kind = str(place.dtype).removeprefix("torch.")
        raise ModelLoadFailed(
            f"{name} in {checkpoint.folder} has weights that are infinite or no numbers in {kind}.",
            advice="Fetch the checkpoint again, or with float16 try --dtype bfloat16.",
        )


def _check_complete(checkpoint: Checkpoint, missing: list[str], unknown: list[str]) -> None:
    if missing or unknown:
        raise ModelLoadFailed(
            f"{checkpoint.folder} does not fit its config.json: "
            + "; ".join(
                f"{len(names)} tensor{'s' * (len(names) != 1)} {what} "
                f"({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
                for what, names in (("missing", missing), ("unknown", unknown))
                if names
            )
            + ".",
            advice=_advice(unknown),
        )


_FOREIGN = (
    (
        re.compile(r"\.(lora_\w+|base_layer|modules_to_save|original_module)\."),
        "They are LoRA weights that are not merged: save what `merge_and_unload()` of the library peft gives.",
    ),
    (
        re.compile(r"(^|\.)(v_head|value_head|reward_head|score|summary|classifier)\."),
        "They look like the value or reward head of a training, which answers nothing: save the model without it.",
    ),
    (
        re.compile(
            r"\.(absmax|quant_map|nested_\w+|SCB|weight_format|qweight|qzeros|scales|weight_scale(_inv)?)$|\.quant_state\."
        ),
        "They are of rounded weights: use the checkpoint that they were made from, with --quantization.",
    ),
)
"""What tensors may be that no model has a place for, and what to do about it."""


def _advice(unknown: Sequence[str]) -> str:
    """What to do about a checkpoint that lacks tensors, or has unknown ones."""
    for pattern, advice in _FOREIGN:
        if any(pattern.search(name) for name in unknown):
            return advice
    if unknown:
        return (
            "If it is a fine-tune, save the model alone, under the names that the published checkpoint has; else fetch"
            " it again, or see whether its config.json is another model's."
        )
    return "Fetch the checkpoint again; if it is a fine-tune, save all of the model."
