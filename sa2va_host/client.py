"""The only door to the model: `Sa2VA`.

Turns pictures and prompts into calls, waits for them, and turns outcomes into results. The link does the talking, the
launcher the starting, `stopping` the ending. Thread-safe; waiting calls end on Ctrl-C and cancel what they asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .calls.session import Session
from .cancellation import Cancellation
from .config import Settings, checked_timeout, load_settings
from .events import Event
from .generation import GREEDY, Generation
from .lifecycle.workers import run_directory
from .machine.descriptors import reporting_shortage
from .models.choice import choose, specify
from .models.notice import notes_on
from .prompts import checked_history, checked_prompt, checked_prompts
from .protocol.limits import ConditionOn
from .protocol.specification import ModelInfo, Specification

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

    from .calls.call import Outcome
    from .calls.outcomes import ChatAnswer
    from .lifecycle.status import WorkerStatus
    from .lifecycle.stopping import Stopped
    from .media import Pixels, Source
    from .plugins.hookspecs import Options
    from .region_prompts import Region
    from .results import Segmentation
    from .video.clip import Clip
    from .video.stream import WhichFrames
    from .video.tracks import Track


class Sa2VA:
    """One model, wherever its worker runs. Nothing is started until a call needs it.

    A setting that is None comes from the environment, the configuration file or the defaults (`sa2va_host.config`);
    ``choice`` says which model that made, and why; where nobody named one and the bundled model answers, ``notes`` says
    so, and those of each result begin with these. ``keep_alive`` is how many seconds the worker stays after the last
    call: 0 ends it at once, negative keeps it. ``timeout`` bounds each call, starting and loading included.
    ``on_event`` receives `sa2va_host.events` on the thread that made the call; what it raises cancels the call, as a
    `Cancellation` given to the call does from elsewhere. ``command`` replaces the worker's program (tests). In
    asyncio use `AsyncSa2VA`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        attention: str | None = None,
        quantization: str | None = None,
        trust_remote_code: bool | None = None,
        tracker_decoder: str | os.PathLike[str] | None = None,
        keep_alive: float | None = None,
        timeout: float | None = None,
        on_event: Callable[[Event], None] | None = None,
        settings: Settings | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        wanted = load_settings(
            base=settings,
            model=None if model is None else os.fspath(model),
            revision=revision,
            device=device,
            dtype=dtype,
            attention=attention,
            quantization=quantization,
            trust_remote_code=trust_remote_code,
            tracker_decoder=None if tracker_decoder is None else os.fspath(tracker_decoder),
            keep_alive=keep_alive,
            timeout=timeout,
        )
        self.choice = choose(wanted)
        self.notes = notes_on(self.choice, wanted)
        # A model that was not named has a table in the settings file all the same.
        self.settings = load_settings(base=wanted, model=self.choice.model) if self.choice.reason else wanted
        self._session = Session(
            specify(self.settings), self.settings, on_event=on_event, command=command, notes=self.notes
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        settings = self.settings
        return f"Sa2VA({settings.model!r}, device={settings.device!r}, dtype={settings.dtype!r})"

    @property
    def specification(self) -> Specification:
        """What a call asks for now. It changes where the checkpoint's files are replaced."""
        return self._session.specifications()[0]

    def close(self) -> None:
        """Let go of the worker, which lives on as its keep_alive says. Open calls end as `Cancelled`."""
        self._session.close()

    def attach(self) -> None:
        """Connect to the worker, if it is there and has its model, while a picture is still being read: the first call
        is some milliseconds faster. Starts no worker and raises nothing.
        """
        self._session.attach()

    @reporting_shortage()
    def segment(
        self,
        image: Source,
        prompt: str,
        *,
        generation: Generation = GREEDY,
        timeout: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> Segmentation:
        """Find what ``prompt`` describes in one image: whatever `sa2va_host.media.read_image` reads, whose sentences
        about it stand in the result's ``notes``.
        """
        return self._segment(image, [checked_prompt(prompt)], generation, timeout, cancellation)[0]

    @reporting_shortage()
    def segment_each(
        self,
        image: Source,
        prompts: Sequence[str],
        *,
        generation: Generation = GREEDY,
        timeout: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> list[Segmentation]:
        """`segment` for each of several prompts about one picture, which the model sees once."""
        from .calls.outcomes import split

        prompts = checked_prompts(prompts)
        return split(*self._segment(image, prompts, generation, timeout, cancellation), len(prompts))

    def _segment(
        self,
        image: Source,
        prompts: list[str],
        generation: Generation,
        timeout: float | None,
        cancellation: Cancellation | None,
    ) -> tuple[Segmentation, Outcome]:
        """The objects of all prompts as one answer, and what the call brought."""
        from .calls.outcomes import to_segmentation
        from .media import read_pixels
        from .protocol import wire

        notes: list[str] = []

        def read() -> Sequence[Pixels]:
            notes.clear()
            return [read_pixels(image, notes=notes)]

        outcome = self._session.call(
            lambda call, key_frames: wire.Segment(
                call=call,
                keep_alive=self.settings.keep_alive,
                prompts=prompts,
                key_frames=key_frames,
                generation=generation,
            ),
            read,
            timeout,
            cancellation,
        )
        size = tuple(outcome.arrays[0].shape[:2])
        return to_segmentation(outcome, size, 1, is_video=False, notes=notes), outcome

    @reporting_shortage()
    def track(
        self,
        frames: Iterable[Source] | str | os.PathLike[str] | Clip,
        prompt: str | Sequence[str],
        key_frames: WhichFrames = "first:5",
        *,
        frame_count: int | None = None,
        condition_on: ConditionOn = "vectors",
        ask_again: str = "never",
        generation: Generation = GREEDY,
        timeout: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> Track:
        """Find what ``prompt`` describes and follow it through the frames: an iterator of one result for each frame,
        as the worker tracks them, in constant memory. Several prompts share one pass over the frames, which may be
        the path of a video file, of a folder of frames or of numbered ones.

        `sa2va_host.video.tracks.Track` says what ``key_frames``, ``condition_on``, ``ask_again`` and ``frame_count``
        mean.
        """
        from .video.tracks import Track

        return Track(
            self._session,
            frames,
            [checked_prompt(prompt)] if isinstance(prompt, str) else checked_prompts(prompt),
            key_frames,
            keep_alive=self.settings.keep_alive,
            frame_count=frame_count,
            condition_on=condition_on,
            ask_again=ask_again,
            generation=generation,
            timeout=timeout,
            cancellation=cancellation,
        )

    @reporting_shortage()
    def segment_video(
        self,
        frames: Iterable[Source] | str | os.PathLike[str] | Clip,
        prompt: str,
        key_frames: WhichFrames = "first:5",
        *,
        condition_on: ConditionOn = "vectors",
        ask_again: str = "never",
        generation: Generation = GREEDY,
        timeout: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> Segmentation:
        """The same as one result, once all frames are done; its logits grow with the video."""
        with self.track(
            frames,
            prompt,
            key_frames,
            condition_on=condition_on,
            ask_again=ask_again,
            generation=generation,
            timeout=timeout,
            cancellation=cancellation,
        ) as track:
            return track.collect()

    @reporting_shortage()
    def chat(
        self,
        prompt: str,
        images: Source | Sequence[Source] | None = None,
        *,
        regions: Sequence[Region] = (),
        history: Sequence[tuple[str, str]] = (),
        generation: Generation = GREEDY,
        timeout: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> ChatAnswer:
        """Ask a question, with or without pictures.

        ``regions`` are parts of the one picture, which the prompt calls region1, region2 and so on: masks, bool
        `[height, width]`, or boxes `(x0, y0, x1, y1)`; checkpoints of the InternVL families know them. ``history``
        holds the (prompt, answer) of earlier turns about the same pictures, oldest first.
        """
        from .calls.outcomes import to_chat_answer
        from .media import read_images
        from .protocol import wire

        prompt = checked_prompt(prompt)
        turns = checked_history(history)
        one = images is not None and not isinstance(images, (list, tuple))
        sources: Any = [images] if one else images or ()

        notes: list[str] = []

        def read() -> Sequence[NDArray[Any]]:
            notes.clear()
            pictures = read_images(sources, notes=notes)
            if not regions:
                return pictures
            from .region_prompts import region_masks

            return [*pictures, *region_masks(regions, pictures)]

        outcome = self._session.call(
            lambda call, arrays: wire.Chat(
                call=call,
                keep_alive=self.settings.keep_alive,
                prompt=prompt,
                images=arrays[: len(sources)],
                regions=arrays[len(sources) :],
                history=turns,
                generation=generation,
            ),
            read,
            timeout,
            cancellation,
        )
        return to_chat_answer(outcome, notes)

    @reporting_shortage()
    def process(
        self,
        image: Source,
        probabilities: NDArray[Any],
        processor: str,
        options: Options | None = None,
        *,
        timeout: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> NDArray[np.float32]:
        """Improve masks with a plugin, such as ``"vitmatte"``: float32 `[objects, height, width]`, 0..1.

        ``probabilities`` has that shape too (masks will do), and is of ``image``. A processor of the host runs here;
        any other name is the worker's to know. Its option ``model``, a checkpoint, is found as all are.
        """
        from .calls.outcomes import to_probabilities
        from .masks.processors import choose_processor
        from .media import read_image, to_array
        from .plugins.processing import probabilities_of, process_here
        from .protocol import wire

        picture = read_image(image)
        array = to_array(probabilities, "The array of probabilities")
        given = probabilities_of(probabilities if array is None else array, picture.shape[:2])
        chosen, values = choose_processor(processor, options or {}, self.settings.model_folders)
        if chosen is not None and not chosen.in_worker:
            return process_here(chosen, given, picture, values)
        outcome = self._session.call(
            lambda call, arrays: wire.Process(
                call=call,
                keep_alive=self.settings.keep_alive,
                processor=processor,
                options=values,
                picture=arrays[0],
                probabilities=arrays[1],
            ),
            lambda: [picture, given],
            timeout,
            cancellation,
        )
        return to_probabilities(outcome, given.shape)

    @reporting_shortage()
    def load(self, *, timeout: float | None = None, cancellation: Cancellation | None = None) -> ModelInfo:
        """Have the model in memory, and say what it is."""
        from .protocol import wire

        outcome = self._session.call(
            lambda call, _: wire.Load(call=call, keep_alive=self.settings.keep_alive),
            timeout=timeout,
            cancellation=cancellation,
        )
        assert outcome.info is not None
        return outcome.info

    @reporting_shortage()
    def status(self) -> WorkerStatus:
        """The worker that would answer a call now; never starts one. A false status says that there is none."""
        from .lifecycle.status import ABSENT, worker_status

        record = run_directory(self.settings).find(self.specification)
        return ABSENT if record is None else worker_status(record)

    @reporting_shortage()
    def unload(self, force: bool = False, timeout: float | None = None) -> Stopped:
        """End the worker and give its memory back; returns when the process is gone.

        Where this process started it, it is reaped too: the system does not know its id any more
        (`psutil.pid_exists`). Where another one did, that one alone can reap it; its zombie, which holds no memory, may
        be there for a moment longer, or for as long as that process is stopped.

        Waits up to ``timeout`` seconds (default: the setting ``unload_wait``) for running calls, then raises
        `UnloadRefused`, or with ``force`` ends them as `Cancelled`. Where the checkpoint was replaced between two calls
        of this object, the earlier call's worker is ended too.
        """
        from .lifecycle.stopping import Stopped, stop

        run = run_directory(self.settings)
        wait = self.settings.unload_wait if timeout is None else (timeout and checked_timeout(timeout)) or 0.0
        stopped = Stopped(0, "absent", 0.0)
        # Nobody comes back to a worker whose checkpoint was replaced: it goes too.
        for specification in reversed(self._session.specifications()):
            if record := run.find(specification):
                stopped = stop(record, run, force=force, wait=wait)
        return stopped
