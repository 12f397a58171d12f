"""Sa2VA: a vision-language model whose `[SEG]` states prompt SAM2."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from sa2va_host.errors import ModelLoadFailed

from .checkpoint import Checkpoint, fill
from .names import OUR_LANGUAGE_PREFIX, OUR_SAM2_PREFIX, our_name
from .qwen import Qwen3VLLanguage
from .sam2 import Sam2

FAMILY = "qwen3_vl"


def family(config: dict[str, object]) -> str:
    """The family of a checkpoint, read from its configuration. Raises `ModelLoadFailed` for one we cannot load."""
    text = config.get("text_config")
    kind = text.get("model_type") if isinstance(text, dict) else None
    if kind == "qwen3_vl_text":
        return FAMILY
    raise ModelLoadFailed(
        f"this checkpoint's language model ({kind or config.get('model_type')!r}) is not supported.",
        advice="Sa2VA checkpoints of the Qwen3-VL family are.",
    )


class Sa2VA(nn.Module):
    """Both halves and the two linear layers between them."""

    def __init__(self, config: dict[str, object], attention: str = "sdpa") -> None:
        super().__init__()
        family(config)
        self.language = Qwen3VLLanguage(config, attention)
        # The mask decoder's tokens are few and its attention wants no special kernel.
        sam2 = config.get("sam2_config")
        self.sam2 = Sam2(sam2 if isinstance(sam2, dict) else {})
        hidden, width = self.language.hidden_size, self.sam2.width
        self.text_hidden_fcs = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def prompts(self, segment_states: list[Tensor]) -> Tensor:
        """`[SEG]` states `[hidden]` -> SAM2 prompts `[objects, C]`."""
        states: Tensor = self.text_hidden_fcs(torch.stack(segment_states))
        return states

    @property
    def aliases(self) -> dict[str, str]:
        """Parameters that take another's values where a checkpoint lacks them."""
        tied = {OUR_LANGUAGE_PREFIX + k: OUR_LANGUAGE_PREFIX + v for k, v in self.language.aliases.items()}
        # One matrix in SAM2, held twice by transformers.
        held = f"{OUR_SAM2_PREFIX}prompt_encoder.shared_embedding.positional_embedding"
        return tied | {f"{OUR_SAM2_PREFIX}shared_image_embedding.positional_embedding": held}


def build(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, attention: str = "sdpa") -> Sa2VA:
    """An empty model on `device` in `dtype`, in evaluation mode; `load` fills it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with no_init_weights(), torch.device(device):
            model = Sa2VA(checkpoint.config, attention)
    finally:
        torch.set_default_dtype(before)
    return model.eval().requires_grad_(False)


def load(model: Sa2VA, checkpoint: Checkpoint) -> Iterator[int]:
    """Fill the model from its folder; yields the bytes of each tensor as it is done."""
    yield from fill(model, checkpoint, our_name, model.aliases)
