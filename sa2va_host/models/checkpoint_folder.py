"""What is in a checkpoint folder, as far as it can be told without torch.

Shared by the worker, which loads the weights, and by the host, which lists what is there. Only JSON files and the
headers of the safetensors files are read; code and pickles in the folder are never touched.
"""

from __future__ import annotations

import json
import math
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from sa2va_host.errors import ModelLoadFailed
from sa2va_host.machine.commands import sa2va_command

from .weights import MAX_HEADER_BYTES, read_header, shapes

MAX_JSON_BYTES = 64 * 2**20
ADAPTER = "adapter_config.json"
INDEX = "model.safetensors.index.json"
_POINTER = b"version https://git-lfs.github.com/spec/"
IMAGE_PROCESSOR = ("preprocessor_config.json", "processor_config.json")
"""The files that may say how images are prepared for the model; the first that is there counts."""
MODEL_TYPE = "sa2va_chat"
"""What upstream writes under `model_type` into every Sa2VA checkpoint's `config.json`."""
NATIVE = (
    ("text_config", "qwen3_vl_text"),
    ("text_config", "qwen2_5_vl_text"),
    ("llm_config", "qwen2"),
    ("llm_config", "internlm2"),
)
"""What our own families have in `config.json`: a part of it, and the ``model_type`` there. The worker's table
`sa2va_worker.models.families.FAMILIES` says how each is built.
"""


@dataclass(frozen=True)
class CheckpointFolder:
    """One folder in the hub's layout: `config.json`, tokenizer files, one or several `*.safetensors`."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name, or in the hub's cache, where folders are named after commits, the model's."""
        repo = self.folder.parent.parent
        return repo.name.rpartition("--")[2] if self.folder.parent.name == "snapshots" else self.folder.name

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of `config.json`. Raises as `json` does."""
        return self.json("config.json")

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object from the folder. Raises `ModelLoadFailed` if it is absent, huge, damaged or not an object, and
        for what is no file: reading a pipe or a device might never end.
        """
        path = self.folder / name
        again = "Fetch the checkpoint again."
        try:
            about = path.stat()
            if not stat.S_ISREG(about.st_mode):
                raise ModelLoadFailed(f"{path} is no file.", advice=again)
            if about.st_size > MAX_JSON_BYTES:
                raise ModelLoadFailed(
                    f"{path} is larger than {MAX_JSON_BYTES >> 20} MiB, which no such file is."
                )
            _check_no_pointer(path)
            content = json.loads(_text(path))
        except FileNotFoundError as error:
            raise self.adapter or ModelLoadFailed(f"{path} is missing.", advice=again) from error
        except (OSError, ValueError, RecursionError) as error:
            raise ModelLoadFailed(f"{path} cannot be read: {error}.", advice=again) from error
        if not isinstance(content, dict):
            raise ModelLoadFailed(f"{path} holds no JSON object.", advice=again)
        return content

    def optional_json(self, name: str) -> dict[str, Any]:
        """`json`, or an empty dict where there is no such file."""
        return self.json(name) if (self.folder / name).is_file() else {}

    def image_processor(self) -> tuple[str, dict[str, Any]]:
        """(name of the file, settings) of the image processor that the folder declares.

        Found as transformers 4.57 finds it: the settings may lie under `image_processor` in either file. Raises
        `ModelLoadFailed` as `json` does, and where neither file is there.
        """
        for name in IMAGE_PROCESSOR:
            if (self.folder / name).exists():
                whole = self.json(name)
                settings = whole.get("image_processor", whole)
                if not isinstance(settings, dict):
                    raise ModelLoadFailed(
                        f"image_processor in {self.folder / name} is no JSON object.",
                        advice="Fetch the checkpoint again.",
                    )
                return name, settings
        raise ModelLoadFailed(
            f"{self.folder} has neither {' nor '.join(IMAGE_PROCESSOR)}, which say how images are prepared.",
            advice="Copy it from the checkpoint that this one was made from, or fetch the checkpoint again.",
        )

    @cached_property
    def files(self) -> list[Path]:
        """The safetensors files, each once, in the index's order. Raises `ModelLoadFailed` when one is missing."""
        single = self.folder / "model.safetensors"
        if single.is_file():
            _check_no_pointer(single)
            return [single]
        if not (self.folder / INDEX).is_file():
            if self.adapter is not None:
                raise self.adapter
            pickles = any(self.folder.glob("*.bin")) or any(self.folder.glob("*.pt*"))
            why = "only pickled weights, which can run code when opened" if pickles else "no weights"
            raise ModelLoadFailed(
                f"{self.folder} holds {why}.", advice="Use a checkpoint with model.safetensors files."
            )
        weight_map = self._weight_map
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
            _check_no_pointer(self.folder / name)
        return [self.folder / name for name in names]

    @property
    def adapter(self) -> ModelLoadFailed | None:
        """The error for a folder that holds an adapter (LoRA, as PEFT saves it) and no model; None for any other."""
        if not (self.folder / ADAPTER).is_file() or any(
            (self.folder / name).is_file() for name in ("model.safetensors", INDEX)
        ):
            return None
        base = self.json(ADAPTER).get("base_model_name_or_path")
        of = f" of {base}" if isinstance(base, str) and base else ", and does not say of which model"
        return ModelLoadFailed(
            f"{self.folder} is no checkpoint but an adapter alone{of}.",
            advice="Load the base model with its own code, put the adapter on it (PeftModel.from_pretrained of the"
            " library peft), and save what `merge_and_unload()` gives.",
        )

    @cached_property
    def _weight_map(self) -> dict[str, str]:
        """Of the index: which file has which tensor. Raises `ModelLoadFailed`."""
        weight_map = self.json(INDEX).get("weight_map")
        usable = isinstance(weight_map, dict) and all(isinstance(name, str) for name in weight_map.values())
        if not (weight_map and usable):
            raise ModelLoadFailed(
                f"{self.folder / INDEX} has no usable weight_map.", advice="Fetch the checkpoint again."
            )
        return cast("dict[str, str]", weight_map)

    @property
    def size(self) -> int:
        """Bytes of all weight files."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def size_on_disk(self) -> int:
        """Bytes of all files, whatever they are; 0 where the folder cannot be looked into."""
        try:
            return sum(file.stat().st_size for file in self.folder.iterdir() if file.is_file())
        except OSError:
            return 0

    @property
    def family(self) -> str:
        """``qwen3_vl``, ``qwen2_5_vl``, ``internvl``, or for a model that reads words alone its own type (``qwen3``),
        by `config.json`; empty where it does not tell.
        """
        try:
            config = self.config
        except ModelLoadFailed:
            return ""
        text = config.get("text_config")
        kind = text.get("model_type") if isinstance(text, dict) else None
        if isinstance(kind, str):
            return kind.removesuffix("_text")
        if isinstance(config.get("llm_config"), dict):
            return "internvl"
        kind = config.get("model_type")
        return kind if isinstance(kind, str) and kind != MODEL_TYPE else ""

    @property
    def is_native(self) -> bool:
        """Whether `config.json` says a Sa2VA of one of our own families. Raises as `json` does."""
        config = self.config
        return config.get("model_type") == MODEL_TYPE and any(
            isinstance(config.get(part), dict) and config[part].get("model_type") == kind
            for part, kind in NATIVE
        )

    @cached_property
    def tensor_names(self) -> frozenset[str]:
        """The names of all tensors, by the single file's header or by the index, also where shards are missing.

        Raises `ModelLoadFailed` where there is neither, or it cannot be read.
        """
        if (self.folder / "model.safetensors").is_file():
            return frozenset(self._header(self.folder / "model.safetensors"))
        return frozenset(self._weight_map)

    @property
    def parameters(self) -> int:
        """How many numbers all tensors have, by the headers of the files. Raises `ModelLoadFailed` as `files` does."""
        return sum(math.prod(shape) for file in self.files for shape in self._header(file).values())

    def _header(self, file: Path) -> dict[str, list[int]]:
        """The shapes of a safetensors file's tensors by name. Raises `ModelLoadFailed` where it has no such header."""
        try:
            return shapes(file)
        except (OSError, ValueError) as error:
            raise ModelLoadFailed(
                f"{file} has no readable header.", advice="Fetch the checkpoint again."
            ) from error

    @property
    def problem(self) -> str:
        """What is missing or damaged, in a few words; empty where nothing is seen to be.

        Weights are looked for only where `config.json` says Sa2VA, since a plugin's family may lay them out otherwise,
        and nothing but their headers is read.
        """
        try:
            if self.config.get("model_type") == MODEL_TYPE:
                if not self.size:
                    return "the weights are empty"
                cut = next((file.name for file in self.files if _is_cut(file)), "")
                return f"{cut} is cut off" if cut else ""
        except ModelLoadFailed as error:
            return error.message.removeprefix(str(self.folder)).lstrip("/\\ ").removesuffix(".")
        except OSError as error:
            return error.strerror or "cannot be read"
        return ""


def _text(path: Path) -> str:
    """A text file in UTF-8, with or without a byte order mark. Raises ValueError with what it is instead."""
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:2]:
        raise ValueError("it is in UTF-16; save it as UTF-8")
    return content.decode("utf-8-sig")


def _check_no_pointer(path: Path) -> None:
    """Raise `ModelLoadFailed` for what Git leaves in the place of a large file that it has not fetched."""
    with path.open("rb") as opened:
        is_pointer = opened.read(len(_POINTER)) == _POINTER
    if is_pointer:
        raise ModelLoadFailed(
            f"{path} is a pointer of Git LFS, not the file itself.",
            advice="Run `git lfs pull` in that folder, or fetch the checkpoint with"
            f" `{sa2va_command('pull')} ORG/NAME`.",
        )


def _is_cut(file: Path) -> bool:
    """Whether a safetensors file ends before its last tensor does. What has no header is for others to judge."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 or not 0 < length <= MAX_HEADER_BYTES:
            return False
        text = opened.read(length)
    if len(text) < length:
        return text.startswith(b"{")
    try:
        ends = [entry["data_offsets"][1] for entry in read_header(file).values()]
        return bool(8 + length + max(ends, default=0) > size)
    except (ValueError, LookupError, TypeError):
        return False
