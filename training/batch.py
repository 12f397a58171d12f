"""Batches: scenes drawn and asked about, packed so that a picture is seen once however many questions it gets.

A row of a batch is one scene. Its sequence is the pictures' tokens followed by all its questions and answers one after
the other; the attention mask lets a question see the pictures and itself, never another question, and its positions
start where the pictures end. To the model each question looks as if it had been asked alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sa2va_worker.models.checkpoint import Checkpoint
from sa2va_worker.models.pictures import square
from sa2va_worker.models.qwen_front import QwenFront
from training.draw import draw_clip, draw_picture
from training.scene import COLOURS, SHAPES, Clip, Picture, Question
from training.wording import ask, ask_clip

CANVASES = (
    *((side, side) for side in (112, 160, 192, 224, 288)),
    *(
        (144, 192),
        (192, 144),
        (240, 320),
        (160, 240),
        (240, 160),
        (144, 256),
        (256, 144),
        (180, 320),
        (120, 160),
    ),
)
"""(height, width) of the drawn pictures; all pictures of a batch have one size, so their token grids agree."""
TARGET_SIDE = 96
"""Side of the square that masks are compared on: twice the mask decoder's."""
PIXEL_SIDE = 48
"""Side of the square of classes that SAM2's features are asked for: that of its finest features."""
THING_FEATURES = len(SHAPES) + len(COLOURS) + 4


@dataclass
class Batch:
    """One training step. `B` scenes, `F` frames each, `N` objects (one for each `[SEG]`), `L` tokens a row."""

    frames: Tensor
    """uint8 `[B, F, S, S, 3]`, what SAM2 sees."""
    patches: Tensor
    """float32 `[patches, features]`, what the language model sees of the key frames."""
    grids: Tensor
    """int64 `[B * K, 3]`, K key frames a scene."""
    key_frames: int
    ids: Tensor
    """int64 `[B, L]`"""
    positions: Tensor
    """int64 `[3, B, L]`"""
    attention: Tensor
    """bool `[B, 1, L, L]`"""
    labels: Tensor
    """int64 `[B, L]`: the token to say next, -100 where nothing is learned."""
    object_rows: Tensor
    """int64 `[N]`: the scene of each object."""
    object_places: Tensor
    """int64 `[N]`: where its `[SEG]` stands in the row."""
    masks: Tensor
    """float32 `[N, F, T, T]`: the share of each cell that the object covers."""
    things: Tensor
    """float32 `[N, M, features]`: the things an object is made of, zero where there are fewer than M."""
    cell_shapes: Tensor
    """int64 `[B * K * cells]`: 1 + index of the shape that fills most of a token's cell, 0 for background."""
    cell_colours: Tensor
    """int64, likewise for colours."""
    cell_places: Tensor
    """float32 `[B * K * cells, 2]`: centre (x, y in 0..1) of the thing that fills most of a cell, 0 for background."""
    pixel_shapes: Tensor
    """int64 `[B * F, P, P]`: the same classes for every frame, as SAM2 sees it."""
    pixel_colours: Tensor
    """int64, likewise for colours."""


class BatchMaker:
    """Makes batches from scene generators for one checkpoint folder (its tokenizer and picture sizes)."""

    def __init__(self, folder: Path) -> None:
        checkpoint = Checkpoint(folder)
        self._front = QwenFront(checkpoint)
        assert self._front.segment_token is not None
        self._segment_token: int = self._front.segment_token
        self._side: int = checkpoint.config["sam2_config"]["image_size"]
        self._vision_end: int = checkpoint.config["vision_end_token_id"]
        self._image_token: int = checkpoint.config["image_token_id"]

    def pictures(self, rng: np.random.Generator, scenes: int, questions: int) -> Batch:
        """A batch of stills."""
        size = CANVASES[rng.integers(len(CANVASES))]
        drawn: list[Picture] = []
        while len(drawn) < scenes:
            picture = draw_picture(rng, size)
            if picture.things:
                drawn.append(picture)
        clips = [Clip(picture.image[None], picture.instances[None], picture.things) for picture in drawn]
        return self._pack(clips, [ask(rng, picture, questions) for picture in drawn], 1)

    def clips(
        self, rng: np.random.Generator, scenes: int, questions: int, frames: int, key_frames: int
    ) -> Batch:
        """A batch of clips; the language model sees the first `key_frames` frames."""
        size = CANVASES[rng.integers(len(CANVASES))]
        drawn: list[Clip] = []
        while len(drawn) < scenes:
            clip = draw_clip(rng, size, frames)
            if clip.things:
                drawn.append(clip)
        return self._pack(drawn, [ask_clip(rng, clip, questions, key_frames) for clip in drawn], key_frames)

    def sights(self, rng: np.random.Generator, scenes: int) -> Batch:
        """A batch of stills without questions: only what the vision tower sees, and what is there."""
        size = CANVASES[rng.integers(len(CANVASES))]
        drawn = [draw_picture(rng, size) for _ in range(scenes)]
        patches = self._front.pictures([picture.image for picture in drawn])
        clips = [Clip(picture.image[None], picture.instances[None], picture.things) for picture in drawn]
        classes = [self._cells(clip.instances[0], clip, patches.grids[0]) for clip in clips]
        nothing, no_ids = torch.zeros(0), torch.zeros(scenes, 0, dtype=torch.long)
        return Batch(
            frames=nothing,
            patches=patches.values,
            grids=patches.grids,
            key_frames=1,
            ids=no_ids,
            positions=nothing,
            attention=nothing,
            labels=no_ids,
            object_rows=no_ids[0],
            object_places=no_ids[0],
            masks=nothing,
            things=nothing,
            cell_shapes=torch.from_numpy(np.concatenate([shapes for shapes, _, _ in classes])),
            cell_colours=torch.from_numpy(np.concatenate([colours for _, colours, _ in classes])),
            cell_places=torch.from_numpy(np.concatenate([places for _, _, places in classes])),
            pixel_shapes=nothing,
            pixel_colours=nothing,
        )

    def _pack(self, clips: list[Clip], questions: list[list[Question]], key_frames: int) -> Batch:
        shown = [frame for clip in clips for frame in clip.frames[:key_frames]]
        patches = self._front.pictures(shown)
        tokens = [self._front.pictures.tokens(patches.grids[0])] * key_frames
        rows = [[self._turn(question, tokens) for question in asked] for asked in questions]
        prefix = self._front.conversation.encode("", tokens)
        start = len(prefix) - prefix[::-1].index(self._vision_end)
        prefix = prefix[:start]
        packed = [_pack_row(prefix, [(ids[start:], at - start) for ids, at in row]) for row in rows]
        length = max(len(ids) for ids, _, _, _ in packed)
        batch = len(clips)
        ids = torch.zeros(batch, length, dtype=torch.long)
        labels = torch.full((batch, length), -100)
        segments = torch.full((batch, length), -1)
        offsets = torch.zeros(batch, length, dtype=torch.long)
        for row, (row_ids, row_labels, row_segments, row_offsets) in enumerate(packed):
            count = len(row_ids)
            ids[row, :count] = torch.tensor(row_ids)
            labels[row, :count] = torch.tensor(row_labels)
            segments[row, :count] = torch.tensor(row_segments)
            offsets[row, :count] = torch.tensor(row_offsets)
        objects = [
            (row, target, clips[row]) for row in range(batch) for q in questions[row] for target in q.targets
        ]
        places = (ids == self._segment_token).nonzero()
        assert len(places) == len(objects), "every target needs its [SEG]"
        classes = [
            self._cells(instances, clip, patches.grids[0])
            for clip in clips
            for instances in clip.instances[:key_frames]
        ]
        pixels = [_pixels(instances, clip) for clip in clips for instances in clip.instances]
        return Batch(
            frames=torch.from_numpy(
                np.stack([[square(frame, self._side) for frame in clip.frames] for clip in clips])
            ),
            patches=patches.values,
            grids=patches.grids,
            key_frames=key_frames,
            ids=ids,
            positions=self._positions(prefix, offsets, start, patches.grids[0]),
            attention=_attention(segments),
            labels=labels,
            object_rows=places[:, 0],
            object_places=places[:, 1],
            masks=torch.from_numpy(np.stack([_shares(clip, target) for _, target, clip in objects]))
            if objects
            else torch.zeros(0, len(clips[0].frames), TARGET_SIDE, TARGET_SIDE),
            things=_things([(clip, target) for _, target, clip in objects]),
            cell_shapes=torch.from_numpy(np.concatenate([shapes for shapes, _, _ in classes])),
            cell_colours=torch.from_numpy(np.concatenate([colours for _, colours, _ in classes])),
            cell_places=torch.from_numpy(np.concatenate([places for _, _, places in classes])),
            pixel_shapes=torch.from_numpy(np.stack([shapes for shapes, _ in pixels])),
            pixel_colours=torch.from_numpy(np.stack([colours for _, colours in pixels])),
        )

    def _turn(self, question: Question, tokens: list[int]) -> tuple[list[int], int]:
        """(ids of a whole conversation, where the answer starts)."""
        conversation = self._front.conversation
        asked = conversation.encode(question.prompt, tokens)
        return asked + conversation.encode_reply(question.answer), len(asked)

    def _positions(self, prefix: list[int], offsets: Tensor, start: int, grid: Tensor) -> Tensor:
        """M-RoPE positions: the prefix by Qwen's rule, then each question counted from the prefix's end."""
        rows, columns = int(grid[1]) // 2, int(grid[2]) // 2
        place, index = 0, 0
        columns_of: list[tuple[int, int, int]] = []
        while index < len(prefix):
            if prefix[index] == self._image_token:
                columns_of += [(place, place + r, place + c) for r in range(rows) for c in range(columns)]
                index += rows * columns
                place += max(rows, columns)
            else:
                columns_of.append((place, place, place))
                index, place = index + 1, place + 1
        positions = (offsets + place).expand(3, -1, -1).clone()
        positions[:, :, :start] = torch.tensor(columns_of).T[:, None, :]
        return positions

    @staticmethod
    def _cells(
        instances: NDArray[np.uint8], clip: Clip, grid: Tensor
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Shape class, colour class and thing's centre of a frame's token cells, row by row."""
        size = (int(grid[2]) // 2, int(grid[1]) // 2)
        shares = [
            cv2.resize((instances == k + 1).astype(np.float32), size, interpolation=cv2.INTER_AREA)
            for k in range(len(clip.things))
        ]
        best = np.stack([np.full(size[::-1], 0.12, np.float32), *shares]).argmax(axis=0).ravel()
        shapes, colours = _classes(clip)
        centres = [_box(instances, k)[:2] for k in range(len(clip.things))]
        return shapes[best], colours[best], np.array([(0.0, 0.0), *centres], np.float32)[best]


def _classes(clip: Clip) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Shape and colour class of each value of an instance map; 0 is background."""
    shapes = np.array([0, *(1 + SHAPES.index(thing.shape) for thing in clip.things)])
    colours = np.array([0, *(1 + COLOURS.index(thing.colour) for thing in clip.things)])
    return shapes, colours


def _pixels(instances: NDArray[np.uint8], clip: Clip) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    small = cv2.resize(instances, (PIXEL_SIDE, PIXEL_SIDE), interpolation=cv2.INTER_NEAREST)
    shapes, colours = _classes(clip)
    return shapes[small], colours[small]


def _pack_row(
    prefix: list[int], turns: list[tuple[list[int], int]]
) -> tuple[list[int], list[int], list[int], list[int]]:
    """(ids, labels, segment of each token (0 the prefix), offset within its segment) of one scene."""
    ids, labels = list(prefix), [-100] * len(prefix)
    segments, offsets = [0] * len(prefix), [0] * len(prefix)
    for number, (turn, answer) in enumerate(turns, start=1):
        ids += turn
        # A token's label is the token after it; learning starts at the last token before the answer.
        labels += [-100] * (answer - 1) + turn[answer:] + [-100]
        segments += [number] * len(turn)
        offsets += list(range(len(turn)))
    return ids, labels, segments, offsets


def _attention(segments: Tensor) -> Tensor:
    """bool `[B, 1, L, L]`: a token sees itself, what came before it in its segment, and the prefix (segment 0)."""
    length = segments.shape[1]
    same = segments[:, :, None] == segments[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return ((same | (segments == 0)[:, None, :]) & causal)[:, None]


def _shares(clip: Clip, target: tuple[int, ...]) -> NDArray[np.float32]:
    """float32 `[F, T, T]`: how much of each cell the target covers."""
    masks = np.isin(clip.instances, [index + 1 for index in target]).astype(np.float32)
    return np.stack(
        [cv2.resize(mask, (TARGET_SIDE, TARGET_SIDE), interpolation=cv2.INTER_AREA) for mask in masks]
    )


def _things(objects: list[tuple[Clip, tuple[int, ...]]]) -> Tensor:
    """float32 `[N, M, features]`: shape and colour one-hot, then the box (centre x, y, width, height in 0..1) in the
    first frame that shows the thing."""
    most = max((len(target) for _, target in objects), default=1)
    features = torch.zeros(len(objects), most, THING_FEATURES)
    for row, (clip, target) in enumerate(objects):
        for column, index in enumerate(target):
            thing = clip.things[index]
            features[row, column, SHAPES.index(thing.shape)] = 1
            features[row, column, len(SHAPES) + COLOURS.index(thing.colour)] = 1
            shown = (instances for instances in clip.instances if (instances == index + 1).any())
            features[row, column, -4:] = torch.tensor(_box(next(shown, clip.instances[0]), index))
    return features


def _box(instances: NDArray[np.uint8], index: int) -> tuple[float, float, float, float]:
    """Centre x, centre y, width and height in 0..1 of a thing in one frame; zeros where it is not to be seen."""
    height, width = instances.shape
    there = instances == index + 1
    xs, ys = np.flatnonzero(there.any(axis=0)), np.flatnonzero(there.any(axis=1))
    if not len(xs):
        return 0.0, 0.0, 0.0, 0.0
    x0, x1, y0, y1 = xs[0] / width, (xs[-1] + 1) / width, ys[0] / height, (ys[-1] + 1) / height
    return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0
