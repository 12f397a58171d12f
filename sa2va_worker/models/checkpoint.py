"""Checkpoint folders: what is in them, and how their tensors get into a module without a detour.

Only `config.json` and safetensors files are read; code and pickles in the folder are never touched. Tensors go from
the file straight into the module's parameters, on the module's device and in its dtype, one at a time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from sa2va_host.errors import ModelLoadFailed, ModelNotFound

from .names import row

BUNDLED = Path(__file__).resolve().parents[1] / "bundled"
MAX_JSON_BYTES = 64 * 2**20
INDEX = "model.safetensors.index.json"


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


@dataclass(frozen=True)
class Checkpoint:
    """One folder in the hub's layout: `config.json`, tokenizer files, one or several `*.safetensors`."""

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        return self.json("config.json")

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object from the folder. Raises `ModelLoadFailed` if it is absent, huge, damaged or not an object."""
        path = self.folder / name
        try:
            if path.stat().st_size > MAX_JSON_BYTES:
                raise ModelLoadFailed(
                    f"{path} is larger than {MAX_JSON_BYTES >> 20} MiB, which no such file is."
                )
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelLoadFailed(
                f"{path} cannot be read: {error}.", advice="Fetch the checkpoint again."
            ) from error
        if not isinstance(content, dict):
            raise ModelLoadFailed(f"{path} holds no JSON object.", advice="Fetch the checkpoint again.")
        return content

    def optional_json(self, name: str) -> dict[str, Any]:
        """`json`, or an empty dict where there is no such file."""
        return self.json(name) if (self.folder / name).is_file() else {}

    @cached_property
    def files(self) -> list[Path]:
        """The safetensors files, each once, in the index's order."""
        single = self.folder / "model.safetensors"
        if single.is_file():
            return [single]
        if not (self.folder / INDEX).is_file():
            pickles = any(self.folder.glob("*.bin")) or any(self.folder.glob("*.pt*"))
            why = "only pickled weights, which can run code when opened" if pickles else "no weights"
            raise ModelLoadFailed(
                f"{self.folder} holds {why}.", advice="Use a checkpoint with model.safetensors files."
            )
        weight_map = self.json(INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise ModelLoadFailed(f"{self.folder / INDEX} has no usable weight_map.")
        names = list(dict.fromkeys(weight_map.values()))
        for name in names:
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise ModelLoadFailed(
                    f"{self.folder / INDEX} points to {name!r}, outside the folder or no weights."
                )
            if not (self.folder / name).is_file():
                raise ModelLoadFailed(
                    f"{self.folder / name} is missing.", advice="Fetch the checkpoint again."
                )
        return [self.folder / name for name in names]

    @property
    def size(self) -> int:
        """Bytes of all weight files."""
        return sum(file.stat().st_size for file in self.files)

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
