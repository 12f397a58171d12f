"""Published checkpoints that look like Sa2VA's and cannot run here, and how they are recognised.

A name is enough to refuse one before the download of 20 to 90 GB; what is in a folder, before a worker starts.
SaSaSa2VA has the very modules of Sa2VA, so that a folder of it under another name is taken for one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sa2va_host.errors import ModelLoadFailed
from sa2va_host.machine.commands import sa2va_command

from .checkpoint_folder import MODEL_TYPE, CheckpointFolder


@dataclass(frozen=True)
class _Refused:
    """One kind of checkpoint. ``name`` fits the last part of its name on the hub, in small letters."""

    name: re.Pattern[str]
    why: str
    """A clause after its name."""
    has_code: bool = False
    """Whether its own code has the shape that `sa2va_worker.own_code` runs, where the user trusts it."""


SAM3 = _Refused(re.compile(r"sa2va-.+-sam-?3"), "finds its masks with SAM 3, and only SAM 2 is supported")
LLAVA = _Refused(
    re.compile(r"sa2va-llava-.+"),
    "has a language model of the kind 'llama' (LLaVA-1.5), which is not supported",
    has_code=True,
)
SASASA2VA = _Refused(
    re.compile(r"sasasa2va.*"),
    "answers with ten [SEG] for each object, one for each clip of a video, which is not supported: every [SEG] would"
    " be taken for an object of its own",
)
_OF_SAM3 = re.compile(r"(^|\.)(vision_)?backbone\.(trunk|sam2_convs)\.")
"""In the names of SAM 3's tensors, where SAM 2 has `image_encoder.trunk`."""
KINDS = (SAM3, LLAVA, SASASA2VA)


def refusal(model: str, *, trusted: bool = False) -> str:
    """Why a model of that name does not run here, as a clause after its name; empty where nothing is known against it.

    ``model`` is `ORG/NAME`, `NAME` or a folder, whoever ORG is: copies have the same names. Large and small letters are
    the same, as on the hub. ``trusted``: the checkpoint's own code may run.
    """
    last = model.rstrip("/\\").replace("\\", "/").rpartition("/")[2].lower()
    kind = next((kind for kind in KINDS if kind.name.fullmatch(last)), None)
    return "" if kind is None or (trusted and kind.has_code) else kind.why


def refusal_of(folder: CheckpointFolder, *, trusted: bool = False) -> str:
    """As `refusal`, also by what is in a folder: its language model, by `config.json`, and the names of its tensors.

    Of the weights only the index is read, or where there is none the header of the single file. Nothing is said of a
    folder that cannot be read, for which others have the words.
    """
    if why := refusal(folder.name, trusted=trusted):
        return why
    try:
        config = folder.config
        if config.get("model_type") != MODEL_TYPE:
            return ""
        parts = (part for part in config.values() if isinstance(part, dict))
        if not trusted and any(part.get("model_type") == "llama" for part in parts):
            return LLAVA.why
        return SAM3.why if any(map(_OF_SAM3.search, folder.tensor_names)) else ""
    except (ModelLoadFailed, OSError):
        return ""


def error(model: str, why: str) -> ModelLoadFailed:
    """What is raised for a model that `refusal` has something against."""
    return ModelLoadFailed(f"{model} {why}.", advice=advice())


def advice() -> str:
    """Where the user finds a model that runs."""
    return f"`{sa2va_command('models', '--all')}` lists the checkpoints that run here."
