"""The streaming tracker: what SAM2 remembers of a video, and for how long.

Frames come one by one and are forgotten; what stays is SAM2's window, so memory does not grow with the video:
the conditioning frames, the last six tracked frames, and the object pointers of the last fifteen tracked frames.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from torch import Tensor

from .sam2 import MAX_POINTERS, MEMORY_FRAMES, Decoded, Features, Memory, Sam2


class Tracker:
    """Follows a batch of objects through one video.

    Tracked frames must come in order. Conditioning frames may come ahead of them, wherever in the video they are: all
    are looked at from every tracked frame, as SAM2 does (`max_cond_frames_in_attn` = -1 in facebookresearch/sam2).
    """

    def __init__(self, sam2: Sam2, prompts: Tensor, seed_size: tuple[int, int] | None = None) -> None:
        """`prompts` `[objects, C]`: what the language model said of each object.

        With `seed_size`, (height, width) of the video, conditioning frames are remembered as masks, and the original
        decoder propagates where there is one: Sa2VA-i, arXiv 2509.19082.
        """
        self._sam2 = sam2
        self._prompts = prompts
        self._seed_size = seed_size
        self._frame = -1
        self._conditioning: list[tuple[int, Memory, Tensor]] = []
        self._recent: deque[tuple[int, Memory]] = deque(maxlen=MEMORY_FRAMES - 1)
        self._pointers: deque[tuple[int, Tensor]] = deque(maxlen=MAX_POINTERS - 1)
        # A frame is remembered only when a next one comes: an image, and a video's last frame, never pay for it.
        self._unremembered: _Seen | None = None

    def step(self, features: Features, conditioning: bool, frame: int | None = None) -> Decoded:
        """Masks of every object in a frame (`features` of that one frame, expanded to the objects).

        A conditioning frame is prompted with the objects' vectors and sees no memory; any other frame sees memory
        and no vector. `frame` is its place in the video, the next one where it is left out.
        """
        self._remember()
        self._frame = self._frame + 1 if frame is None else frame
        if conditioning:
            decoded = self._sam2.decode(features, self._sam2.without_memory(features), self._prompts)
        else:
            propagating = self._seed_size is not None
            decoded = self._sam2.decode(features, self._recall(features), None, propagating=propagating)
        self._unremembered = _Seen(self._frame, features, decoded, conditioning)
        return decoded

    def _remember(self) -> None:
        if self._unremembered is None:
            return
        seen, self._unremembered = self._unremembered, None
        logits, pointers = seen.decoded.logits, seen.decoded.pointers
        if seen.conditioning and self._seed_size is not None:
            logits, pointers = self._sam2.seed(seen.features, logits, self._seed_size)
        memory = self._sam2.remember(seen.features, logits)
        if seen.conditioning:
            self._conditioning.append((seen.frame, memory, pointers))
        else:
            self._recent.append((seen.frame, memory))
            self._pointers.append((seen.frame, pointers))

    def _recall(self, features: Features) -> Tensor:
        """What the current frame looks back to. Conditioning frames leave gaps in the windows of the others, and only
        those of the past show their pointers (`only_obj_ptrs_in_the_past_for_eval`), as upstream has it.
        """
        now = self._frame
        memories = [(0, memory) for _, memory, _ in self._conditioning]
        memories += [(now - then, memory) for then, memory in self._recent if now - then < MEMORY_FRAMES]
        pointers = [pointer for then, _, pointer in self._conditioning if then <= now]
        pointers += [pointer for then, pointer in reversed(self._pointers) if now - then < MAX_POINTERS]
        return self._sam2.recall(features, memories, pointers)


@dataclass(frozen=True)
class _Seen:
    """A frame that was decoded and is not remembered yet."""

    frame: int
    features: Features
    decoded: Decoded
    conditioning: bool
