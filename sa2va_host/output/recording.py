"""What a tracked video leaves on disk, written as it comes: `Recording`.

Called by front ends. Writes on a thread of its own, a few frames behind the tracker. Every frame that was written
stays, however the run ends.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, get_args

from sa2va_host import media
from sa2va_host.errors import InvalidInput, Sa2VAError
from sa2va_host.exr import ExrDepth
from sa2va_host.extras import check_exr, check_matting
from sa2va_host.video.footage import check_av

from .exr_layers import LayerFiles
from .frame_files import LabelMaps, ObjectFiles
from .frame_lines import FrameLines
from .movie import PRORES_4444, VP9_ALPHA, Codec
from .names import spelled
from .renderings import AlphaMovies, Overlay

if TYPE_CHECKING:
    from typing_extensions import Self

    from sa2va_host.video.clip import Clip, Frame

    from .layers import Layer

Kind: TypeAlias = Literal[
    "masks", "probability", "exr", "exr-layers", "cutout", "overlay", "alpha", "rle", "davis"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What can be recorded, in a folder:

- `masks/NAME/FRAME.png`, `probability/...png`, `exr/...exr`, `cutout/...png` or `.exr`: as
`sa2va_host.output.frame_files.OBJECT_KINDS` says
- `exr-layers/FRAME.exr`: a channel for each object (`sa2va_host.output.exr_layers`)
- `overlay.mp4`: the video with its objects brought out, H.264, with the sound
- `alpha/NAME.mov` or `.webm`: the object alone, with the probability as straight alpha
- `rle.jsonl`: COCO run lengths, one line for each frame (`sa2va_host.output.frame_lines`)
- `davis`: `Annotations/CLIP/FRAME.png` and `meta.json`, the folders of DAVIS and YouTube-VOS
(`sa2va_host.output.frame_files.LabelMaps`)
"""
ALPHA_CODECS: Mapping[str, Codec] = {"prores": PRORES_4444, "vp9": VP9_ALPHA}
_TOGETHER: frozenset[Kind] = frozenset({"overlay", "rle", "davis"})
"""The kinds that show or list all objects in one place."""
_APART: frozenset[Kind] = frozenset({"masks", "probability", "exr", "cutout", "alpha"})
"""The kinds that have files of each object's own."""
_PENDING = 2
"""Frames that may wait to be written; 4K takes 25 MB each, and as much again for each object."""


class Writer(Protocol):
    """One kind of output. Used from one thread, frame after frame."""

    @property
    def path(self) -> Path:
        """The file or folder that it makes."""

    def add(self, frame: Frame, layers: Sequence[Layer]) -> None:
        """Write what is found in a frame."""

    def close(self) -> str:
        """Finish what grew over all frames, also after `add` has failed. Returns what is to be said, or nothing."""


def checked_kinds(kinds: Iterable[str]) -> tuple[Kind, ...]:
    """The kinds in the order of `KINDS`, each once. Raises `InvalidInput` for an unknown one and `ConfigError` where a
    library for one is missing, so that it can be asked before the model is.
    """
    wanted = spelled(kinds)
    for unknown in sorted(wanted - set(KINDS)):
        raise InvalidInput(f"A video cannot be saved as {unknown!r}.", advice=f"Use {', '.join(KINDS)}.")
    if wanted & {"exr", "exr-layers"}:
        check_exr()
    if wanted & {"overlay", "alpha"}:
        check_av()
    return tuple(kind for kind in KINDS if kind in wanted)


class Recording:
    """A folder that fills with what was found, frame by frame; a context manager.

    With ``resume`` files of single frames and lines that are there already stay as they are, and videos begin anew:
    the tracker gives the same answer again, so that an interrupted run ends as an unbroken one. What a writer raises
    (`OSError` for a full disk) is raised by the next `add` or by `close`; what was written stays.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        clip: Clip,
        kinds: Iterable[str],
        *,
        alpha: Codec = PRORES_4444,
        resume: bool = False,
        exr_depth: ExrDepth = "half",
        decontaminated: bool = False,
        skip_empty: bool = False,
    ) -> None:
        """``exr_depth`` is that of OpenEXR files. ``decontaminated`` frees the soft edges of cut-outs and alpha videos
        of the background's colour (`sa2va_host.masks.decontaminate`); raises `ConfigError` without pymatting. With
        ``skip_empty`` what stands for no object (`Layer.found`) has no files of its own.
        """
        self.folder = Path(folder)
        self.frames = 0
        """How many are written."""
        self.warnings: list[str] = []
        self._clip = clip
        self._exr_depth: ExrDepth = exr_depth
        self._found_only = _TOGETHER | (_APART if skip_empty else frozenset())
        self._decontaminated = decontaminated
        if decontaminated:
            check_matting()
        checked = checked_kinds(kinds)
        if "cutout" in checked and clip.plate is not None and clip.plate.is_linear():
            check_exr()
        self._writers = {kind: self._writer(kind, alpha, resume) for kind in checked}
        if resume:
            media.remove_parts(self.folder)
            for path in self.paths.values():
                media.remove_parts(path, inside=True)
        self._pool = ThreadPoolExecutor(1, "sa2va-recording")
        self._pending: deque[Future[None]] = deque()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A full disk fails more than once; the first error is the one to hear of.
        with contextlib.suppress(*((OSError, Sa2VAError) if kind else ())):
            self.close()

    @property
    def paths(self) -> dict[Kind, Path]:
        """The file or folder of each kind."""
        return {kind: writer.path for kind, writer in self._writers.items()}

    @property
    def writes_nothing_found(self) -> bool:
        """Whether frames without any object leave something."""
        return not set(self._writers) <= (self._found_only - _TOGETHER)

    def add(self, frame: Frame, layers: Sequence[Layer]) -> None:
        """Have a frame written; the layers are those of every frame, in the same order.

        Those that stand for no object (`Layer.found`) have files and videos of their own, which are empty, and are left
        out of what shows or lists the objects together.
        """
        self._settle(_PENDING)
        self._pending.append(self._pool.submit(self._write, frame, layers))

    def close(self) -> None:
        """Wait until everything is written, and finish the videos. A second time does nothing."""
        if self._closed:
            return
        self._closed = True
        with contextlib.ExitStack() as stack:
            for writer in self._writers.values():
                stack.callback(self._finish, writer)
            stack.callback(self._pool.shutdown)
            self._settle(0)

    def _finish(self, writer: Writer) -> None:
        remark = writer.close()
        if remark:
            self.warnings.append(remark)

    def _settle(self, left: int) -> None:
        while len(self._pending) > left:
            self._pending.popleft().result()

    def _write(self, frame: Frame, layers: Sequence[Layer]) -> None:
        found = [layer for layer in layers if layer.found]
        for kind, writer in self._writers.items():
            writer.add(frame, found if kind in self._found_only else layers)
        self.frames += 1

    def _writer(self, kind: Kind, alpha: Codec, resume: bool) -> Writer:
        digits = self._clip.digits
        if kind == "overlay":
            return Overlay(self.folder, self._clip)
        if kind == "alpha":
            return AlphaMovies(self.folder, self._clip, alpha, decontaminated=self._decontaminated)
        if kind == "rle":
            return FrameLines(self.folder, resume=resume)
        if kind == "davis":
            return LabelMaps(self.folder, self._clip.name, digits=digits, resume=resume)
        if kind == "exr-layers":
            return LayerFiles(self.folder, digits=digits, resume=resume, depth=self._exr_depth)
        return ObjectFiles(
            self.folder,
            kind,
            digits=digits,
            resume=resume,
            exr_depth=self._exr_depth,
            decontaminated=self._decontaminated,
        )
