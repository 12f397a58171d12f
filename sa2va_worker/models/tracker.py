"""The streaming tracker: what SAM2 remembers of a video, and for how long.

Frames come one by one and are forgotten; what stays is SAM2's window, so memory does not grow with the video:
the conditioning frames, the last six tracked frames, and the object pointers of the last fifteen tracked frames.
"""

from __future__ import annotations

from collections import deque

from torch import Tensor

from .sam2 import MAX_POINTERS, MEMORY_FRAMES, Decoded, Features, Memory, Sam2


class Tracker:
    """Follows a batch of objects through one video. Frames must come in order, conditioning frames first."""

    def __init__(self, sam2: Sam2, prompts: Tensor) -> None:
        """`prompts` `[objects, C]`: what the language model said of each object."""
        self._sam2 = sam2
        self._prompts = prompts
        self._conditioning: list[tuple[Memory, Tensor]] = []
        self._recent: deque[Memory] = deque(maxlen=MEMORY_FRAMES - 1)
        self._pointers: deque[Tensor] = deque(maxlen=MAX_POINTERS - 1)
        # A frame is remembered only when a next one comes: an image, and a video's last frame, never pay for it.
        self._unremembered: tuple[Features, Decoded, bool] | None = None

    def step(self, features: Features, conditioning: bool) -> Decoded:
        """Masks of every object in the next frame (`features` of that one frame, expanded to the objects).

        A conditioning frame is prompted with the objects' vectors and sees no memory; any other frame sees memory
        and no vector.
        """
        self._remember()
        if conditioning:
            decoded = self._sam2.decode(features, self._sam2.without_memory(features), self._prompts)
        else:
            decoded = self._sam2.decode(features, self._recall(features), None)
        self._unremembered = (features, decoded, conditioning)
        return decoded

    def _remember(self) -> None:
        if self._unremembered is None:
            return
        frame, decoded, conditioning = self._unremembered
        memory = self._sam2.remember(frame, decoded.logits)
        if conditioning:
            self._conditioning.append((memory, decoded.pointers))
        else:
            self._recent.append(memory)
            self._pointers.append(decoded.pointers)
        self._unremembered = None

    def _recall(self, frame: Features) -> Tensor:
        distances = range(len(self._recent), 0, -1)
        memories = [(0, memory) for memory, _ in self._conditioning]
        memories += list(zip(distances, self._recent, strict=True))
        pointers = [pointer for _, pointer in self._conditioning] + list(reversed(self._pointers))
        return self._sam2.recall(frame, memories, pointers)
