"""SAM2, prompted by vectors: the mask side of Sa2VA on the modules of `transformers.models.sam2_video`.

Sa2VA uses SAM 2.0 (Hiera, FPN, memory attention, memory encoder, mask decoder) and differs from SAM2's own use in
four points, which is why the forward passes are written here and not taken from `Sam2VideoModel`:

- an object is prompted by one vector from the language model, appended to the sparse prompt *after* two
  "not a point" embeddings; a tracked frame gets those two and no vector;
- the multimask output is on for every frame: the candidate with the best predicted IoU is taken, and its token
  becomes the object pointer;
- masks of objects that the decoder believes absent are kept (no `NO_OBJ_SCORE`); only their pointer is replaced;
- all objects of an answer go through as a batch, so a frame is encoded once however many there are.

A checkpoint may hold two mask decoders (Sa2VA-i): the fine-tuned one answers to vectors, SAM2's original one propagates
masks. A checkpoint with one decoder does both with it, unless it is given the original one of another.

Shapes: `S` is the image size (1024 upstream), `C` the width (256 upstream).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    Sam2HieraDetConfig,
    Sam2VideoConfig,
    Sam2VideoMaskDecoderConfig,
    Sam2VideoModel,
    Sam2VideoPromptEncoderConfig,
    Sam2VisionConfig,
)

HIERA_LARGE: Mapping[str, Any] = {
    "image_size": 1024,
    "embed_dim": 144,
    "num_heads": 2,
    "stages": [2, 6, 36, 4],
    "global_att_blocks": [23, 33, 43],
    "window_pos_embed_bkg_spatial_size": [7, 7],
    "window_spec": [8, 4, 16, 8],
    "memory_attention_layers": 4,
    "hidden_dim": 256,
    "feedforward_dim": 2048,
    "fuser_dim": 1024,
    "decoder_heads": 8,
}
"""What a checkpoint without `sam2_config` means: SAM2's Hiera-Large, as upstream always builds it."""

PIXEL_MEAN = (0.484375, 0.455078125, 0.40625)
PIXEL_STD = (0.228515625, 0.2236328125, 0.224609375)
"""Of red, green and blue, 0..1: ImageNet's, rounded to bfloat16.

Upstream makes them so in every precision, and computes with them in float32: `preprocess_image` in its `sam2.py`
(bytedance/Sa2VA, commit 9832e1a) has bfloat16 as its default, and no caller gives another.
"""
STRIDE = 16
"""Pixels of the input per cell of the top feature map; mask logits have a quarter of this stride."""
MEMORY_FRAMES = 7
MEMORY_CHANNELS = 64
MAX_POINTERS = 16


def sam2_video_config(s: Mapping[str, Any], attention: str) -> Sam2VideoConfig:
    """transformers' configuration for settings with the keys of `HIERA_LARGE`."""
    size, width, hidden = s["image_size"], s["hidden_dim"], s["embed_dim"]
    channels = [hidden * 2**stage for stage in range(4)]
    feature_sizes = [[size // stride, size // stride] for stride in (4, 8, STRIDE)]
    config = Sam2VideoConfig(
        vision_config=Sam2VisionConfig(
            backbone_config=Sam2HieraDetConfig(
                hidden_size=hidden,
                num_attention_heads=s["num_heads"],
                image_size=[size, size],
                window_positional_embedding_background_size=s["window_pos_embed_bkg_spatial_size"],
                blocks_per_stage=s["stages"],
                embed_dim_per_stage=channels,
                num_attention_heads_per_stage=[s["num_heads"] * 2**stage for stage in range(4)],
                window_size_per_stage=s["window_spec"],
                global_attention_blocks=s["global_att_blocks"],
            ),
            backbone_channel_list=channels[::-1],
            backbone_feature_sizes=feature_sizes,
            fpn_hidden_size=width,
        ),
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(
            hidden_size=width, image_size=size, patch_size=STRIDE
        ),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(
            hidden_size=width,
            mlp_dim=s["feedforward_dim"],
            num_attention_heads=s["decoder_heads"],
            iou_head_hidden_dim=width,
        ),
        image_size=size,
        num_maskmem=MEMORY_FRAMES,
        enable_temporal_pos_encoding_for_object_pointers=False,
        enable_occlusion_spatial_embedding=False,
        memory_attention_hidden_size=width,
        memory_attention_num_layers=s["memory_attention_layers"],
        memory_attention_feed_forward_hidden_size=s["feedforward_dim"],
        memory_attention_rope_feat_sizes=[size // STRIDE, size // STRIDE],
        memory_encoder_hidden_size=width,
        memory_encoder_output_channels=MEMORY_CHANNELS,
        mask_downsampler_embed_dim=width,
        memory_fuser_embed_dim=width,
        memory_fuser_intermediate_dim=s["fuser_dim"],
    )
    config._attn_implementation = attention  # noqa: SLF001 - its public setter needs a built model
    return config


@dataclass(frozen=True)
class Features:
    """What the image encoder says of a batch of frames."""

    stride4: Tensor
    """`[frames, C / 8, S / 4, S / 4]`"""
    stride8: Tensor
    """`[frames, C / 4, S / 8, S / 8]`"""
    top: Tensor
    """`[frames, C, S / 16, S / 16]`"""
    position: Tensor
    """`[1, C, S / 16, S / 16]`, the sine position encoding of `top`."""
    original: tuple[Tensor, Tensor] | None = None
    """`stride4` and `stride8` for the original decoder, each of which projects its own; None without one."""

    def __getitem__(self, frame: int) -> Features:
        """One frame of the batch, still with its frame axis."""
        one = slice(frame, frame + 1)
        original = None if self.original is None else (self.original[0][one], self.original[1][one])
        return Features(self.stride4[one], self.stride8[one], self.top[one], self.position, original)

    def expand(self, objects: int) -> Features:
        """One frame seen by `objects` objects; no memory is copied."""
        batch = (objects, -1, -1, -1)
        original = (
            None
            if self.original is None
            else (self.original[0].expand(batch), self.original[1].expand(batch))
        )
        return Features(
            self.stride4.expand(batch),
            self.stride8.expand(batch),
            self.top.expand(batch),
            self.position,
            original,
        )


@dataclass(frozen=True)
class Decoded:
    """What the mask decoder says of one frame, for every object."""

    logits: Tensor
    """`[objects, S / 4, S / 4]`, the candidate with the best predicted IoU."""
    pointers: Tensor
    """`[objects, C]`, what the tracker remembers of the object's looks."""
    presence: Tensor
    """`[objects]`, logit of the object being in the frame at all."""
    candidates: Tensor
    """`[objects, 3, S / 4, S / 4]`, all candidates (training needs them)."""
    ious: Tensor
    """`[objects, 3]`, the predicted IoU of each candidate, 0..1."""


@dataclass(frozen=True)
class Memory:
    """One remembered frame, for every object."""

    features: Tensor
    """`[cells, objects, 64]`"""
    position: Tensor
    """`[cells, objects, 64]`, spatial only: time is added when it is recalled."""


class Sam2(nn.Module):
    """Encode frames, decode masks, remember and recall. Holds weights only; what to remember is `tracker`'s matter."""

    def __init__(
        self, settings: Mapping[str, Any], attention: str = "sdpa", two_decoders: bool = False
    ) -> None:
        super().__init__()
        settings = {**HIERA_LARGE, **settings}
        self.image_size: int = settings["image_size"]
        self.width: int = settings["hidden_dim"]
        self.model = Sam2VideoModel(sam2_video_config(settings, attention))
        self.original_decoder = copy.deepcopy(self.model.mask_decoder) if two_decoders else None
        """SAM2's own mask decoder, beside the fine-tuned one, which answers: where a checkpoint has both (Sa2VA-i), or
        it was taken from another one (`tracker_decoder`).
        """
        self.encoder_calls = 0
        """How many frames the image encoder has seen; tests and benchmarks hold it to one per frame."""

    @property
    def dtype(self) -> torch.dtype:
        return self.model.no_memory_embedding.dtype

    def pixels(self, frames: Tensor) -> Tensor:
        """uint8 `[frames, S, S, 3]` -> normalised `[frames, 3, S, S]` in the model's dtype, on its device."""
        device = self.model.no_memory_embedding.device
        values = frames.to(device).permute(0, 3, 1, 2).to(torch.float32) / 255.0
        mean = torch.tensor(PIXEL_MEAN, device=device).view(1, 3, 1, 1)
        std = torch.tensor(PIXEL_STD, device=device).view(1, 3, 1, 1)
        return ((values - mean) / std).to(self.dtype)

    def encode(self, pixels: Tensor) -> Features:
        """`[frames, 3, S, S]` -> features; the decoder's two skip projections are applied here, once per frame."""
        self.encoder_calls += pixels.shape[0]
        encoded = self.model.vision_encoder(pixels, return_dict=True)
        stride4, stride8, top = encoded.fpn_hidden_states
        decoder, original = self.model.mask_decoder, self.original_decoder
        return Features(
            decoder.conv_s0(stride4),
            decoder.conv_s1(stride8),
            top,
            encoded.fpn_position_encoding[-1][:1],
            None if original is None else (original.conv_s0(stride4), original.conv_s1(stride8)),
        )

    def without_memory(self, features: Features) -> Tensor:
        """The top feature map of a conditioning frame: `[objects, C, h, w]`, nothing remembered."""
        return features.top + self.model.no_memory_embedding.view(1, -1, 1, 1)

    def decode(
        self, features: Features, top: Tensor, prompts: Tensor | None, *, propagating: bool = False
    ) -> Decoded:
        """Masks of all objects in one frame.

        `features` are expanded to the objects, `top` `[objects, C, h, w]` has memory (or its absence) mixed in, and
        `prompts` `[objects, C]` are the language model's vectors, None on a tracked frame. `propagating` takes the
        original decoder where there is one.
        """
        objects = top.shape[0]
        nothing = self._not_a_point(objects)
        sparse = nothing if prompts is None else torch.cat([nothing, prompts.unsqueeze(1)], dim=1)
        grid = top.shape[-1]
        dense = self.model.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
        masks, ious, tokens, presence = self._run_decoder(
            features, top, sparse, dense.expand(objects, -1, grid, grid), propagating, multimask=True
        )
        each, best = torch.arange(objects, device=ious.device), ious.argmax(dim=-1)
        pointers = self._pointers(tokens[each, best], presence > 0)
        return Decoded(masks[each, best], pointers, presence, masks, ious)

    def seed(self, features: Features, logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Take masks as the truth about a frame, as SAM2 takes a mask prompt (`_use_mask_as_output` there).

        `logits` `[objects, S / 4, S / 4]` are brought to the frame's own `size` (height, width) and cut at probability
        0.5, as Sa2VA-i does. Returns what is to be remembered: logits of the same shape, -10 or 10 but at borders, and
        pointers `[objects, C]`.
        """
        side = (self.image_size, self.image_size)
        full = F.interpolate(logits.float().unsqueeze(1), size=side, mode="bilinear", align_corners=False)
        cut = F.interpolate(full, size=size, mode="bilinear", align_corners=False) > 0
        masks = _shrink(cut.float(), side) >= 0.5
        certain = _shrink(masks.float() * 20 - 10, logits.shape[-2:]).squeeze(1)
        dense = self.model.prompt_encoder.mask_embed(self.model.mask_downsample(masks.to(self.dtype)))
        _, _, tokens, presence = self._run_decoder(
            features, features.top, self._not_a_point(len(logits)), dense, propagating=True, multimask=False
        )
        seen = masks.flatten(1).any(dim=-1)
        return certain, self._pointers(tokens[:, 0], (presence > 0) & seen)

    def _not_a_point(self, objects: int) -> Tensor:
        """The empty point and the pad that SAM2's prompt encoder adds: `[objects, 2, C]`."""
        empty: Tensor = self.model.prompt_encoder.not_a_point_embed.weight
        return empty.expand(objects, 2, -1)

    def _run_decoder(
        self,
        features: Features,
        top: Tensor,
        sparse: Tensor,
        dense: Tensor,
        propagating: bool,
        multimask: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Candidates `[objects, k, S / 4, S / 4]`, their IoUs `[objects, k]` and tokens `[objects, k, C]`, and the
        presence `[objects]`.
        """
        decoder, skips = self.model.mask_decoder, (features.stride4, features.stride8)
        if propagating and self.original_decoder is not None and features.original is not None:
            decoder, skips = self.original_decoder, features.original
        masks, ious, tokens, presence = decoder(
            image_embeddings=top,
            image_positional_embeddings=self.model.get_image_wide_positional_embeddings().expand(
                top.shape[0], -1, -1, -1
            ),
            sparse_prompt_embeddings=sparse.unsqueeze(1),
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
            high_resolution_features=list(skips),
        )
        return masks[:, 0], ious[:, 0], tokens[:, 0], presence[:, 0, 0]

    def _pointers(self, tokens: Tensor, present: Tensor) -> Tensor:
        """Object pointers `[objects, C]` of the decoder's tokens `[objects, C]`, one and the same where absent."""
        pointers: Tensor = self.model.object_pointer_proj(tokens)
        share = present.to(pointers.dtype).unsqueeze(-1)
        return share * pointers + (1 - share) * self.model.no_object_pointer

    def remember(self, features: Features, logits: Tensor) -> Memory:
        """Encode a frame and the masks found in it (`logits` `[objects, S / 4, S / 4]`) into memory."""
        config = self.model.config
        full = F.interpolate(
            logits.float().unsqueeze(1), size=(self.image_size,) * 2, mode="bilinear", align_corners=False
        )
        masks = full.sigmoid() * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc
        remembered, position = self.model.memory_encoder(features.top, masks.to(self.dtype))
        return Memory(_cells(remembered), _cells(position.expand(remembered.shape)).to(remembered.dtype))

    def recall(
        self, features: Features, memories: Sequence[tuple[int, Memory]], pointers: Sequence[Tensor]
    ) -> Tensor:
        """Mix what is remembered into a frame's top feature map: `[objects, C, h, w]`.

        `memories` pairs each memory with its distance in frames (1..6), 0 for a conditioning frame; `pointers` are
        `[objects, C]` each.
        """
        time = self.model.memory_temporal_positional_encoding
        values = [memory.features for _, memory in memories]
        # Distance 0 takes the last entry (index -1), which training gave to conditioning frames.
        positions = [memory.position + time[distance - 1] for distance, memory in memories]
        # A pointer wider than a memory cell enters as several tokens of the memory's width.
        split = torch.stack(list(pointers))
        split = split.reshape(*split.shape[:2], -1, MEMORY_CHANNELS).transpose(1, 2).flatten(0, 1)
        fused = self.model.memory_attention(
            current_vision_features=_cells(features.top),
            current_vision_position_embeddings=_cells(features.position.expand(features.top.shape)),
            memory=torch.cat([*values, split]),
            memory_posision_embeddings=torch.cat([*positions, torch.zeros_like(split)]),
            num_object_pointer_tokens=split.shape[0],
        )
        grid: Tensor = fused.reshape(features.top.shape[0], -1, self.width).transpose(1, 2)
        return grid.reshape(features.top.shape)


def _shrink(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps `[objects, 1, h, w]` at another size, as SAM2 resizes the masks that it is given."""
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False, antialias=True)


def _cells(grid: Tensor) -> Tensor:
    """`[batch, channels, h, w]` -> `[h * w, batch, channels]`."""
    return grid.flatten(2).permute(2, 0, 1)
