"""`Sa2VA` for asyncio: the same calls, awaited. No second copy of anything: each call is the synchronous one on a
thread of its own, which spends its time waiting, reading pictures and scaling frames, none of which may hold up an
event loop. Cancelling the task cancels the call.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from .cancellation import Cancellation
from .client import Sa2VA
from .errors import Cancelled
from .generation import GREEDY, Generation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

    from .calls.outcomes import ChatAnswer
    from .lifecycle.status import WorkerStatus
    from .lifecycle.stopping import Stopped
    from .media import Source
    from .plugins.hookspecs import Options
    from .protocol.limits import ConditionOn
    from .protocol.specification import ModelInfo
    from .region_prompts import Region
    from .results import Segmentation
    from .video.clip import Clip
    from .video.stream import WhichFrames
    from .video.tracked_frame import TrackedFrame
    from .video.tracks import Track

Result = TypeVar("Result")


class AsyncSa2VA:
    """Takes the arguments of `Sa2VA` and has its methods; results and errors are the same.

    ``on_event`` is called on the thread of its call: use ``loop.call_soon_threadsafe`` to reach the loop.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self._sync = Sa2VA(*arguments, **settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"Async{self._sync!r}"

    async def segment(
        self,
        image: Source,
        prompt: str,
        *,
        generation: Generation = GREEDY,
        timeout: float | None = None,
    ) -> Segmentation:
        """See `Sa2VA.segment`."""
        call = functools.partial(self._sync.segment, image, prompt, generation=generation, timeout=timeout)
        return await _cancellable(call)

    def track(
        self,
        frames: Iterable[Source] | AsyncIterable[Source] | str | os.PathLike[str] | Clip,
        prompt: str | Sequence[str],
        key_frames: WhichFrames = "first:5",
        *,
        frame_count: int | None = None,
        condition_on: ConditionOn = "vectors",
        ask_again: str = "never",
        generation: Generation = GREEDY,
        timeout: float | None = None,
    ) -> AsyncTrack:
        """See `Sa2VA.track`. ``frames`` may be asynchronous; it is then advanced on this loop."""
        cancellation = Cancellation()
        return AsyncTrack(
            self._sync.track(
                _on_this_loop(frames, cancellation),
                prompt,
                key_frames,
                frame_count=frame_count,
                condition_on=condition_on,
                ask_again=ask_again,
                generation=generation,
                timeout=timeout,
                cancellation=cancellation,
            ),
            cancellation,
        )

    async def segment_video(
        self,
        frames: Iterable[Source] | AsyncIterable[Source] | str | os.PathLike[str] | Clip,
        prompt: str,
        key_frames: WhichFrames = "first:5",
        *,
        condition_on: ConditionOn = "vectors",
        ask_again: str = "never",
        generation: Generation = GREEDY,
        timeout: float | None = None,
    ) -> Segmentation:
        """See `Sa2VA.segment_video`. ``frames`` may be asynchronous; it is then advanced on this loop."""
        cancellation = Cancellation()
        call = functools.partial(
            self._sync.segment_video,
            _on_this_loop(frames, cancellation),
            prompt,
            key_frames,
            condition_on=condition_on,
            ask_again=ask_again,
            generation=generation,
            timeout=timeout,
        )
        return await _cancellable(call, cancellation)

    async def segment_each(
        self,
        image: Source,
        prompts: Sequence[str],
        *,
        generation: Generation = GREEDY,
        timeout: float | None = None,
    ) -> list[Segmentation]:
        """See `Sa2VA.segment_each`."""
        call = functools.partial(
            self._sync.segment_each, image, prompts, generation=generation, timeout=timeout
        )
        return await _cancellable(call)

    async def chat(
        self,
        prompt: str,
        images: Source | Sequence[Source] | None = None,
        *,
        regions: Sequence[Region] = (),
        history: Sequence[tuple[str, str]] = (),
        generation: Generation = GREEDY,
        timeout: float | None = None,
    ) -> ChatAnswer:
        """See `Sa2VA.chat`."""
        call = functools.partial(
            self._sync.chat,
            prompt,
            images,
            regions=regions,
            history=history,
            generation=generation,
            timeout=timeout,
        )
        return await _cancellable(call)

    async def process(
        self,
        image: Source,
        probabilities: NDArray[Any],
        processor: str,
        options: Options | None = None,
        *,
        timeout: float | None = None,
    ) -> NDArray[np.float32]:
        """See `Sa2VA.process`."""
        call = functools.partial(
            self._sync.process, image, probabilities, processor, options, timeout=timeout
        )
        return await _cancellable(call)

    async def load(self, *, timeout: float | None = None) -> ModelInfo:
        """See `Sa2VA.load`."""
        return await _cancellable(functools.partial(self._sync.load, timeout=timeout))

    async def attach(self) -> None:
        """See `Sa2VA.attach`."""
        await _on_thread(self._sync.attach)

    async def status(self) -> WorkerStatus:
        """See `Sa2VA.status`."""
        return await _on_thread(self._sync.status)

    async def unload(self, force: bool = False, timeout: float | None = None) -> Stopped:
        """See `Sa2VA.unload`."""
        return await _on_thread(functools.partial(self._sync.unload, force, timeout))

    async def close(self) -> None:
        """See `Sa2VA.close`."""
        await _on_thread(self._sync.close)


class AsyncTrack:
    """`Track` for asyncio: an asynchronous iterator of `TrackedFrame`.

    Leaving ``async with`` closes it, and cancelling the task that waits for a frame ends it: the worker hears of either
    at once, whether or not a frame is being waited for.
    """

    def __init__(self, track: Track, cancellation: Cancellation) -> None:
        self._track = track
        self._cancellation = cancellation

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TrackedFrame:
        try:
            frame: TrackedFrame | None = await _on_thread(lambda: next(self._track, None))
        except asyncio.CancelledError:
            self._cancellation.cancel()
            raise
        if frame is None:
            raise StopAsyncIteration
        return frame

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """See `Track.close`."""
        self._cancellation.cancel()  # frames that come from this loop are waited for no longer
        await _on_thread(self._track.close)

    @property
    def text(self) -> str:
        """See `Track.text`."""
        return self._track.text


async def _cancellable(call: Callable[..., Result], cancellation: Cancellation | None = None) -> Result:
    """The result of ``call(cancellation=...)``; cancelling the task cancels it."""
    cancellation = cancellation or Cancellation()
    try:
        return await _on_thread(functools.partial(call, cancellation=cancellation))
    finally:
        cancellation.cancel()  # a call that is over does not mind; its frames are waited for no longer


async def _on_thread(call: Callable[[], Result]) -> Result:
    """The result of ``call`` on a thread of its own.

    Not the loop's executor: that has few threads, which waiting calls would fill, and leaving `asyncio.run` would wait
    for all of them.
    """
    future: Future[Result] = Future()
    future.set_running_or_notify_cancel()  # ended through its `Cancellation`, not behind its back

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
            future.set_exception(error)

    threading.Thread(target=run, name="sa2va-call", daemon=True).start()
    return await asyncio.wrap_future(future)


def _on_this_loop(
    frames: Iterable[Source] | AsyncIterable[Source] | str | os.PathLike[str] | Clip,
    cancellation: Cancellation,
) -> Iterable[Source] | str | os.PathLike[str] | Clip:
    """Frames for the threads of a call, wherever they come from."""
    if isinstance(frames, AsyncIterable):
        return _pulled(frames, asyncio.get_running_loop(), cancellation)
    return frames


def _pulled(
    frames: AsyncIterable[Source], loop: asyncio.AbstractEventLoop, cancellation: Cancellation
) -> Iterator[Source]:
    """An asynchronous iterable for the thread that reads it, which waits for each item; ``cancellation`` cancels what
    is waited for.
    """
    iterator = aiter(frames)

    async def following() -> tuple[Source] | None:
        try:
            return (await anext(iterator),)
        except StopAsyncIteration:
            return None

    while True:
        coming = asyncio.run_coroutine_threadsafe(following(), loop)
        try:
            with cancellation.heard_by(functools.partial(_cancel, coming)):
                item = coming.result()
        except CancelledError:
            raise Cancelled("The frames were cancelled.") from None
        finally:
            coming.cancel()
        if item is None:
            return
        yield item[0]


def _cancel(coming: Future[Any], _: Cancelled) -> None:
    coming.cancel()
