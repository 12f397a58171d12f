"""Checkpoint folders: how their tensors get into a module without a detour.

What else is in a folder `sa2va_host.checkpoint_folder` knows. Tensors go from the file straight into the module's
parameters, on the module's device and in its dtype, one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from sa2va_host.checkpoint_folder import CheckpointFolder
from sa2va_host.errors import ModelLoadFailed, ModelNotFound

from .names import row

SAM2_STRIDE = 32
"""The side of a picture for SAM2 is a multiple of this: Hiera halves it five times."""
BUNDLED = Path(__file__).resolve().parents[1] / "bundled"


def find_folder(checkpoint: str) -> Path:
    """The folder of a bundled model's name or of a path. Raises `ModelNotFound`."""
    bundled = BUNDLED / checkpoint
    if "/" not in checkpoint and "\\" not in checkpoint and (bundled / "config.json").is_file():
        return bundled
    folder = Path(checkpoint).expanduser()
    if (folder / "config.json").is_file():
        return folder
    known = ", ".join(sorted(entry.name for entry in BUNDLED.iterdir())) if BUNDLED.is_dir() else "none"
    what = "has no config.json" if folder.is_dir() else "is neither a bundled model nor a folder"
    raise ModelNotFound(
        f"{checkpoint!r} {what}.", advice=f"Give a checkpoint folder, or a bundled model ({known})."
    )


class Checkpoint(CheckpointFolder):
    """A checkpoint folder whose tensors can be read."""

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of `config.json`. Raises `ModelLoadFailed` as `json` does, and for sizes that no picture has."""
        config = self.json("config.json")
        sam2 = config.get("sam2_config")
        side = sam2.get("image_size", SAM2_STRIDE) if isinstance(sam2, dict) else SAM2_STRIDE
        if not (isinstance(side, int) and side > 0 and side % SAM2_STRIDE == 0):
            raise self.unusable("sam2_config.image_size", side, f"a multiple of {SAM2_STRIDE}")
        return config

    def unusable(self, name: str, value: object, wanted: str, file: str = "config.json") -> ModelLoadFailed:
        """The error for a value in one of the folder's files."""
        return ModelLoadFailed(
            f"{name} is {value!r} in {self.folder / file}; it should be {wanted}.",
            advice="Fetch the checkpoint again.",
        )

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every tensor with its on-disk name, read one at a time from the mapped files."""
        for file in self.files:
            try:
                with safe_open(file, framework="pt") as opened:
                    for name in opened.keys():  # noqa: SIM118 - not a dict
                        yield name, opened.get_tensor(name)
            except (SafetensorError, OSError) as error:
                raise ModelLoadFailed(
                    f"{file} is damaged: {error}.", advice="Fetch the checkpoint again."
                ) from error


def fill(
    module: nn.Module, checkpoint: Checkpoint, rename: Callable[[str], str], aliases: dict[str, str]
) -> Iterator[int]:
    """Copy a checkpoint into a module; yields the bytes of each tensor as it is done.

    `aliases` names parameters that take another one's values where the file lacks them (tied embeddings, shared
    buffers). Raises `ModelLoadFailed` unless every tensor of the file has a place and every parameter and persistent
    buffer of the module was filled.
    """
    targets = module.state_dict(keep_vars=True)
    rows: dict[str, set[int]] = {}
    filled: set[str] = set()
    unknown: list[str] = []
    with torch.no_grad():
        for name, values in checkpoint.tensors():
            ours, index = row(rename(name))
            target = targets.get(ours)
            if target is None:
                unknown.append(name)
                continue
            place = target if index is None else target[index : index + 1]
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
            place.copy_(values)
            if index is None:
                filled.add(ours)
            else:
                rows.setdefault(ours, set()).add(index)
            yield values.nbytes
        filled |= {name for name, seen in rows.items() if len(seen) == len(targets[name])}
        for name, source in aliases.items():
            if name in targets and name not in filled and source in filled:
                targets[name].copy_(targets[source])
                filled.add(name)
    missing = sorted(set(targets) - filled)
    if missing or unknown:
        raise ModelLoadFailed(
            f"{checkpoint.folder} does not fit its config.json: "
            + "; ".join(
                f"{len(names)} tensors {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
                for what, names in (("missing", missing), ("unknown", unknown))
                if names
            )
            + ".",
            advice="Fetch the checkpoint again.",
        )
