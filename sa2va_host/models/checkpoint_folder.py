"""What is in a checkpoint folder, as far as it can be told without torch.

Shared by the worker, which loads the weights, and by the host, which lists what is there. Only `config.json` and the
index of the safetensors files are read; code and pickles in the folder are never touched.
"""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sa2va_host.errors import ModelLoadFailed

MAX_JSON_BYTES = 64 * 2**20
INDEX = "model.safetensors.index.json"
IMAGE_PROCESSOR = ("preprocessor_config.json", "processor_config.json")
"""The files that may say how images are prepared for the model; the first that is there counts."""
MODEL_TYPE = "sa2va_chat"
"""What upstream writes under `model_type` into every Sa2VA checkpoint's `config.json`."""


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
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ModelLoadFailed(f"{path} is missing.", advice=again) from error
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
            return [single]
        if not (self.folder / INDEX).is_file():
            pickles = any(self.folder.glob("*.bin")) or any(self.folder.glob("*.pt*"))
            why = "only pickled weights, which can run code when opened" if pickles else "no weights"
            raise ModelLoadFailed(
                f"{self.folder} holds {why}.", advice="Use a checkpoint with model.safetensors files."
            )
        weight_map = self.json(INDEX).get("weight_map")
        usable = isinstance(weight_map, dict) and all(isinstance(name, str) for name in weight_map.values())
        if not (weight_map and usable):
            raise ModelLoadFailed(
                f"{self.folder / INDEX} has no usable weight_map.", advice="Fetch the checkpoint again."
            )
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
    def problem(self) -> str:
        """What is missing or damaged, in a few words; empty where nothing is seen to be.

        Weights are looked for only where `config.json` says Sa2VA, since a plugin's family may lay them out otherwise,
        and never opened.
        """
        try:
            if self.config.get("model_type") == MODEL_TYPE and not self.size:
                return "the weights are empty"
        except ModelLoadFailed as error:
            return error.message.removeprefix(str(self.folder)).lstrip("/\\ ").removesuffix(".")
        except OSError as error:
            return error.strerror or "cannot be read"
        return ""
