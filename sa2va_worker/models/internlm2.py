"""InternLM2, the language model of Sa2VA-8B and -26B: a Llama under other names.

Its one matrix for query, key and value holds Llama's three, interleaved by key-value heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from transformers import LlamaConfig

from .internvl_vision import divides, renamed

MODEL_TYPE = "internlm2"
DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 103168,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "bias": True,
    "rope_theta": 10000,
    "rope_scaling": None,
}
"""What an `llm_config` without these keys means: upstream's `InternLM2Config`, whose defaults are not saved."""

_PARTS = (
    ("model.tok_embeddings.", "model.embed_tokens."),
    (".attention.wo.", ".self_attn.o_proj."),
    (".attention.wqkv.", ".self_attn.qkv_proj."),
    (".feed_forward.w1.", ".mlp.gate_proj."),
    (".feed_forward.w2.", ".mlp.down_proj."),
    (".feed_forward.w3.", ".mlp.up_proj."),
    (".attention_norm.", ".input_layernorm."),
    (".ffn_norm.", ".post_attention_layernorm."),
)
_OUTPUT = "output."


def llama_config(stored: Mapping[str, Any]) -> LlamaConfig:
    """transformers' configuration for a checkpoint's `llm_config`."""
    settings = {name: stored.get(name, default) for name, default in DEFAULTS.items()}
    bias, theta = settings.pop("bias"), settings.pop("rope_theta")
    scaling = settings.pop("rope_scaling") or {"type": "default"}
    rope = {("rope_type" if name == "type" else name): value for name, value in scaling.items()}
    return LlamaConfig(**settings, attention_bias=bias, rope_parameters={**rope, "rope_theta": theta})


def unpack_language(stored: Mapping[str, Any], name: str, values: Tensor) -> Iterable[tuple[str, Tensor]]:
    """(name below `language_model.`, tensor) -> (name in `LlamaForCausalLM`, tensor), three where they are fused.

    A fused tensor `[(heads + 2 * key_value_heads) * head_dim, ...]` holds, for one key-value head after the other, the
    query heads that share it, then its key, then its value. `stored` is the checkpoint's `llm_config`.
    """
    name = renamed(name, _PARTS)
    if name.startswith(_OUTPUT):
        name = f"lm_head.{name.removeprefix(_OUTPUT)}"
    heads: int = stored.get("num_attention_heads", DEFAULTS["num_attention_heads"])
    groups: int = stored.get("num_key_value_heads") or heads
    queries = heads // groups
    if ".qkv_proj." not in name or not divides(values, groups * (queries + 2)):
        yield name, values
        return
    fused = values.unflatten(0, (groups, queries + 2, -1))
    for letter, part in zip("qkv", fused.split([queries, 1, 1], dim=1), strict=True):
        yield name.replace(".qkv_proj.", f".{letter}_proj."), part.flatten(0, 2)
