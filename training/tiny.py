"""What `sa2va-tiny` is made of: the same architecture as Sa2VA-Qwen3-VL, small in every dimension."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sa2va_worker.models.names import OUR_LANGUAGE_PREFIX, OUR_SAM2_PREFIX, disk_name
from sa2va_worker.models.sa2va import Sa2VA
from training.vocabulary import write_tokenizer

LANGUAGE_WIDTH = 128
POINT_TABLE = f"{OUR_SAM2_PREFIX}prompt_encoder.point_embed.weight"
# Held twice by transformers, stored once.
STORED_ELSEWHERE = f"{OUR_SAM2_PREFIX}shared_image_embedding.positional_embedding"


def tiny_config(vocabulary: int) -> dict[str, Any]:
    """`config.json` of the bundled model for a tokenizer of `vocabulary` tokens."""
    return {
        "architectures": ["Sa2VAChatModelQwen"],
        "model_type": "sa2va_chat",
        "template": "qwen_chat",
        "dtype": "float16",
        "image_token_id": 6,
        "video_token_id": 7,
        "vision_start_token_id": 3,
        "vision_end_token_id": 4,
        "tie_word_embeddings": True,
        "min_pixels": 28000,
        "max_pixels": 37000,
        "text_config": {
            "model_type": "qwen3_vl_text",
            "vocab_size": vocabulary,
            "hidden_size": LANGUAGE_WIDTH,
            "intermediate_size": 384,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "hidden_act": "silu",
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "rope_scaling": {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [6, 5, 5]},
            "attention_bias": False,
            "attention_dropout": 0.0,
            "eos_token_id": 2,
            "use_cache": True,
        },
        "vision_config": {
            "model_type": "qwen3_vl",
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_heads": 4,
            "in_channels": 3,
            "patch_size": 12,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "num_position_embeddings": 256,
            "out_hidden_size": LANGUAGE_WIDTH,
            "deepstack_visual_indexes": [1],
            "hidden_act": "gelu_pytorch_tanh",
        },
        "sam2_config": {
            "image_size": 192,
            "embed_dim": 24,
            "num_heads": 1,
            "stages": [1, 2, 3, 1],
            "global_att_blocks": [4, 5],
            "window_pos_embed_bkg_spatial_size": [6, 6],
            "window_spec": [8, 4, 6, 6],
            "memory_attention_layers": 2,
            "hidden_dim": 128,
            "feedforward_dim": 256,
            "fuser_dim": 256,
            "decoder_heads": 4,
        },
    }


def write_folder(folder: Path, seed: int) -> dict[str, Any]:
    """Write configuration and tokenizer of a new checkpoint folder; returns the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder, seed)
    vocabulary = 1 + max(json.loads((folder / "vocab.json").read_text(encoding="utf-8")).values())
    config = tiny_config(vocabulary)
    files = {
        "config.json": config,
        "generation_config.json": {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0},
        "preprocessor_config.json": {
            "image_processor_type": "Qwen2VLImageProcessor",
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "patch_size": 12,
            "merge_size": 2,
            "temporal_patch_size": 2,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return config


def on_disk(state: dict[str, Tensor], tied: bool = True) -> dict[str, Tensor]:
    """Our module's tensors under upstream's names, in float16; doubled tensors once, and with `tied` the output layer
    as the token embedding that it is.
    """
    elsewhere = {STORED_ELSEWHERE, *([f"{OUR_LANGUAGE_PREFIX}model.lm_head.weight"] if tied else [])}
    stored: dict[str, Tensor] = {}
    for name, values in state.items():
        half = values.detach().to(torch.float16).contiguous()
        if name == POINT_TABLE:
            stored |= {disk_name(f"{name}[{row}]"): half[row : row + 1].clone() for row in range(len(half))}
        elif name not in elsewhere:
            stored[disk_name(name)] = half
    return stored


def write_weights(folder: Path, state: dict[str, Tensor]) -> None:
    """Write `model.safetensors` (float16) for a state of `Sa2VA`."""
    save_file(on_disk(state), folder / "model.safetensors", metadata={"format": "pt"})


def tie(model: Sa2VA) -> None:
    """Let the output layer share the token embedding, as `tie_word_embeddings` says."""
    language = model.language.model
    language.lm_head.weight = language.model.language_model.embed_tokens.weight
