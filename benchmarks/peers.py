"""Other ways to bring a picture to a process and a mask back, as torch programs do it.

Each makes a call as `benchmarks.boundary` wants it. A picture, uint8 or float32 `[height, width, 3]`, goes to a process
of its own, where one number of each page is read. The logits of one mask come back, float32 `[1, 256, 256]`; with no
picture there is a word and no mask. A peer that is not installed raises `NotMeasured`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .figures import NotMeasured

Call: TypeAlias = Callable[[NDArray[Any] | None], NDArray[np.float32] | None]
MASK = (1, 256, 256)
PAGE = 4096


@contextlib.contextmanager
def torch_queues() -> Iterator[Call]:
    """Queues of torch.multiprocessing, which put each tensor into shared memory that is new."""
    import torch.multiprocessing

    context = torch.multiprocessing.get_context("spawn")
    there, back = context.Queue(), context.Queue()
    process = context.Process(target=_serve_queue, args=(there, back), daemon=True)
    process.start()

    def call(picture: NDArray[Any] | None) -> NDArray[np.float32] | None:
        there.put(None if picture is None else torch.from_numpy(picture))
        mask = back.get()
        return None if mask is None else mask.numpy().copy()

    try:
        yield call
    finally:
        there.put("end")
        process.join(10)


def _serve_queue(there: Any, back: Any) -> None:
    import torch

    while not isinstance(picture := there.get(), str):
        if picture is not None:
            picture.view(-1).view(torch.uint8)[::PAGE].sum()
        back.put(None if picture is None else torch.ones(MASK))


@contextlib.contextmanager
def pyisolate_fresh() -> Iterator[Call]:
    """pyisolate, which shares torch's tensors, with pictures that are in nobody's shared memory yet."""
    import torch

    with _extension() as look:
        yield lambda picture: look(None if picture is None else torch.from_numpy(picture))


@contextlib.contextmanager
def pyisolate_shared() -> Iterator[Call]:
    """The same with pictures that are in shared memory already, and stay there from call to call."""
    import torch

    shared: dict[
        int, tuple[NDArray[Any], torch.Tensor]
    ] = {}  # with the picture, so that its id stays its own

    def tensor(picture: NDArray[Any]) -> torch.Tensor:
        if id(picture) not in shared:
            copy = torch.from_numpy(picture).clone()
            shared[id(picture)] = picture, copy.share_memory_()
        return shared[id(picture)][1]

    with _extension() as look:
        yield lambda picture: look(None if picture is None else tensor(picture))


@contextlib.contextmanager
def _extension() -> Iterator[Callable[[Any], NDArray[np.float32] | None]]:
    if importlib.util.find_spec("pyisolate") is None:
        raise NotMeasured("pyisolate is not installed; the extra `bench` has it.")
    # The extra `bench` has the program uv too, beside this interpreter, whose environment need not be activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    if shutil.which("uv", path=path) is None:
        raise NotMeasured("pyisolate wants the program uv; the extra `bench` has it.")
    os.environ["PATH"] = path
    import pyisolate

    from .pyisolate_peer import Looker

    with tempfile.TemporaryDirectory(prefix="sa2va-peer-") as name:
        folder = Path(name, "extension")
        folder.mkdir()
        (folder / "__init__.py").touch()  # it insists on a module; the work is in `Looker`
        manager = pyisolate.ExtensionManager(
            Looker, pyisolate.ExtensionManagerConfig(venv_root_path=str(Path(name, "venvs")))
        )
        loop = asyncio.new_event_loop()
        try:
            extension = manager.load_extension(
                pyisolate.ExtensionConfig(
                    name="peer",
                    module_path=str(folder),
                    isolated=True,
                    dependencies=[],
                    apis=[],
                    share_torch=True,
                    share_cuda_ipc=False,
                    sandbox_mode=pyisolate.SandboxMode.DISABLED,
                )
            )

            def look(picture: Any) -> NDArray[np.float32] | None:
                mask = loop.run_until_complete(extension.look(picture))
                return None if mask is None else mask.numpy().copy()

            yield look
        finally:
            manager.stop_all_extensions()
            loop.close()


PEERS: dict[str, Callable[[], contextlib.AbstractContextManager[Call]]] = {
    "torch.multiprocessing queues": torch_queues,
    "pyisolate, fresh tensors": pyisolate_fresh,
    "pyisolate, shared tensors": pyisolate_shared,
}
