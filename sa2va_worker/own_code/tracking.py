"""Objects followed through a video by the SAM2 that a checkpoint brings, a frame at a time.

Upstream's own loop takes a whole video and one object, encodes each conditioning frame twice and the others once for
each object, and keeps everything. The parts that it is made of can do better: the image encoder runs once on a frame,
whose features wait where the code looks for them, all objects go through the tracker together, and what SAM2 will not
look at again is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sa2va_worker.steps import Picture

from .without_cuda import placed

ENDLESS = range(2**31 - 1)
"""Stands for the video's frames, of which the code only asks how many there are: nobody knows while they come."""
WINDOW = 16
"""How many frames back SAM2 looks (`max_obj_ptrs_in_encoder` in facebookresearch/sam2; its masks go back less far)."""


class Tracking:
    """One video, or one picture, and the objects in it. Frames come in order."""

    def __init__(self, grounding: Any, prompts: Tensor, device: torch.device, dtype: torch.dtype) -> None:
        """``grounding``: the checkpoint's `grounding_encoder`; ``prompts``: `[conditioning frames, objects, C]`."""
        self._grounding = grounding
        self._sam2: Any = grounding.sam2_model
        self._prompts = prompts
        self._device = device
        self._dtype = dtype
        self._frame = 0
        self._propagation: Iterator[tuple[int, Any, Tensor]] | None = None
        self._state: dict[str, Any] = self._sam2.init_state(ENDLESS)
        side = self._sam2.image_size // 4
        # The code writes `cuda` here; and logits that have the video's size already are not resized.
        self._state |= {
            "device": device,
            "storage_device": device,
            "video_height": side,
            "video_width": side,
        }

    def step(self, picture: Picture) -> NDArray[np.float32]:
        """The next frame uint8 `[image_size, image_size, 3]` -> mask logits float32 `[objects, height, width]`."""
        half = self._dtype is not torch.float32
        with placed(self._device), torch.autocast(self._device.type, self._dtype, enabled=half):
            self._state["cached_features"][self._frame] = self._encode(picture)
            logits = self._prompted() if self._frame < len(self._prompts) else self._tracked()
        self._frame += 1
        return logits[:, 0].to(torch.float32).cpu().numpy()

    def _encode(self, picture: Picture) -> tuple[Tensor, Any]:
        """The frame's pixels `[1, 3, image_size, image_size]` and what the image encoder makes of them."""
        channels_first = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        # Without a dtype, as upstream's code asks for it: its mean and deviation are bfloat16 in every precision.
        pixels = self._grounding.preprocess_image(channels_first)
        pixels = pixels.to(self._device, self._dtype).unsqueeze(0)
        return pixels, self._sam2.forward_image(pixels)

    def _prompted(self) -> Tensor:
        """Logits `[objects, 1, height, width]` of a conditioning frame: from the objects' vectors, without memory."""
        return torch.cat(
            [
                self._sam2.add_language_embd(self._state, self._frame, number, vector[None, None])[2]
                for number, vector in enumerate(self._prompts[self._frame])
            ]
        )

    def _tracked(self) -> Tensor:
        """Logits `[objects, 1, height, width]` of any other frame: from memory."""
        if self._propagation is None:
            self._propagation = self._sam2.propagate_in_video(self._state)
        # It begins with the conditioning frames, whose logits are known.
        logits = next(logits for frame, _, logits in self._propagation if frame == self._frame)
        self._forget()
        return logits

    def _forget(self) -> None:
        """Drop what nothing will look at again, or device memory would grow with the video."""
        self._state["cached_features"].clear()
        self._state["output_dict"]["non_cond_frame_outputs"].pop(self._frame - WINDOW, None)
        for outputs in self._state["output_dict_per_obj"].values():
            outputs["non_cond_frame_outputs"].clear()
