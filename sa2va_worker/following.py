"""The objects of a call, followed from frame to frame: which frames condition the tracker, and when.

Called by the engine. What the tracker remembers of them is `models/tracker`'s matter.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from .clock import Clock
from .models.pictures import square
from .models.sa2va import Sa2VA
from .models.tracker import Tracker
from .steps import Picture, SegmentRequest
from .streaming import Guard, Logits, Scores

OWN_DECODER = (
    "The masks were propagated by the fine-tuned mask decoder, the only one of this checkpoint."
    " SAM2's original one, which is made for that, can be given (tracker_decoder)."
)


class Follower:
    """Frames in, masks of all objects out. Memory does not grow with the frames."""

    def __init__(self, sa2va: Sa2VA, states: list[Tensor], request: SegmentRequest) -> None:
        """`states` `[hidden]` of each `[SEG]`."""
        height, width = request.key_frames[0].shape[:2]
        seed_size = (height, width) if request.condition_on == "masks" else None
        self._sam2 = sa2va.sam2
        self._tracker = Tracker(sa2va.sam2, sa2va.prompts(states), seed_size)
        self._objects, self._frame = len(states), 0
        self._positions = frozenset(request.positions)
        # The first frames of a video condition the tracker as they come; it must know the others before it begins.
        places = zip(request.positions, request.key_frames, strict=True)
        self._ahead = [(at, picture) for place, (at, picture) in enumerate(places) if at != place]
        self._known: dict[int, tuple[Logits, Scores]] = {}

    def look_ahead(self, clock: Clock, guard: Guard) -> Iterator[None]:
        """Condition the tracker on the key frames that are further on in the video, one for each step."""
        for at, picture in self._ahead:
            with clock("tracking"), torch.inference_mode(), guard():
                self._known[at] = self._find(square(picture, self._sam2.image_size), at)
            yield
        self._ahead.clear()

    def step(self, picture: Picture) -> tuple[Logits, Scores]:
        """Find each object in the next frame; a frame that was looked at ahead is not encoded again."""
        frame, self._frame = self._frame, self._frame + 1
        return self._known.pop(frame, None) or self._find(picture, frame)

    def _find(self, picture: Picture, frame: int) -> tuple[Logits, Scores]:
        """Encode a frame once, and find each object in it."""
        features = self._sam2.encode(self._sam2.pixels(torch.from_numpy(np.array(picture)).unsqueeze(0)))
        decoded = self._tracker.step(features.expand(self._objects), frame in self._positions, frame)
        logits, presence = decoded.logits.to(torch.float32), decoded.presence.to(torch.float32)
        return logits.cpu().numpy(), presence.cpu().numpy()
