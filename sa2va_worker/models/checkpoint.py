"""Checkpoint folders: where they are, and the tensors in their files.

What else is in a folder `sa2va_host.models.checkpoint_folder` knows; `filling` puts the tensors into a module.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from sa2va_host.errors import ModelLoadFailed, ModelNotFound
from sa2va_host.models.checkpoint_folder import CheckpointFolder

from .wrapping import Naming, unwrap

SAM2_STRIDE = 32
"""The side of a picture for SAM2 is a multiple of this: Hiera halves it five times."""
MAPPED_BYTES = 64 * 2**20
"""How much of a file is read before it is mapped anew."""
BUNDLED = Path(__file__).resolve().parents[1] / "bundled"


def find_folder(checkpoint: str) -> Path:
    """The folder of a bundled model's name or of a path. Raises `ModelNotFound`."""
    bundled = BUNDLED / checkpoint
    if "/" not in checkpoint and "\\" not in checkpoint and (bundled / "config.json").is_file():
        return bundled
    folder = Path(checkpoint).expanduser()
    if (folder / "config.json").is_file():
        return folder
    if adapter := CheckpointFolder(folder).adapter:
        raise adapter
    known = ", ".join(sorted(entry.name for entry in BUNDLED.iterdir())) if BUNDLED.is_dir() else "none"
    what = "has no config.json" if folder.is_dir() else "is neither a bundled model nor a folder"
    raise ModelNotFound(
        f"{checkpoint!r} {what}.", advice=f"Give a checkpoint folder, or a bundled model ({known})."
    )


class Checkpoint(CheckpointFolder):
    """A checkpoint folder whose tensors can be read."""

    beginnings: tuple[str, ...] = ("",)
    """How the names (in `tensors`) of those begin that are read; others are passed over."""

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
            f"{name} is {reprlib.repr(value)} in {self.folder / file}; it should be {wanted}.",
            advice="Fetch the checkpoint again.",
        )

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of all tensors, as `tensors` gives them. Raises `ModelLoadFailed` as it does."""
        return frozenset(name for name, _ in self.tensors(shapes_only=True))

    @property
    def notes(self) -> list[str]:
        """What was passed over in the names of the tensors, a sentence each. Raises `ModelLoadFailed` as `tensors`."""
        return self._naming.notes

    def tensors(self, shapes_only: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
        """Every such tensor with its name, read one at a time from the mapped files.

        The name is the one on disk without what wrappers of a training put around it; what no model needs is left out
        (`wrapping`). With `shapes_only` they are on the meta device: nothing but the files' headers is read.
        """
        read, ours = _shapes if shapes_only else _values, self._naming.ours
        for file in self.files:
            with _in_words(file):
                wanted = {
                    name: ours[name]
                    for name in self._stored[file]
                    if name in ours and ours[name].startswith(self.beginnings)
                }
                for name, values in read(file, wanted):
                    yield wanted[name], values

    @cached_property
    def _stored(self) -> dict[Path, list[str]]:
        """The on-disk names of the tensors, by file."""
        stored: dict[Path, list[str]] = {}
        home: dict[str, Path] = {}
        for file in self.files:
            with _in_words(file), safe_open(file, framework="pt") as opened:
                stored[file] = list(opened.keys())
            for name in stored[file]:
                if home.setdefault(name, file) is not file:
                    raise ModelLoadFailed(
                        f"{name} is in {home[name].name} and in {file.name} of {self.folder}.",
                        advice="The folder mixes two checkpoints: fetch it again.",
                    )
        return stored

    @cached_property
    def _naming(self) -> Naming:
        return unwrap([name for names in self._stored.values() for name in names])


@contextmanager
def _in_words(file: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise ModelLoadFailed(f"{file} is damaged: {error}.", advice="Fetch the checkpoint again.") from error


def _shapes(file: Path, wanted: Iterable[str]) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(file, framework="pt") as opened:
        for name in wanted:
            yield name, _shape(opened, name)


def _values(file: Path, wanted: Iterable[str]) -> Iterator[tuple[str, torch.Tensor]]:
    names = sorted(wanted, reverse=True)
    while names:
        # Pages that were read count as this process's memory for as long as they are mapped, so it is done piecemeal.
        with safe_open(file, framework="pt") as opened:
            mapped = 0
            while names and mapped < MAPPED_BYTES:
                name = names.pop()
                values = opened.get_tensor(name)
                mapped += values.nbytes
                yield name, values


def _shape(opened: Any, name: str) -> torch.Tensor:
    stored = opened.get_slice(name)
    shape = stored.get_shape()
    dtype = (stored[:0] if shape else opened.get_tensor(name)).dtype
    return torch.empty(shape, dtype=dtype, device="meta")
