"""What is learned from a batch: the answer's words, the masks, and scaffolding that is thrown away afterwards.

Two things must be learned at once from nothing: SAM2 to outline what a vector points at, and the language model to
say the vector. So that neither waits for the other, a helper (`Oracle`) makes vectors from the truth: at first masks
are decoded from those, and the language model's vectors are pulled towards them; later masks are decoded from the
language model's own vectors and the helper fades out. The helper says where in the code that SAM2's decoder has for
places anyway. Linear heads ask both picture encoders what lies in each cell, and half-way up the language model one
attention head is told to look from each `[SEG]` at the picture tokens of its object and to fetch where that is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextAttention, apply_rotary_pos_emb

from sa2va_worker.models.pictures import Patches
from sa2va_worker.models.sa2va import Sa2VA
from sa2va_worker.models.sam2 import Decoded, Features
from sa2va_worker.models.tracker import Tracker
from training.batch import THING_FEATURES, Batch
from training.scene import COLOURS, SHAPES


@dataclass(frozen=True)
class Weights:
    """How much each part counts at one moment of training."""

    oracle: float
    """Share of objects whose mask is decoded from the helper's vector instead of the language model's, 0..1."""
    align: float
    """Pull of the language model's vectors towards the helper's."""
    cells: float
    """Weight of the classes that the picture encoders' heads name."""
    point: float
    """Weight of looking at the object's picture tokens."""


class Oracle(nn.Module):
    """The vector a perfect language model might say: a set of things, each with shape, colour and box."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.place = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.place.weight)
        self.each = nn.Sequential(nn.Linear(THING_FEATURES + 32, 256), nn.GELU(), nn.Linear(256, 256))
        self.together = nn.Sequential(nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, width))

    def forward(self, things: Tensor, places: Tensor) -> Tensor:
        """`[N, M, features]` and SAM2's code `[N, M, width]` for their centres -> `[N, width]`.

        All-zero rows of features are padding.
        """
        waves = torch.cat([(things[..., -4:] * f).sin() for f in (3.0, 6.0, 12.0, 24.0)], dim=-1)
        waves = torch.cat([waves, *[(things[..., -4:] * f).cos() for f in (3.0, 6.0, 12.0, 24.0)]], dim=-1)
        real = things[..., :-4].any(dim=-1, keepdim=True).float()
        looks: Tensor = self.together((self.each(torch.cat([things, waves], dim=-1)) * real).sum(dim=1))
        middle: Tensor = (self.place(places) * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
        return looks + middle


class Learner(nn.Module):
    """The model with its scaffolding; `forward` is the loss of one batch."""

    guided: Qwen3VLTextAttention

    def __init__(self, model: Sa2VA) -> None:
        super().__init__()
        self.model = model
        self.oracle = Oracle(model.sam2.width)
        width = model.language.hidden_size
        self.cell_shapes = nn.Linear(width, 1 + len(SHAPES))
        self.cell_colours = nn.Linear(width, 1 + len(COLOURS))
        self.cell_places = nn.Linear(width, model.sam2.width)
        classes = 2 + len(SHAPES) + len(COLOURS)
        self.fine = nn.Conv2d(model.sam2.width // 8, classes, kernel_size=1)
        self.coarse = nn.Conv2d(model.sam2.width, classes, kernel_size=1)
        self._cells: Tensor | None = None
        self._looked: tuple[Tensor, tuple[Tensor, Tensor]] | None = None
        layers = model.language.model.model.language_model.layers
        self.fetched = nn.Linear(width, model.sam2.width)
        self._after_look: Tensor | None = None
        layers[len(layers) // 2].register_forward_hook(self._keep_after_look)
        guided = layers[len(layers) // 2].get_submodule("self_attn")
        guided.register_forward_pre_hook(self._keep_look, with_kwargs=True)
        # Not a child of this module: it belongs to the model.
        object.__setattr__(self, "guided", guided)
        model.language.model.model.visual.merger.register_forward_hook(self._keep_cells)

    def _keep_look(self, _module: nn.Module, inputs: tuple[Tensor, ...], more: dict[str, Any]) -> None:
        states = inputs[0] if inputs else more["hidden_states"]
        self._looked = states, more["position_embeddings"]

    def _keep_after_look(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        self._after_look = output

    def _keep_cells(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        self._cells = output

    def forward(self, batch: Batch, weights: Weights) -> tuple[Tensor, dict[str, float]]:
        """(loss, its parts and measures by name). Without a word said, only the vision tower learns."""
        language = self.model.language
        if not (batch.labels >= 0).any():
            language.model.model.visual(batch.patches, grid_thw=batch.grids)
            cells, measures = self._cell_loss(batch)
            return cells, {"cells": cells.item()} | measures
        before, after = language.hidden(
            batch.ids, batch.positions, Patches(batch.patches, batch.grids), attention_mask=batch.attention
        )
        said = batch.labels >= 0
        logits, labels = language.logits(after[said]), batch.labels[said]
        words = F.cross_entropy(logits, labels)
        cells, measures = self._cell_loss(batch)
        parts = {"words": words, "cells": cells}
        measures["right"] = (logits.argmax(-1) == labels).float().mean().item()
        features = self.model.sam2.encode(self.model.sam2.pixels(batch.frames.flatten(0, 1)))
        pixels = self._pixel_loss(batch, features)
        parts["pixels"] = pixels
        loss = words + weights.cells * (cells + 2 * pixels)
        if len(batch.object_rows):
            spoken = self.model.text_hidden_fcs(before[batch.object_rows, batch.object_places])
            centres = batch.things[..., -4:-2].unsqueeze(0)
            places = self.model.sam2.model.shared_image_embedding(centres)[0]
            true = self.oracle(batch.things, places)
            align = F.smooth_l1_loss(spoken, true.detach())
            from_oracle = torch.rand(len(true), 1, device=true.device) < weights.oracle
            outlines, found = self._outline(batch, features, torch.where(from_oracle, true, spoken))
            pointing, pointed = self._pointing_loss(batch)
            assert self._after_look is not None
            known = F.layer_norm(
                self._after_look[batch.object_rows, batch.object_places], (before.shape[-1],)
            )
            real = batch.things[..., :-4].any(dim=-1, keepdim=True).float()
            middles = (places * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
            fetched = F.mse_loss(self.fetched(known), middles)
            parts |= {"align": align, "outlines": outlines, "pointing": pointing, "fetched": fetched}
            measures |= found | {"pointed": pointed}
            loss = loss + weights.align * align + outlines + weights.point * (pointing + 4 * fetched)
        return loss, {name: value.item() for name, value in parts.items()} | measures

    def _cell_loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """What lies in each token's cell, and where the thing in it has its centre."""
        assert self._cells is not None
        filled = batch.cell_shapes > 0
        shapes, colours = self.cell_shapes(self._cells), self.cell_colours(self._cells)
        places = self.model.sam2.model.shared_image_embedding(batch.cell_places[filled][None, None])[0, 0]
        named = F.cross_entropy(shapes, batch.cell_shapes) + F.cross_entropy(colours, batch.cell_colours)
        placed = F.mse_loss(self.cell_places(self._cells[filled]), places)
        right = (shapes.argmax(-1) == batch.cell_shapes)[filled].float().mean().item()
        return named + placed, {"shapes": right, "places": placed.item()}

    def _pointing_loss(self, batch: Batch) -> tuple[Tensor, float]:
        """(loss, share of objects at whose picture tokens their `[SEG]` looks most) for the guided head."""
        assert self._looked is not None
        states, (cosine, sine) = self._looked
        attention = self.guided
        size = attention.head_dim
        keys = attention.k_norm(attention.k_proj(states)[..., :size])
        queries = attention.q_norm(attention.q_proj(states)[..., :size])
        queries, keys = apply_rotary_pos_emb(queries[:, None], keys[:, None], cosine, sine)
        asked = queries[batch.object_rows, 0, batch.object_places]
        match = (keys[batch.object_rows, 0] @ asked.unsqueeze(-1))[..., 0].float() * attention.scaling
        allowed = batch.attention[batch.object_rows, 0, batch.object_places]
        chances = match.masked_fill(~allowed, -torch.inf).log_softmax(dim=1)
        cells = (batch.ids[0] == self.model.language.model.config.image_token_id).nonzero()[:, 0]
        rows, columns = (int(side) // 2 for side in batch.grids[0, 1:])
        shares = F.adaptive_avg_pool2d(batch.masks[:, : batch.key_frames], (rows, columns)).flatten(1)
        wanted = shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-6)
        looks = chances[:, cells]
        best = shares.gather(1, looks.argmax(dim=1, keepdim=True))
        return -(wanted * looks).sum(dim=1).mean(), (best > 0.1).float().mean().item()

    def _pixel_loss(self, batch: Batch, features: Features) -> Tensor:
        total = torch.zeros((), device=features.top.device)
        for head, grid in ((self.fine, features.stride4), (self.coarse, features.top)):
            step = batch.pixel_shapes.shape[-1] // grid.shape[-1]
            shapes, colours = head(grid).split([1 + len(SHAPES), 1 + len(COLOURS)], dim=1)
            middle = slice(step // 2, None, step)
            total = total + F.cross_entropy(shapes, batch.pixel_shapes[:, middle, middle])
            total = total + F.cross_entropy(colours, batch.pixel_colours[:, middle, middle])
        return total

    def _outline(self, batch: Batch, features: Features, prompts: Tensor) -> tuple[Tensor, dict[str, float]]:
        frames = batch.frames.shape[1]
        tracker = Tracker(self.model.sam2, prompts)
        losses: list[Tensor] = []
        overlaps: list[Tensor] = []
        for frame in range(frames):
            rows = batch.object_rows * frames + frame
            seen = Features(
                features.stride4[rows], features.stride8[rows], features.top[rows], features.position
            )
            decoded = tracker.step(seen, conditioning=frame < batch.key_frames)
            loss, overlap = mask_loss(decoded, batch.masks[:, frame])
            losses.append(loss)
            overlaps.append(overlap)
        measured = {"iou": overlaps[0].mean().item()}
        if frames > batch.key_frames:
            measured["tracked"] = torch.stack(overlaps[batch.key_frames :]).mean().item()
        return torch.stack(losses).mean(), measured


def mask_loss(decoded: Decoded, shares: Tensor) -> tuple[Tensor, Tensor]:
    """(loss, IoU `[objects]` of the chosen mask) for one frame; `shares` `[objects, T, T]` in 0..1.

    Of the three candidates only the best learns the mask (with a little for the others, so none dies); the predicted
    IoUs learn the real ones and the presence logit learns whether the object is in the frame.
    """
    side = shares.shape[-1]
    logits = F.interpolate(decoded.candidates, size=(side, side), mode="bilinear", align_corners=False)
    wanted = shares[:, None].expand_as(logits)
    pixels = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=(-2, -1))
    chance = logits.sigmoid()
    both, either = (chance * wanted).sum(dim=(-2, -1)), (chance + wanted).sum(dim=(-2, -1))
    present = (shares.amax(dim=(-2, -1)) > 0.5).float()
    dice = (1 - (2 * both + 1) / (either + 1)) * present[:, None]
    each = 8 * pixels + dice
    with torch.no_grad():
        found, true = logits > 0, wanted > 0.5
        union = (found | true).sum(dim=(-2, -1))
        iou = torch.where(union > 0, (found & true).sum(dim=(-2, -1)) / union.clamp(min=1), 1.0)
    best = each.min(dim=1).values.mean() + 0.05 * each.mean()
    guess = F.mse_loss(decoded.ious, iou)
    there = F.binary_cross_entropy_with_logits(decoded.presence, present)
    chosen = iou.gather(1, decoded.ious.argmax(dim=1, keepdim=True))[:, 0]
    return best + guess + 0.2 * there, chosen
