"""Checkpoints of random weights: true dimensions where no weights can be had."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors.torch import save_file

from sa2va_worker.models.checkpoint import BUNDLED
from sa2va_worker.models.sa2va import Sa2VA
from sa2va_worker.models.sam2 import HIERA_LARGE
from sa2va_worker.models.vocabulary import SEGMENT, load_qwen_tokenizer
from training.tiny import on_disk

from .cases import dictation

Dimensions: TypeAlias = "Mapping[str, Mapping[str, Any]]"
"""What the parts of `config.json` say otherwise than the bundled model's."""
QWEN3_VL_4B: Dimensions = {
    "text_config": {
        "vocab_size": 151936,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 262144,
        "rope_theta": 5e6,
        "rope_scaling": {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [24, 20, 20]},
    },
    "vision_config": {
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_heads": 16,
        "patch_size": 16,
        "num_position_embeddings": 2304,
        "out_hidden_size": 2560,
        "deepstack_visual_indexes": [5, 11, 17],
    },
    "sam2_config": dict(HIERA_LARGE),
}
"""The dimensions of ByteDance/Sa2VA-Qwen3-VL-4B; its words are those of the bundled tokenizer, of which it has few."""
TINY: Dimensions = {"text_config": {}, "vision_config": {}, "sam2_config": {}}
"""The bundled model's own dimensions."""
TINY_WITH_HIERA_LARGE: Dimensions = {
    "text_config": {},
    "vision_config": {"patch_size": 16},
    "sam2_config": dict(HIERA_LARGE),
}
"""The bundled language model with SAM2 at its true size, the only one that upstream's code has."""
_SHARD = 2 << 30
"""Bytes of one file, about: so much is in memory at a time."""


def write(folder: Path, dimensions: Dimensions, device: str = "cpu") -> Path:
    """Write a float16 checkpoint of the bundled model's family with these dimensions, whose answers are dictated
    (`cases.dictation`); returns the folder. The numbers are drawn on `device`: billions take a processor minutes.
    """
    shutil.copytree(
        BUNDLED / "sa2va-tiny", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors")
    )
    config = configuration(dimensions)
    if "patch_size" in dimensions["vision_config"]:  # pictures at upstream's sizes, not the bundled model's
        config |= {"min_pixels": 512 * 28 * 28, "max_pixels": 2048 * 28 * 28}
        processor = json.loads((folder / "preprocessor_config.json").read_text())
        processor["patch_size"] = dimensions["vision_config"]["patch_size"]
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    tokenizer = load_qwen_tokenizer(folder)
    segment, end = tokenizer.get_added_vocab()[SEGMENT], tokenizer.eos_token_id
    rules = dictation(partial(tokenizer.encode, add_special_tokens=False), segment, end)
    generation = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(generation | {"sequence_bias": rules}))
    # transformers 4.57 makes the generation settings of a model inside a model from this file.
    (folder / "config.json").write_text(json.dumps(config | {"sequence_bias": rules}))
    _write_weights(folder, shapes(config), torch.device(device))
    return folder


def shapes(config: Mapping[str, Any]) -> dict[str, torch.Size]:
    """The shape of each tensor of the model that `config.json` describes, by our names; takes no memory."""
    with torch.device("meta"):
        return {name: values.shape for name, values in Sa2VA(config).state_dict().items()}


def configuration(dimensions: Dimensions) -> dict[str, Any]:
    """`config.json` of the bundled model with these dimensions."""
    config: dict[str, Any] = json.loads((BUNDLED / "sa2va-tiny" / "config.json").read_text())
    for part, values in dimensions.items():
        config[part] = {**config[part], **values}
    return config


def _write_weights(folder: Path, wanted: Mapping[str, torch.Size], device: torch.device) -> None:
    generator = torch.Generator(device).manual_seed(0)
    places: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    for number, (name, shape) in enumerate(wanted.items(), start=1):
        shard |= {
            there: values.cpu()
            for there, values in on_disk({name: _random(name, shape, generator)}, tied=False).items()
        }
        if number == len(wanted) or sum(tensor.nbytes for tensor in shard.values()) >= _SHARD:
            file = f"model-{number:05}.safetensors"
            save_file(shard, folder / file, metadata={"format": "pt"})
            places |= dict.fromkeys(shard, file)
            shard = {}
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _random(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Scaled by the width that is summed over, so that no layer overflows; 1 for the vectors that scale, 0 for those
    that are added.
    """
    if len(shape) < 2:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    deviation = max(1, shape[1:].numel()) ** -0.5
    return torch.empty(shape, device=generator.device).normal_(std=deviation, generator=generator)
