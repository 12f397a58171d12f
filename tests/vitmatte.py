"""A ViTMatte of 76,000 random parameters."""

from __future__ import annotations

from pathlib import Path


def write_checkpoint(folder: Path) -> Path:
    """Writes it into the folder, which it returns."""
    import torch
    from transformers import VitDetConfig, VitMatteConfig, VitMatteForImageMatting

    backbone = VitDetConfig.from_dict(
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "pretrain_image_size": 64,
            "num_channels": 4,
            "out_features": ["stage2"],
        }
    )
    config = VitMatteConfig(
        backbone_config=backbone,
        hidden_size=32,
        convstream_hidden_sizes=[8, 8, 16],
        fusion_hidden_sizes=[32, 16, 8, 8],
    )
    torch.manual_seed(0)
    VitMatteForImageMatting(config).save_pretrained(folder)
    return folder
