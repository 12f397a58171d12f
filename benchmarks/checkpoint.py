"""Checkpoints of random weights: true dimensions where no weights can be had."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors.torch import save_file

from sa2va_worker.models.checkpoint import BUNDLED
from sa2va_worker.models.sa2va import Sa2VA
from sa2va_worker.models.sam2 import HIERA_LARGE
from training.tiny import on_disk

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
_SHARD = 2 << 30
"""Bytes of one file, about: so much is in memory at a time."""


def write(folder: Path, dimensions: Dimensions) -> Path:
    """Write a float16 checkpoint of the bundled model's family with these dimensions; returns the folder."""
    shutil.copytree(
        BUNDLED / "sa2va-tiny", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors")
    )
    config = configuration(dimensions)
    if "patch_size" in dimensions["vision_config"]:  # pictures at upstream's sizes, not the bundled model's
        config |= {"min_pixels": 512 * 28 * 28, "max_pixels": 2048 * 28 * 28}
        processor = json.loads((folder / "preprocessor_config.json").read_text())
        processor["patch_size"] = dimensions["vision_config"]["patch_size"]
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "config.json").write_text(json.dumps(config))
    _write_weights(folder, shapes(config))
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


def _write_weights(folder: Path, wanted: Mapping[str, torch.Size]) -> None:
    generator = torch.Generator().manual_seed(0)
    places: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    for number, (name, shape) in enumerate(wanted.items(), start=1):
        shard |= on_disk({name: _random(shape, generator)})
        if number == len(wanted) or sum(tensor.nbytes for tensor in shard.values()) >= _SHARD:
            file = f"model-{number:05}.safetensors"
            save_file(shard, folder / file, metadata={"format": "pt"})
            places |= dict.fromkeys(shard, file)
            shard = {}
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _random(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Scaled by the width that is summed over, so that no layer overflows; 1 for the vectors that scale."""
    if len(shape) < 2:
        return torch.ones(shape)
    deviation = max(1, shape[1:].numel()) ** -0.5
    return torch.empty(shape).normal_(std=deviation, generator=generator)
