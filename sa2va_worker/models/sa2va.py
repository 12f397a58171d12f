"""Sa2VA: a vision-language model whose `[SEG]` states prompt SAM2."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from sa2va_host.errors import ModelLoadFailed
from sa2va_worker.device_map import dispatch
from sa2va_worker.placement import Need, allocate, check_room

from .checkpoint import Checkpoint
from .families import family
from .filling import Unpack, fill
from .language import Language
from .names import FINE_TUNED_DECODER, OUR_LANGUAGE_PREFIX, OUR_SAM2_PREFIX, SAM2_PREFIX, our_name
from .quantization import NONE, quantize
from .sam2 import Sam2
from .tracker_decoder import TrackerDecoder

PROMPT_LAYERS = "text_hidden_fcs."
_DEPTHS = ("num_hidden_layers", "depth", "memory_attention_layers", "stages", "deepstack_visual_indexes")


class ChatModel(nn.Module):
    """A language model alone: it answers in words."""

    places: Sequence[torch.device] = ()
    """Where each decoder layer lies, in a model over several devices."""

    def __init__(self, config: Mapping[str, Any], attention: str = "sdpa") -> None:
        super().__init__()
        self.language: Language[Any] = family(config).language(config, attention)

    @property
    def aliases(self) -> dict[str, str]:
        """Parameters that are another one where a checkpoint lacks them."""
        return {OUR_LANGUAGE_PREFIX + k: OUR_LANGUAGE_PREFIX + v for k, v in self.language.aliases.items()}


class Sa2VA(ChatModel):
    """Both halves and the two linear layers between them."""

    def __init__(
        self, config: Mapping[str, Any], attention: str = "sdpa", two_decoders: bool = False
    ) -> None:
        super().__init__(config, attention)
        # The mask decoder's tokens are few and its attention wants no special kernel.
        sam2 = config.get("sam2_config")
        self.sam2 = Sam2(sam2 if isinstance(sam2, dict) else {}, two_decoders=two_decoders)
        hidden, width = self.language.hidden_size, self.sam2.width
        self.text_hidden_fcs = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def prompts(self, segment_states: list[Tensor]) -> Tensor:
        """`[SEG]` states `[hidden]` -> SAM2 prompts `[objects, C]`."""
        # The language model's last layer may be on another device.
        states: Tensor = self.text_hidden_fcs(torch.stack(segment_states).to(self.language.device))
        return states

    @property
    def aliases(self) -> dict[str, str]:
        """Parameters that are another one where a checkpoint lacks them."""
        # One matrix in SAM2, held twice by transformers.
        held = f"{OUR_SAM2_PREFIX}prompt_encoder.shared_embedding.positional_embedding"
        return super().aliases | {f"{OUR_SAM2_PREFIX}shared_image_embedding.positional_embedding": held}


def build(
    checkpoint: Checkpoint,
    device: torch.device,
    dtype: torch.dtype,
    attention: str = "sdpa",
    quantization: str = NONE,
    others: Sequence[torch.device] = (),
    tracker_decoder: TrackerDecoder | None = None,
) -> ChatModel:
    """An empty model on `device` in `dtype`, in evaluation mode, a `Sa2VA` where its family segments; `load` fills it.

    Some decoder layers are on `others`, where there are any. Before memory is taken for it, raises `ModelLoadFailed`
    where `config.json` describes anything else than the weight files hold, or `tracker_decoder` does not fit, and
    `OutOfMemory` where the devices have no room.
    """
    rehearsed = _rehearse(checkpoint)
    if tracker_decoder is not None and isinstance(rehearsed, Sa2VA):
        tracker_decoder.attach(rehearsed.sam2, rehearsal=True)
    layers = rehearsed.language.model.get_decoder().layers
    need = need_of(rehearsed)
    places = check_room(checkpoint.name, need, layers, (device, *others), dtype, quantization)
    return _empty(checkpoint, device, dtype, attention, quantization, places if others else ())


def need_of(model: ChatModel) -> Need:
    """What a model takes of memory, be it on the meta device, empty or filled."""
    return Need.of(model, model.language, model.sam2.image_size if isinstance(model, Sa2VA) else 0)


def load(
    model: ChatModel, checkpoint: Checkpoint, tracker_decoder: TrackerDecoder | None = None
) -> Iterator[int]:
    """Fill the model from its folder; yields the bytes of each tensor as it is done. Raises `ModelLoadFailed`."""
    yield from fill(model, checkpoint, _unpack(checkpoint), model.aliases)
    if tracker_decoder is not None and isinstance(model, Sa2VA):
        tracker_decoder.attach(model.sam2)
    if model.places:
        dispatch(model.language.model, model.places)


def _empty(
    checkpoint: Checkpoint,
    device: torch.device,
    dtype: torch.dtype,
    attention: str,
    quantization: str = NONE,
    places: Sequence[torch.device] = (),
) -> ChatModel:
    config, before = checkpoint.config, torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        # Parameters get their memory after those that are to be quantized have left; buffers hold numbers from here on.
        with no_init_weights(), init_empty_weights(include_buffers=False), torch.device(device):
            if family(config).segments:
                model: ChatModel = Sa2VA(config, attention, _has_two_decoders(checkpoint))
            else:
                model = ChatModel(config, attention)
    finally:
        torch.set_default_dtype(before)
    quantize(model.language.model, quantization)
    model.places = places
    for layer, place in zip(model.language.model.get_decoder().layers, places, strict=False):
        allocate(layer, place)
    allocate(model, device)
    return model.eval().requires_grad_(False)


def _rehearse(checkpoint: Checkpoint) -> ChatModel:
    """Build and fill the model on the meta device, where tensors have a shape and no memory."""
    tensors = dict(checkpoint.tensors(shapes_only=True))
    _check_depth(checkpoint, checkpoint.config, len(tensors))
    try:
        model = _empty(checkpoint, torch.device("meta"), torch.float32, "eager")
    except ModelLoadFailed:
        raise
    except Exception as error:  # configuration classes fail as they like
        raise ModelLoadFailed(
            f"{checkpoint.folder / 'config.json'} describes no model that can be built: "
            f"{type(error).__name__}: {error}.",
            advice="Fetch the checkpoint again.",
        ) from error
    for _ in fill(model, checkpoint, _unpack(checkpoint), model.aliases, rehearsal=True):
        pass
    # What is computed and not stored, such as tables of positions, is small beside the weights.
    stored, buffers = (
        sum(values.numel() for values in tensors.values()),
        sum(b.numel() for b in model.buffers()),
    )
    if buffers > stored:
        raise ModelLoadFailed(
            f"config.json of {checkpoint.folder} means tables of {buffers} numbers beside weights of {stored}.",
            advice="Fetch the checkpoint again.",
        )
    return model


def _check_depth(checkpoint: Checkpoint, part: Mapping[str, Any], tensors: int) -> None:
    """Raises `ModelLoadFailed` where a part of `config.json` means more layers than the files have tensors: building
    them would take for ever even without memory.
    """
    for name, value in part.items():
        if isinstance(value, dict):
            _check_depth(checkpoint, value, tensors)
        elif name in _DEPTHS:
            # Lists hold how many layers each stage has, or which layers have something beside them.
            layers = [
                each for each in (value if isinstance(value, list) else [value]) if isinstance(each, int)
            ]
            if max(sum(layers), len(layers)) > tensors:
                raise checkpoint.unusable(
                    name, value, f"fewer layers than the {tensors} tensors of the files"
                )


def _unpack(checkpoint: Checkpoint) -> Unpack:
    ours = partial(our_name, two_decoders=_has_two_decoders(checkpoint))
    language = partial(family(checkpoint.config).unpack, checkpoint.config)

    def unpack(name: str, values: Tensor) -> Iterable[tuple[str, Tensor]]:
        if name.startswith((SAM2_PREFIX, PROMPT_LAYERS)):
            return [(ours(name), values)]
        return ((OUR_LANGUAGE_PREFIX + here, part) for here, part in language(name, values))

    return unpack


def _has_two_decoders(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint is a Sa2VA-i; its `config.json` does not tell."""
    return any(name.startswith(SAM2_PREFIX + FINE_TUNED_DECODER) for name in checkpoint.names)
