"""The work of `sa2va video`: from a clip and prompts to what is recorded of each frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sa2va_host import Generation, Sa2VA, TrackedFrame
    from sa2va_host.calls.call import Said
    from sa2va_host.cancellation import Cancellation
    from sa2va_host.events import Progress
    from sa2va_host.media import Picture
    from sa2va_host.output.layers import Layer
    from sa2va_host.output.recording import Recording
    from sa2va_host.protocol.limits import ConditionOn
    from sa2va_host.results import AnsweredBy
    from sa2va_host.video.clip import Clip, Frame

    from .display import Display
    from .editing import Editing
    from .prompts import Asked


@dataclass(frozen=True)
class Plan:
    """What is asked, and what is done with every answer."""

    asked: list[Asked]
    key_frames: str
    condition_on: ConditionOn
    ask_again: str
    threshold: float
    presence: float
    resolve_overlaps: bool
    skip_empty: bool
    """Whether prompts that nothing is found for leave nothing."""
    editing: Editing
    generation: Generation

    @property
    def prompts(self) -> list[str]:
        """What is asked, in words."""
        return [asked.prompt for asked in self.asked]


@dataclass
class Found:
    """One object through the video."""

    id: int
    name: str
    prompt: str
    colour: tuple[int, int, int]
    """Of the overlay and the label maps, RGB."""
    frames: int = 0
    """In how many frames its mask is not empty."""


@dataclass
class Outcome:
    """What came of the run."""

    answers: tuple[Said, ...] = ()
    """To each prompt, in their order."""
    objects: list[Found] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    """How many of them each prompt has."""
    size: tuple[int, int] = (0, 0)
    """`(height, width)` of the frames."""
    timings: Mapping[str, float] = field(default_factory=dict)
    worker: AnsweredBy | None = None
    notes: Sequence[str] = ()
    """What there is to know about how it was done."""


def follow(
    sa: Sa2VA,
    clip: Clip,
    plan: Plan,
    recording: Recording,
    begin: Callable[[], object],
    display: Display,
    outcome: Outcome,
) -> None:
    """Record what is found; each frame is read, and kept until it is answered for.

    ``begin`` is called before anything is recorded, ``display`` is told while key frames are looked for. What comes of
    it is told to ``outcome`` as it comes. Where nothing at all is found, the frames are read once more, to leave each
    prompt its empty files.
    """
    from sa2va_host.cancellation import Cancellation
    from sa2va_host.video.clip_frames import key_frames_of

    cancellation = Cancellation()
    key_frames = key_frames_of(clip, plan.key_frames, display.event)
    # Not `tee`, which lets go of what it holds by the several dozen: of 4K, gigabytes.
    asked: deque[Frame] = deque()

    def given() -> Iterator[Picture]:
        with closing(
            iter(clip)
        ) as frames:  # here: a file that stalls is still being read when the track ends
            for frame in frames:
                asked.append(frame)
                yield frame.picture

    with sa.track(
        given(),
        plan.prompts,
        key_frames,
        frame_count=clip.frame_count,
        condition_on=plan.condition_on,
        ask_again=plan.ask_again,
        generation=plan.generation,
        cancellation=cancellation,
    ) as track:
        for tracked in track:
            frame = asked.popleft()
            if not outcome.objects:
                begin()
            layers = _layers(sa, frame, tracked.each(), plan, outcome, cancellation)
            for known, layer in zip(outcome.objects, layers, strict=True):
                known.frames += bool(layer.mask.any())
            recording.add(frame, [*layers, *_absent(plan, outcome, tracked.size)])
            outcome.size = tracked.size
    outcome.answers, outcome.timings, outcome.worker = track.answers, track.timings, track.worker
    outcome.notes = track.notes
    if not outcome.objects:
        outcome.counts = [0] * len(plan.asked)
        if recording.writes_nothing_found:
            rest = "" if plan.skip_empty else " (--skip-empty leaves out masks that are all 0)"
            display.note(f"Nothing is found; the outputs that say so are written{rest}.")
            begin()
            _record_nothing(clip, plan, recording, display.event, outcome)


def _record_nothing(
    clip: Clip,
    plan: Plan,
    recording: Recording,
    on_event: Callable[[Progress], object],
    outcome: Outcome,
) -> None:
    """Every frame, without an object."""
    from sa2va_host.calls.pace import Pace
    from sa2va_host.events import Progress

    pace = Pace()
    with closing(iter(clip)) as frames:
        for place, frame in enumerate(frames, start=1):
            outcome.size = (frame.picture.shape[0], frame.picture.shape[1])
            recording.add(frame, _absent(plan, outcome, outcome.size))
            on_event(pace.of(Progress("writing", place, clip.frame_count, "frames")))


def _absent(plan: Plan, outcome: Outcome, size: tuple[int, int]) -> list[Layer]:
    """What stands for the prompts that nothing was found for, in a frame of this size."""
    from sa2va_host.output.layers import absent_layers

    names = [asked.name for asked, count in zip(plan.asked, outcome.counts, strict=True) if not count]
    return absent_layers(names, size)


def _layers(
    sa: Sa2VA,
    frame: Frame,
    found: Sequence[TrackedFrame],
    plan: Plan,
    outcome: Outcome,
    cancellation: Cancellation,
) -> list[Layer]:
    """The objects of each prompt in one frame; the first frame names them."""
    from sa2va_host.masks.masks import PALETTE
    from sa2va_host.output.layers import make_layers, object_names, resolve_overlaps

    maps = []
    for tracked in found:
        processed = plan.editing.probabilities(sa, frame.picture, tracked.as_picture(), cancellation)
        maps.append(tracked.probabilities() if processed is None else processed)
    if not outcome.objects:
        outcome.counts = counts = [len(values) for values in maps]
        prompts = [prompt for prompt, count in zip(plan.prompts, counts, strict=True) for _ in range(count)]
        for index, name in enumerate(object_names([asked.name for asked in plan.asked], counts)):
            colour = PALETTE[index % len(PALETTE)]
            outcome.objects.append(Found(index + 1, name, prompts[index], colour))
    names = iter([known.name for known in outcome.objects])
    layers: list[Layer] = []
    for tracked, values in zip(found, maps, strict=True):
        layers += make_layers(
            [next(names) for _ in values],
            values,
            # Combined objects are one, of which the model says nothing.
            tracked.presence if plan.editing.combination is None else None,
            frame.picture,
            threshold=plan.threshold,
            refinement=plan.editing.refinement,
            least_presence=plan.presence,
        )
    return resolve_overlaps(layers) if plan.resolve_overlaps else layers
