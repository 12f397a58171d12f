"""The results that are made of what a finished call brought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING

from sa2va_host.errors import WorkerError
from sa2va_host.results import AnsweredBy, Segmentation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .call import Outcome


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """An answer in words. ``timings`` as `sa2va_host.timings` explains them; ``notes`` are what there is to know about
    the images and how it was done, a sentence each.
    """

    text: str
    timings: dict[str, float] = field(default_factory=dict)
    worker: AnsweredBy | None = None
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        return self.text


def to_chat_answer(outcome: Outcome, notes: Sequence[str] = ()) -> ChatAnswer:
    """The answer of a chat. ``notes`` are those of its images."""
    worker = AnsweredBy(outcome.pid, outcome.created)
    return ChatAnswer(outcome.text, outcome.timings, worker, [*notes, *outcome.notes])


def to_segmentation(
    outcome: Outcome, size: tuple[int, ...], frames: int, *, is_video: bool, notes: Sequence[str] = ()
) -> Segmentation:
    """Put the masks of single frames together: float32 `[objects, frames, h, w]`. ``notes`` are those of its input."""
    import numpy as np

    if outcome.masks:
        missing = [frame for frame in range(len(outcome.masks)) if frame not in outcome.masks]
        if missing or len({masks.shape for masks in outcome.masks.values()}) != 1:
            raise WorkerError("The worker's masks do not fit together.", advice="Please report this.")
        logits = np.stack([outcome.masks[frame] for frame in range(len(outcome.masks))], axis=1)
    else:
        side = max(1, outcome.image_size // 4)
        logits = np.zeros((0, frames, side, side), np.float32)
    return Segmentation(
        text=outcome.text,
        logits=logits,
        size=(int(size[0]), int(size[1])),
        image_size=outcome.image_size,
        is_video=is_video,
        timings=outcome.timings,
        notes=[*notes, *outcome.notes],
        worker=AnsweredBy(outcome.pid, outcome.created),
    )


def check_answered(objects: Sequence[int], prompts: int, together: int) -> None:
    """Raises `WorkerError` unless each prompt was answered, and the ``objects`` of the answers are all there are."""
    if len(objects) != prompts or sum(objects) != together:
        raise WorkerError(
            f"The worker answered {len(objects)} of {prompts} prompts.",
            advice="Its model takes one prompt in a call: ask one by one.",
        )


def split(together: Segmentation, outcome: Outcome, prompts: int) -> list[Segmentation]:
    """The answer to each of several prompts. Raises `WorkerError` where the worker answered fewer."""
    if prompts == 1 and not outcome.said:  # an engine need not say again what its answer is
        return [together]
    check_answered([objects for _, objects in outcome.said], prompts, len(together))
    ends = accumulate(objects for _, objects in outcome.said)
    return [
        replace(together, text=text, logits=together.logits[end - objects : end])
        for (text, objects), end in zip(outcome.said, ends, strict=True)
    ]


def to_probabilities(outcome: Outcome, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Processed probabilities of all objects, float32 `[objects, height, width]`."""
    import numpy as np

    found = [outcome.masks.get(index) for index in range(shape[0])]
    if any(one is None or one.shape != shape[1:] for one in found):
        raise WorkerError("The worker's processed masks do not fit together.", advice="Please report this.")
    return np.stack(found) if found else np.zeros(shape, np.float32)  # type: ignore[arg-type]
