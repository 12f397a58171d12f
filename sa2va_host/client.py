"""The only door to the model: `Sa2VA`.

Turns pictures and prompts into calls, waits for them, and turns outcomes into results. The link does the
talking, the launcher the starting, `stopping` the ending. Thread-safe; waiting calls end on Ctrl-C and
cancel what they asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from .cancellation import Cancellation
from .choice import choose
from .config import Settings, checked_timeout, load_settings
from .errors import InvalidInput
from .events import Event
from .session import Session
from .specification import ModelInfo
from .status import ABSENT, WorkerStatus, worker_status
from .stopping import Stopped, stop
from .workers import run_directory, specify

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

    from .calls import Call, Note
    from .hookspecs import Options
    from .outcomes import ChatAnswer
    from .rendezvous import Record, RunDirectory
    from .results import Segmentation
    from .video import Source

MAX_PROMPT = 100_000


class Sa2VA:
    """One model, wherever its worker runs. Nothing is started until a call needs it.

    A setting that is None comes from the environment, the configuration file or the defaults
    (`sa2va_host.config`); ``choice`` says which model that made, and why. ``keep_alive`` is how many seconds
    the worker stays after the last call: 0 ends it at once, negative keeps it. ``timeout`` bounds each call,
    starting and loading included. ``on_event`` receives `sa2va_host.events` on the thread that made the call;
    what it raises cancels the call, as a `Cancellation` given to the call does from elsewhere. ``command``
    replaces the worker's program (tests). In asyncio use `AsyncSa2VA`.
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
            keep_alive=keep_alive,
            timeout=timeout,
        )
        self.choice = choose(wanted)
        self.settings = msgspec.structs.replace(wanted, model=self.choice.model)
        self.specification = specify(self.settings)
        self._session = Session(self.specification, self.settings, on_event=on_event, command=command)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"Sa2VA({self.settings.model!r}, device={self.settings.device!r}, dtype={self.settings.dtype!r})"
        )

    def close(self) -> None:
        """Let go of the worker, which lives on as its keep_alive says. Open calls end as `Cancelled`."""
        self._session.close()

    def segment(
        self,
        image: Source,
        prompt: str,
        *,
        timeout: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> Segmentation:
        """Find what ``prompt`` describes in one picture (a file, a PIL image, or an array `[height, width,
        3]`).
        """
        from . import arrays, wire
        from .media import read_image
        from .outcomes import to_segmentation

        prompt = checked_prompt(prompt)
        with self._session.reserve() as room:
            picture = read_image(image)
            headers, buffers = arrays.pack([picture])
            outcome = self._session.call(
                room,
                lambda call: wire.Segment(
                    call=call, keep_alive=self.settings.keep_alive, prompt=prompt, key_frames=headers
                ),
                buffers,
                timeout,
                cancellation,
            )
        return to_segmentation(outcome, picture.shape[:2], 1, is_video=False)

    def segment_video(
        self,
        frames: Iterable[Source],
        prompt: str,
        key_frames: str = "first:5",
        *,
        timeout: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> Segmentation:
        """Find what ``prompt`` describes and follow it through the frames, which are read one after the
        other.

        ``key_frames`` says how many of the first frames the language model sees, as upstream does; the
        tracker is prompted on those and sees all.
        """
        from . import arrays, wire
        from .calls import Credit, Started
        from .outcomes import to_segmentation
        from .video import Video

        prompt = checked_prompt(prompt)
        side = 0

        def on_note(call: Call, note: Note) -> None:
            nonlocal side
            if isinstance(note, Started):
                side = note.image_size
            if not isinstance(note, Credit):
                return
            for _ in range(note.frames):
                start = video.taken
                chunk = video.next(1, side)
                if chunk is None:
                    room.link.post(call, wire.EndOfFrames(call=call.id))
                    return
                header, data = arrays.pack([chunk])
                room.link.post(call, wire.Frames(call=call.id, start=start, frames=header[0]), data)

        with self._session.reserve() as room:
            video = Video(frames, key_frames)
            headers, buffers = arrays.pack(video.key_frames)
            outcome = self._session.call(
                room,
                lambda call: wire.Segment(
                    call=call,
                    keep_alive=self.settings.keep_alive,
                    prompt=prompt,
                    key_frames=headers,
                    tracked=True,
                    frame_count=video.length,
                ),
                buffers,
                timeout,
                cancellation,
                on_note,
            )
        return to_segmentation(outcome, video.size, video.length or video.taken, is_video=True)

    def chat(
        self,
        prompt: str,
        images: Source | Sequence[Source] | None = None,
        *,
        history: Sequence[tuple[str, str]] = (),
        timeout: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> ChatAnswer:
        """Ask a question, with or without pictures.

        ``history`` holds the (prompt, answer) of earlier turns about the same pictures, oldest first.
        """
        from . import arrays, wire
        from .limits import Turn
        from .media import read_images
        from .outcomes import to_chat_answer

        prompt = checked_prompt(prompt)
        turns = [Turn(checked_prompt(said), answer) for said, answer in history]
        sources: Sequence[Any] = (
            images if isinstance(images, (list, tuple)) else [] if images is None else [images]
        )
        with self._session.reserve() as room:
            headers, buffers = arrays.pack(read_images(sources))
            outcome = self._session.call(
                room,
                lambda call: wire.Chat(
                    call=call,
                    keep_alive=self.settings.keep_alive,
                    prompt=prompt,
                    images=headers,
                    history=turns,
                ),
                buffers,
                timeout,
                cancellation,
            )
        return to_chat_answer(outcome)

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
        from . import arrays, wire
        from .checkpoints import find
        from .media import read_image
        from .outcomes import to_probabilities
        from .plugins import create_manager, find_mask_processors
        from .processing import checked, probabilities_of, process_here

        picture = read_image(image)
        given = probabilities_of(probabilities, picture.shape[:2])
        values = dict(options or {})
        known = find_mask_processors(create_manager())
        if processor in known:
            chosen, values = checked(known, processor, values)
            if "model" in values:
                values["model"] = str(find(str(values["model"]), folders=self.settings.model_folders).folder)
            if not chosen.in_worker:
                return process_here(chosen, given, picture, values)
        with self._session.reserve() as room:
            headers, buffers = arrays.pack([picture, given])
            outcome = self._session.call(
                room,
                lambda call: wire.Process(
                    call=call,
                    keep_alive=self.settings.keep_alive,
                    processor=processor,
                    options=values,
                    picture=headers[0],
                    probabilities=headers[1],
                ),
                buffers,
                timeout,
                cancellation,
            )
        return to_probabilities(outcome, given.shape)

    def load(self, *, timeout: float | None = None, cancellation: Cancellation | None = None) -> ModelInfo:
        """Have the model in memory, and say what it is."""
        from . import wire

        with self._session.reserve() as room:
            outcome = self._session.call(
                room,
                lambda call: wire.Load(call=call, keep_alive=self.settings.keep_alive),
                (),
                timeout,
                cancellation,
            )
        assert outcome.info is not None
        return outcome.info

    def status(self) -> WorkerStatus:
        """The worker that would answer a call now; never starts one. A false status says that there is
        none.
        """
        found = self._find()
        return ABSENT if found is None else worker_status(found[0])

    def unload(self, force: bool = False, timeout: float | None = None) -> Stopped:
        """End the worker and give its memory back; returns when the process is gone.

        Waits up to ``timeout`` seconds (default: the setting ``unload_wait``) for running calls, then raises
        `UnloadRefused`, or with ``force`` ends them as `Cancelled`.
        """
        found = self._find()
        if found is None:
            return Stopped(0, "absent", 0.0)
        wait = self.settings.unload_wait if timeout is None else (timeout and checked_timeout(timeout)) or 0.0
        return stop(*found, force=force, wait=wait)

    def _find(self) -> tuple[Record, RunDirectory] | None:
        run = run_directory(self.settings)
        record = run.find(self.specification)
        return None if record is None else (record, run)


def checked_prompt(prompt: object) -> str:
    """The prompt, if the model can be asked that. Raises `InvalidInput`."""
    if not isinstance(prompt, str):
        raise InvalidInput(f"The prompt is {prompt!r}.", advice="It must be text, such as 'the red circle'.")
    if not prompt.replace("<image>", "").strip():
        raise InvalidInput("The prompt is empty.", advice="Say what to look for, such as 'the red circle'.")
    if len(prompt) > MAX_PROMPT:
        raise InvalidInput(f"The prompt has {len(prompt)} characters, more than {MAX_PROMPT}.")
    if not prompt.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in prompt):
        raise InvalidInput("The prompt has bytes in it that are no text.", advice="Write it in UTF-8.")
    return prompt
