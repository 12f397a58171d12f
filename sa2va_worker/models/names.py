"""On-disk tensor names <-> our module's names, both ways from one table.

Upstream stores Qwen models under `model.` and facebookresearch/sam2's names under `grounding_encoder.sam2_model.`
(with `g_weight` for the memory fuser's `gamma`); transformers renamed most of SAM2's parts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

SAM2_PREFIX = "grounding_encoder.sam2_model."
DECODER = "sam_mask_decoder."
FINE_TUNED_DECODER = "sam_mask_decoder_modified."
"""Sa2VA-i stores the mask decoder that answers under this name, and SAM2's own, for tracking, under `DECODER`."""
OUR_DECODER = "mask_decoder."
"""transformers' name for it, which is ours too."""
OUR_SAM2_PREFIX = "sam2.model."
OUR_ORIGINAL_DECODER = "sam2.original_decoder."
OUR_LANGUAGE_PREFIX = "language."

# `*` stands for the rest of a name, `#` for one number; the first row that fits is taken.
_SAM2: Sequence[tuple[str, str]] = (
    ("image_encoder.trunk.patch_embed.proj.*", "vision_encoder.backbone.patch_embed.projection.*"),
    ("image_encoder.trunk.blocks.#.norm#.*", "vision_encoder.backbone.blocks.#.layer_norm#.*"),
    ("image_encoder.trunk.blocks.#.mlp.layers.0.*", "vision_encoder.backbone.blocks.#.mlp.proj_in.*"),
    ("image_encoder.trunk.blocks.#.mlp.layers.1.*", "vision_encoder.backbone.blocks.#.mlp.proj_out.*"),
    ("image_encoder.trunk.*", "vision_encoder.backbone.*"),
    ("image_encoder.neck.convs.#.conv.*", "vision_encoder.neck.convs.#.*"),
    ("maskmem_tpos_enc", "memory_temporal_positional_encoding"),
    ("no_mem_embed", "no_memory_embedding"),
    ("no_mem_pos_enc", "no_memory_positional_encoding"),
    ("no_obj_ptr", "no_object_pointer"),
    ("mask_downsample.*", "mask_downsample.*"),
    ("obj_ptr_proj.layers.0.*", "object_pointer_proj.proj_in.*"),
    ("obj_ptr_proj.layers.1.*", "object_pointer_proj.layers.0.*"),
    ("obj_ptr_proj.layers.2.*", "object_pointer_proj.proj_out.*"),
    ("memory_attention.layers.#.self_attn.out_proj.*", "memory_attention.layers.#.self_attn.o_proj.*"),
    (
        "memory_attention.layers.#.cross_attn_image.out_proj.*",
        "memory_attention.layers.#.cross_attn_image.o_proj.*",
    ),
    ("memory_attention.layers.#.norm#.*", "memory_attention.layers.#.layer_norm#.*"),
    ("memory_attention.layers.*", "memory_attention.layers.*"),
    ("memory_attention.norm.*", "memory_attention.layer_norm.*"),
    ("memory_encoder.pix_feat_proj.*", "memory_encoder.feature_projection.*"),
    ("memory_encoder.out_proj.*", "memory_encoder.projection.*"),
    ("memory_encoder.fuser.layers.#.g_weight", "memory_encoder.memory_fuser.layers.#.scale"),
    ("memory_encoder.fuser.layers.#.dwconv.*", "memory_encoder.memory_fuser.layers.#.depthwise_conv.*"),
    ("memory_encoder.fuser.layers.#.norm.*", "memory_encoder.memory_fuser.layers.#.layer_norm.*"),
    ("memory_encoder.fuser.layers.#.pwconv1.*", "memory_encoder.memory_fuser.layers.#.pointwise_conv1.*"),
    ("memory_encoder.fuser.layers.#.pwconv2.*", "memory_encoder.memory_fuser.layers.#.pointwise_conv2.*"),
    # The downsampler is a flat Sequential there: (convolution, norm, activation) four times, then a convolution.
    ("memory_encoder.mask_downsampler.encoder.0.*", "memory_encoder.mask_downsampler.layers.0.conv.*"),
    ("memory_encoder.mask_downsampler.encoder.1.*", "memory_encoder.mask_downsampler.layers.0.layer_norm.*"),
    ("memory_encoder.mask_downsampler.encoder.3.*", "memory_encoder.mask_downsampler.layers.1.conv.*"),
    ("memory_encoder.mask_downsampler.encoder.4.*", "memory_encoder.mask_downsampler.layers.1.layer_norm.*"),
    ("memory_encoder.mask_downsampler.encoder.6.*", "memory_encoder.mask_downsampler.layers.2.conv.*"),
    ("memory_encoder.mask_downsampler.encoder.7.*", "memory_encoder.mask_downsampler.layers.2.layer_norm.*"),
    ("memory_encoder.mask_downsampler.encoder.9.*", "memory_encoder.mask_downsampler.layers.3.conv.*"),
    ("memory_encoder.mask_downsampler.encoder.10.*", "memory_encoder.mask_downsampler.layers.3.layer_norm.*"),
    ("memory_encoder.mask_downsampler.encoder.12.*", "memory_encoder.mask_downsampler.final_conv.*"),
    (
        "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        "prompt_encoder.shared_embedding.positional_embedding",
    ),
    # Four tables of one row there, four rows of one table here: see `row`.
    ("sam_prompt_encoder.point_embeddings.#.weight", "prompt_encoder.point_embed.weight[#]"),
    ("sam_prompt_encoder.not_a_point_embed.*", "prompt_encoder.not_a_point_embed.*"),
    ("sam_prompt_encoder.no_mask_embed.*", "prompt_encoder.no_mask_embed.*"),
    ("sam_prompt_encoder.mask_downscaling.0.*", "prompt_encoder.mask_embed.conv1.*"),
    ("sam_prompt_encoder.mask_downscaling.1.*", "prompt_encoder.mask_embed.layer_norm1.*"),
    ("sam_prompt_encoder.mask_downscaling.3.*", "prompt_encoder.mask_embed.conv2.*"),
    ("sam_prompt_encoder.mask_downscaling.4.*", "prompt_encoder.mask_embed.layer_norm2.*"),
    ("sam_prompt_encoder.mask_downscaling.6.*", "prompt_encoder.mask_embed.conv3.*"),
    (
        "sam_mask_decoder.transformer.layers.#.self_attn.out_proj.*",
        "mask_decoder.transformer.layers.#.self_attn.o_proj.*",
    ),
    (
        "sam_mask_decoder.transformer.layers.#.cross_attn_token_to_image.out_proj.*",
        "mask_decoder.transformer.layers.#.cross_attn_token_to_image.o_proj.*",
    ),
    (
        "sam_mask_decoder.transformer.layers.#.cross_attn_image_to_token.out_proj.*",
        "mask_decoder.transformer.layers.#.cross_attn_image_to_token.o_proj.*",
    ),
    ("sam_mask_decoder.transformer.layers.#.norm#.*", "mask_decoder.transformer.layers.#.layer_norm#.*"),
    (
        "sam_mask_decoder.transformer.layers.#.mlp.layers.0.*",
        "mask_decoder.transformer.layers.#.mlp.proj_in.*",
    ),
    (
        "sam_mask_decoder.transformer.layers.#.mlp.layers.1.*",
        "mask_decoder.transformer.layers.#.mlp.proj_out.*",
    ),
    (
        "sam_mask_decoder.transformer.final_attn_token_to_image.out_proj.*",
        "mask_decoder.transformer.final_attn_token_to_image.o_proj.*",
    ),
    ("sam_mask_decoder.transformer.norm_final_attn.*", "mask_decoder.transformer.layer_norm_final_attn.*"),
    ("sam_mask_decoder.transformer.*", "mask_decoder.transformer.*"),
    ("sam_mask_decoder.output_upscaling.0.*", "mask_decoder.upscale_conv1.*"),
    ("sam_mask_decoder.output_upscaling.1.*", "mask_decoder.upscale_layer_norm.*"),
    ("sam_mask_decoder.output_upscaling.3.*", "mask_decoder.upscale_conv2.*"),
    (
        "sam_mask_decoder.output_hypernetworks_mlps.#.layers.0.*",
        "mask_decoder.output_hypernetworks_mlps.#.proj_in.*",
    ),
    (
        "sam_mask_decoder.output_hypernetworks_mlps.#.layers.1.*",
        "mask_decoder.output_hypernetworks_mlps.#.layers.0.*",
    ),
    (
        "sam_mask_decoder.output_hypernetworks_mlps.#.layers.2.*",
        "mask_decoder.output_hypernetworks_mlps.#.proj_out.*",
    ),
    ("sam_mask_decoder.iou_prediction_head.layers.0.*", "mask_decoder.iou_prediction_head.proj_in.*"),
    ("sam_mask_decoder.iou_prediction_head.layers.1.*", "mask_decoder.iou_prediction_head.layers.0.*"),
    ("sam_mask_decoder.iou_prediction_head.layers.2.*", "mask_decoder.iou_prediction_head.proj_out.*"),
    ("sam_mask_decoder.pred_obj_score_head.layers.0.*", "mask_decoder.pred_obj_score_head.proj_in.*"),
    ("sam_mask_decoder.pred_obj_score_head.layers.1.*", "mask_decoder.pred_obj_score_head.layers.0.*"),
    ("sam_mask_decoder.pred_obj_score_head.layers.2.*", "mask_decoder.pred_obj_score_head.proj_out.*"),
    ("sam_mask_decoder.*", "mask_decoder.*"),
)


def _rule(pattern: str, target: str) -> tuple[re.Pattern[str], str]:
    wildcards = {"#": r"(\d+)", "*": "(.+)"}
    parts = [wildcards.get(part) or re.escape(part) for part in re.split(r"([#*])", pattern)]
    groups = iter(range(1, 10))
    return re.compile("".join(parts)), re.sub(r"[#*]", lambda _: rf"\g<{next(groups)}>", target)


_TO_OURS = [_rule(disk, ours) for disk, ours in _SAM2]
_TO_DISK = [_rule(ours, disk) for disk, ours in _SAM2]


def _translate(name: str, rules: Sequence[tuple[re.Pattern[str], str]]) -> str:
    for pattern, target in rules:
        if match := pattern.fullmatch(name):
            return match.expand(target)
    return name


def our_name(name: str, two_decoders: bool = False) -> str:
    """A Sa2VA checkpoint's name for a tensor -> our `Sa2VA` module's; an unknown name stays recognisable.

    `two_decoders` tells that the checkpoint is a Sa2VA-i.
    """
    if two_decoders and name.startswith(SAM2_PREFIX + FINE_TUNED_DECODER):
        return our_name(name.replace(FINE_TUNED_DECODER, DECODER, 1))
    if two_decoders and name.startswith(SAM2_PREFIX + DECODER):
        return our_name(name).replace(OUR_SAM2_PREFIX + OUR_DECODER, OUR_ORIGINAL_DECODER, 1)
    if name.startswith(SAM2_PREFIX):
        # Early SAM 2 files call the memory fuser's scale `gamma`.
        name = re.sub(r"(fuser\.layers\.\d+)\.gamma$", r"\1.g_weight", name)
        return OUR_SAM2_PREFIX + _translate(name.removeprefix(SAM2_PREFIX), _TO_OURS)
    if name.startswith("text_hidden_fcs."):
        return name
    return OUR_LANGUAGE_PREFIX + name


def decoder_name(name: str) -> str:
    """The name of a mask decoder's tensor -> its name in our decoder module; empty for a tensor that is none of it.

    The decoder may lie in a Sa2VA checkpoint, in SAM2's own names, or in transformers' (`facebook/sam2-hiera-large`).
    Of a Sa2VA-i it is the original one.
    """
    ours = _translate(name.removeprefix(SAM2_PREFIX), _TO_OURS)
    return ours.removeprefix(OUR_DECODER) if ours.startswith(OUR_DECODER) else ""


def disk_name(name: str) -> str:
    """Our `Sa2VA` module's name for a tensor (or a row, `name[K]`) -> the checkpoint's."""
    if name.startswith(OUR_SAM2_PREFIX):
        return SAM2_PREFIX + _translate(name.removeprefix(OUR_SAM2_PREFIX), _TO_DISK)
    return name.removeprefix(OUR_LANGUAGE_PREFIX)


def row(name: str) -> tuple[str, int | None]:
    """`table[K]` -> `(table, K)`; a plain name -> `(name, None)`."""
    if match := re.fullmatch(r"(.+)\[(\d+)\]", name):
        return match[1], int(match[2])
    return name, None
