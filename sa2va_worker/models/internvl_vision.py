"""InternVL's vision tower on disk and in memory: InternViT as transformers has it.

transformers' tower computes what upstream's does; it names its parts differently and keeps query, key and value apart,
which upstream's file holds in one tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from transformers import InternVLVisionConfig

INTERN_VIT_6B: Mapping[str, Any] = {
    "image_size": 224,
    "patch_size": 14,
    "hidden_size": 3200,
    "intermediate_size": 12800,
    "num_hidden_layers": 48,
    "num_attention_heads": 25,
    "qkv_bias": False,
    "qk_normalization": True,
    "norm_type": "rms_norm",
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu",
}
"""What a `vision_config` without these keys means: upstream's `InternVisionConfig`, whose defaults are not saved."""

_OURS = {"qkv_bias": "attention_bias", "qk_normalization": "use_qk_norm"}
_PARTS = (
    ("embeddings.class_embedding", "embeddings.cls_token"),
    ("embeddings.patch_embedding.", "embeddings.patch_embeddings.projection."),
    ("embeddings.position_embedding", "embeddings.position_embeddings"),
    ("encoder.layers.", "encoder.layer."),
    (".attn.proj.", ".attention.projection_layer."),
    (".attn.", ".attention."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".ls1", ".lambda_1"),
    (".ls2", ".lambda_2"),
)


def vision_config(stored: Mapping[str, Any]) -> InternVLVisionConfig:
    """transformers' configuration for a checkpoint's `vision_config`."""
    return InternVLVisionConfig(
        **{_OURS.get(name, name): stored.get(name, default) for name, default in INTERN_VIT_6B.items()}
    )


def renamed(name: str, parts: Iterable[tuple[str, str]]) -> str:
    """`name` with each (old, new) part replaced, in order."""
    for old, new in parts:
        name = name.replace(old, new)
    return name


def divides(values: Tensor, parts: int) -> bool:
    """Whether a fused tensor can hold this many parts of one size.

    One that cannot is handed on whole, to be named in the error of a folder that does not fit its `config.json`.
    """
    return values.ndim > 0 and values.shape[0] % parts == 0


def unpack_vision(name: str, values: Tensor) -> Iterable[tuple[str, Tensor]]:
    """(name below `vision_model.`, tensor) -> (name in transformers' tower, tensor), three where they are fused."""
    name = renamed(name, _PARTS)
    if ".qkv." not in name or not divides(values, 3):
        yield name, values
        return
    for letter, part in zip("qkv", values.chunk(3), strict=True):
        yield name.replace(".qkv.", f".{letter}_proj."), part
